// SPDX-License-Identifier: Apache-2.0

internal import SwitchyardTypes

/// Reads the one kind of pickle that a checkpoint needs: a dictionary from names to tensors.
///
/// A pickle is a program for a small stack machine, and Python's own reader lets it call anything. This one runs none
/// of that: it knows the opcodes that `torch.save` writes (protocols 2 through 4), and the globals in `Global`;
/// everything else is refused, globals by name. Opcodes as in
/// https://github.com/python/cpython/blob/v3.13.0/Lib/pickletools.py.
///
/// Containers live in flat arrays and refer to each other by index, so that no nesting, however deep, is ever followed
/// or freed recursively, and a container that contains itself is harmless. Work and memory are linear in the pickle's
/// length, and the number of its opcodes is bounded.
struct Unpickler {
    /// A storage that tensors are views of.
    struct Storage {
        var key: String
        var dtype: DType
        var elementCount: Int
    }

    /// A view of a storage; all numbers are as the file gives them, unchecked.
    struct Tensor {
        var storage: Storage
        var offset: Int
        var shape: [Int]
        var strides: [Int]
    }

    /// An entry of the machine's stack.
    enum Value {
        case none
        case bool(Bool)
        case integer(Int)
        case float
        case string(String)
        case global(Global)
        case tuple(Int)
        case list(Int)
        case dictionary(Int)
        case storage(Int)
        case tensor(Int)
    }

    /// The Python objects that a checkpoint may name.
    enum Global {
        case orderedDictionary
        case rebuildTensor
        case rebuildParameter
        case storage(DType)

        init?(module: String, name: String) {
            switch (module, name) {
            case ("collections", "OrderedDict"): self = .orderedDictionary
            case ("torch._utils", "_rebuild_tensor_v2"): self = .rebuildTensor
            case ("torch._utils", "_rebuild_parameter"): self = .rebuildParameter
            case ("torch", "FloatStorage"): self = .storage(.float32)
            case ("torch", "BFloat16Storage"): self = .storage(.bfloat16)
            case ("torch", "HalfStorage"): self = .storage(.float16)
            case ("torch", "DoubleStorage"): self = .storage(.float64)
            case ("torch", "LongStorage"): self = .storage(.int64)
            case ("torch", "IntStorage"): self = .storage(.int32)
            case ("torch", "ShortStorage"): self = .storage(.int16)
            case ("torch", "CharStorage"): self = .storage(.int8)
            case ("torch", "ByteStorage"): self = .storage(.uint8)
            case ("torch", "BoolStorage"): self = .storage(.bool)
            default: return nil
            }
        }
    }

    /// torch stores items a thousand at a time, so it never stacks more than a few thousand entries.
    static let maxStackDepth = 65_536
    /// Bounds a pickle of nothing but `None`s too: an opcode makes at most one value, of 24 bytes.
    ///
    /// A tensor takes about 35 opcodes, 8 memo entries and 8 objects: enough for 125,000 tensors in one file.
    static let maxOpcodes = 5_000_000
    static let maxMemoEntries = 1_000_000
    static let maxObjects = 1_000_000
    static let maxStringBytes = 1_048_576

    let path: String
    var reader: PickleBytes
    var stack: [Value] = []
    /// Stack heights of the open marks.
    var marks: [Int] = []
    var memo: [Int: Value] = [:]
    var tuples: [[Value]] = []
    var lists: [[Value]] = []
    var dictionaries: [[(key: Value, value: Value)]] = []
    var storages: [Storage] = []
    var tensors: [Tensor] = []

    init(_ bytes: UnsafeRawBufferPointer, path: String) {
        self.path = path
        self.reader = PickleBytes(bytes, path: path)
    }

    /// Runs the pickle to its end.
    ///
    /// - Returns: The tensors of the dictionary that it describes, in its order.
    mutating func run() throws(CheckpointError) -> [(name: String, tensor: Tensor)] {
        guard case .dictionary(let index) = try self.value() else {
            throw self.malformed("does not describe a dictionary of tensors")
        }
        return try self.namedTensors(self.dictionaries[index])
    }

    /// Runs the pickle to its end.
    ///
    /// - Returns: The value that it describes, whatever it is.
    mutating func value() throws(CheckpointError) -> Value {
        var opcodes = 0
        while true {
            let opcode = try self.reader.byte()
            opcodes += 1
            if opcode == UInt8(ascii: ".") { break }
            try self.perform(opcode)
            guard self.stack.count <= Self.maxStackDepth, self.marks.count <= Self.maxStackDepth,
                self.memo.count <= Self.maxMemoEntries, self.objectCount <= Self.maxObjects, opcodes <= Self.maxOpcodes
            else {
                throw CheckpointError(
                    code: .limitExceeded,
                    message:
                        "has a data.pkl that by byte \(self.reader.position) has \(opcodes) opcodes (limit \(Self.maxOpcodes)), "
                        + "\(self.stack.count) values on its stack (limit \(Self.maxStackDepth)), \(self.memo.count) in its memo "
                        + "(limit \(Self.maxMemoEntries)) and \(self.objectCount) objects (limit \(Self.maxObjects)); one of them "
                        + "is more than a checkpoint needs, so fetch the file again, or save it in several files",
                    file: self.path
                )
            }
        }
        return try self.pop()
    }

