// SPDX-License-Identifier: Apache-2.0

internal import CKernels

/// Sums that join a sublayer's output to the residual.
public enum Residual {
    /// `output = residual + update`, element by element.
    ///
    /// - Parameters:
    ///   - residual: The sublayer's input, any shape.
    ///   - update: The sublayer's output, of the same shape.
    ///   - pool: Threads that share the rows, where they are many.
    /// - Returns: A new matrix of that shape.
    public static func add(_ residual: FloatMatrix, _ update: FloatMatrix, pool: WorkPool? = nil) -> FloatMatrix {
        precondition(residual.rows == update.rows && residual.columns == update.columns, "shapes differ")
        let output = FloatMatrix.temporary(rows: residual.rows, columns: residual.columns)
        let columns = residual.columns
        WorkPool.share(residual.rows, width: columns, among: pool) { rows in
            let offset = rows.lowerBound * columns
            ck_add(residual.pointer + offset, update.pointer + offset, rows.count * columns, output.pointer + offset)
        }
        return output
    }

    /// `target += update`, element by element.
    ///
    /// - Parameters:
    ///   - update: `count` floats.
    ///   - target: `count` floats, to which the update is added.
    ///   - count: Number of elements.
    public static func add(_ update: UnsafePointer<Float>, to target: UnsafeMutablePointer<Float>, count: Int) {
        ck_add(target, update, count, target)
    }

    /// `output = residual + scale * update` for one row, the product rounded before the sum.
    ///
    /// - Parameters:
    ///   - residual: `count` floats.
    ///   - update: `count` floats; need not be aligned.
    ///   - scale: The factor.
    ///   - count: Number of elements.
    ///   - output: Room for `count` floats; may be `residual` itself.
    public static func addScaled(
        _ residual: UnsafePointer<Float>,
        _ update: UnsafeRawPointer,
        scale: Float,
        count: Int,
        into output: UnsafeMutablePointer<Float>
    ) {
        ck_scale_add(residual, update, scale, count, output)
    }

    /// `output = scale * input`, element by element.
    ///
    /// - Parameters:
    ///   - input: `count` floats.
    ///   - scale: The factor.
    ///   - count: Number of elements.
    ///   - output: Room for `count` floats; may be the input itself.
    public static func scale(
        _ input: UnsafePointer<Float>,
        by scale: Float,
        count: Int,
        into output: UnsafeMutablePointer<Float>
    ) {
        ck_scale(input, scale, count, output)
    }
}
