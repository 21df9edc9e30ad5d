// SPDX-License-Identifier: Apache-2.0

internal import SwitchyardTypes

extension Unpickler {
    /// Runs one opcode other than `STOP`.
    mutating func perform(_ opcode: UInt8) throws(CheckpointError) {
        switch opcode {
        case 0x80: try self.reader.skip(1)  // PROTO
        case 0x95: try self.reader.skip(8)  // FRAME: lengths are hints for streams
        case UInt8(ascii: "("): self.marks.append(self.stack.count)
        case UInt8(ascii: "0"): _ = try self.pop()
        case UInt8(ascii: "N"): self.stack.append(.none)
        case 0x88: self.stack.append(.bool(true))
        case 0x89: self.stack.append(.bool(false))
        case UInt8(ascii: "K"): self.stack.append(.integer(Int(try self.reader.unsigned(1))))
        case UInt8(ascii: "M"): self.stack.append(.integer(Int(try self.reader.unsigned(2))))
        case UInt8(ascii: "J"): self.stack.append(.integer(try self.reader.signed(4)))
        case 0x8A: self.stack.append(.integer(try self.long()))
        case UInt8(ascii: "G"):
            try self.reader.skip(8)
            self.stack.append(.float)
        case UInt8(ascii: "X"): try self.pushString(4)
        case 0x8C: try self.pushString(1)
        case 0x8D: try self.pushString(8)
        case UInt8(ascii: "}"): self.push(dictionary: [])
        case UInt8(ascii: "]"):
            self.lists.append([])
            self.stack.append(.list(self.lists.count - 1))
        case UInt8(ascii: ")"): self.push(tuple: [])
        case 0x85, 0x86, 0x87: try self.shortTuple(Int(opcode - 0x84))
        case UInt8(ascii: "t"): self.push(tuple: try self.popMark())
        case UInt8(ascii: "q"): try self.memoize(Int(try self.reader.unsigned(1)))
        case UInt8(ascii: "r"): try self.memoize(Int(try self.reader.unsigned(4)))
        case 0x94: try self.memoize(self.memo.count)
        case UInt8(ascii: "h"): try self.recall(Int(try self.reader.unsigned(1)))
        case UInt8(ascii: "j"): try self.recall(Int(try self.reader.unsigned(4)))
        default: try self.performOnObjects(opcode)
        }
    }

    private mutating func performOnObjects(_ opcode: UInt8) throws(CheckpointError) {
        switch opcode {
        case UInt8(ascii: "c"):
            let module = try self.reader.line()
            try self.pushGlobal(module, try self.reader.line())
        case 0x93:
            guard case .string(let name) = try self.pop(), case .string(let module) = try self.pop() else {
                throw self.malformed("names a global by something other than strings")
            }
            try self.pushGlobal(module, name)
        case UInt8(ascii: "Q"): try self.pushStorage(try self.pop())
        case UInt8(ascii: "R"):
            let arguments = try self.pop()
            try self.call(try self.pop(), arguments)
        case UInt8(ascii: "b"):
            // torch attaches a `_metadata` attribute to the dictionary; it does not affect the tensors.
            _ = try self.pop()
            guard case .dictionary = self.stack.last else {
                throw self.malformed("sets attributes of something other than a dictionary")
            }
        case UInt8(ascii: "s"):
            let value = try self.pop()
            try self.setItems([try self.pop(), value])
        case UInt8(ascii: "u"): try self.setItems(try self.popMark())
        case UInt8(ascii: "a"): try self.append([try self.pop()])
        case UInt8(ascii: "e"): try self.append(try self.popMark())
        default:
            throw self.malformed(
                "uses the opcode 0x\(String(opcode, radix: 16)), which torch.save does not write for a state_dict"
            )
        }
    }

    private mutating func long() throws(CheckpointError) -> Int {
        let count = Int(try self.reader.unsigned(1))
        guard count <= 8 else { throw self.malformed("has an integer of \(count) bytes; 8 are enough for any size") }
        return try self.reader.signed(count)
    }

    private mutating func pushString(_ lengthBytes: Int) throws(CheckpointError) {
        self.stack.append(.string(try self.reader.string(try self.reader.unsigned(lengthBytes))))
    }

    private mutating func push(tuple: [Value]) {
        self.tuples.append(tuple)
        self.stack.append(.tuple(self.tuples.count - 1))
    }

    private mutating func push(dictionary: [(key: Value, value: Value)]) {
        self.dictionaries.append(dictionary)
        self.stack.append(.dictionary(self.dictionaries.count - 1))
    }

