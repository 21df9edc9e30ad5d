// SPDX-License-Identifier: Apache-2.0

internal import JSONValues
internal import SwitchyardTypes

/// The JSON header of a safetensors file, read by the rules of the library that defines the format.
///
/// Those are the rules of serde for the types in
/// https://github.com/huggingface/safetensors/blob/v0.8.0/safetensors/src/tensor.rs (`HashMetadata`, `TensorInfo`): of two
/// tensors of one name the last counts, though both must be whole; a key of a tensor or `__metadata__` that is there twice
/// is refused; unknown keys of a tensor are skipped; sizes are integers without fraction or exponent. Deviations, all of
/// them refusals: at most 8 axes and ``maxTensors`` tensors, and a tensor is an object, where serde takes an array too.
enum SafetensorsHeader {
    /// The most tensors of a file; whole checkpoints of 2,048 experts have fewer in all their files.
    static let maxTensors = 262_144
    /// The most JSON values: a tensor with its name, type, shape and offsets takes at most 14.
    static let maxValues = 4_194_304

    /// What the header says about a tensor; the numbers are as the file gives them, unchecked.
    struct Entry {
        var name: String
        var dtype: DType
        var shape: [Int]
        var begin: Int
        var end: Int
    }

    /// Reads a header.
    ///
    /// - Parameters:
    ///   - bytes: The header, padding included.
    ///   - file: The file, for messages.
    /// - Returns: The tensors, each name once.
    /// - Throws: `malformed` or `limitExceeded` with the file and the tensor.
    static func read(_ bytes: UnsafeRawBufferPointer, file: String) throws(CheckpointError) -> [Entry] {
        try FileContent.refuseOtherEncodings(bytes, file)
        var scanner = CheckpointScanner(bytes, file: file, dialect: .serde, maxValues: self.maxValues)
        guard scanner.peek() == UInt8(ascii: "{") else {
            throw CheckpointError(
                code: .malformed,
                message: "has a header that does not begin with {; fetch or convert the file again",
                file: file
            )
        }
        var entries: [Entry] = []
        var places: [String: Int] = [:]
        var hasMetadata = false
        try scanner.object { (scanner, key) throws(CheckpointError) in
            if key == "__metadata__" {
                guard !hasMetadata else { throw scanner.malformed("the key \"__metadata__\" twice") }
                hasMetadata = true
                return try self.skipMetadata(&scanner)
            }
            let entry = try self.entry(&scanner, named: key, file)
            if let place = places[key] {
                entries[place] = entry
                return
            }
            places[key] = entries.count
            entries.append(entry)
            guard entries.count <= self.maxTensors else {
                throw CheckpointError(
                    code: .limitExceeded,
                    message: "describes more than \(self.maxTensors) tensors; split the checkpoint into several files",
                    file: file
                )
            }
        }
        try scanner.end()
        return entries
    }

    /// `null`, or an object of strings.
    private static func skipMetadata(_ scanner: inout CheckpointScanner) throws(CheckpointError) {
        if scanner.peek() == UInt8(ascii: "n") { return try scanner.skip() }
        try scanner.object { (scanner, _) throws(CheckpointError) in _ = try scanner.string() }
    }

    private static func entry(
        _ scanner: inout CheckpointScanner,
        named name: String,
        _ file: String
    ) throws(CheckpointError) -> Entry {
        func malformed(_ complaint: String) -> CheckpointError {
            CheckpointError(
                code: .malformed,
                message: complaint + "; fetch or convert the file again",
                file: file,
                tensor: String(name.prefix(200))
            )
        }
        var dtype: DType?
        var shape: [Int]?
        var offsets: [Int]?
        try scanner.object { (scanner, key) throws(CheckpointError) in
            let isRepeated: Bool
            switch key {
            case "dtype": isRepeated = dtype != nil
            case "shape": isRepeated = shape != nil
            case "data_offsets": isRepeated = offsets != nil
            default: return try scanner.skip()
            }
            guard !isRepeated else { throw malformed("has \(key) twice") }
            switch key {
            case "dtype":
                let text = try scanner.string()
                dtype = DType(safetensorsName: text)
                guard dtype == nil else { return }
                throw CheckpointError(
                    code: .unsupported,
                    message:
                        "has the unknown element type \"\(text.prefix(40))\"; convert the checkpoint to F32, BF16 or F16",
                    file: file,
                    tensor: String(name.prefix(200))
                )
            case "shape":
                shape = try self.sizes(&scanner, most: SafetensorsReader.maxRank) { count in
                    malformed("has \(count) axes or more; the limit is \(SafetensorsReader.maxRank)")
                }
            default:
                offsets = try self.sizes(&scanner, most: 2) { _ in
                    malformed("has more than two data_offsets where begin and end are needed")
                }
            }
        }
        guard let dtype else { throw malformed("has no dtype") }
        guard let shape else { throw malformed("has no shape") }
        guard let offsets, offsets.count == 2 else {
            throw malformed("has \(offsets?.count ?? 0) data_offsets where begin and end are needed")
        }
        return Entry(name: name, dtype: dtype, shape: shape, begin: offsets[0], end: offsets[1])
    }

    /// Reads an array of integers, and stops at the first that is too many.
    private static func sizes(
        _ scanner: inout CheckpointScanner,
        most: Int,
        _ tooMany: (Int) -> CheckpointError
    ) throws(CheckpointError) -> [Int] {
        var sizes: [Int] = []
        try scanner.array { (scanner) throws(CheckpointError) in
            sizes.append(try scanner.integer())
            guard sizes.count <= most else { throw tooMany(sizes.count) }
        }
        return sizes
    }
}
