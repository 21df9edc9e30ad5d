// SPDX-License-Identifier: Apache-2.0

import SwitchyardTypes
import Testing

@testable import Checkpoints

/// Pieces of pickles, by opcode name.
private enum Pickle {
    static let proto: [UInt8] = [0x80, 2]
    static let mark = Array("(".utf8)
    static let stop = Array(".".utf8)
    static let emptyDictionary = Array("}".utf8)
    static let emptyTuple = Array(")".utf8)
    static let reduce = Array("R".utf8)
    static let setItem = Array("s".utf8)

    static func text(_ text: String) -> [UInt8] {
        Array("X".utf8) + ZipBuilder.little(text.utf8.count, 4) + Array(text.utf8)
    }

    static func integer(_ value: Int) -> [UInt8] { [0x8A, 8] + ZipBuilder.little(value, 8) }
    static func global(_ module: String, _ name: String) -> [UInt8] { Array("c\(module)\n\(name)\n".utf8) }
    static func tuple(_ elements: [[UInt8]]) -> [UInt8] { self.mark + elements.flatMap { $0 } + Array("t".utf8) }

    static func storage(_ type: String = "FloatStorage", key: String = "0", count: Int = 6) -> [UInt8] {
        self.tuple([
            self.text("storage"), self.global("torch", type), self.text(key), self.text("cpu"), self.integer(count),
        ]) + Array("Q".utf8)
    }

    static func tensor(storage: [UInt8], offset: Int = 0, shape: [Int], strides: [Int]) -> [UInt8] {
        self.global("torch._utils", "_rebuild_tensor_v2")
            + self.tuple([
                storage, self.integer(offset), self.tuple(shape.map(self.integer)),
                self.tuple(strides.map(self.integer)),
                [0x89], self.global("collections", "OrderedDict") + self.emptyTuple + self.reduce,
            ]) + self.reduce
    }

    static func dictionary(_ name: String, _ value: [UInt8]) -> [UInt8] {
        self.proto + self.emptyDictionary + self.text(name) + value + self.setItem + self.stop
    }

    static func archive(_ pickle: [UInt8], data: Int = 24) -> [UInt8] {
        var builder = ZipBuilder(zip64: false)
        builder.add("model/data.pkl", pickle)
        builder.add("model/byteorder", Array("little".utf8))
        builder.add("model/data/0", (0..<data).map { UInt8(truncatingIfNeeded: $0) })
        return builder.finish()
    }
}

@Suite struct UnpicklerTests {
    private func read(_ pickle: [UInt8], data: Int = 24) throws -> [String: TensorView] {
        let tensors = try TorchReader.read(storage(Pickle.archive(pickle, data: data)), path: "memory")
        return Dictionary(uniqueKeysWithValues: tensors.map { ($0.name, $0.view()) })
    }

    @Test func aTensorMadeByHandIsRead() throws {
        let tensor = Pickle.tensor(storage: Pickle.storage(), offset: 2, shape: [2, 2], strides: [2, 1])
        #expect(try self.read(Pickle.dictionary("w", tensor))["w"]?.bytes == Array(8..<24))
    }

    @Test(arguments: [
        ("os", "system"), ("posix", "system"), ("builtins", "eval"), ("__builtin__", "exec"), ("subprocess", "Popen"),
        ("torch.storage", "_load_from_bytes"), ("torch", "load"), ("torch._utils", "_rebuild_tensor_v3"),
        ("collections", "OrderedDict "), ("torch", "FloatStorage\0"), ("numpy.core.multiarray", "_reconstruct"),
    ])
    func globalsAreRefusedByName(module: String, name: String) {
        let call = Pickle.global(module, name) + Pickle.tuple([Pickle.text("echo no")]) + Pickle.reduce
        let error = failure { _ = try self.read(Pickle.dictionary("w", call)) }
        #expect(error?.code == .refusedGlobal)
        #expect(error?.message.contains(ErrorText.shown("\(module).\(name)")) == true)
        let stackGlobal = Pickle.text(module) + Pickle.text(name) + [0x93]
        #expect(failure { _ = try self.read(Pickle.dictionary("w", stackGlobal)) }?.code == .refusedGlobal)
    }

