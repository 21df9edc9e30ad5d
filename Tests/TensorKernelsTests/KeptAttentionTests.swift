// SPDX-License-Identifier: Apache-2.0

import SwitchyardTypes
import Testing

@testable import TensorKernels

@Suite("Attention over kept keys and values")
struct KeptAttentionTests {
    /// Some tokens' keys and values, in pages of some tokens.
    private struct Kept {
        let pages: [TypedRows]
        let addresses: [UnsafeRawPointer?]
        let pageTokens: Int
        let type: DType
        let width: Int

        init(keys: FloatMatrix, values: FloatMatrix, pageTokens: Int, type: DType) {
            let count = (keys.rows + pageTokens - 1) / pageTokens
            self.pages = (0..<count)
                .map { page in
                    let rows = TypedRows(uninitializedRows: 2 * pageTokens, columns: keys.columns, type: type)
                    for token in 0..<min(pageTokens, keys.rows - page * pageTokens) {
                        let source = (page * pageTokens + token) * keys.columns
                        rows.write(keys.pointer + source, row: token)
                        rows.write(values.pointer + source, row: pageTokens + token)
                    }
                    return rows
                }
            self.addresses = self.pages.map { UnsafeRawPointer($0.address(row: 0)) }
            self.pageTokens = pageTokens
            self.type = type
            self.width = keys.columns
        }

        /// The contexts of queries, in rows of a width and three floats more.
        func contexts(
            _ queries: FloatMatrix,
            tokens: Range<Int>,
            keys: Int,
            step: Int,
            bias: FloatMatrix?,
            level: KernelLevel
        ) -> [UInt32] {
            let output = FloatMatrix(rows: queries.rows, columns: queries.columns)
            let most = keys + (queries.rows - 1) * step
            let scratch = FloatMatrix(rows: 1, columns: KeptAttention.scratchFloats(keys: most))
            self.addresses.withUnsafeBufferPointer { pages in
                guard let first = pages.baseAddress else { return }
                KeptAttention.attend(
                    KeptHead(
                        keyPages: first,
                        valuePages: first,
                        keyOffset: 0,
                        valueOffset: self.pageTokens * self.width * self.type.byteCount,
                        pageTokens: self.pageTokens,
                        type: self.type,
                        width: self.width
                    ),
                    queries: queries.pointer + tokens.lowerBound * queries.columns,
                    stride: queries.columns,
                    count: tokens.count,
                    keys: keys + tokens.lowerBound * step,
                    step: step,
                    bias: bias.map { UnsafePointer($0.pointer + queries.rows - 1 - tokens.lowerBound) },
                    scratch: scratch.pointer,
                    into: output.pointer + tokens.lowerBound * queries.columns,
                    level: level
                )
            }
            return tokens.flatMap { bits(Array(output.row($0).prefix(self.width))) }
        }
    }

    /// The bits of one query's context: sums of sixteen lanes, which are added as a tree, then one chain for each element.
    private func expected(
        _ query: [Float],
        keys: FloatMatrix,
        values: FloatMatrix,
        count: Int,
        bias: (Int) -> Float?
    ) -> [UInt32] {
        var scores = (0..<count)
            .map { key -> Float in
                var lanes = [Float](repeating: 0, count: 16)
                for index in query.indices {
                    lanes[index % 16] = lanes[index % 16].addingProduct(query[index], keys.row(key)[index])
                }
                while lanes.count > 1 {
                    let half = lanes.count / 2
                    lanes = (0..<half).map { lanes[$0] + lanes[$0 + half] }
                }
                return bias(key).map { lanes[0] + $0 } ?? lanes[0]
            }
        scores.withUnsafeMutableBufferPointer { buffer in
            if let base = buffer.baseAddress { Softmax.apply(base, count: count, level: .scalar) }
        }
        return bits(
            query.indices.map { element in
                (0..<count).reduce(Float(0)) { $0.addingProduct(scores[$1], values.row($1)[element]) }
            }
        )
    }

    @Test(
        "has the bits of its formula, at every level and type, together or alone, in pages or whole",
        arguments: [4, 16, 36, 64, 80],
        [(keys: 1, step: 1), (keys: 21, step: 1), (keys: 37, step: 0)]
    )
    func formula(width: Int, seen: (keys: Int, step: Int)) {
        var numbers = NumberSource(seed: UInt64(width + seen.keys))
        let count = 7
        let tokens = seen.keys + (count - 1) * seen.step
        let queries = FloatMatrix(numbers.floats(count * (width + 3)), rows: count, columns: width + 3)
        // Numbers that are bfloat16 already: both types hold the same ones then, and must give the same bits.
        func rows() -> FloatMatrix {
            let halves = numbers.floats(tokens * width).map { Float(bitPattern: $0.bitPattern & 0xFFFF_0000) }
            return FloatMatrix(halves, rows: tokens, columns: width)
        }
        let (keys, values) = (rows(), rows())
        let biases = FloatMatrix(numbers.floats(count + tokens), rows: 1, columns: count + tokens)
        for bias in [biases, nil] {
            let wanted = (0..<count)
                .map { query in
                    self.expected(
                        Array(queries.row(query).prefix(width)),
                        keys: keys,
                        values: values,
                        count: seen.keys + query * seen.step,
                        bias: { key in bias.map { $0.pointer[count - 1 - query + key] } }
                    )
                }
            for pageTokens in [5, 16, tokens] {
                for type in DType.rows {
                    let kept = Kept(keys: keys, values: values, pageTokens: pageTokens, type: type)
                    for (level, part) in KernelLevel.available.flatMap({ [($0, 0..<7), ($0, 0..<4), ($0, 3..<4)] }) {
                        let found = kept.contexts(
                            queries,
                            tokens: part,
                            keys: seen.keys,
                            step: seen.step,
                            bias: bias,
                            level: level
                        )
                        let name = "\(level.name), \(type), pages of \(pageTokens), queries \(part)"
                        #expect(found == wanted[part].flatMap { $0 }, "\(name)")
                    }
                }
            }
        }
    }

    @Test("a score that is not a number shows in its query's context alone")
    func notNumbers() {
        let keys = FloatMatrix([Float](repeating: 1, count: 16 * 20), rows: 20, columns: 16)
        let kept = Kept(keys: keys, values: keys, pageTokens: 16, type: .float32)
        let queries = FloatMatrix(rows: 4, columns: 16)
        queries.pointer[2 * 16 + 3] = .nan
        for level in KernelLevel.available {
            let found = kept.contexts(queries, tokens: 0..<4, keys: 17, step: 1, bias: nil, level: level)
                .map { Float(bitPattern: $0).isNaN }
            #expect(found == (0..<64).map { $0 / 16 == 2 })
        }
    }
}
