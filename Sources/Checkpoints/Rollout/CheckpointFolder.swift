// SPDX-License-Identifier: Apache-2.0

internal import Foundation

/// A folder with several checkpoints, from which a running service may load another one, and what it is to serve after a
/// restart.
///
/// A checkpoint is a folder in it: a cut one (`switchyard shard`) with the folders `gateway` and one for each pool, or a
/// whole one.
public struct CheckpointFolder: Sendable, Hashable {
    /// Whose record it is: services on one machine may share the folder.
    public enum Service: String, Sendable {
        /// A gateway.
        case gateway
        /// Expert hosts.
        case experts
    }

    /// What a service is to serve after a restart, in place of what its settings name.
    public struct Record: Codable, Sendable, Hashable {
        /// The checkpoint's name: a folder among the checkpoints.
        public var checkpoint: String
        /// Its fingerprint, 16 hexadecimal digits.
        public var fingerprint: String

        /// Names a checkpoint.
        ///
        /// - Parameters:
        ///   - checkpoint: The checkpoint's name.
        ///   - fingerprint: Its fingerprint, 16 hexadecimal digits.
        public init(checkpoint: String, fingerprint: String) {
            self.checkpoint = checkpoint
            self.fingerprint = fingerprint
        }
    }

    /// The longest name of a checkpoint, in characters.
    public static let longestName = 128

    /// The most bytes that a record may have.
    private static let longestRecord = 4096

    /// The folder's path.
    public let path: String

    /// Names a folder; opens nothing.
    ///
    /// - Parameter path: The folder's path.
    public init(path: String) { self.path = path }

    /// Checks that the folder is there.
    ///
    /// - Throws: `notFound` where it is not.
    public func check() throws(CheckpointError) {
        guard FileSystem.isDirectory(self.path) else {
            throw CheckpointError(
                code: .notFound,
                message: "is not a folder; make it, and put each checkpoint into a folder of its own there",
                file: self.path
            )
        }
    }

    /// What is wrong with a checkpoint's name; nil if it may be one.
    ///
    /// - Parameter name: The name.
    /// - Returns: A sentence that names the limit and the value.
    public static func problem(withName name: String) -> String? {
        let isLegal = name.utf8.allSatisfy { byte in
            switch byte {
            case UInt8(ascii: "a")...UInt8(ascii: "z"), UInt8(ascii: "A")...UInt8(ascii: "Z"),
                UInt8(ascii: "0")...UInt8(ascii: "9"), UInt8(ascii: "."), UInt8(ascii: "_"), UInt8(ascii: "-"):
                true
            default: false
            }
        }
        guard isLegal, (1...Self.longestName).contains(name.utf8.count), !name.hasPrefix(".") else {
            return
                "the checkpoint's name is \"\(name.prefix(80))\"; it must be a folder's name of 1 to \(Self.longestName) of the "
                + "characters A-Z, a-z, 0-9, '.', '_' and '-', without a '.' in front"
        }
        return nil
    }

    /// The folder that a gateway loads of a checkpoint: its part `gateway`, or the whole checkpoint.
    ///
    /// - Parameter name: The checkpoint's name.
    /// - Returns: The path.
    /// - Throws: `notFound` where there is no such checkpoint; `malformed` for a name that cannot be one.
    public func gatewayPart(of name: String) throws(CheckpointError) -> String {
        try self.part("gateway", of: name)
    }

    /// The folders that a host loads of a checkpoint in place of those that it was started with.
    ///
    /// - Parameters:
    ///   - directories: The folders that it was started with; a part has the same name in every checkpoint.
    ///   - name: The checkpoint's name.
    /// - Returns: The paths, each once.
    /// - Throws: `notFound` where there is no such checkpoint; `malformed` for a name that cannot be one.
    public func parts(like directories: [String], of name: String) throws(CheckpointError) -> [String] {
        var paths: [String] = []
        for directory in directories {
            let path = try self.part(FileSystem.split(directory).name, of: name)
            if !paths.contains(path) { paths.append(path) }
        }
        return paths
    }

    private func part(_ part: String, of name: String) throws(CheckpointError) -> String {
        if let problem = Self.problem(withName: name) { throw CheckpointError(code: .malformed, message: problem) }
        let checkpoint = "\(self.path)/\(name)"
        guard FileSystem.isDirectory(checkpoint) else {
            throw CheckpointError(
                code: .notFound,
                message:
                    "is not there; copy the checkpoint to every machine first, and give it the same name everywhere",
                file: checkpoint
            )
        }
        if FileSystem.isDirectory("\(checkpoint)/\(part)") { return "\(checkpoint)/\(part)" }
        guard !FileSystem.isDirectory("\(checkpoint)/gateway") else {
            throw CheckpointError(
                code: .notFound,
                message:
                    "is missing, and this part is served now; cut the new checkpoint for the same pools, and copy all its parts",
                file: "\(checkpoint)/\(part)"
            )
        }
        return checkpoint
    }

    // MARK: - Records

    private func recordPath(of service: Service) -> String { "\(self.path)/serving-\(service.rawValue).json" }

    /// What a service is to serve; nil where its settings decide.
    ///
    /// - Parameter service: Whose record.
    /// - Returns: The record.
    /// - Throws: `malformed` where the file is not one.
    public func record(of service: Service) throws(CheckpointError) -> Record? {
        let path = self.recordPath(of: service)
        guard FileSystem.exists(path) else { return nil }
        let data = FileManager.default.contents(atPath: path)
        guard let data, data.count <= Self.longestRecord,
            let record = try? JSONDecoder().decode(Record.self, from: data),
            Self.problem(withName: record.checkpoint) == nil, UInt64(record.fingerprint, radix: 16) != nil
        else {
            throw CheckpointError(
                code: .malformed,
                message:
                    "does not name a checkpoint and its fingerprint; remove the file to serve what the settings name",
                file: path
            )
        }
        return record
    }

    /// Writes what a service is to serve: whole or not at all, and durable once this returns.
    ///
    /// - Parameters:
    ///   - record: The checkpoint; nil lets the settings decide.
    ///   - service: Whose record.
    /// - Throws: `writeFailed`.
    public func write(_ record: Record?, of service: Service) throws(CheckpointError) {
        let path = self.recordPath(of: service)
        guard let record else {
            guard unlink(path) == 0 || errno == ENOENT else {
                throw FileSystem.writeFailure("cannot be removed", path)
            }
            return try FileSystem.synchronize(self.path)
        }
        // Two services may write at once.
        let draft = "\(path).\(getpid())-\(UInt32.random(in: 0...UInt32.max))"
        do {
            try FileSystem.writeJSON(record, to: draft)
            try FileSystem.rename(draft, path)
            try FileSystem.synchronize(self.path)
        } catch {
            unlink(draft)
            throw error
        }
    }
}

extension Checkpoint {
    /// Bytes of the experts that the files hold, as they are stored.
    public var expertByteCount: Int { self.byteCount { $0 } }

    /// Bytes of everything else that the files hold, as they are stored.
    public var byteCountWithoutExperts: Int { self.byteCount { !$0 } }

    /// Bytes of the tensors of experts, or of others.
    private func byteCount(where isWanted: (Bool) -> Bool) -> Int {
        self.tensors.values.reduce(0) { sum, tensor in
            let role = self.configuration.family.reader.role(named: tensor.name) ?? TensorRole(packedName: tensor.name)
            guard isWanted(role?.isExpert ?? false) else { return sum }
            // Files are mapped, so their bytes fit the address space.
            return sum &+ tensor.range.count
        }
    }
}
