// SPDX-License-Identifier: Apache-2.0

/// `placement.json`: which pool holds which experts, the same in every sparse layer.
public struct PlacementFile: Codable, Sendable, Hashable {
    /// One expert part.
    public struct Pool: Codable, Sendable, Hashable {
        /// The pool's name: `pool-0`, ...
        public var name: String
        /// The part's folder, next to the gateway part's.
        public var directory: String
        /// Expert indices, ascending.
        public var experts: [Int]

        /// Describes a pool.
        ///
        /// - Parameters:
        ///   - name: The pool's name.
        ///   - directory: The part's folder.
        ///   - experts: Expert indices, ascending.
        public init(name: String, directory: String, experts: [Int]) {
            self.name = name
            self.directory = directory
            self.experts = experts
        }
    }

    /// The file's name, in the output folder and in the gateway part.
    public static let fileName = "placement.json"
    /// The only version that this library writes and reads.
    public static let currentVersion = 1
    private static let maxFileBytes = 67_108_864

    /// The version of the file's layout.
    public var formatVersion: Int
    /// The whole checkpoint's fingerprint, sixteen hexadecimal digits.
    public var fingerprint: String
    /// The model that was cut, for people.
    public var source: String
    /// Experts of each sparse layer.
    public var expertCount: Int
    /// The gateway part's folder, next to the pools'.
    public var gateway: String
    /// The pools, in the order of their experts.
    public var pools: [Pool]
    /// How large the experts' outputs can be, by sparse layer; nil in placements of earlier versions.
    public var outputBounds: [LayerOutputBounds]?

    /// Describes a placement.
    ///
    /// - Parameters:
    ///   - fingerprint: The whole checkpoint's fingerprint.
    ///   - source: The model that was cut.
    ///   - expertCount: Experts of each sparse layer.
    ///   - gateway: The gateway part's folder.
    ///   - pools: The pools, in the order of their experts.
    public init(fingerprint: UInt64, source: String, expertCount: Int, gateway: String, pools: [Pool]) {
        self.formatVersion = Self.currentVersion
        self.fingerprint = Fingerprint.text(fingerprint)
        self.source = source
        self.expertCount = expertCount
        self.gateway = gateway
        self.pools = pools
    }

    /// `fingerprint` as a number; 0 for text that `load(directory:)` would have refused.
    public var fingerprintValue: UInt64 { Fingerprint.value(self.fingerprint) ?? 0 }

    /// Reads the placement of a cut checkpoint.
    ///
    /// - Parameter directory: The output folder of the cut, or the gateway part's.
    /// - Returns: A placement in which every expert has exactly one pool.
    /// - Throws: `CheckpointError` if the file is missing, damaged or of another version.
    public static func load(directory: String) throws(CheckpointError) -> PlacementFile {
        let path = "\(directory)/\(self.fileName)"
        let placement = try JSONFile.decode(PlacementFile.self, contentsOf: path, maxBytes: self.maxFileBytes)
        func failure(_ complaint: String) -> CheckpointError {
            CheckpointError(code: .malformed, message: complaint + "; cut the checkpoint again", file: path)
        }
        guard placement.formatVersion == self.currentVersion else {
            throw CheckpointError(
                code: .unsupported,
                message: "has formatVersion \(placement.formatVersion), but this program reads \(self.currentVersion); "
                    + "cut the checkpoint again with the same version of the program",
                file: path
            )
        }
        guard Fingerprint.value(placement.fingerprint) != nil else {
            throw failure("has a fingerprint that is not sixteen hexadecimal digits")
        }
        guard Set(placement.pools.map(\.name)).count == placement.pools.count else {
            throw failure("names a pool twice")
        }
        for directory in [placement.gateway] + placement.pools.map(\.directory)
        where directory.isEmpty || directory.contains("/") || directory.hasPrefix(".") {
            throw failure("names the folder \"\(directory.prefix(200))\", which cannot be next to the others")
        }
        guard placement.expertCount > 0, placement.pools.map(\.experts.count).reduce(0, +) == placement.expertCount,
            placement.pools.flatMap(\.experts).sorted() == Array(0..<placement.expertCount)
        else {
            throw failure("does not give each of \(placement.expertCount) experts exactly one pool")
        }
        var layers: Set<String> = []
        for bounds in placement.outputBounds ?? [] {
            guard bounds.layer != nil, (1...3).contains(bounds.degree), bounds.experts.count == placement.expertCount,
                bounds.experts.allSatisfy({ $0.isFinite && $0 >= 0 }),
                layers.insert("\(bounds.stack) \(bounds.block)").inserted
            else {
                throw failure(
                    "has outputBounds for \(bounds.stack.prefix(20)) block \(bounds.block) that are not one number of at "
                        + "least 0 for each of \(placement.expertCount) experts, once, with a degree from 1 to 3"
                )
            }
        }
        return placement
    }
}
