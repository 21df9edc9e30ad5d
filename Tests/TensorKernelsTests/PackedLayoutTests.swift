// SPDX-License-Identifier: Apache-2.0

import SwitchyardTypes
import Testing

@testable import TensorKernels

@Suite("A packed matrix's memory")
struct PackedLayoutTests {
    @Test("is as long as its parts, which start at multiples of 64 bytes")
    func sizes() throws {
        for (outputs, inputs) in [(1, 1), (32, 4), (33, 5), (97, 130)] {
            let panels = (outputs + 31) / 32
            for (dtype, bytes) in [
                (.float32, panels * 32 * inputs * 4), (.bfloat16, panels * 32 * inputs * 2),
                (.int8, panels * 32 * ((inputs + 3) / 4 * 4 + 8)),
            ] as [(DType, Int)] {
                let layout = try #require(PackedLayout(outputs: outputs, inputs: inputs, dtype: dtype))
                #expect(layout.byteCount == bytes)
                #expect(layout.byteCount % 64 == 0 && layout.scalesOffset % 64 == 0)
                #expect(layout.compensationOffset % 64 == 0)
            }
        }
    }

    @Test("does not exist for impossible sizes")
    func impossible() {
        for dtype in DType.packed {
            #expect(PackedLayout(outputs: 0, inputs: 1, dtype: dtype) == nil)
            #expect(PackedLayout(outputs: 1, inputs: 0, dtype: dtype) == nil)
            #expect(PackedLayout(outputs: Int.max, inputs: 1, dtype: dtype) == nil)
            #expect(PackedLayout(outputs: Int.max / 64, inputs: 131_072, dtype: dtype) == nil)
        }
        #expect(PackedLayout(outputs: 1, inputs: 131_072, dtype: .int8) != nil)
        #expect(PackedLayout(outputs: 1, inputs: 131_073, dtype: .int8) == nil)
        #expect(PackedLayout(outputs: 1, inputs: 131_073, dtype: .bfloat16) != nil)
    }

    @Test("has int8 weights, scales and compensation where the layout says")
    func int8() throws {
        let matrix = PackedMatrix([127, -64, 2.5, 0, 1.5, 0, 0, 0, -127, 0], outputs: 2, inputs: 5)
        let bytes = matrix.bytes
        #expect(bytes.count == 32 * 8 + 2 * 128)
        // 2.5 and 1.5 are ties.
        let signed = bytes.map { Int8(bitPattern: $0) }
        #expect(Array(signed[0..<8]) == [127, -64, 2, 0, 0, 0, 0, -127])
        #expect(Array(signed[128..<136]) == [2, 0, 0, 0, 0, 0, 0, 0])
        #expect(signed[8..<128].allSatisfy { $0 == 0 } && signed[136..<256].allSatisfy { $0 == 0 })
        #expect(Array(UnsafeBufferPointer(start: matrix.scales, count: 3)) == [1, 1, 0])
        let compensation = Array(UnsafeBufferPointer(start: matrix.compensation, count: 3))
        #expect(compensation == [-128 * 67, 128 * 127, 0])
    }

    @Test("is nil for types that weights are not packed in", arguments: DType.allCases.filter { !$0.isPacked })
    func unpacked(dtype: DType) {
        #expect(PackedLayout(outputs: 32, inputs: 8, dtype: dtype) == nil)
    }

    @Test("is the same on every path that packs it", arguments: DType.packed)
    func packing(dtype: DType) {
        var numbers = NumberSource(seed: 31)
        let (inputs, outputs) = (600, 70)
        let weights = numbers.floats(outputs * inputs).map { Float(bitPattern: $0.bitPattern & 0xFFFF_0000) }
        let alone = PackedMatrix(weights, outputs: outputs, inputs: inputs, dtype: dtype)
        let pool = WorkPool(threads: 3)
        let shared = PackedMatrix(weights, outputs: outputs, inputs: inputs, dtype: dtype, pool: pool)
        #expect(alone.bytes == shared.bytes)
        let narrow = PackedMatrix(
            bfloat16Bytes(weights),
            as: .bfloat16,
            outputs: outputs,
            inputs: inputs,
            dtype: dtype
        )
        #expect(alone.bytes == narrow.bytes)
        let halves = weights.map { Float16($0) }
        let half = PackedMatrix(
            halves.withUnsafeBytes { Array($0) },
            as: .float16,
            outputs: outputs,
            inputs: inputs,
            dtype: dtype
        )
        let widened = PackedMatrix(halves.map { Float($0) }, outputs: outputs, inputs: inputs, dtype: dtype)
        #expect(half.bytes == widened.bytes)
    }

    /// Memory that a matrix is told to use.
    private final class Block: @unchecked Sendable {
        // Safety: written before it is shared.
        let buffer: UnsafeMutableRawBufferPointer

        init(byteCount: Int) {
            self.buffer = .allocate(byteCount: byteCount, alignment: 64)
        }

        deinit {
            self.buffer.deallocate()
        }
    }

    @Test("can be written to a file and used in place", arguments: DType.packed)
    func adopting(dtype: DType) throws {
        var numbers = NumberSource(seed: 32)
        let (inputs, outputs) = (21, 45)
        let matrix = PackedMatrix(numbers.floats(outputs * inputs), outputs: outputs, inputs: inputs, dtype: dtype)
        let count = matrix.byteCount
        var block = Block(byteCount: count + 64)
        matrix.withUnsafeBytes { block.buffer.copyMemory(from: $0) }
        let buffer = block.buffer
        let bytes = UnsafeRawBufferPointer(rebasing: buffer.prefix(count))
        let short = UnsafeRawBufferPointer(rebasing: buffer.prefix(count - 1))
        let shifted = UnsafeRawBufferPointer(rebasing: buffer[32..<32 + count])
        #expect(PackedMatrix(adopting: short, layout: matrix.layout, owner: block) == nil)
        #expect(PackedMatrix(adopting: shifted, layout: matrix.layout, owner: block) == nil)
        var adopted = PackedMatrix(adopting: bytes, layout: matrix.layout, owner: block)
        let shared = isKnownUniquelyReferenced(&block)
        #expect(!shared, "the matrix keeps its memory")
        let x = numbers.floats(3 * inputs)
        let y = try #require(adopted).product(x, rows: 3)
        #expect(bits(y) == bits(matrix.product(x, rows: 3)))
        adopted = nil
        let unique = isKnownUniquelyReferenced(&block)
        #expect(unique, "and lets go of it")
    }

    @Test("for quantised inputs is taken from the shelf again, unless it is very large")
    func scratch() {
        let shelf = ScratchShelf()
        let first = shelf.take()
        let start = first.reserve(1000)
        shelf.giveBack(first)
        let second = shelf.take()
        #expect(second === first)
        #expect(second.reserve(900) == start && second.start == UnsafeRawPointer(start))
        let other = shelf.take()
        #expect(other !== first)
        _ = other.reserve(65 << 20)
        shelf.giveBack(other)
        shelf.giveBack(second)
        #expect(shelf.take() === first)
        #expect(shelf.take() !== other)
    }
}
