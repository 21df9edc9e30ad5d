// SPDX-License-Identifier: Apache-2.0

internal import SwitchyardTypes

/// Reads a state dictionary in the format that `torch.save` wrote before torch 1.6, and still writes on request.
///
/// The file is a sequence: four pickles (a magic number, the version 1001, facts about the machine, the dictionary), a
/// pickled list of the storages' keys, then every storage in the list's order, its number of elements as eight bytes
/// and the elements
/// (https://github.com/pytorch/pytorch/blob/v2.9.0/torch/serialization.py, `_legacy_save`).
enum LegacyTorchReader {
    /// The pickles of the magic number and of the version, byte by byte as every such file begins.
    private static let start: [UInt8] =
        [0x80, 0x02, 0x8A, 0x0A, 0x6C, 0xFC, 0x9C, 0x46, 0xF9, 0x20, 0x6A, 0xA8, 0x50, 0x19, 0x2E]
        + [0x80, 0x02, 0x4D, 0xE9, 0x03, 0x2E]

    /// Whether a file begins as this format does.
    ///
    /// - Parameter bytes: The file.
    /// - Returns: False for a zip archive, or anything else.
    static func recognizes(_ bytes: UnsafeRawBufferPointer) -> Bool { bytes.starts(with: self.start) }

    /// Reads the descriptions of all tensors; their data stays in the file.
    ///
    /// - Parameters:
    ///   - storage: The file, one that `recognizes(_:)` accepts.
    ///   - path: The file's name in errors.
    /// - Returns: The tensors of the dictionary.
    /// - Throws: `CheckpointError` that names the file and what is wrong with it.
    static func read(_ storage: any TensorStorage, path: String) throws(CheckpointError) -> [StoredTensor] {
        let bytes = storage.bytes
        var position = self.start.count
        func unpickler() -> Unpickler {
            // The pickles are followed by the weights, so their length is bounded here.
            let end = min(bytes.count, position + TorchReader.maxPickleBytes)
            return Unpickler(UnsafeRawBufferPointer(rebasing: bytes[position..<end]), path: path)
        }
        var machine = unpickler()
        try self.requireLittleEndian(try machine.value(), machine, path)
        position += machine.reader.position
        var dictionary = unpickler()
        let tensors = try dictionary.run()
        position += dictionary.reader.position
        var order = unpickler()
        let keys = try self.keys(try order.value(), order)
        position += order.reader.position

        var types: [String: DType] = [:]
        for storage in dictionary.storages { types[storage.key] = storage.dtype }
        var members: [String: Range<Int>] = [:]
        for key in keys {
            guard let type = types[key] else {
                throw self.malformed("lists the storage \"\(key.prefix(80))\", which no tensor uses", path)
            }
            guard position <= bytes.count - 8 else { throw self.cutOff(key, path) }
            let count = Int(
                clamping: UInt64(littleEndian: bytes.loadUnaligned(fromByteOffset: position, as: UInt64.self))
            )
            position += 8
            let (size, overflow) = count.multipliedReportingOverflow(by: type.byteCount)
            guard !overflow, size <= bytes.count - position else { throw self.cutOff(key, path) }
            members[key] = position..<position + size
            position += size
        }
        guard position == bytes.count else {
            throw self.malformed("has \(bytes.count - position) bytes after its last storage", path)
        }
        return try tensors.map { (name, tensor) throws(CheckpointError) in
            try TorchReader.tensor(name, tensor, in: storage, path) { members[$0] }
        }
    }

    private static func requireLittleEndian(
        _ value: Unpickler.Value,
        _ unpickler: Unpickler,
        _ path: String
    ) throws(CheckpointError) {
        guard case .dictionary(let index) = value else {
            throw self.malformed("does not say on what kind of machine it was saved", path)
        }
        for entry in unpickler.dictionaries[index] {
            if case .string("little_endian") = entry.key, case .bool(true) = entry.value { return }
        }
        throw CheckpointError(
            code: .unsupported,
            message: "has big-endian data; save it on a little-endian machine",
            file: path
        )
    }

    private static func keys(
        _ value: Unpickler.Value,
        _ unpickler: Unpickler
    ) throws(CheckpointError) -> [String] {
        guard case .list(let index) = value else { throw unpickler.malformed("does not list its storages") }
        return try unpickler.lists[index]
            .map { (key) throws(CheckpointError) in
                guard case .string(let text) = key else { throw unpickler.malformed("lists a storage without a name") }
                return text
            }
    }

    private static func cutOff(_ key: String, _ path: String) -> CheckpointError {
        self.malformed("ends before the storage \"\(key.prefix(80))\" does", path)
    }

    private static func malformed(_ complaint: String, _ path: String) -> CheckpointError {
        CheckpointError(code: .malformed, message: complaint + "; fetch the file again", file: path)
    }
}
