// SPDX-License-Identifier: Apache-2.0

internal import SwitchyardProtos

/// A prompt that comes back with its answer (`echo`), and what is asked of the gateway for it.
///
/// A model without an encoder has read its prompt as it reads its own words, so each token but the first has a log-probability.
/// What goes into an encoder has none; so a prompt says where the encoder's text ends: what comes before the end token `</s>` goes
/// into the encoder with it, and what follows begins the decoder's sequence, which the answer continues. Only that is scored.
struct CompletionEcho: Sendable {
    /// The prompt's tokens.
    let tokenIDs: [UInt32]
    /// The prompt as it was given; nil where it was given as ids.
    let text: String?
    /// Where the end token stands that ends the encoder's text; nil for a model without an encoder.
    let border: Int?

    /// The first token that has a log-probability.
    var firstScored: Int { (self.border ?? 0) + 1 }

    /// Reads a prompt.
    ///
    /// - Parameters:
    ///   - tokenIDs: Its tokens, without an end token that the tokenizer would add.
    ///   - text: Its text, where it was given as one.
    ///   - model: The served model.
    ///   - maxTargetTokens: The most tokens that are scored after the encoder's text.
    /// - Throws: ``DoorFault`` where the prompt does not say where the encoder's text ends, or ends a second text in its middle.
    init(_ tokenIDs: [UInt32], text: String?, model: ModelDescription, maxTargetTokens: Int) throws(DoorFault) {
        self.tokenIDs = tokenIDs
        self.text = text
        guard model.encoderBlocks > 0 else {
            self.border = nil
            return
        }
        guard let border = tokenIDs.firstIndex(of: model.endTokenID) else {
            throw .invalid(
                "echo",
                "is true, but the prompt does not say where the encoder's text ends, and that text has no probabilities of its own: "
                    + "write </s> (token \(model.endTokenID)) between it and the text to score, as in "
                    + "\"a <extra_id_0> b</s><extra_id_0> c\"; or use POST /v1/score"
            )
        }
        self.border = border
        let target = tokenIDs[(border + 1)...]
        if let second = target.dropLast().firstIndex(of: model.endTokenID) {
            throw .invalid(
                "prompt",
                "has a second </s> at token \(second), in the middle of what follows the first at token \(border); only its last token "
                    + "may be one (where examples precede the question, separate their answers by something else)"
            )
        }
        guard target.count <= maxTargetTokens else {
            throw .invalid("prompt", "has \(target.count) tokens after </s>; the limit is \(maxTargetTokens)")
        }
    }

    /// The request for an answer that continues the prompt.
    ///
    /// - Parameters:
    ///   - base: How to answer.
    ///   - model: The served model.
    /// - Returns: The request.
    func generation(_ base: GenerateRequest, model: ModelDescription) -> GenerateRequest {
        var request = base
        guard let border = self.border else {
            request.input = .tokenIDs(self.tokenIDs)
            return request
        }
        request.input = .tokenIDs(Array(self.tokenIDs[...border]))
        let target = self.tokenIDs[(border + 1)...]
        // With the start token before it, a target that begins with that very token keeps it.
        if !target.isEmpty { request.decoderPrefix = .tokenIDs([model.decoderStartTokenID] + target) }
        return request
    }

    /// The requests for the log-probabilities of the prompt's tokens from ``firstScored`` on, in their order.
    ///
    /// A token's sums do not depend on its neighbours, so pieces of a prompt have the bits of the whole.
    ///
    /// - Parameters:
    ///   - base: What holds for the answer, which holds for the scores too.
    ///   - topLogprobs: How many of the most likely tokens to name with each token.
    ///   - maxTargetTokens: The most tokens of one request.
    /// - Returns: The requests; none where nothing has a log-probability.
    func scores(_ base: GenerateRequest, topLogprobs: Int, maxTargetTokens: Int) -> [ScoreRequest] {
        stride(from: self.firstScored, to: self.tokenIDs.count, by: max(1, maxTargetTokens))
            .map { start in
                let end = min(start + max(1, maxTargetTokens), self.tokenIDs.count)
                var request = ScoreRequest()
                request.input = .tokenIDs(Array(self.tokenIDs[..<start]))
                request.target = .tokenIDs(Array(self.tokenIDs[start..<end]))
                request.topLogprobs = UInt32(clamping: topLogprobs)
                request.dropPolicy = base.dropPolicy
                request.priority = base.priority
                request.queueTimeoutMilliseconds = base.queueTimeoutMilliseconds
                return request
            }
    }
}

/// A prompt with its answer and the log-probabilities of its tokens.
struct EchoedCompletion: Sendable {
    /// The prompt.
    var echo: CompletionEcho
    /// The log-probabilities from ``CompletionEcho/firstScored`` on; empty where they were not asked for.
    var scores: [TokenLogprob]
    /// What each part of the scores cost.
    var scoreUsages: [Usage]
    /// The answer; nil where none was asked for.
    var response: GenerateResponse?
}

extension DoorBackend {
    /// Answers prompts that come back with their answers, all at once; the first fault ends all.
    ///
    /// - Parameters:
    ///   - request: The request.
    ///   - call: What comes with it.
    /// - Returns: The answers, in the order of the prompts.
    /// - Throws: `RPCError` or ``DoorFault`` of the first that failed.
    func echoAll(_ request: CompletionRequest, _ call: DoorCall) async throws -> [EchoedCompletion] {
        try await withThrowingTaskGroup(of: (Int, EchoedCompletion).self) { group in
            for (index, single) in request.requests.enumerated() {
                group.addTask { (index, try await self.echo(single, request, call)) }
            }
            var completions: [Int: EchoedCompletion] = [:]
            for try await (index, completion) in group { completions[index] = completion }
            return request.requests.indices.compactMap { completions[$0] }
        }
    }

    private func echo(
        _ single: GenerateRequest,
        _ request: CompletionRequest,
        _ call: DoorCall
    ) async throws -> EchoedCompletion {
        let (ids, text): ([UInt32], String?) =
            switch single.input {
            case .text(let text): (try await self.tokens(of: text), text)
            case .tokenIDs(let ids): (ids, nil)
            case nil: ([], nil)
            }
        let model = self.model
        let limit = self.maxTargetTokens
        let echo = try CompletionEcho(ids, text: text, model: model, maxTargetTokens: limit)
        var questions: [ScoreRequest] = []
        if let logprobs = request.logprobs {
            questions = echo.scores(single, topLogprobs: logprobs, maxTargetTokens: limit)
        }
        async let response: GenerateResponse? =
            request.generates ? self.generate(echo.generation(single, model: model), call, onToken: nil) : nil
        var completion = EchoedCompletion(echo: echo, scores: [], scoreUsages: [], response: nil)
        for question in questions {
            let scored = try await self.score(question, call)
            completion.scores += scored.logprobs
            completion.scoreUsages.append(scored.usage ?? Usage())
        }
        completion.response = try await response
        return completion
    }
}