    private mutating func shortTuple(_ count: Int) throws(CheckpointError) {
        var values: [Value] = []
        for _ in 0..<count { values.append(try self.pop()) }
        self.push(tuple: values.reversed())
    }

    private mutating func memoize(_ key: Int) throws(CheckpointError) {
        guard let value = self.stack.last else { throw self.malformed("remembers a value from an empty stack") }
        self.memo[key] = value
    }

    private mutating func recall(_ key: Int) throws(CheckpointError) {
        guard let value = self.memo[key] else {
            throw self.malformed("recalls the value \(key), which it never stored")
        }
        self.stack.append(value)
    }

    private mutating func setItems(_ items: [Value]) throws(CheckpointError) {
        guard case .dictionary(let index) = self.stack.last, items.count.isMultiple(of: 2) else {
            throw self.malformed("sets items of something other than a dictionary, or a key without a value")
        }
        for position in stride(from: 0, to: items.count, by: 2) {
            self.dictionaries[index].append((items[position], items[position + 1]))
        }
    }

    private mutating func append(_ items: [Value]) throws(CheckpointError) {
        guard case .list(let index) = self.stack.last else {
            throw self.malformed("appends to something other than a list")
        }
        self.lists[index] += items
    }

    private mutating func pushGlobal(_ module: String, _ name: String) throws(CheckpointError) {
        guard let global = Global(module: module, name: name) else {
            throw CheckpointError(
                code: .refusedGlobal,
                message:
                    "asks for the Python object \(module).\(name), which no checkpoint needs and which is never run; "
                    + "do not trust this file, or save only the model's state_dict()",
                file: self.path
            )
        }
        self.stack.append(.global(global))
    }

    /// `("storage", class, key, location, elements)`, the persistent identifier that `torch.save` gives a storage; in the
    /// format before torch 1.6 with a sixth field, which is `None` for a whole storage.
    private mutating func pushStorage(_ identifier: Value) throws(CheckpointError) {
        guard case .tuple(let index) = identifier, self.isWholeStorage(self.tuples[index]),
            case .string("storage") = self.tuples[index][0],
            case .global(.storage(let dtype)) = self.tuples[index][1],
            case .string(let key) = self.tuples[index][2],
            case .integer(let elementCount) = self.tuples[index][4], elementCount >= 0
        else {
            throw self.malformed("names a storage in a way that torch.save does not")
        }
        self.storages.append(Storage(key: key, dtype: dtype, elementCount: elementCount))
        self.stack.append(.storage(self.storages.count - 1))
    }

    private func isWholeStorage(_ fields: [Value]) -> Bool {
        guard fields.count == 6 else { return fields.count == 5 }
        if case .none = fields[5] { return true }
        return false
    }

    private mutating func call(_ callee: Value, _ arguments: Value) throws(CheckpointError) {
        guard case .global(let global) = callee, case .tuple(let index) = arguments else {
            throw self.malformed("calls something that is not a function")
        }
        let values = self.tuples[index]
        switch global {
        case .orderedDictionary:
            guard values.isEmpty else { throw self.malformed("makes an OrderedDict with arguments") }
            self.push(dictionary: [])
        case .rebuildTensor:
            self.tensors.append(try self.tensor(values))
            self.stack.append(.tensor(self.tensors.count - 1))
        case .rebuildParameter:
            guard case .tensor(let tensor) = values.first else {
                throw self.malformed("makes a parameter of something other than a tensor")
            }
            self.stack.append(.tensor(tensor))
        case .storage:
            throw self.malformed("calls a storage class")
        }
    }

    /// `_rebuild_tensor_v2(storage, offset, shape, strides, requires_grad, hooks[, metadata])`.
    private func tensor(_ values: [Value]) throws(CheckpointError) -> Tensor {
        guard values.count >= 4, case .storage(let storage) = values[0], case .integer(let offset) = values[1],
            case .tuple(let shape) = values[2], case .tuple(let strides) = values[3]
        else {
            throw self.malformed("makes a tensor in a way that torch.save does not")
        }
        return Tensor(
            storage: self.storages[storage],
            offset: offset,
            shape: try self.integers(shape),
            strides: try self.integers(strides)
        )
    }

    private func integers(_ tuple: Int) throws(CheckpointError) -> [Int] {
        guard self.tuples[tuple].count <= TorchReader.maxRank else {
            throw self.malformed(
                "has a tensor of \(self.tuples[tuple].count) axes; the limit is \(TorchReader.maxRank)"
            )
        }
        var result: [Int] = []
        for value in self.tuples[tuple] {
            guard case .integer(let integer) = value else {
                throw self.malformed("has a shape or strides that are not integers")
            }
            result.append(integer)
        }
        return result
    }
}
