// SPDX-License-Identifier: Apache-2.0

internal import Checkpoints
internal import RPCCore
internal import Tokenization

extension RequestReader {
    /// Cuts a text into tokens, without the end token that the tokenizer adds.
    ///
    /// - Parameter text: The text: an input and a target at most.
    /// - Returns: The tokens.
    /// - Throws: ``RPCError`` for a text over a limit, and for characters without a token.
    func tokens(of text: String) throws(RPCError) -> [UInt32] {
        try self.checkBytes(text, field: "text")
        let most = self.limits.maxInputTokens + self.limits.maxTargetTokens
        var ids = try self.encode(text, field: "text", ids: "input_ids", limit: most + 1)
        if self.tokenizer?.endTokenID != nil { ids.removeLast() }
        return ids.map { UInt32(bitPattern: $0) }
    }

    /// Refuses a text that is too long to be cut into tokens.
    func checkBytes(_ text: String, field: String) throws(RPCError) {
        guard text.utf8.count <= self.limits.maxTextBytes else {
            throw RPCError(
                .resourceExhausted,
                "\(field) has \(text.utf8.count) bytes; the limit is \(self.limits.maxTextBytes); send a shorter text"
            )
        }
    }

    /// Encodes a text, as far as the model has a tokenizer and the ids are ids of the model.
    func encode(
        _ text: String,
        field: String,
        ids idField: String,
        limit: Int
    ) throws(RPCError) -> [Int32] {
        guard let tokenizer = self.tokenizer else {
            throw RPCError(
                .invalidArgument,
                "\(field) is set, but this model has no tokenizer and takes ids only; set \(idField)"
            )
        }
        let ids: [Int32]
        do {
            ids = try tokenizer.encode(text, limits: TextLimits(ids: limit)) { Task.isCancelled }
        } catch {
            switch error.code {
            case .cancelled: throw RPCError(.cancelled, "the call was cancelled before \(field) was cut into tokens")
            case .unknownCharacter: throw RPCError(.invalidArgument, "\(field) \(error.message)")
            case .tooLong: throw RPCError(.resourceExhausted, "\(field) \(error.message)")
            default: throw RPCError(.internal, "\(field): \(error.message)")
            }
        }
        if let id = ids.first(where: { Int($0) >= self.model.vocabularySize }) {
            throw RPCError(
                .invalidArgument,
                "\(field) contains \"\(tokenizer.token(id) ?? "")\", whose id is \(id), but the model's vocabulary ends at "
                    + "\(self.model.vocabularySize - 1); leave it out"
            )
        }
        return ids
    }
}
