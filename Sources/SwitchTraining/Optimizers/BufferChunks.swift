// SPDX-License-Identifier: Apache-2.0

internal import CKernels
internal import TensorKernels

/// A buffer's tensors cut into pieces of work.
///
/// Where a piece begins depends on its tensor alone, so sums over pieces are the same for any number of threads, and for any
/// split of the tensors over machines.
struct BufferChunks {
    /// Elements of a piece at most: 64 KiB of each buffer, so that four of them lie in the second-level cache.
    static let elements = 1 << 14

    /// A piece of one tensor.
    struct Chunk {
        /// The tensor's entry in the layout.
        var entry: Int
        /// The first element's place in the buffer.
        var start: Int
        /// How many elements there are, gaps excluded.
        var count: Int
    }

    let chunks: [Chunk]

    /// Cuts a layout's tensors.
    ///
    /// - Parameters:
    ///   - layout: The layout.
    ///   - wanted: For each entry, whether it takes part.
    init(_ layout: ParameterLayout, wanted: [Bool]) {
        var chunks: [Chunk] = []
        for (index, entry) in layout.entries.enumerated() where wanted[index] {
            for start in stride(from: entry.range.lowerBound, to: entry.range.upperBound, by: Self.elements) {
                chunks.append(
                    Chunk(entry: index, start: start, count: min(Self.elements, entry.range.upperBound - start))
                )
            }
        }
        self.chunks = chunks
    }

    /// The sum of squares of each tensor: its pieces' sums, added in their order.
    ///
    /// - Parameters:
    ///   - buffer: The elements, in the layout that was cut.
    ///   - pool: The threads.
    /// - Returns: A number for each entry of the layout; 0 where it takes no part.
    func squares(of buffer: ParameterBuffer, pool: WorkPool) -> [Double] {
        var squares = [Double](repeating: 0, count: buffer.layout.entries.count)
        guard let values = buffer.all.baseAddress else { return squares }
        let chunks = self.chunks
        let partial = [Double](unsafeUninitializedCapacity: chunks.count) { sums, count in
            let sums = Sums(pointer: sums.baseAddress)
            let values = Values(pointer: values)
            pool.run(chunks.count) { range in
                for index in range {
                    let chunk = chunks[index]
                    sums.pointer?[index] = SquareSum.of(values.pointer + chunk.start, count: chunk.count)
                }
            }
            count = chunks.count
        }
        for (chunk, sum) in zip(chunks, partial) {
            squares[chunk.entry] += sum
        }
        return squares
    }

    private struct Sums: @unchecked Sendable {
        // Safety: each thread writes sums of its own chunks.
        let pointer: UnsafeMutablePointer<Double>?
    }

    private struct Values: @unchecked Sendable {
        // Safety: only read.
        let pointer: UnsafePointer<Float>

        init(pointer: UnsafeMutablePointer<Float>) { self.pointer = UnsafePointer(pointer) }
    }
}

/// Sums of squares in float64, in one order.
enum SquareSum {
    /// The sum of squares of some elements: sixteen chains over every sixteenth element, added as a tree.
    ///
    /// - Parameters:
    ///   - values: The first element.
    ///   - count: How many.
    ///   - level: The instruction set; the bits are the same for all.
    /// - Returns: The sum.
    static func of(_ values: UnsafePointer<Float>, count: Int, level: KernelLevel = .best) -> Double {
        ck_square_sum(level.rawValue, values, count)
    }
}
