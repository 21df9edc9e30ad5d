// SPDX-License-Identifier: Apache-2.0

import Foundation

/// Reverse-mode differentiation of small matrices in float64, written for being obvious: what training's gradients are
/// compared with.
final class Tape {
    /// A matrix that was computed, and its gradient.
    final class Value {
        let rows: Int
        let columns: Int
        var data: [Double]
        var gradient: [Double]
        fileprivate let back: (Value) -> Void

        fileprivate init(_ rows: Int, _ columns: Int, _ data: [Double], _ back: @escaping (Value) -> Void) {
            precondition(data.count == rows * columns)
            self.rows = rows
            self.columns = columns
            self.data = data
            self.gradient = Array(repeating: 0, count: data.count)
            self.back = back
        }

        subscript(row: Int, column: Int) -> Double { self.data[row * self.columns + column] }
    }

    private var values: [Value] = []

    private func record(_ rows: Int, _ columns: Int, _ data: [Double], _ back: @escaping (Value) -> Void) -> Value {
        let value = Value(rows, columns, data, back)
        self.values.append(value)
        return value
    }

    /// Computes the gradients of a single number with respect to everything.
    func backward(_ loss: Value) {
        precondition(loss.data.count == 1)
        loss.gradient[0] = 1
        for value in self.values.reversed() { value.back(value) }
    }

    func leaf(_ rows: Int, _ columns: Int, _ data: [Double]) -> Value {
        self.record(rows, columns, data) { _ in }
    }

    /// `a b`, or `a b^T`.
    func product(_ a: Value, _ b: Value, transposed: Bool = false) -> Value {
        let columns = transposed ? b.rows : b.columns
        precondition(a.columns == (transposed ? b.columns : b.rows))
        func place(_ k: Int, _ column: Int) -> Int { transposed ? column * b.columns + k : k * b.columns + column }
        var data = [Double](repeating: 0, count: a.rows * columns)
        for row in 0..<a.rows {
            for column in 0..<columns {
                for k in 0..<a.columns {
                    data[row * columns + column] += a[row, k] * b.data[place(k, column)]
                }
            }
        }
        return self.record(a.rows, columns, data) { value in
            for row in 0..<a.rows {
                for column in 0..<columns {
                    let gradient = value.gradient[row * columns + column]
                    for k in 0..<a.columns {
                        a.gradient[row * a.columns + k] += gradient * b.data[place(k, column)]
                        b.gradient[place(k, column)] += gradient * a[row, k]
                    }
                }
            }
        }
    }

    func add(_ a: Value, _ b: Value) -> Value {
        precondition(a.data.count == b.data.count)
        return self.record(a.rows, a.columns, zip(a.data, b.data).map(+)) { value in
            for index in value.gradient.indices {
                a.gradient[index] += value.gradient[index]
                b.gradient[index] += value.gradient[index]
            }
        }
    }

    /// `a b`, element by element.
    func multiply(_ a: Value, _ b: Value) -> Value {
        precondition(a.data.count == b.data.count)
        return self.record(a.rows, a.columns, zip(a.data, b.data).map(*)) { value in
            for index in value.gradient.indices {
                a.gradient[index] += value.gradient[index] * b.data[index]
                b.gradient[index] += value.gradient[index] * a.data[index]
            }
        }
    }

    func scale(_ a: Value, _ factor: Double) -> Value {
        self.record(a.rows, a.columns, a.data.map { $0 * factor }) { value in
            for index in value.gradient.indices { a.gradient[index] += value.gradient[index] * factor }
        }
    }

    /// `f(x)`, given the derivative.
    func map(_ a: Value, _ f: @escaping (Double) -> Double, slope: @escaping (Double) -> Double) -> Value {
        self.record(a.rows, a.columns, a.data.map(f)) { value in
            for index in value.gradient.indices { a.gradient[index] += value.gradient[index] * slope(a.data[index]) }
        }
    }

    /// Rows by index; those at -1 are zeros.
    func rows(_ a: Value, _ indices: [Int]) -> Value {
        let data = indices.flatMap { row in
            row < 0
                ? Array(repeating: 0, count: a.columns) : Array(a.data[row * a.columns..<(row + 1) * a.columns])
        }
        return self.record(indices.count, a.columns, data) { value in
            for (row, source) in indices.enumerated() where source >= 0 {
                for column in 0..<a.columns {
                    a.gradient[source * a.columns + column] += value.gradient[row * a.columns + column]
                }
            }
        }
    }

    func columns(_ a: Value, _ range: Range<Int>) -> Value {
        let data = (0..<a.rows).flatMap { row in range.map { a[row, $0] } }
        return self.record(a.rows, range.count, data) { value in
            for row in 0..<a.rows {
                for (index, column) in range.enumerated() {
                    a.gradient[row * a.columns + column] += value.gradient[row * range.count + index]
                }
            }
        }
    }

