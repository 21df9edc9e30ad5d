// SPDX-License-Identifier: Apache-2.0

internal import Checkpoints
internal import RPCCore
internal import SwitchyardProtos

// What requests may not ask of a model without an encoder.
extension RequestReader {
    /// Whether the model has no encoder, so that its input is what the answer continues.
    var isDecoderOnly: Bool { self.model.design.isDecoderOnly }

    /// Refuses what an answer would begin with besides the input.
    func refuseStart(_ request: GenerateRequest, _ message: GenerationParametersMessage) throws(RPCError) {
        guard self.isDecoderOnly else { return }
        guard request.decoderPrefix == nil else {
            throw RPCError(
                .invalidArgument,
                "decoder_prefix is set, but the model has no encoder and continues its input; put the prefix at the input's end"
            )
        }
        guard message.decoderStartTokenID == nil else {
            throw RPCError(
                .invalidArgument,
                "parameters.decoder_start_token_id is set, but the model has no encoder and continues its input; leave it out"
            )
        }
    }

    /// Refuses routes of an encoder.
    ///
    /// - Parameters:
    ///   - isGiven: Whether the request gives such routes.
    ///   - isReturned: Whether it wants them.
    /// - Throws: ``RPCError`` with `INVALID_ARGUMENT` that names the field.
    func refuseEncoderRoutes(_ isGiven: Bool, returned isReturned: Bool = false) throws(RPCError) {
        guard self.isDecoderOnly else { return }
        guard !isGiven else {
            throw RPCError(
                .invalidArgument,
                "encoder_routes is set, but the model has no encoder; give Score decoder_routes, of all tokens but the last"
            )
        }
        guard !isReturned else {
            throw RPCError(
                .invalidArgument,
                "return_routes is set, but the model has no encoder, whose routes Encode returns; ask Score for them"
            )
        }
    }

    /// The input and the target of a score; of a prompt alone, its first token and the others.
    func scored(_ request: ScoreRequest) throws(RPCError) -> (input: [Int32], target: [Int32]) {
        guard self.isDecoderOnly, request.target == nil else {
            let target = try self.tokens(
                request.target,
                fields: .init(none: "target", text: "target_text", ids: "target_ids"),
                limit: self.limits.maxTargetTokens
            )
            return (try self.input(request.input), target)
        }
        let prompt = try self.input(request.input)
        guard prompt.count >= 2 else {
            throw RPCError(
                .invalidArgument,
                "the input has \(prompt.count) token, and nothing precedes it that it could be scored by; send two at least, or a target"
            )
        }
        guard prompt.count - 1 <= self.limits.maxTargetTokens else {
            throw RPCError(
                .resourceExhausted,
                "the input has \(prompt.count - 1) tokens to score; the limit is \(self.limits.maxTargetTokens); send its last ones as "
                    + "the target, and what precedes them as the input"
            )
        }
        return (Array(prompt.prefix(1)), Array(prompt.dropFirst()))
    }
}
