// SPDX-License-Identifier: Apache-2.0

internal import CKernels
internal import TensorKernels

/// One tensor's step of Adafactor: three passes over its rows.
///
/// Rows are cut into blocks by the tensor's shape alone. Sums of a block are float64 numbers, which are added in the blocks'
/// order.
struct AdafactorUpdate: @unchecked Sendable {
    // Safety: threads write disjoint rows, and read what no thread writes meanwhile.

    let weights: UnsafeMutablePointer<Float>
    let gradients: UnsafePointer<Float>
    let rows: Int
    let columns: Int
    let gradientScale: Float
    let squareEpsilon: Float
    let level: KernelLevel

    /// What the first pass gives.
    struct Sums {
        /// The mean of each row's squared gradients.
        var rowMeans: [Float]
        /// The mean of each column's.
        var columnMeans: [Float]
        /// The sum of the squared weights.
        var weightSquares: Double
    }

    /// What a gradient is multiplied with: the row's factor times the column's.
    struct Factors {
        var rows: [Float]
        var columns: [Float]
    }

    /// Rows of a block: at least 64, and more where there would be over 256 blocks.
    private var blockRows: Int { max(64, (self.rows + 255) / 256) }

    private var blockCount: Int { (self.rows + self.blockRows - 1) / self.blockRows }

    private func block(_ index: Int) -> Range<Int> {
        (index * self.blockRows)..<min(self.rows, (index + 1) * self.blockRows)
    }

    /// A place that each block writes for itself.
    private struct Shared<Element>: @unchecked Sendable {
        // Safety: each block writes its own elements.
        let pointer: UnsafeMutablePointer<Element>

        init(_ count: Int, _ value: Element) {
            self.pointer = .allocate(capacity: count)
            self.pointer.initialize(repeating: value, count: count)
        }

        func take(_ count: Int) -> [Element] {
            let values = Array(UnsafeBufferPointer(start: self.pointer, count: count))
            self.pointer.deallocate()
            return values
        }
    }

    /// The first pass: means of squared gradients by row and column, and the sum of squared weights.
    func gather(pool: WorkPool) -> Sums {
        let rowMeans = Shared<Float>(self.rows, 0)
        let columnSums = Shared<Double>(self.blockCount * self.columns, 0)
        let weightSquares = Shared<Double>(self.blockCount, 0)
        WorkPool.share(self.blockCount, width: self.blockRows * self.columns, among: pool) { range in
            for block in range {
                let sums = columnSums.pointer + block * self.columns
                for row in self.block(block) {
                    let start = row * self.columns
                    weightSquares.pointer[block] += SquareSum.of(
                        self.weights + start,
                        count: self.columns,
                        level: self.level
                    )
                    let squares = ck_adafactor_gather(
                        self.level.rawValue,
                        self.gradients + start,
                        self.gradientScale,
                        self.squareEpsilon,
                        self.columns,
                        sums
                    )
                    rowMeans.pointer[row] = Float(squares / Double(self.columns))
                }
            }
        }
        var totals = [Double](repeating: 0, count: self.columns)
        for block in 0..<self.blockCount {
            for column in 0..<self.columns {
                totals[column] += columnSums.pointer[block * self.columns + column]
            }
        }
        columnSums.pointer.deallocate()
        let squares = weightSquares.take(self.blockCount).reduce(0, +)
        let columnMeans = totals.map { Float($0 / Double(self.rows)) }
        return Sums(rowMeans: rowMeans.take(self.rows), columnMeans: columnMeans, weightSquares: squares)
    }

    private func square(_ gradient: Float) -> Float {
        let scaled = gradient * self.gradientScale
        return scaled * scaled + self.squareEpsilon
    }

    /// Moves means towards new ones.
    func average(_ means: inout [Float], _ new: [Float], keep: (kept: Float, share: Float)) {
        for index in means.indices {
            means[index] = means[index] * keep.kept + new[index] * keep.share
        }
    }

    /// Moves a vector's mean squares towards the squared gradients.
    ///
    /// - Returns: The sum of the squared weights.
    func average(_ squares: inout [Float], keep: (kept: Float, share: Float)) -> Double {
        for index in squares.indices {
            squares[index] = squares[index] * keep.kept + self.square(self.gradients[index]) * keep.share
        }
        return SquareSum.of(self.weights, count: self.columns, level: self.level)
    }

    /// The second pass: the sum of the squared updates, before the learning rate.
    func squares(_ factors: Factors, pool: WorkPool) -> Double {
        let sums = Shared<Double>(self.blockCount, 0)
        factors.columns.withUnsafeBufferPointer { columns in
            let columns = Constants(columns)
            WorkPool.share(self.blockCount, width: self.blockRows * self.columns, among: pool) { range in
                for block in range {
                    for row in self.block(block) {
                        sums.pointer[block] += ck_adafactor_squares(
                            self.level.rawValue,
                            self.gradients + row * self.columns,
                            columns.pointer.baseAddress,
                            factors.rows[row],
                            self.gradientScale,
                            self.columns
                        )
                    }
                }
            }
        }
        return sums.take(self.blockCount).reduce(0, +)
    }

    private struct Constants: @unchecked Sendable {
        // Safety: only read.
        let pointer: UnsafeBufferPointer<Float>

        init(_ pointer: UnsafeBufferPointer<Float>) { self.pointer = pointer }
    }

    /// The third pass: new weights.
    ///
    /// - Parameters:
    ///   - factors: What gradients are multiplied with.
    ///   - divisor: What clips the update.
    ///   - rate: The learning rate.
    ///   - keep: What is left of a weight after its decay.
    ///   - pool: The threads.
    func apply(_ factors: Factors, divisor: Float, rate: Float, keep: Float, pool: WorkPool) {
        factors.columns.withUnsafeBufferPointer { columns in
            let columns = Constants(columns)
            WorkPool.share(self.rows, width: self.columns, among: pool) { range in
                for row in range {
                    ck_adafactor_apply(
                        self.level.rawValue,
                        self.weights + row * self.columns,
                        self.gradients + row * self.columns,
                        columns.pointer.baseAddress,
                        factors.rows[row],
                        self.gradientScale,
                        divisor,
                        rate,
                        keep,
                        self.columns
                    )
                }
            }
        }
    }
}

extension AdafactorUpdate.Factors {
    /// The factors of a matrix: `1 / sqrt(row / mean of rows)` and `1 / sqrt(column)`.
    ///
    /// - Parameters:
    ///   - rowMeans: The rows' mean squares.
    ///   - columnMeans: The columns'.
    init(rowMeans: [Float], columnMeans: [Float]) {
        let mean = Float(rowMeans.reduce(0.0) { $0 + Double($1) } / Double(rowMeans.count))
        self.init(
            rows: rowMeans.map { 1 / ($0 / mean).squareRoot() },
            columns: columnMeans.map { 1 / $0.squareRoot() }
        )
    }
}
