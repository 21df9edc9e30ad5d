// SPDX-License-Identifier: Apache-2.0

import Testing

@testable import TensorKernels

@Suite("Packed weights in files")
struct StoredMatrixTests {
    /// Memory as a mapped file gives it: at a page's beginning, moved by some bytes.
    private final class Mapping: @unchecked Sendable {
        // Safety: written in init only.
        let bytes: UnsafeMutableRawBufferPointer

        init(_ source: UnsafeRawBufferPointer, offset: Int = 0) {
            self.bytes = .allocate(byteCount: source.count + offset, alignment: 4096)
            self.bytes.baseAddress?.initializeMemory(as: UInt8.self, repeating: 0, count: self.bytes.count)
            UnsafeMutableRawBufferPointer(rebasing: self.bytes[offset...]).copyMemory(from: source)
        }

        deinit { self.bytes.deallocate() }

        func slice(_ range: Range<Int>) -> UnsafeRawBufferPointer {
            UnsafeRawBufferPointer(rebasing: UnsafeRawBufferPointer(self.bytes)[range])
        }
    }

    private func packed(_ outputs: Int, _ inputs: Int, _ dtype: PackedDType) -> PackedMatrix {
        var numbers = NumberSource(seed: 5)
        let weights = numbers.floats(outputs * inputs)
        return weights.withUnsafeBytes {
            PackedMatrix(packing: $0, as: .float32, outputs: outputs, inputs: inputs, dtype: dtype)
        }
    }

    private func product(_ matrix: PackedMatrix, rows: Int) -> [UInt32] {
        var numbers = NumberSource(seed: 6)
        let input = FloatMatrix(numbers.floats(rows * matrix.inputs), rows: rows, columns: matrix.inputs)
        let output = FloatMatrix(rows: rows, columns: matrix.outputs)
        matrix.multiply(input.pointer, rows: rows, into: output.pointer)
        return bits(output.values)
    }

    @Test("used where they lie give the bits that they give in memory", arguments: PackedDType.allCases)
    func sameBits(dtype: PackedDType) throws {
        for (outputs, inputs) in [(1, 1), (31, 5), (33, 17), (130, 64)] {
            let original = self.packed(outputs, inputs, dtype)
            let count = try #require(
                PackedMatrix.storedByteCount(outputs: outputs, inputs: inputs, dtype: dtype)
            )
            #expect(original.stored.count == count)
            #expect(count.isMultiple(of: PackedMatrix.alignment))
            weak var kept: Mapping?
            do {
                let mapping = Mapping(original.stored)
                kept = mapping
                let found = PackedMatrix(
                    stored: mapping.slice(0..<count),
                    owner: mapping,
                    outputs: outputs,
                    inputs: inputs,
                    dtype: dtype
                )
                let matrix = try #require(found)
                #expect(matrix.stored.baseAddress == UnsafeRawPointer(mapping.bytes.baseAddress))
                #expect(matrix.byteCount == original.byteCount)
                for rows in [1, 3, 40] {
                    #expect(self.product(matrix, rows: rows) == self.product(original, rows: rows))
                }
                #expect(kept != nil)
            }
            #expect(kept == nil, "the mapping outlives the matrix")
        }
    }

    @Test("of another size or at another place are refused", arguments: PackedDType.allCases)
    func wrongPlaces(dtype: PackedDType) throws {
        let original = self.packed(40, 20, dtype)
        let count = original.stored.count
        let mapping = Mapping(original.stored, offset: 64)
        func take(_ range: Range<Int>, outputs: Int = 40) -> PackedMatrix? {
            PackedMatrix(stored: mapping.slice(range), owner: mapping, outputs: outputs, inputs: 20, dtype: dtype)
        }
        #expect(take(64..<(64 + count)) != nil)
        #expect(take(64..<(count + 63)) == nil)
        #expect(take(64..<count) == nil)
        #expect(take(60..<(60 + count)) == nil)
        #expect(take(64..<(64 + count), outputs: 65) == nil)
        #expect(take(64..<(64 + count), outputs: 0) == nil)
        #expect(take(64..<(64 + count), outputs: -40) == nil)
        #expect(PackedMatrix.storedByteCount(outputs: .max, inputs: 20, dtype: dtype) == nil)
        #expect(PackedMatrix.storedByteCount(outputs: 20, inputs: .max, dtype: dtype) == nil)
    }

    /// FNV-1a (Fowler, Noll, Vo, https://datatracker.ietf.org/doc/html/draft-eastlake-fnv-17), short enough for a test.
    private func hash(_ bytes: UnsafeRawBufferPointer) -> UInt64 {
        var hash: UInt64 = 0xCBF2_9CE4_8422_2325
        for byte in bytes { hash = (hash ^ UInt64(byte)) &* 0x100_0000_01B3 }
        return hash
    }

    @Test("have the form of their version: whoever changes what is packed raises PackedMatrix.layoutVersion")
    func layout() {
        #expect(PackedMatrix.layoutVersion == 1)
        #expect(PackedMatrix.panelRows == 32)
        let hashes = PackedDType.allCases.map { dtype -> UInt64 in
            // Small integers and halves: the same numbers in every type.
            let weights = (0..<(37 * 9)).map { (index: Int) -> Float in Float((index * 7) % 41) / 2 - 10 }
            let matrix = weights.withUnsafeBytes {
                PackedMatrix(packing: $0, as: .float32, outputs: 37, inputs: 9, dtype: dtype)
            }
            return withExtendedLifetime(matrix) { self.hash(matrix.stored) }
        }
        #expect(hashes == Self.hashes, "\(hashes.map { String($0, radix: 16) })")
    }

    /// What the form of version 1 gives, by type in the order of `PackedDType.allCases`.
    private static let hashes: [UInt64] = [0xC72A_5B74_CB86_151B, 0xD023_B891_27B0_E5BB]
}
