// SPDX-License-Identifier: Apache-2.0

internal import BatchScheduling
internal import Checkpoints
internal import RPCCore
internal import SwitchModel
internal import SwitchyardTypes
internal import Telemetry
internal import TensorKernels
internal import Tokenization

/// A request as submitted.
struct Arrival: Sendable {
    let id: SequenceID
    let request: EngineRequest
    let sink: AsyncStream<EngineEvent>.Continuation
    let time: ContinuousClock.Instant
}

/// One request between its admission into batch slots and its end; belongs to the engine's thread.
final class RunningSequence {
    /// Where the request stands.
    enum Stage {
        /// Admitted; its input is not encoded yet. Can transition to `encoded` or `generating`.
        case admitted
        /// Its input is encoded, and it needs at most one pass through the decoder. Final.
        case encoded(PreparedInput)
        /// Tokens are chosen step by step. Final.
        case generating(Generating)
    }

    /// Generation state kept from step to step.
    struct Generating {
        var session: GenerationSession
        /// One per decoder row.
        var caches: [DecoderCache]
        /// One per returned sequence; empty if the text is not needed before the end.
        var texts: [GeneratedText]
    }

    let arrival: Arrival
    let started: ContinuousClock.Instant
    /// The trace that expert calls continue; nil for most requests.
    let sampledTrace: TraceContext?
    /// Whether the model has no encoder, so that the input is a prompt.
    let isPrompt: Bool
    var stage = Stage.admitted
    var ledger = DropLedger()
    private var routing: RoutingBook
    /// The scores of the whole vocabulary, where the request asks for them.
    var logits: FloatMatrix?
    /// The most likely tokens at each position, where the request asks for them.
    var distributions: TokenDistributions?
    var encodeTime = Duration.zero
    var encodeEnd: ContinuousClock.Instant?
    /// Calls of the decoder so far.
    private(set) var decoderCalls = 0
    /// When the last token was chosen.
    private var lastToken: ContinuousClock.Instant?

    init(_ arrival: Arrival, started: ContinuousClock.Instant, isPrompt: Bool = false) {
        self.isPrompt = isPrompt
        self.arrival = arrival
        self.routing = RoutingBook(arrival.request.routing)
        self.started = started
        self.sampledTrace = arrival.request.trace.flatMap { $0.isSampled ? $0 : nil }
    }

    var id: SequenceID { self.arrival.id }
    var request: EngineRequest { self.arrival.request }

    /// Decoder rows of the next step; 0 if there is no next step.
    var rowCount: Int {
        guard case .generating(let state) = self.stage else {
            return 0
        }
        return state.session.rowCount
    }

    /// Takes what the model made of the input.
    func encoded(
        _ encoded: PreparedInput,
        configuration: ModelConfiguration,
        tokenizer: Tokenizer?
    ) throws(GenerationError) {
        guard case .generate(let parameters, let stops) = self.request.work else {
            self.stage = .encoded(encoded)
            return
        }
        var vocabulary = self.request.vocabulary ?? GenerationVocabulary(configuration)
        var prefix = self.request.decoderPrefix
        if self.isPrompt, let first = self.request.input.first {
            // As in transformers, a prompt's tokens count for penalties as a start token and a decoder prefix do.
            vocabulary.startTokenID = first
            prefix = Array(self.request.input.dropFirst())
        }
        let session = try GenerationSession(
            parameters: parameters,
            vocabulary: vocabulary,
            encoderTokens: self.request.input,
            decoderPrefix: prefix
        )
        let text = GeneratedText(tokenizer: tokenizer, stops: stops)
        let needsText = parameters.beamCount == 1 && (self.request.streamsTokens || !stops.isEmpty)
        let texts = needsText ? parameters.returnedSequences : 0
        self.stage = .generating(
            Generating(
                session: session,
                caches: (0..<session.rowCount).map { _ in encoded.makeCache() },
                texts: Array(repeating: text, count: texts)
            )
        )
    }

    /// Whether the next step's logits may leave out tokens that cannot be the best.
    var needsOnlyGreatest: Bool {
        guard case .generating(let state) = self.stage else {
            return false
        }
        return state.session.needsOnlyGreatest
    }

    /// The decoder's input in the next step.
    var decoderInputs: [DecoderInput] {
        guard case .generating(let state) = self.stage else {
            return []
        }
        var inputs = state.session.decoderInputs(state.caches)
        let isFirstOfPrompt = self.isPrompt && self.decoderCalls == 0
        if isFirstOfPrompt {
            // The caches hold the prompt's other tokens already.
            for row in inputs.indices { inputs[row].tokens.removeFirst(inputs[row].cache.length) }
        }
        let steps = self.request.routing.steps
        guard steps.indices.contains(self.decoderCalls), steps[self.decoderCalls].count == inputs.count else {
            return inputs
        }
        for (row, routes) in steps[self.decoderCalls].enumerated() {
            var routes = routes
            if isFirstOfPrompt, let all = routes, all.tokenCount == self.request.input.count {
                routes = all.part((all.tokenCount - inputs[row].tokens.count)..<all.tokenCount)
            }
            if routes?.tokenCount == inputs[row].tokens.count { inputs[row].routes = routes }
        }
        return inputs
    }

