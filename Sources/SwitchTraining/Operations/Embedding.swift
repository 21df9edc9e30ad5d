// SPDX-License-Identifier: Apache-2.0

internal import TensorKernels

/// Gradients of the embedding's rows that a stack's tokens touched; not a copy of the whole table.
final class RowSums {
    private let columns: Int
    private var places: [Int32: Int] = [:]
    private var values: [Float] = []

    init(columns: Int) {
        self.columns = columns
    }

    func clear() {
        self.places.removeAll(keepingCapacity: true)
        self.values.removeAll(keepingCapacity: true)
    }

    /// Adds rows to their tokens' sums, ascending by row.
    func add(_ rows: Rows, tokens: [Int32], pool: WorkPool) {
        var slots: [Int] = []
        slots.reserveCapacity(tokens.count)
        for token in tokens {
            if let place = self.places[token] {
                slots.append(place)
            } else {
                slots.append(self.places.count)
                self.places[token] = self.places.count
            }
        }
        let missing = self.places.count * self.columns - self.values.count
        self.values.append(contentsOf: repeatElement(0, count: missing))
        let columns = self.columns
        self.values.withUnsafeMutableBufferPointer { values in
            guard let base = values.baseAddress else { return }
            // Threads take columns, so that each sum runs over the rows in order.
            WorkPool.share(columns, width: rows.count, among: pool) { range in
                for row in 0..<rows.count {
                    let target = base + slots[row] * columns
                    let source = rows.row(row)
                    for column in range { target[column] += source[column] }
                }
            }
        }
    }

    /// Adds the sums to a table, ascending by token.
    func add(to table: UnsafeMutablePointer<Float>) {
        for (token, place) in self.places.sorted(by: { $0.key < $1.key }) {
            let target = table + Int(token) * self.columns
            for column in 0..<self.columns { target[column] += self.values[place * self.columns + column] }
        }
    }
}

/// Looks tokens up in the embedding; the backward pass adds each row's gradient to its token's.
enum Embedding {
    static func forward(_ run: PartRun, _ weight: Weight, tokens: [Int32], into output: Rows) {
        let table = run.weights.start(weight.index)
        for (row, token) in tokens.enumerated() {
            output.row(row).update(from: table + Int(token) * weight.inputs, count: weight.inputs)
        }
    }
}