    private var objectCount: Int {
        self.tuples.count + self.lists.count + self.dictionaries.count + self.storages.count + self.tensors.count
    }

    private func namedTensors(
        _ entries: [(key: Value, value: Value)]
    ) throws(CheckpointError) -> [(name: String, tensor: Tensor)] {
        var names: Set<String> = []
        var result: [(name: String, tensor: Tensor)] = []
        for entry in entries {
            guard case .string(let name) = entry.key else {
                throw self.malformed("has a key that is not a string")
            }
            guard case .tensor(let index) = entry.value else {
                throw CheckpointError(
                    code: .malformed,
                    message: "is not a tensor; save only the model's state_dict()",
                    file: self.path,
                    tensor: String(name.prefix(200))
                )
            }
            guard names.insert(name).inserted else {
                throw self.malformed("describes \"\(name.prefix(200))\" twice")
            }
            result.append((name, self.tensors[index]))
        }
        return result
    }

    mutating func pop() throws(CheckpointError) -> Value {
        guard self.stack.count > (self.marks.last ?? 0), let value = self.stack.popLast() else {
            throw self.malformed("takes more from the stack than it holds")
        }
        return value
    }

    mutating func popMark() throws(CheckpointError) -> [Value] {
        guard let mark = self.marks.popLast(), mark <= self.stack.count else {
            throw self.malformed("closes a mark that is not open")
        }
        let values = Array(self.stack[mark...])
        self.stack.removeSubrange(mark...)
        return values
    }

    func malformed(_ complaint: String) -> CheckpointError {
        CheckpointError(
            code: .malformed,
            message: "has a data.pkl that \(complaint) (byte \(self.reader.position)); fetch the file again",
            file: self.path
        )
    }
}

/// The pickle's bytes, read from front to back.
struct PickleBytes {
    private let bytes: UnsafeRawBufferPointer
    private let path: String
    private(set) var position = 0

    init(_ bytes: UnsafeRawBufferPointer, path: String) {
        self.bytes = bytes
        self.path = path
    }

    mutating func byte() throws(CheckpointError) -> UInt8 {
        let slice = try self.take(1)
        return slice[slice.startIndex]
    }

    /// A little-endian unsigned integer of 1 to 8 bytes.
    mutating func unsigned(_ count: Int) throws(CheckpointError) -> UInt64 {
        try self.take(count).reversed().reduce(0) { $0 << 8 | UInt64($1) }
    }

    /// A little-endian two's-complement integer of 0 to 8 bytes.
    mutating func signed(_ count: Int) throws(CheckpointError) -> Int {
        guard count > 0 else { return 0 }
        let shift = 64 - 8 * count
        return Int(Int64(bitPattern: try self.unsigned(count) << UInt64(shift)) >> Int64(shift))
    }

    mutating func string(_ count: UInt64) throws(CheckpointError) -> String {
        guard count <= UInt64(Unpickler.maxStringBytes) else {
            throw CheckpointError(
                code: .limitExceeded,
                message: "has a data.pkl with a string of \(count) bytes; the limit is \(Unpickler.maxStringBytes)",
                file: self.path
            )
        }
        return String(decoding: try self.take(Int(count)), as: UTF8.self)
    }

    /// Text up to the next newline.
    mutating func line() throws(CheckpointError) -> String {
        let limit = 1_024
        let rest = self.bytes[self.position...].prefix(limit)
        guard let end = rest.firstIndex(of: UInt8(ascii: "\n")) else {
            throw self.truncated("a line of at most \(limit) bytes")
        }
        let text = String(decoding: self.bytes[self.position..<end], as: UTF8.self)
        self.position = end + 1
        return text
    }

    mutating func skip(_ count: Int) throws(CheckpointError) {
        _ = try self.take(count)
    }

    private mutating func take(_ count: Int) throws(CheckpointError) -> UnsafeRawBufferPointer {
        guard count <= self.bytes.count - self.position else { throw self.truncated("\(count) bytes") }
        defer { self.position += count }
        return UnsafeRawBufferPointer(rebasing: self.bytes[self.position..<self.position + count])
    }

    private func truncated(_ needed: String) -> CheckpointError {
        CheckpointError(
            code: .malformed,
            message: "has a data.pkl that ends at byte \(self.bytes.count) where \(needed) must follow byte "
                + "\(self.position); fetch the file again",
            file: self.path
        )
    }
}
