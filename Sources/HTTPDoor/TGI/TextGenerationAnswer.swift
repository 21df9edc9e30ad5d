// SPDX-License-Identifier: Apache-2.0

internal import SwitchyardProtos

/// Answers of `/generate` and `/generate_stream`.
struct TextGenerationAnswer: Sendable {
    /// The texts of tokens, as the gateway's tokenizer gives them.
    let backend: any DoorBackend
    /// The request.
    let request: TextGenerationRequest

    // MARK: - Whole

    /// The whole answer.
    ///
    /// - Parameter response: The gateway's answer.
    /// - Returns: The body.
    func whole(_ response: GenerateResponse) -> JSONOutput {
        let ordered = response.best(response.generations.count)
        let sorted = ordered.sorted { $0.score > $1.score }
        guard let best = sorted.first else { return ["generated_text": ""] }
        let text: JSONOutput = ["generated_text": .string(self.text(best))]
        guard self.request.hasDetails || self.request.hasPrefill else { return text }
        var details = self.details(best, response)
        if sorted.count > 1 {
            let others = sorted.dropFirst()
                .map { other in
                    JSONOutput.object([(name: "generated_text", value: .string(self.text(other)))])
                        .adding(self.details(other, response))
                }
            details.append((name: "best_of_sequences", value: .array(Array(others))))
        }
        return text.adding([(name: "details", value: .object(details))])
    }

    private func text(_ generation: Generation) -> String {
        (self.request.returnsInput ? self.request.inputs : "") + generation.text
    }

    private func details(
        _ generation: Generation,
        _ response: GenerateResponse
    ) -> [(name: String, value: JSONOutput)] {
        let texts = self.backend.texts(of: generation.tokenIDs)
        let tokens = generation.logprobs.enumerated()
            .map { index, token in
                self.token(token, text: index < texts.count ? texts[index] : "")
            }
        var details = self.ending(generation, response)
        details.append((name: "prefill", value: .array(self.request.hasPrefill ? [self.start] : [])))
        details.append((name: "tokens", value: .array(tokens)))
        if self.request.topTokens > 0 {
            details.append((name: "top_tokens", value: .array(generation.logprobs.map { self.top($0) })))
        }
        return details
    }

    private func ending(_ generation: Generation, _ response: GenerateResponse) -> [(name: String, value: JSONOutput)] {
        [
            (name: "finish_reason", value: Self.finish(generation.finishReason)),
            (name: "generated_tokens", value: .integer(generation.tokenIDs.count)),
            (name: "seed", value: response.seed.map { .raw("\($0)") } ?? nil),
        ]
    }

    /// The token that the decoder starts from.
    private var start: JSONOutput {
        let id = self.backend.model.decoderStartTokenID
        return ["id": .integer(Int(id)), "text": .string(self.backend.text(of: id)), "logprob": nil]
    }

    private func token(_ token: TokenLogprob, text: String) -> JSONOutput {
        [
            "id": .integer(Int(token.tokenID)), "text": .string(text), "logprob": .logprob(token.logprob),
            "special": .bool(self.backend.isSpecial(token.tokenID)),
        ]
    }

    private func top(_ token: TokenLogprob) -> JSONOutput {
        .array(
            token.top.prefix(self.request.topTokens)
                .map {
                    self.token(
                        TokenLogprob(tokenID: $0.tokenID, logprob: $0.logprob),
                        text: self.backend.text(of: $0.tokenID)
                    )
                }
        )
    }

    private static func finish(_ reason: WireFinishReason) -> JSONOutput {
        switch reason {
        case .endOfSequence: "eos_token"
        case .stop: "stop_sequence"
        case .length, .unspecified: "length"
        }
    }

    // MARK: - Streams

    /// What has come of a stream.
    ///
    /// The last token is sent with the whole text, so one token is held back.
    struct Progress: Sendable {
        /// Tokens that were sent.
        var sent = 0
        /// The token that may be the last.
        var held: GeneratedToken?
    }

    /// The events that an event of the gateway makes.
    ///
    /// - Parameters:
    ///   - event: The event.
    ///   - progress: What came before.
    /// - Returns: Events to send, in order.
    func events(_ event: GenerationEvent, _ progress: inout Progress) -> [JSONOutput] {
        switch event {
        case .token(_, let token):
            defer { progress.held = token }
            return progress.held.map { [self.event($0, &progress, end: nil)] } ?? []
        case .response(_, let response):
            guard let generation = response.generations.first else { return [] }
            guard let last = progress.held else { return self.all(generation, response, &progress) }
            return [self.event(last, &progress, end: (generation, response))]
        }
    }

    /// All tokens at once, where none was final before the end.
    private func all(
        _ generation: Generation,
        _ response: GenerateResponse,
        _ progress: inout Progress
    ) -> [JSONOutput] {
        let texts = self.backend.texts(of: generation.tokenIDs)
        var events: [JSONOutput] = []
        for (index, logprob) in generation.logprobs.enumerated() {
            let token = GeneratedToken(tokenID: logprob.tokenID, text: texts[index], logprob: logprob)
            let isLast = index + 1 == generation.logprobs.count
            events.append(self.event(token, &progress, end: isLast ? (generation, response) : nil))
        }
        return events
    }

    private func event(
        _ token: GeneratedToken,
        _ progress: inout Progress,
        end: (Generation, GenerateResponse)?
    ) -> JSONOutput {
        progress.sent += 1
        let logprob = token.logprob ?? TokenLogprob(tokenID: token.tokenID)
        var members: [(name: String, value: JSONOutput)] = [
            (name: "index", value: .integer(progress.sent)),
            (name: "token", value: self.token(logprob, text: token.text)),
        ]
        if self.request.topTokens > 0 { members.append((name: "top_tokens", value: self.top(logprob))) }
        guard let (generation, response) = end else {
            return .object(members + [(name: "generated_text", value: nil), (name: "details", value: nil)])
        }
        var details = self.ending(generation, response)
        details.append((name: "input_length", value: .integer(response.inputTokens)))
        return .object(
            members + [
                (name: "generated_text", value: .string(self.text(generation))),
                (name: "details", value: .object(details)),
            ]
        )
    }
}
