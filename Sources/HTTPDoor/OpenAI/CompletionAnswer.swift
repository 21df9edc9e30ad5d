// SPDX-License-Identifier: Apache-2.0

internal import SwitchyardProtos

/// Answers of `/v1/completions`, whole or as a stream.
struct CompletionAnswer: Sendable {
    /// The texts of tokens, as the gateway's tokenizer gives them.
    let texts: any TokenTexts
    /// The served model.
    let model: ModelDescription
    /// The request.
    let request: CompletionRequest
    /// The answer's name.
    let id: String
    /// When it was made, in seconds since 1970.
    let created: Int

    // MARK: - Whole

    /// The whole answer.
    ///
    /// - Parameter responses: The gateway's answer to each prompt.
    /// - Returns: The body.
    func whole(_ responses: [GenerateResponse]) -> JSONOutput {
        var choices: [JSONOutput] = []
        for response in responses {
            for generation in response.best(self.request.count) {
                var logprobs = JSONOutput.null
                if self.request.logprobs != nil {
                    let texts = self.texts.texts(of: generation.tokenIDs)
                    logprobs = self.logprobs(generation.logprobs, texts: texts, offset: 0)
                }
                choices.append([
                    "index": .integer(choices.count), "text": .string(generation.text), "logprobs": logprobs,
                    "finish_reason": Self.finish(generation.finishReason),
                ])
            }
        }
        return self.envelope(.array(choices)).adding(self.costs(responses))
    }

    /// The whole answer to prompts that come back with their answers.
    ///
    /// - Parameter completions: The prompts with the gateway's answers.
    /// - Returns: The body.
    func whole(_ completions: [EchoedCompletion]) -> JSONOutput {
        var choices: [JSONOutput] = []
        for completion in completions {
            // Without an answer there is one prompt for each.
            let generations: [Generation?] =
                completion.response.map { $0.best(self.request.count) }
                ?? Array(repeating: nil, count: self.request.count)
            for generation in generations {
                choices.append(self.choice(choices.count, completion, generation))
            }
        }
        let prompts = completions.reduce(0) { $0 + $1.echo.tokenIDs.count }
        let output = completions.reduce(0) { $0 + ($1.response?.outputTokens ?? 0) }
        func json(_ usage: Usage?) -> JSONOutput { usage.map { OwnForm.json($0, "switchyard.v1.Usage") } ?? .null }
        var own: [(name: String, value: JSONOutput)] = [
            (name: "usage", value: .array(completions.map { json($0.response?.usage) })),
            (name: "score_usage", value: .array(completions.map { .array($0.scoreUsages.map { json($0) }) })),
        ]
        own += Self.seeds(completions.map { $0.response?.seed })
        return self.envelope(.array(choices)).adding(Self.costs(input: prompts, output: output, own))
    }

    /// A prompt with one answer to it.
    private func choice(_ index: Int, _ completion: EchoedCompletion, _ generation: Generation?) -> JSONOutput {
        let echo = completion.echo
        let generated = generation?.tokenIDs ?? []
        let pieces = self.texts.texts(of: echo.tokenIDs + generated)
        let prompt = echo.text ?? pieces.prefix(echo.tokenIDs.count).joined()
        var answer = generation?.text ?? ""
        // By itself a text does not begin with the space before its first word; here it follows another.
        if pieces.dropFirst(echo.tokenIDs.count).joined().hasPrefix(" "), !answer.hasPrefix(" ") {
            answer = " " + answer
        }
        var logprobs = JSONOutput.null
        if self.request.logprobs != nil {
            let length = prompt.unicodeScalars.count
            var offset = 0
            var entries: [LogprobEntry] = []
            for (place, id) in echo.tokenIDs.enumerated() {
                var entry = LogprobEntry(id: id, offset: min(offset, length))
                let score = place - echo.firstScored
                if completion.scores.indices.contains(score) {
                    entry.token = completion.scores[score]
                } else if place == echo.border {
                    // The border is no word of the model: it was given, and so it is certain.
                    entry.token = TokenLogprob(tokenID: id, logprob: 0, top: [TokenCandidate(tokenID: id, logprob: 0)])
                }
                entries.append(entry)
                offset += pieces[place].unicodeScalars.count
            }
            offset = length
            for (place, token) in (generation?.logprobs ?? []).enumerated() {
                entries.append(LogprobEntry(id: token.tokenID, offset: offset, token: token))
                offset += pieces[echo.tokenIDs.count + place].unicodeScalars.count
            }
            logprobs = self.logprobs(entries)
        }
        return [
            "index": .integer(index), "text": .string(prompt + answer), "logprobs": logprobs,
            "finish_reason": generation.map { Self.finish($0.finishReason) } ?? "length",
        ]
    }

    private func envelope(_ choices: JSONOutput) -> JSONOutput {
        [
            "id": .string(self.id), "object": "text_completion", "created": .integer(self.created),
            "model": .string(self.model.name),
            "system_fingerprint": .string("fp_" + OwnForm.hexadecimal(self.model.fingerprint)),
            "choices": choices,
        ]
    }

    private func costs(_ responses: [GenerateResponse]) -> [(name: String, value: JSONOutput)] {
        let input = responses.reduce(0) { $0 + $1.inputTokens }
        let output = responses.reduce(0) { $0 + $1.outputTokens }
        let usages = responses.map { OwnForm.json($0.usage ?? Usage(), "switchyard.v1.Usage") }
        let own: [(name: String, value: JSONOutput)] = [(name: "usage", value: .array(usages))]
        return Self.costs(input: input, output: output, own + Self.seeds(responses.map(\.seed)))
    }

