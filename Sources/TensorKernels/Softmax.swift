// SPDX-License-Identifier: Apache-2.0

internal import CKernels

/// `softmax(x) = exp(x - max(x)) / sum(exp(x - max(x)))`, in place and in float32.
public enum Softmax {
    /// Turns scores into probabilities.
    ///
    /// - Parameters:
    ///   - values: `count` scores, replaced by their probabilities.
    ///   - count: Number of scores.
    ///   - level: The instruction set; the bits are the same for all.
    public static func apply(_ values: UnsafeMutablePointer<Float>, count: Int, level: KernelLevel = .best) {
        _ = ck_softmax(level.rawValue, values, count)
    }

    /// `exp(x)` for `x <= 0`, as the softmax computes it.
    ///
    /// - Parameter x: At most 0; below -87.3 the result is 0.
    /// - Returns: The exponential, within 2 units in the last place.
    static func exponential(_ x: Float) -> Float {
        ck_exp(x)
    }
}