    /// Matrices side by side.
    func beside(_ parts: [Value]) -> Value {
        let columns = parts.reduce(0) { $0 + $1.columns }
        let rows = parts[0].rows
        let data = (0..<rows).flatMap { row in parts.flatMap { part in (0..<part.columns).map { part[row, $0] } } }
        return self.record(rows, columns, data) { value in
            var start = 0
            for part in parts {
                for row in 0..<rows {
                    for column in 0..<part.columns {
                        part.gradient[row * part.columns + column] += value.gradient[row * columns + start + column]
                    }
                }
                start += part.columns
            }
        }
    }

    /// Matrices one below the other.
    func below(_ parts: [Value]) -> Value {
        let rows = parts.reduce(0) { $0 + $1.rows }
        return self.record(rows, parts[0].columns, parts.flatMap(\.data)) { value in
            var start = 0
            for part in parts {
                for index in part.gradient.indices { part.gradient[index] += value.gradient[start + index] }
                start += part.gradient.count
            }
        }
    }

    /// Each row's softmax; elements of minus infinity become 0.
    func softmax(_ a: Value) -> Value {
        var data = a.data
        for row in 0..<a.rows {
            let range = row * a.columns..<(row + 1) * a.columns
            let most = data[range].max() ?? 0
            let sum = data[range].reduce(0) { $0 + exp($1 - most) }
            for index in range { data[index] = exp(data[index] - most) / sum }
        }
        return self.record(a.rows, a.columns, data) { value in
            for row in 0..<a.rows {
                let range = row * a.columns..<(row + 1) * a.columns
                let mean = range.reduce(0.0) { $0 + value.data[$1] * value.gradient[$1] }
                for index in range { a.gradient[index] += value.data[index] * (value.gradient[index] - mean) }
            }
        }
    }

    /// Each row's `log(sum exp)`, as a column.
    func normalizers(_ a: Value) -> Value {
        let data = (0..<a.rows)
            .map { row in
                let values = a.data[row * a.columns..<(row + 1) * a.columns]
                let most = values.max() ?? 0
                return most + log(values.reduce(0) { $0 + exp($1 - most) })
            }
        return self.record(a.rows, 1, data) { value in
            for row in 0..<a.rows {
                for column in 0..<a.columns {
                    let probability = exp(a[row, column] - value.data[row])
                    a.gradient[row * a.columns + column] += value.gradient[row] * probability
                }
            }
        }
    }

    /// Each row normalised: `w x / sqrt(mean(x^2) + epsilon)`.
    func norm(_ a: Value, _ weight: Value, epsilon: Double) -> Value {
        let inverse = self.record(
            a.rows,
            1,
            (0..<a.rows)
                .map { row in
                    let mean = (0..<a.columns).reduce(0.0) { $0 + a[row, $1] * a[row, $1] } / Double(a.columns)
                    return 1 / (mean + epsilon).squareRoot()
                }
        ) { value in
            for row in 0..<a.rows {
                let cube = value.data[row] * value.data[row] * value.data[row]
                for column in 0..<a.columns {
                    a.gradient[row * a.columns + column] -=
                        value.gradient[row] * cube * a[row, column] / Double(a.columns)
                }
            }
        }
        return self.multiply(self.columnTimes(a, inverse), self.rows(weight, Array(repeating: 0, count: a.rows)))
    }

    /// Row `r` of `a` times element `r` of a column.
    func columnTimes(_ a: Value, _ column: Value) -> Value {
        self.multiply(a, self.product(column, self.leaf(1, a.columns, Array(repeating: 1, count: a.columns))))
    }

    /// Elements by index, as a column.
    func elements(_ a: Value, _ indices: [Int]) -> Value {
        self.record(indices.count, 1, indices.map { a.data[$0] }) { value in
            for (row, index) in indices.enumerated() { a.gradient[index] += value.gradient[row] }
        }
    }

    /// The same elements in another shape.
    func reshape(_ a: Value, _ rows: Int, _ columns: Int) -> Value {
        self.record(rows, columns, a.data) { value in
            for index in a.gradient.indices { a.gradient[index] += value.gradient[index] }
        }
    }

    /// The sum of all elements, each with a weight.
    func sum(_ a: Value, weights: [Double]? = nil) -> Value {
        let weights = weights ?? Array(repeating: 1, count: a.data.count)
        return self.record(1, 1, [zip(a.data, weights).reduce(0) { $0 + $1.0 * $1.1 }]) { value in
            for index in a.gradient.indices { a.gradient[index] += value.gradient[0] * weights[index] }
        }
    }
}