    /// The seeds of what was sampled; nothing where nothing was.
    private static func seeds(_ seeds: [UInt64?]) -> [(name: String, value: JSONOutput)] {
        guard seeds.contains(where: { $0 != nil }) else { return [] }
        // Numbers of 64 bits are texts, as in protobuf's mapping.
        return [(name: "seeds", value: .array(seeds.map { JSONOutput($0.map { "\($0)" }) }))]
    }

    private static func costs(
        input: Int,
        output: Int,
        _ own: [(name: String, value: JSONOutput)]
    ) -> [(name: String, value: JSONOutput)] {
        [
            (
                name: "usage",
                value: [
                    "prompt_tokens": .integer(input), "completion_tokens": .integer(output),
                    "total_tokens": .integer(input + output),
                ]
            ),
            (name: "switchyard", value: .object(own)),
        ]
    }

    /// One place of a choice's log-probabilities.
    private struct LogprobEntry {
        /// The token.
        var id: UInt32
        /// Where its text begins in the choice's.
        var offset: Int
        /// How likely it was; nil for a token that has no probability.
        var token: TokenLogprob?
    }

    private func logprobs(_ tokens: [TokenLogprob], texts: [String], offset: Int) -> JSONOutput {
        var offset = offset
        var entries: [LogprobEntry] = []
        for (token, text) in zip(tokens, texts) {
            entries.append(LogprobEntry(id: token.tokenID, offset: offset, token: token))
            offset += text.unicodeScalars.count
        }
        return self.logprobs(entries)
    }

    private func logprobs(_ entries: [LogprobEntry]) -> JSONOutput {
        let wanted = self.request.logprobs ?? 0
        return [
            "tokens": .array(entries.map { .string(self.texts.text(of: $0.id)) }),
            "token_logprobs": .array(entries.map { $0.token.map { .logprob($0.logprob) } ?? .null }),
            "top_logprobs": wanted > 0 ? .array(entries.map { $0.token.map { self.top($0, wanted) } ?? .null }) : nil,
            "text_offset": .array(entries.map { .integer($0.offset) }),
        ]
    }

    /// The most likely tokens at a place, and the one that is there.
    private func top(_ token: TokenLogprob, _ wanted: Int) -> JSONOutput {
        var seen: Set<String> = []
        let candidates = token.top.prefix(wanted) + [TokenCandidate(tokenID: token.tokenID, logprob: token.logprob)]
        // Two tokens may have one text; OpenAI's form has room for one of them.
        return .object(
            candidates.map { (self.texts.text(of: $0.tokenID), $0.logprob) }
                .filter { seen.insert($0.0).inserted }
                .map { (name: $0.0, value: JSONOutput.logprob($0.1)) }
        )
    }

    private static func finish(_ reason: WireFinishReason) -> JSONOutput {
        switch reason {
        case .endOfSequence, .stop: "stop"
        case .length: "length"
        case .unspecified: nil
        }
    }

    // MARK: - Streams

    /// What has been sent of a stream.
    struct Progress: Sendable {
        /// Characters sent of each choice.
        var sent: [Int: Int] = [:]
        /// The answers that are complete, by prompt.
        var responses: [Int: GenerateResponse] = [:]
    }

    /// The chunks that an event makes.
    ///
    /// - Parameters:
    ///   - event: The event.
    ///   - progress: What was sent before.
    /// - Returns: Chunks to send, in order.
    func chunks(_ event: GenerationEvent, _ progress: inout Progress) -> [JSONOutput] {
        switch event {
        case .token(let prompt, let token):
            let choice = prompt * self.request.count + Int(token.sequence)
            let offset = progress.sent[choice] ?? 0
            progress.sent[choice] = offset + token.text.unicodeScalars.count
            var logprobs = JSONOutput.null
            if self.request.logprobs != nil, let logprob = token.logprob {
                logprobs = self.logprobs([logprob], texts: [token.text], offset: offset)
            }
            return [self.chunk(choice, text: token.text, logprobs: logprobs, finish: nil)]
        case .response(let prompt, let response):
            progress.responses[prompt] = response
            return response.generations.prefix(self.request.count).enumerated()
                .map { index, generation in
                    let choice = prompt * self.request.count + index
                    // No token of a beam search is final before its end.
                    let isUnsent = progress.sent[choice] == nil
                    return self.chunk(
                        choice,
                        text: isUnsent ? generation.text : "",
                        logprobs: isUnsent && self.request.logprobs != nil
                            ? self.logprobs(
                                generation.logprobs,
                                texts: self.texts.texts(of: generation.tokenIDs),
                                offset: 0
                            ) : nil,
                        finish: Self.finish(generation.finishReason)
                    )
                }
        }
    }

    /// The last chunk, with what all prompts cost; nil if it was not asked for.
    func lastChunk(_ progress: Progress) -> JSONOutput? {
        guard self.request.includesUsage else { return nil }
        let responses = progress.responses.sorted { $0.key < $1.key }.map(\.value)
        return self.envelope([]).adding(self.costs(responses))
    }

    private func chunk(_ choice: Int, text: String, logprobs: JSONOutput, finish: JSONOutput) -> JSONOutput {
        let envelope = self.envelope([
            ["index": .integer(choice), "text": .string(text), "logprobs": logprobs, "finish_reason": finish]
        ])
        return self.request.includesUsage ? envelope.adding([(name: "usage", value: nil)]) : envelope
    }
}
