// SPDX-License-Identifier: Apache-2.0

internal import TensorKernels

/// What is added to each row of a product, as its chains do not begin with it.
struct RowBias: Sendable {
    /// `[1, columns]`.
    let values: FloatMatrix

    /// Adds the bias to every row.
    ///
    /// - Parameters:
    ///   - rows: `[rows, columns]`, changed in place.
    ///   - scale: What the sums are then multiplied with.
    ///   - pool: Threads that share the rows, where they are many.
    func add(to rows: FloatMatrix, scale: Float = 1, pool: WorkPool) {
        self.add(to: rows.pointer, stride: rows.columns, rows: rows.rows, scale: scale, pool: pool)
    }

    /// Adds the bias to rows that are `stride` floats apart.
    func add(to first: UnsafeMutablePointer<Float>, stride: Int, rows: Int, scale: Float = 1, pool: WorkPool) {
        let columns = self.values.columns
        WorkPool.share(rows, width: columns, among: pool) { range in
            for row in range {
                let target = first + row * stride
                Residual.add(self.values.pointer, to: target, count: columns)
                if scale != 1 { Residual.scale(target, by: scale, count: columns, into: target) }
            }
        }
    }
}
