// SPDX-License-Identifier: Apache-2.0

public import SwitchyardTypes

/// `manifest.json`: what one part of a cut checkpoint holds, and which checkpoint it came from.
public struct ShardManifest: Codable, Sendable, Hashable {
    /// What a part is for.
    public enum Kind: String, Codable, Sendable, Hashable {
        /// Everything but the experts.
        case gateway
        /// Some experts of every sparse layer.
        case experts
    }

    /// The experts of one sparse layer that a part holds.
    public struct LayerExperts: Codable, Sendable, Hashable {
        /// `encoder` or `decoder`.
        public var stack: String
        /// The index of the block in its stack.
        public var block: Int
        /// Expert indices, ascending.
        public var experts: [Int]

        /// Names the experts of one layer.
        ///
        /// - Parameters:
        ///   - layer: The sparse layer.
        ///   - experts: Expert indices, ascending.
        public init(layer: SparseLayer, experts: [Int]) {
            self.stack = layer.stack.description
            self.block = layer.block
            self.experts = experts
        }
    }

    /// How a part's matrices are packed.
    public struct Packing: Codable, Sendable, Hashable {
        /// The form of the packed matrices.
        public var form: PackedForm
        /// The XXH64 of all bytes of each packed matrix by its name, sixteen hexadecimal digits.
        public var checksums: [String: String]

        /// Describes a part's packing.
        ///
        /// - Parameters:
        ///   - form: The form of the packed matrices.
        ///   - checksums: The XXH64 of each packed matrix by its name.
        public init(form: PackedForm, checksums: [String: String]) {
            self.form = form
            self.checksums = checksums
        }
    }

    /// A file of a part, so that a part can be fetched from elsewhere and compared.
    public struct File: Codable, Sendable, Hashable {
        /// The file's name in the part's folder.
        public var name: String
        /// Its size in bytes.
        public var byteCount: Int
        /// The SHA-256 of its bytes, 64 lowercase hexadecimal digits.
        public var sha256: String

        /// Describes a file.
        ///
        /// - Parameters:
        ///   - name: The file's name in the part's folder.
        ///   - byteCount: Its size in bytes.
        ///   - sha256: The SHA-256 of its bytes, 64 lowercase hexadecimal digits.
        public init(name: String, byteCount: Int, sha256: String) {
            self.name = name
            self.byteCount = byteCount
            self.sha256 = sha256
        }
    }

    /// The file's name in a part's folder.
    public static let fileName = "manifest.json"
    /// The version of parts whose tensors are the checkpoint's.
    public static let currentVersion = 1
    /// The version of parts whose tensors are packed, so that programs that do not know them refuse them.
    public static let packedVersion = 2
    private static let maxFileBytes = 67_108_864

    /// The version of the file's layout.
    public var formatVersion: Int
    /// What the part is for.
    public var kind: Kind
    /// The part's name: `gateway`, `pool-0`, ...
    public var name: String
    /// The whole checkpoint's fingerprint, sixteen hexadecimal digits.
    public var fingerprint: String
    /// The fingerprint of this part's own tensors, which exposes a mixed-up part.
    public var partFingerprint: String
    /// The model that was cut, for people.
    public var source: String
    /// The number of expert parts that the checkpoint was cut into.
    public var pools: Int
    /// The overrides that the configuration was read with when the checkpoint was cut; they apply to the part too.
    public var overrides: [String: String]
    /// The experts held, by layer; empty for the gateway part.
    public var experts: [LayerExperts]
    /// Tensors in the part.
    public var tensorCount: Int
    /// Bytes of tensor data in the part.
    public var byteCount: Int
    /// How the part's matrices are packed; nil if they are the checkpoint's own tensors.
    public var packing: Packing?
    /// The XXH64 of all bytes of each tensor by its name, sixteen hexadecimal digits, so that damage can be placed; nil in
    /// packed parts, which have them in ``packing``, and in parts of earlier versions.
    public var checksums: [String: String]?
    /// All files of the part except the manifest; nil in parts of earlier versions, which cannot be fetched.
    public var files: [File]?

    /// The experts held, by layer.
    public var expertsByLayer: [SparseLayer: [Int]] {
        var result: [SparseLayer: [Int]] = [:]
        for entry in self.experts {
            guard let stack = Stack(name: entry.stack) else { continue }
            result[SparseLayer(stack: stack, block: entry.block)] = entry.experts
        }
        return result
    }

