// SPDX-License-Identifier: Apache-2.0

internal import CKernels

/// The function between the two matrices of a feed-forward network.
public enum Activation: Sendable, Hashable, CaseIterable {
    /// `max(x, 0)`, computed where a product is stored and the same on every machine.
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
    /// All but `relu` use the C library's functions, whose last bit may differ between
    /// machines.
    ///
    /// - Parameters:
    ///   - values: `count` floats.
    ///   - count: Number of elements.
    public func apply(_ values: UnsafeMutablePointer<Float>, count: Int) {
        switch self {
        case .relu:
            for index in 0..<count where values[index] < 0 {
                values[index] = 0
            }
        case .gelu: ck_activate(Int32(CK_ACTIVATION_GELU), values, count)
        case .geluTanh: ck_activate(Int32(CK_ACTIVATION_GELU_TANH), values, count)
        case .silu: ck_activate(Int32(CK_ACTIVATION_SILU), values, count)
        case .quickGELU: ck_activate(Int32(CK_ACTIVATION_QUICK_GELU), values, count)
        case .tanh: ck_activate(Int32(CK_ACTIVATION_TANH), values, count)
        case .relu6: ck_activate(Int32(CK_ACTIVATION_RELU6), values, count)
        case .squaredReLU: ck_activate(Int32(CK_ACTIVATION_SQUARED_RELU), values, count)
        }
    }
}
