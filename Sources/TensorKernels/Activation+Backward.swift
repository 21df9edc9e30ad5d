// SPDX-License-Identifier: Apache-2.0

internal import CKernels

extension Activation {
    /// Turns the gradient of a hidden row, `activation(z)` or `activation(z) * f`, into those of the products before it.
    ///
    /// - Parameters:
    ///   - gradient: The hidden row's gradient, which becomes that of `z`.
    ///   - inner: `z`, the product before the activation.
    ///   - factor: Of a gated network `f`, and room for its gradient.
    ///   - room: Room for `count` floats.
    ///   - count: Elements of each row.
    ///   - level: The instruction set; the bits are the same for all.
    package func backward(
        _ gradient: UnsafeMutablePointer<Float>,
        inner: UnsafePointer<Float>,
        factor: (value: UnsafePointer<Float>, gradient: UnsafeMutablePointer<Float>)?,
        room: UnsafeMutablePointer<Float>,
        count: Int,
        level: KernelLevel = .best
    ) {
        if let factor {
            room.update(from: inner, count: count)
            self.apply(room, count: count, level: level)
            factor.gradient.update(from: gradient, count: count)
            ck_times(level.rawValue, room, count, factor.gradient)
            ck_times(level.rawValue, factor.value, count, gradient)
        }
        ck_activation_slopes(level.rawValue, self.kernelCode, inner, count, room)
        ck_times(level.rawValue, room, count, gradient)
    }

    /// Turns the gradient of a hidden row of `relu` without a gate into that of the product before it.
    ///
    /// - Parameters:
    ///   - gradient: The hidden row's gradient, which becomes 0 where nothing flows back.
    ///   - hidden: The hidden row.
    ///   - count: Elements of each row.
    ///   - level: The instruction set; the bits are the same for all.
    package static func reluBackward(
        _ gradient: UnsafeMutablePointer<Float>,
        hidden: UnsafePointer<Float>,
        count: Int,
        level: KernelLevel = .best
    ) {
        ck_relu_backward(level.rawValue, hidden, count, gradient)
    }
}