    /// `fingerprint` as a number; 0 for text that `load(directory:)` would have refused.
    public var fingerprintValue: UInt64 { Fingerprint.value(self.fingerprint) ?? 0 }

    /// `partFingerprint` as a number; 0 for text that `load(directory:)` would have refused.
    public var partFingerprintValue: UInt64 { Fingerprint.value(self.partFingerprint) ?? 0 }

    /// Reads the manifest of a part.
    ///
    /// - Parameter directory: A folder.
    /// - Returns: `nil` if the folder has no manifest and so is not a part.
    /// - Throws: `CheckpointError` if the manifest is damaged or of another version.
    public static func load(directory: String) throws(CheckpointError) -> ShardManifest? {
        let path = "\(directory)/\(self.fileName)"
        guard FileSystem.exists(path) else { return nil }
        let manifest = try JSONFile.decode(ShardManifest.self, contentsOf: path, maxBytes: self.maxFileBytes)
        func failure(_ complaint: String) -> CheckpointError {
            CheckpointError(code: .malformed, message: complaint + "; cut the checkpoint again", file: path)
        }
        guard [self.currentVersion, self.packedVersion].contains(manifest.formatVersion) else {
            throw CheckpointError(
                code: .unsupported,
                message:
                    "has formatVersion \(manifest.formatVersion), but this program reads \(self.currentVersion) and "
                    + "\(self.packedVersion); cut the checkpoint again with the same version of the program",
                file: path
            )
        }
        guard (manifest.packing != nil) == (manifest.formatVersion == self.packedVersion) else {
            throw failure(
                "has formatVersion \(manifest.formatVersion) and \(manifest.packing == nil ? "no" : "a") packing, where "
                    + "version \(self.packedVersion) has one and version \(self.currentVersion) none"
            )
        }
        guard manifest.packing == nil || manifest.kind == .experts else {
            throw failure("says that a \(manifest.kind.rawValue) part is packed, but only experts can be")
        }
        guard Fingerprint.value(manifest.fingerprint) != nil, Fingerprint.value(manifest.partFingerprint) != nil else {
            throw failure("has a fingerprint that is not sixteen hexadecimal digits")
        }
        try manifest.checkSizes(failure)
        for entry in manifest.experts where Stack(name: entry.stack) == nil {
            throw failure("names a stack \"\(entry.stack.prefix(40))\"")
        }
        guard manifest.expertsByLayer.count == manifest.experts.count else {
            throw failure("names a layer twice")
        }
        return manifest
    }

    /// The sizes that the manifest states, each and in all.
    private func checkSizes(_ failure: (String) -> CheckpointError) throws(CheckpointError) {
        guard (0...SafetensorsHeader.maxTensors).contains(self.tensorCount) else {
            throw failure("has tensorCount \(self.tensorCount); the limit is \(SafetensorsHeader.maxTensors)")
        }
        guard StatedSizes.total(CollectionOfOne(self.byteCount)) != nil else {
            throw failure("has byteCount \(self.byteCount); the limit is \(StatedSizes.most)")
        }
        for file in self.files ?? [] where StatedSizes.total(CollectionOfOne(file.byteCount)) == nil {
            throw failure("gives \(file.name.prefix(200)) \(file.byteCount) bytes; the limit is \(StatedSizes.most)")
        }
        guard StatedSizes.total((self.files ?? []).map(\.byteCount)) != nil else {
            throw failure("lists files of more than \(StatedSizes.most) bytes in all, the limit of a part")
        }
    }

    /// Checks that the layers and experts named exist.
    func check(against configuration: ModelConfiguration, directory: String) throws(CheckpointError) {
        for (layer, experts) in self.expertsByLayer.sorted(by: { $0.key < $1.key }) {
            let isAscending = zip(experts, experts.dropFirst()).allSatisfy { $0 < $1 }
            guard configuration.isSparse(layer.stack, block: layer.block), isAscending,
                (experts.first ?? 0) >= 0, (experts.last ?? 0) < configuration.expertCount
            else {
                throw CheckpointError(
                    code: .malformed,
                    message:
                        "names experts of layer \(layer) that the configuration next to it does not have; cut the checkpoint again",
                    file: "\(directory)/\(Self.fileName)"
                )
            }
        }
    }
}
