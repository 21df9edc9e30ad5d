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
        var own: [(name: String, value: JSONOutput)] = [(name: "usage", value: .array(usages))]
        if responses.contains(where: { $0.seed != nil }) {
            // Numbers of 64 bits are texts, as in protobuf's mapping.
            own.append((name: "seeds", value: .array(responses.map { JSONOutput($0.seed.map { "\($0)" }) })))
        }
        return [
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

    private func logprobs(_ tokens: [TokenLogprob], texts: [String], offset: Int) -> JSONOutput {
        var offset = offset
        var offsets: [JSONOutput] = []
        for text in texts {
            offsets.append(.integer(offset))
            offset += text.unicodeScalars.count
        }
        let wanted = self.request.logprobs ?? 0
        let top = tokens.map { token in
            var seen: Set<String> = []
            // Two tokens may have one text; OpenAI's form has room for one of them.
            return JSONOutput.object(
                token.top.prefix(wanted).map { (self.texts.text(of: $0.tokenID), $0.logprob) }
                    .filter { seen.insert($0.0).inserted }
                    .map { (name: $0.0, value: JSONOutput.logprob($0.1)) }
            )
        }
        return [
            "tokens": .array(tokens.map { .string(self.texts.text(of: $0.tokenID)) }),
            "token_logprobs": .array(tokens.map { .logprob($0.logprob) }),
            "top_logprobs": wanted > 0 ? .array(top) : nil,
            "text_offset": .array(offsets),
        ]
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
