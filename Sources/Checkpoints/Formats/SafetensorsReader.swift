// SPDX-License-Identifier: Apache-2.0

internal import SwitchyardTypes

/// Reads the safetensors format: an 8-byte little-endian header length, a JSON header, the tensors' bytes.
///
/// The rules are those of https://github.com/huggingface/safetensors (README, "Format"): offsets count from the
/// header's end, tensors neither overlap nor leave holes, the last one ends with the file. The header is read as that
/// library reads it: see `SafetensorsHeader`.
enum SafetensorsReader {
    /// The format's own limit on the header.
    static let maxHeaderBytes = 100_000_000
    static let maxRank = 8

    static func read(_ path: String) throws(CheckpointError) -> [StoredTensor] {
        try self.read(MappedFile(path: path), path: path)
    }

    static func read(_ storage: any TensorStorage, path: String) throws(CheckpointError) -> [StoredTensor] {
        let bytes = storage.bytes
        try FileContent.refuseStandIns(bytes, path)
        guard bytes.count >= 8 else {
            throw self.malformed(
                "is \(bytes.count) bytes long, shorter than the 8 bytes of a header length",
                path
            )
        }
        let announced = UInt64(littleEndian: bytes.loadUnaligned(as: UInt64.self))
        guard announced <= UInt64(self.maxHeaderBytes) else {
            throw CheckpointError(
                code: .limitExceeded,
                message: "announces a header of \(announced) bytes; the limit is \(self.maxHeaderBytes), "
                    + "so this is not a safetensors file, or it is damaged",
                file: path
            )
        }
        let start = 8 + Int(announced)
        guard start <= bytes.count else {
            throw self.malformed("announces a header of \(announced) bytes, but only \(bytes.count - 8) follow", path)
        }
        let headerBytes = UnsafeRawBufferPointer(rebasing: bytes[8..<start])
        let entries = try SafetensorsHeader.read(headerBytes, file: path)
        let tensors = try entries.map { (entry) throws(CheckpointError) in
            try self.tensor(entry, storage, dataStart: start, path)
        }
        try self.checkCoverage(tensors, start..<bytes.count, path)
        return tensors
    }

    private static func tensor(
        _ entry: SafetensorsHeader.Entry,
        _ storage: any TensorStorage,
        dataStart: Int,
        _ path: String
    ) throws(CheckpointError) -> StoredTensor {
        func malformed(_ message: String) -> CheckpointError {
            CheckpointError(
                code: .malformed,
                message: message + "; fetch or convert the file again",
                file: path,
                tensor: String(entry.name.prefix(200))
            )
        }
        let dtype = entry.dtype
        guard let needed = TensorView.byteCount(shape: entry.shape, dtype: dtype) else {
            throw malformed("has the impossible shape \(entry.shape)")
        }
        let (begin, end) = (entry.begin, entry.end)
        let available = storage.bytes.count - dataStart
        guard begin >= 0, begin <= end, end <= available else {
            throw malformed("lies at \(begin) to \(end), outside the \(available) bytes of data in the file")
        }
        guard end - begin == needed else {
            throw malformed(
                "has \(end - begin) bytes, but \(dtype.safetensorsName) of shape \(entry.shape) takes \(needed)"
            )
        }
        return StoredTensor(
            name: entry.name,
            dtype: dtype,
            shape: entry.shape,
            storage: storage,
            range: dataStart + begin..<dataStart + end,
            strides: nil,
            file: path
        )
    }

    /// Every byte of data belongs to exactly one tensor.
    private static func checkCoverage(
        _ tensors: [StoredTensor],
        _ data: Range<Int>,
        _ path: String
    ) throws(CheckpointError) {
        var reached = data.lowerBound
        for tensor in tensors.sorted(by: {
            ($0.range.lowerBound, $0.range.upperBound) < ($1.range.lowerBound, $1.range.upperBound)
        }) {
            if tensor.range.lowerBound < reached {
                throw tensor.failure(
                    .malformed,
                    "begins \(reached - tensor.range.lowerBound) bytes before the previous tensor ends; "
                        + "fetch or convert the file again"
                )
            }
            if tensor.range.lowerBound > reached {
                throw tensor.failure(
                    .malformed,
                    "begins \(tensor.range.lowerBound - reached) bytes after the previous tensor ends, "
                        + "which the format forbids; fetch or convert the file again"
                )
            }
            reached = tensor.range.upperBound
        }
        guard reached == data.upperBound else {
            throw self.malformed("has \(data.upperBound - reached) bytes after its last tensor", path)
        }
    }

    private static func malformed(_ complaint: String, _ path: String) -> CheckpointError {
        CheckpointError(code: .malformed, message: complaint + "; fetch or convert the file again", file: path)
    }
}
