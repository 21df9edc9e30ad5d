// SPDX-License-Identifier: Apache-2.0

public import TensorKernels

/// One sequence after the encoder, with what the decoder's cross-attention needs of it.
public final class EncodedSequence: Sendable {
    /// The encoder's output after the final norm, `[tokens, d_model]`.
    public let hidden: FloatMatrix

    /// For each decoder block the keys of its cross-attention, `[tokens, heads * d_kv]`.
    let crossKeys: [FloatMatrix]

    /// For each decoder block the values of its cross-attention, `[tokens, heads * d_kv]`.
    let crossValues: [FloatMatrix]

    init(hidden: FloatMatrix, crossKeys: [FloatMatrix], crossValues: [FloatMatrix]) {
        self.hidden = hidden
        self.crossKeys = crossKeys
        self.crossValues = crossValues
    }

    /// Number of input tokens.
    public var tokenCount: Int {
        self.hidden.rows
    }

    /// Bytes of the hidden states, keys and values.
    public var byteCount: Int {
        (self.crossKeys + self.crossValues + [self.hidden])
            .reduce(0) {
                $0 + $1.rows * $1.columns * MemoryLayout<Float>.stride
            }
    }
}
