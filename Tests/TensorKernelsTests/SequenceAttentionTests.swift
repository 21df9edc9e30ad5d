// SPDX-License-Identifier: Apache-2.0

import Testing

@testable import TensorKernels

@Suite("Attention over a whole sequence")
struct SequenceAttentionTests {
    /// The bits of one query's context, by one chain for each score and for each element.
    private func expected(
        _ query: ArraySlice<Float>,
        keys: FloatMatrix,
        values: FloatMatrix,
        width: Int,
        bias: (Int) -> Float?
    ) -> [UInt32] {
        var scores = (0..<keys.rows)
            .map { key -> Float in
                let sum = zip(query, keys.row(key)).reduce(Float(0)) { $0.addingProduct($1.0, $1.1) }
                return bias(key).map { sum + $0 } ?? sum
            }
        scores.withUnsafeMutableBufferPointer { buffer in
            if let base = buffer.baseAddress { Softmax.apply(base, count: keys.rows, level: .scalar) }
        }
        return bits(
            (0..<width)
                .map { element in
                    (0..<keys.rows).reduce(Float(0)) { $0.addingProduct(scores[$1], values.row($1)[element]) }
                }
        )
    }

    @Test(
        "has the bits of its formula, at every level, whichever queries are computed together",
        arguments: [1, 6, 64, 80],
        [1, 17, 64, 200]
    )
    func formula(width: Int, length: Int) {
        var numbers = NumberSource(seed: UInt64(width * 1_000 + length))
        let stride = width + 5
        func rows() -> FloatMatrix {
            FloatMatrix(numbers.floats(length * stride), rows: length, columns: stride)
        }
        let (queries, keys, values) = (rows(), rows(), rows())
        let biases = FloatMatrix(numbers.floats(2 * length), rows: 1, columns: 2 * length)
        let floats = SequenceAttention.scratchFloats(queries: length, keys: length, width: width)
        let scratch = FloatMatrix(rows: 1, columns: floats)
        let asked = Set([0, length / 2, length - 1]).sorted()
        for bias in [biases, nil] {
            let wanted = asked.map { query in
                self.expected(
                    Array(queries.row(query)).prefix(width),
                    keys: keys,
                    values: values,
                    width: width,
                    bias: { key in bias.map { $0.pointer[length - 1 - query + key] } }
                )
            }
            let blocks = length > 64 ? [61, length] : [1, 5, length]
            for (level, block) in KernelLevel.available.flatMap({ level in blocks.map { (level, $0) } }) {
                let output = FloatMatrix(rows: length, columns: stride)
                scratch.pointer.update(repeating: .nan, count: floats)
                let attention = SequenceAttention(
                    keys: keys.pointer,
                    values: values.pointer,
                    count: length,
                    stride: stride,
                    width: width,
                    scratch: scratch.pointer
                )
                for first in Swift.stride(from: 0, to: length, by: block) {
                    attention.attend(
                        queries.pointer + first * stride,
                        count: min(block, length - first),
                        bias: bias.map { UnsafePointer($0.pointer + length - 1 - first) },
                        into: output.pointer + first * stride,
                        level: level
                    )
                }
                let found = asked.map { bits(Array(output.row($0).prefix(width))) }
                #expect(found == wanted, "\(level.name), \(block) queries at a time")
                // What lies between the rows is another head's.
                #expect(output.row(0).suffix(5).allSatisfy { $0 == 0 })
            }
        }
    }
}
