// SPDX-License-Identifier: Apache-2.0

import CProtobufC
import CSwitchyardProtos

/// What goes into the encoder, or what the decoder is made to say: text or token ids.
///
/// In the `.proto` files this is a oneof of `text` and `input_ids`, or `target_text` and `target_ids`.
public enum ModelInput: Sendable, Hashable {
    /// Text; the tokenizer adds the end-of-sequence token.
    case text(String)

    /// Token ids, taken as they are, the end-of-sequence token included.
    case tokenIDs([UInt32])
}

extension FieldReader {
    /// The ids that a oneof holds.
    func tokenIDs(_ pointer: UnsafeMutablePointer<Switchyard__V1__TokenIds>?) throws(ProtoError) -> ModelInput {
        .tokenIDs(try self.message(pointer, as: TokenIDs.self)?.ids ?? [])
    }

    /// The text that a oneof holds.
    func text(_ data: ProtobufCBinaryData, _ field: String) throws(ProtoError) -> ModelInput {
        .text(try self.string(data, field))
    }
}
