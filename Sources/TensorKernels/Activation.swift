// SPDX-License-Identifier: Apache-2.0

internal import CKernels

/// The function between the two matrices of a feed-forward network.
public enum Activation: Sendable, Hashable, CaseIterable {
    /// `max(x, 0)`, computed where a product is stored.
    case relu

    /// `x * Phi(x)` with the error function (Hendrycks and Gimpel, "Gaussian Error Linear Units", 2016).
    case gelu

    /// `gelu` by its tanh approximation.
    case geluTanh

    /// `x * sigmoid(x)`.
    case silu

    /// `x * sigmoid(1.702 * x)`.
    case quickGELU

    /// The hyperbolic tangent.
    case tanh

    /// `min(max(x, 0), 6)`.
    case relu6

    /// `max(x, 0)` squared.
    case squaredReLU

    /// Applies the function in place.
    ///
    /// `gelu` and `tanh` use the C library's functions, whose last bit may differ between machines; the others give the
    /// same bits everywhere.
    ///
    /// - Parameters:
    ///   - values: `count` floats.
    ///   - factors: `count` floats to multiply the results with, as in a gated network; nil for none.
    ///   - count: Number of elements.
    ///   - level: The instruction set; the bits are the same for all.
    public func apply(
        _ values: UnsafeMutablePointer<Float>,
        times factors: UnsafePointer<Float>? = nil,
        count: Int,
        level: KernelLevel = .best
    ) {
        ck_activate(level.rawValue, self.kernelCode, values, factors, count)
    }

    /// The kernels' number for the function.
    package var kernelCode: Int32 {
        switch self {
        case .relu: Int32(CK_ACTIVATION_RELU)
        case .gelu: Int32(CK_ACTIVATION_GELU)
        case .geluTanh: Int32(CK_ACTIVATION_GELU_TANH)
        case .silu: Int32(CK_ACTIVATION_SILU)
        case .quickGELU: Int32(CK_ACTIVATION_QUICK_GELU)
        case .tanh: Int32(CK_ACTIVATION_TANH)
        case .relu6: Int32(CK_ACTIVATION_RELU6)
        case .squaredReLU: Int32(CK_ACTIVATION_SQUARED_RELU)
        }
    }
}