    /// Takes the step's logits, chooses tokens and orders the caches for the next step.
    ///
    /// - Parameters:
    ///   - logits: `[rows, vocabulary]` of the whole step.
    ///   - firstRow: This request's first row.
    /// - Returns: Tokens to send to the client.
    /// - Throws: ``RPCError`` with `INTERNAL` if the logits are not numbers.
    func advance(logits: FloatMatrix, firstRow: Int) throws(RPCError) -> [StreamedToken] {
        guard case .generating(var state) = self.stage else {
            return []
        }
        // Move the state out and back in, so that its arrays are changed in place.
        self.stage = .admitted
        defer {
            self.stage = .generating(state)
        }
        let advance = state.session.advance(logits: logits, firstRow: firstRow)
        guard advance.unusableRows.isEmpty else {
            throw RPCError(.internal, "the model's logits are not numbers; look for damaged weights in the checkpoint")
        }
        var tokens: [StreamedToken] = []
        var stoppedRows: [Int] = []
        for emitted in advance.emitted where state.texts.indices.contains(emitted.sequence) {
            let piece = state.texts[emitted.sequence].append(emitted.id, isLast: emitted.row == nil)
            if piece.isStopped, let row = emitted.row {
                stoppedRows.append(row)
            }
            guard self.request.streamsTokens else {
                continue
            }
            tokens.append(
                StreamedToken(
                    sequence: emitted.sequence,
                    id: emitted.id,
                    text: piece.text,
                    logprob: emitted.logprob,
                    topLogprobs: emitted.topLogprobs
                )
            )
        }
        // From the last row backwards, so that the indices of the remaining rows stay valid.
        for row in stoppedRows.sorted(by: >) {
            state.session.finish(row: row, reason: .stop)
        }
        state.caches = DecoderCache.arranged(state.caches, by: state.session.parents)
        return tokens
    }

    /// The generated sequences, if all have ended.
    func generations(tokenizer: Tokenizer?) -> [EngineGeneration]? {
        guard case .generating(let state) = self.stage, state.session.isFinished else {
            return nil
        }
        return state.session.results.enumerated()
            .map { index, result in
                guard state.texts.indices.contains(index) else {
                    return EngineGeneration(text: tokenizer?.decode(result.tokenIDs) ?? "", sequence: result)
                }
                var sequence = result
                if state.texts[index].isStopped {
                    sequence.finishReason = .stop
                }
                return EngineGeneration(text: state.texts[index].text, sequence: sequence)
            }
    }

    /// Records that a token was chosen for each row.
    ///
    /// - Parameter now: When.
    /// - Returns: The time since the previous token, or since submission for the first one.
    func tokenChosen(at now: ContinuousClock.Instant) -> (time: Duration, isFirst: Bool) {
        defer {
            self.lastToken = now
        }
        return ((self.lastToken ?? self.arrival.time).duration(to: now), self.lastToken == nil)
    }

    /// The most tokens, times sparse layers, that the decoder may still route for this request.
    ///
    /// - Parameter layers: Sparse layers of the decoder.
    /// - Returns: An upper bound; 0 if nothing is left to compute.
    func comingTokens(layers: Int) -> Int {
        switch self.request.work {
        case .encode: 0
        // A prompt's target went through the decoder with it.
        case .score(let target, _): self.decoderCalls == 0 && !self.isPrompt ? target.count * layers : 0
        case .generate(let parameters, _):
            (max(0, parameters.maxNewTokens - self.decoderCalls) * self.request.slotCount
                + (self.decoderCalls == 0 ? self.request.decoderPrefix.count : 0)) * layers
        }
    }

    /// Adds what a call of the model did to this request's tokens.
    ///
    /// - Parameters:
    ///   - record: The call's record.
    ///   - inputs: This request's inputs in the call.
    ///   - stack: Which half of the model was called.
    ///   - isInput: Whether it was called with the request's input, before the first step.
    func account(_ record: RoutingRecord, inputs: Range<Int>, stack: Stack, isInput: Bool = false) {
        if stack == .decoder, !isInput {
            self.decoderCalls += 1
        }
        for input in inputs where record.routedPerSequence.indices.contains(input) {
            self.ledger.routed(record.routedPerSequence[input])
        }
        for (drop, count) in record.drops where inputs.contains(drop.sequence) {
            self.ledger.dropped(count, layer: drop.layer, reason: drop.reason)
        }
        for (drop, count) in record.givenDrops where inputs.contains(drop.sequence) {
            self.ledger.droppedAsGiven(count, layer: drop.layer, reason: drop.reason)
        }
        self.routing.add(record, inputs: inputs, stack: stack, isPrompt: isInput)
    }

    /// How a request with an answer ends.
    ///
    /// - Parameters:
    ///   - output: The answer.
    ///   - outputTokens: The answer's tokens.
    ///   - now: The current time.
    /// - Returns: With the answer, unless it lost more tokens than it accepts.
    func end(with output: EngineResult.Output, outputTokens: Int, now: ContinuousClock.Instant) -> RequestEnd {
        // Fewer tokens may have been routed than expected, so the fraction can be over its limit after all.
        if let error = self.ledger.violation(of: self.request.dropPolicy) {
            return .lostTokens(error)
        }
        return .finished(
            EngineResult(
                output: output,
                usage: self.usage(outputTokens: outputTokens, now: now),
                routing: self.routing.report(for: output),
                logits: self.logits,
                distributions: self.distributions
            )
        )
    }

    /// What the request cost.
    private func usage(outputTokens: Int, now: ContinuousClock.Instant) -> EngineUsage {
        EngineUsage(
            inputTokens: self.request.input.count,
            outputTokens: outputTokens,
            dropped: self.ledger.entries,
            routedTokens: self.ledger.routed,
            queueTime: self.arrival.time.duration(to: self.started),
            encodeTime: self.encodeTime,
            decodeTime: self.encodeEnd.map { $0.duration(to: now) } ?? .zero
        )
    }
}
