// SPDX-License-Identifier: Apache-2.0

internal import SwitchyardTypes
public import TensorKernels

/// One sequence after the encoder, with what the decoder's cross-attention needs of it.
public final class EncodedSequence: Sendable {
    /// The encoder's output after the final norm, `[tokens, d_model]`.
    public let hidden: FloatMatrix

    /// Heads of the decoder's attention.
    let headCount: Int

    /// For each decoder block the keys of its cross-attention, `[heads, tokens, d_kv]`.
    ///
    /// A head's keys lie together: a decoder step reads them head by head, as one stream that the processor can
    /// prefetch.
    let crossKeys: [TypedRows]

    /// For each decoder block the values of its cross-attention, `[heads, tokens, d_kv]`.
    let crossValues: [TypedRows]

    init(hidden: FloatMatrix, headCount: Int, crossKeys: [TypedRows], crossValues: [TypedRows]) {
        self.hidden = hidden
        self.headCount = headCount
        self.crossKeys = crossKeys
        self.crossValues = crossValues
    }

    /// Lends one head's keys and values of one decoder block's cross-attention.
    func withHead(_ head: Int, block: Int, _ body: (KeptHead) -> Void) {
        let (keys, values) = (self.crossKeys[block], self.crossValues[block])
        let first = UnsafeRawPointer(keys.address(row: head * self.tokenCount))
        let firstValue = UnsafeRawPointer(values.address(row: head * self.tokenCount))
        withUnsafePointer(to: Optional(first)) { keyPages in
            withUnsafePointer(to: Optional(firstValue)) { valuePages in
                body(
                    KeptHead(
                        keyPages: keyPages,
                        valuePages: valuePages,
                        keyOffset: 0,
                        valueOffset: 0,
                        pageTokens: self.tokenCount,
                        type: keys.type,
                        width: keys.columns
                    )
                )
            }
        }
    }

    /// Number of input tokens.
    public var tokenCount: Int {
        self.hidden.rows
    }

    /// Bytes of the hidden states, keys and values.
    public var byteCount: Int {
        (self.crossKeys + self.crossValues)
            .reduce(self.hidden.rows * self.hidden.columns * MemoryLayout<Float>.stride) { $0 + $1.byteCount }
    }
}