    @Test(arguments: [
        // offset, shape, strides over a storage of six elements
        (1, [2, 3], [3, 1]), (-1, [2], [1]), (0, [7], [1]), (0, [2], [6]), (0, [2], [-1]), (0, [-2], [1]),
        (Int.max, [1], [1]), (0, [Int.max], [1]), (0, [2], [Int.max]), (0, [3, 3], [Int.max, Int.max]),
        (0, [1 << 62, 4], [0, 0]), (0, [7], [0]), (6, [1], [1]), (0, [2, 3], [1]), (0, [2], []), (7, [0], [1]),
    ])
    func viewsOutsideTheirStorageAreRefused(offset: Int, shape: [Int], strides: [Int]) {
        let tensor = Pickle.tensor(storage: Pickle.storage(), offset: offset, shape: shape, strides: strides)
        let error = failure { _ = try self.read(Pickle.dictionary("w", tensor)) }
        #expect(error?.code == .malformed)
        #expect(error?.tensor == "w")
    }

    @Test(arguments: [
        (Pickle.storage(key: "1"), "needs the storage \"1\""),
        (Pickle.storage(key: "../data.pkl"), "needs the storage"),
        (Pickle.storage(count: 7), "needs a storage of 7 F32 elements, but it has 24 bytes"),
        (Pickle.storage("DoubleStorage"), "needs a storage of 6 F64 elements"),
        (Pickle.storage(count: Int.max), "needs a storage"),
    ])
    func storagesMustBeThereAndFit(storage: [UInt8], complaint: String) {
        let tensor = Pickle.tensor(storage: storage, shape: [1], strides: [1])
        let error = failure { _ = try self.read(Pickle.dictionary("w", tensor)) }
        #expect(error?.message.contains(complaint) == true, "\(String(describing: error))")
    }

    @Test(arguments: [
        [], Pickle.stop, Pickle.proto, Pickle.proto + Pickle.mark + Pickle.stop, Array("t.".utf8), Array("0.".utf8),
        Array("R.".utf8), Array("(0.".utf8), Array("}(s.".utf8), Array("}(X".utf8), Array("Q.".utf8),
        Array("h\u{7}.".utf8),
        Array("q\u{0}.".utf8), Array("u.".utf8), Array("NNs.".utf8), Array("]Na.".utf8), Array("NNb.".utf8),
        [0x85, 0x2E],
        [0x8A, 9], [0x8A, 255], [0x93, 0x2E], Array("c".utf8), Array("cos\n".utf8), Array("}NNs.".utf8),
        Array("X".utf8) + [255, 255, 255, 255], [0x8D, 255, 255, 255, 255, 255, 255, 255, 255], [0xFF],
        Array("I1\n.".utf8), Array("}(NNNu.".utf8), Array("c__main__\nx".utf8),
    ])
    func brokenPicklesAreRefused(pickle: [UInt8]) {
        #expect(throws: CheckpointError.self) { try self.read(pickle) }
    }

    @Test func anEmptyDictionaryWithAttributesIsRead() throws {
        #expect(try self.read(Array("}Nb.".utf8)).isEmpty)
    }

    @Test func nestingIsNeverFollowed() throws {
        // A tuple in a tuple in a tuple, a hundred thousand deep: freeing it must not recurse either.
        let deep = Pickle.proto + Pickle.emptyTuple + Array(repeating: 0x85, count: 100_000) + Pickle.stop
        #expect(failure { _ = try self.read(deep) }?.message.contains("does not describe a dictionary") == true)
        // A dictionary that contains itself.
        let cycle = Pickle.proto + Array("}q\u{0}X\u{1}\u{0}\u{0}\u{0}ah\u{0}s.".utf8)
        #expect(failure { _ = try self.read(cycle) }?.description.contains("is not a tensor") == true)
    }

    @Test(arguments: [UInt8(ascii: "("), UInt8(ascii: "N"), UInt8(ascii: "}"), UInt8(ascii: ")"), UInt8(ascii: "]")])
    func floodsMeetALimit(opcode: UInt8) {
        let flood = Array(repeating: opcode, count: Unpickler.maxStackDepth + 2)
        #expect(failure { _ = try self.read(flood) }?.code == .limitExceeded)
    }

    @Test func aNameGivenTwiceIsRefused() {
        let tensor = Pickle.tensor(storage: Pickle.storage(), shape: [1], strides: [1])
        let pickle =
            Pickle.emptyDictionary + Pickle.text("w") + tensor + Pickle.setItem + Pickle.text("w") + tensor
            + Pickle.setItem + Pickle.stop
        #expect(failure { _ = try self.read(pickle) }?.message.contains("describes \"w\" twice") == true)
    }

    @Test func bigEndianDataIsRefused() {
        var builder = ZipBuilder(zip64: false)
        builder.add("model/data.pkl", Pickle.emptyDictionary + Pickle.stop)
        builder.add("model/byteorder", Array("big".utf8))
        let bytes = builder.finish()
        #expect(failure { _ = try TorchReader.read(storage(bytes), path: "memory") }?.code == .unsupported)
    }
}
