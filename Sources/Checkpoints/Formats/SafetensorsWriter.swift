// SPDX-License-Identifier: Apache-2.0

internal import Foundation
internal import SwitchyardTypes

/// Writes the safetensors format.
public enum SafetensorsWriter {
    /// The alignment of tensors in the file, as far as their sizes allow.
    public static let alignment = 64

    /// One tensor of a file that is being written.
    struct Item {
        var name: String
        var dtype: DType
        var shape: [Int]
        var byteCount: Int
        /// Makes the tensor's bytes when they are due, and lends them.
        var withBytes: ((UnsafeRawBufferPointer) throws(CheckpointError) -> Void) throws(CheckpointError) -> Void
    }

    /// Writes tensors to a new file, in pieces, and flushes them to disk.
    ///
    /// The header is padded with spaces so that the data begins at a multiple of 64 bytes. The format allows no gaps
    /// between tensors, so those whose size is not a multiple of 64 come last: every tensor but the ones after the
    /// first of these is aligned.
    ///
    /// - Parameters:
    ///   - tensors: The tensors, each name once.
    ///   - path: The file, which must not exist.
    ///   - metadata: Text for the header's `__metadata__`.
    ///   - wrote: Called after every piece with the number of tensor bytes in it.
    /// - Returns: The number of tensor bytes in the file.
    /// - Throws: `writeFailed`, or `invalidArgument` for a name given twice.
    @discardableResult
    public static func write(
        _ tensors: [TensorView],
        to path: String,
        metadata: [String: String] = [:],
        wrote: (Int) -> Void = { _ in }
    ) throws(CheckpointError) -> Int {
        try self.write(tensors.map { Item($0) }, to: path, metadata: metadata, wrote: wrote).tensorBytes
    }

    /// Writes tensors that may be made one at a time, so that they are never all in memory.
    static func write(
        _ items: [Item],
        to path: String,
        metadata: [String: String] = [:],
        wrote: (Int) -> Void = { _ in }
    ) throws(CheckpointError) -> (tensorBytes: Int, file: WrittenFile) {
        let ordered = self.ordered(items)
        let header = try self.header(ordered, metadata: metadata, path: path)
        let file = try OutputFile(path: path)
        try file.write(header)
        var total = 0
        for item in ordered {
            try item.withBytes { (bytes) throws(CheckpointError) in
                guard bytes.count == item.byteCount else {
                    throw CheckpointError(
                        code: .writeFailed,
                        message:
                            "was announced with \(item.byteCount) bytes but has \(bytes.count); this is a bug in the "
                            + "program, report it",
                        file: path,
                        tensor: item.name
                    )
                }
                try file.write(bytes, wrote: wrote)
            }
            total += item.byteCount
        }
        return (total, try file.finish())
    }

    private static func ordered(_ items: [Item]) -> [Item] {
        items.filter { $0.byteCount % self.alignment == 0 } + items.filter { $0.byteCount % self.alignment != 0 }
    }

    private static func header(
        _ tensors: [Item],
        metadata: [String: String],
        path: String
    ) throws(CheckpointError) -> [UInt8] {
        var fields = metadata.isEmpty ? [] : ["\"__metadata__\":\(try self.json(metadata, path))"]
        var names: Set<String> = ["__metadata__"]
        var offset = 0
        for tensor in tensors {
            guard names.insert(tensor.name).inserted else {
                throw CheckpointError(
                    code: .invalidArgument,
                    message: "would be written twice; give every tensor its own name",
                    file: path,
                    tensor: tensor.name
                )
            }
            let end = offset + tensor.byteCount
            let shape = tensor.shape.map(String.init).joined(separator: ",")
            fields.append(
                "\(try self.json(tensor.name, path)):"
                    + "{\"dtype\":\"\(tensor.dtype.safetensorsName)\",\"shape\":[\(shape)],\"data_offsets\":[\(offset),\(end)]}"
            )
            offset = end
        }
        var text = Array("{\(fields.joined(separator: ","))}".utf8)
        let remainder = (8 + text.count) % self.alignment
        if remainder != 0 { text += Array(repeating: UInt8(ascii: " "), count: self.alignment - remainder) }
        guard text.count <= SafetensorsReader.maxHeaderBytes else {
            throw CheckpointError(
                code: .limitExceeded,
                message: "would have a header of \(text.count) bytes; the format's limit is "
                    + "\(SafetensorsReader.maxHeaderBytes), so spread the tensors over more files",
                file: path
            )
        }
        return withUnsafeBytes(of: UInt64(text.count).littleEndian) { Array($0) } + text
    }

    private static func json(_ value: some Encodable, _ path: String) throws(CheckpointError) -> String {
        do {
            let encoder = JSONEncoder()
            encoder.outputFormatting = [.sortedKeys, .withoutEscapingSlashes]
            return String(decoding: try encoder.encode(value), as: UTF8.self)
        } catch {
            throw CheckpointError(code: .writeFailed, message: "has a name that JSON cannot hold", file: path)
        }
    }
}

extension SafetensorsWriter.Item {
    /// A tensor that exists.
    init(_ tensor: TensorView) {
        self.init(name: tensor.name, dtype: tensor.dtype, shape: tensor.shape, byteCount: tensor.byteCount) {
            (body) throws(CheckpointError) in
            try withExtendedLifetime(tensor.storage) { () throws(CheckpointError) in
                try body(UnsafeRawBufferPointer(rebasing: tensor.storage.bytes[tensor.range]))
            }
        }
    }
}
