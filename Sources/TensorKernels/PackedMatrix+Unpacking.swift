// SPDX-License-Identifier: Apache-2.0

internal import SwitchyardTypes

extension PackedMatrix {
    /// Writes the weights of some inputs as float32 numbers, input by input: rows of the tensor's transpose.
    ///
    /// float32 and bfloat16 weights come out as they are kept, so that a product with them has the bits of one with the
    /// tensor itself.
    ///
    /// - Parameters:
    ///   - range: Which inputs, within `0 ..< inputs`.
    ///   - transposed: Room for `[range.count, outputs]` floats.
    public func unpack(inputs range: Range<Int>, intoTransposed transposed: UnsafeMutablePointer<Float>) {
        precondition(self.dtype != .int8, "int8 weights have no exact float32 form")
        precondition(range.lowerBound >= 0 && range.upperBound <= self.inputs, "inputs \(range) of \(self.inputs)")
        let width = PackedLayout.panelColumns
        let elementBytes = self.dtype.byteCount
        for panel in 0..<self.panelCount {
            let first = panel * width
            let count = min(width, self.outputs - first)
            var source = self.storage + (panel * self.inputs + range.lowerBound) * width * elementBytes
            for input in range {
                self.dtype.read(
                    source,
                    count: count,
                    into: transposed + (input - range.lowerBound) * self.outputs + first
                )
                source += width * elementBytes
            }
        }
    }
}
