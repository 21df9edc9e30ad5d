// SPDX-License-Identifier: Apache-2.0

import COpenBLAS

/// Products through OpenBLAS, on the calling thread: what benchmarks compare the project's own products with.
///
/// OpenBLAS chooses its summation order by the shape of the product and by the processor. So it computes nothing of a model, and
/// only this program links it.
enum OpenBLAS {
    private static let singleThreaded: Void = openblas_set_num_threads(1)

    /// Makes OpenBLAS compute on the calling thread only.
    private static func prepare() {
        _ = self.singleThreaded
    }

    /// Which of its kernel families it chose for this processor: `SkylakeX`.
    static var kernels: String {
        self.prepare()
        return openblas_get_corename().map { String(cString: $0) } ?? "unknown"
    }

    /// `output[m, n] = left[m, k] * right[n, k]^T`, float32, row-major with explicit row strides.
    ///
    /// - Parameters:
    ///   - left: `m` rows of `k` elements.
    ///   - leftStride: Elements between the starts of two rows of `left`.
    ///   - right: `n` rows of `k` elements.
    ///   - rightStride: Elements between the starts of two rows of `right`.
    ///   - output: `m` rows of `n` elements; overwritten.
    ///   - outputStride: Elements between the starts of two rows of `output`.
    ///   - m: Rows of the result.
    ///   - n: Columns of the result.
    ///   - k: Length of each sum.
    static func multiplyTransposed(
        _ left: UnsafePointer<Float>,
        leftStride: Int,
        _ right: UnsafePointer<Float>,
        rightStride: Int,
        into output: UnsafeMutablePointer<Float>,
        outputStride: Int,
        m: Int,
        n: Int,
        k: Int
    ) {
        self.prepare()
        cblas_sgemm(
            CblasRowMajor,
            CblasNoTrans,
            CblasTrans,
            blasint(m),
            blasint(n),
            blasint(k),
            1,
            left,
            blasint(leftStride),
            right,
            blasint(rightStride),
            0,
            output,
            blasint(outputStride)
        )
    }

    /// `output[n] = right[n, k] * left[k]`, float32: the product of a matrix and one vector (`sgemv`).
    ///
    /// - Parameters:
    ///   - left: `k` elements.
    ///   - right: `n` rows of `k` elements, contiguous.
    ///   - output: `n` elements; overwritten.
    ///   - n: Length of the result.
    ///   - k: Length of each sum.
    static func multiplyTransposed(
        vector left: UnsafePointer<Float>,
        _ right: UnsafePointer<Float>,
        into output: UnsafeMutablePointer<Float>,
        n: Int,
        k: Int
    ) {
        self.prepare()
        cblas_sgemv(CblasRowMajor, CblasNoTrans, blasint(n), blasint(k), 1, right, blasint(k), left, 1, 0, output, 1)
    }
}
