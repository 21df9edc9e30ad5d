// SPDX-License-Identifier: Apache-2.0

internal import BatchScheduling
internal import Checkpoints
internal import Logging
internal import RPCCore
internal import SwitchModel
internal import TensorKernels

/// The engine's thread: what runs, and one step after the other.
///
/// A request that fails leaves alone; its neighbours never notice.
final class EngineWorker {
    /// The end of all requests when the engine stops.
    static let stopError = RPCError(.unavailable, "the gateway is shutting down; ask another one")

    private let engine: InferenceEngine
    private var running: [SequenceID: RunningSequence] = [:]
    private var totals = EngineTotals()
    private let decoderLayers: Int

    init(engine: InferenceEngine) {
        self.engine = engine
        self.decoderLayers = engine.model.configuration.sparseLayers.count { $0.stack == .decoder }
    }

    /// Does one step.
    func step(_ turn: InferenceEngine.Turn) {
        self.removeLeavers(turn)
        guard !turn.running.isEmpty else {
            return
        }
        self.totals.steps += 1
        let now = ContinuousClock.now
        let joined = turn.joined.map { RunningSequence($0, started: now) }
        for sequence in joined {
            self.running[sequence.id] = sequence
            self.engine.metrics.queued(sequence.arrival.time.duration(to: now))
        }
        self.encode(joined)
        let present = turn.running.compactMap { self.running[$0] }
        for sequence in present {
            self.finishEncoded(sequence)
        }
        self.decode(present.filter { $0.rowCount > 0 && self.running[$0.id] != nil })
        self.engine.stepEnded(totals: self.totals)
        self.engine.metrics.stepped(now.duration(to: .now))
    }

    /// Ends all that still run.
    func stop() {
        for sequence in self.running.values {
            self.engine.metrics.ended(.failed)
            sequence.arrival.fail(Self.stopError)
        }
        self.running = [:]
    }

    private func removeLeavers(_ turn: InferenceEngine.Turn) {
        let late = RPCError(.deadlineExceeded, "the call's deadline passed before the request was done")
        let expired = turn.expired.compactMap { self.running.removeValue(forKey: $0)?.arrival }
        for arrival in turn.expiredArrivals + expired {
            self.engine.metrics.ended(.expired)
            arrival.fail(late)
        }
        for arrival in turn.gone.compactMap({ self.running.removeValue(forKey: $0)?.arrival }) {
            self.engine.metrics.ended(.cancelled)
            arrival.sink.finish()
        }
        self.engine.watch.forget(turn.gone)
    }

    // MARK: - Encoder

    private func encode(_ joined: [RunningSequence]) {
        guard !joined.isEmpty else {
            return
        }
        let start = ContinuousClock.now
        let sequences = self.call(.encoder, joined.map { ($0, 1) }) { options, record in
            try self.engine.model.encode(
                joined.map(\.request.input),
                experts: self.engine.watch,
                options: options,
                record: &record
            )
        }
        let end = ContinuousClock.now
        for (index, sequence) in joined.enumerated() where self.running[sequence.id] != nil {
            guard let encoded = sequences?[index] else {
                continue
            }
            sequence.encodeTime = start.duration(to: end)
            sequence.encodeEnd = end
            do throws(GenerationError) {
                try sequence.encoded(
                    encoded,
                    configuration: self.engine.model.configuration,
                    tokenizer: self.engine.tokenizer
                )
            } catch {
                self.fail(sequence, RPCError(.invalidArgument, "parameters.\(error)"))
            }
        }
    }

    /// Ends requests that need no generation: those for hidden states at once, those for scores after one pass.
    private func finishEncoded(_ sequence: RunningSequence) {
        guard case .encoded(let encoded) = sequence.stage else {
            return
        }
        switch sequence.request.work {
        case .generate:
            break
        case .encode:
            self.finish(sequence, .hidden(encoded.hidden), outputTokens: 0)
        case .score(let target, let topLogprobs):
            let start = GenerationVocabulary(self.engine.model.configuration).startTokenID
            let inputs = [start] + target.dropLast()
            let logits = self.call(.decoder, [(sequence, 1)]) { options, record in
                var options = options
                options.logits = .all
                return try self.engine.model.decode(
                    [DecoderInput(cache: DecoderCache(encoded), tokens: inputs)],
                    experts: self.engine.watch,
                    options: options,
                    record: &record
                )
            }
            if let logits, self.running[sequence.id] != nil {
                let scores = TokenScoring.scores(of: target, logits: logits, topLogprobs: topLogprobs)
                self.finish(sequence, .scores(scores), outputTokens: target.count)
            }
        }
    }

    // MARK: - Decoder

    private func decode(_ sequences: [RunningSequence]) {
        guard !sequences.isEmpty else {
            return
        }
        let rows = sequences.flatMap(\.decoderInputs)
        let parts = sequences.map { ($0, $0.rowCount) }
        let logits = self.call(.decoder, parts) { options, record in
            try self.engine.model.decode(rows, experts: self.engine.watch, options: options, record: &record)
        }
        guard let logits else {
            return
        }
        self.totals.decodedTokens += UInt64(rows.count)
        self.engine.metrics.decoded(rows: rows.count)
        let now = ContinuousClock.now
        var firstRow = 0
        for (sequence, rowCount) in parts {
            defer { firstRow += rowCount }
            guard self.running[sequence.id] != nil else {
                continue
            }
            do throws(RPCError) {
                for token in try sequence.advance(logits: logits, firstRow: firstRow) {
                    sequence.arrival.sink.yield(.token(token))
                }
                let (time, isFirst) = sequence.tokenChosen(at: now)
                self.engine.metrics.token(after: time, isFirst: isFirst)
            } catch {
                self.fail(sequence, error)
                continue
            }
            if let generations = sequence.generations(tokenizer: self.engine.tokenizer) {
                let count = generations.reduce(0) { $0 + $1.sequence.tokenIDs.count }
                self.finish(sequence, .generations(generations), outputTokens: count)
            }
        }
    }

    // MARK: - Calls of the model

    /// Calls the model for some requests, then lets those go that left, failed or lost more tokens than they accept.
    ///
    /// - Parameters:
    ///   - stack: The half of the model that is called.
    ///   - parts: The requests and their numbers of inputs, in the order of the inputs.
    ///   - body: Calls the model.
    /// - Returns: What the model returned; nothing if nobody needs it.
    private func call<Output>(
        _ stack: Stack,
        _ parts: [(sequence: RunningSequence, inputs: Int)],
        _ body: (StepOptions, inout RoutingRecord) throws -> Output
    ) -> Output? {
        let members = parts.map { StepBook.Member(id: $0.sequence.id, inputs: $0.inputs) }
        var strict: [SequenceID: @Sendable (RPCError) -> Void] = [:]
        for (sequence, _) in parts where sequence.request.dropPolicy.strict {
            strict[sequence.id] = { [arrival = sequence.arrival] in arrival.fail($0) }
        }
        self.engine.watch.begin(StepBook(members: members), strict: strict)
        var options = StepOptions()
        options.capacityPolicy = self.engine.configuration.capacityPolicy
        options.step = Int(truncatingIfNeeded: self.totals.steps)
        var record = RoutingRecord()
        let result = Result { try body(options, &record) }
        let outcome = self.engine.watch.end()
        self.totals.ledger.add(record)
        self.totals.add(outcome.expertRows)
        self.engine.metrics.add(record, stack: stack)
        var firstInput = 0
        for (sequence, inputs) in parts {
            sequence.account(record, inputs: firstInput..<(firstInput + inputs), stack: stack)
            firstInput += inputs
            let coming = sequence.comingTokens(layers: self.decoderLayers)
            if let error = outcome.failures[sequence.id] {
                self.fail(sequence, error, .lostTokens)
            } else if outcome.left.contains(sequence.id) {
                self.evict(sequence)
            } else if let error = sequence.ledger.violation(of: sequence.request.dropPolicy, coming: coming) {
                self.fail(sequence, error, .lostTokens)
            }
        }
        switch result {
        case .success(let output):
            return output
        case .failure(let error):
            // A step that was stopped has nobody left. Anything else is a fault of ours, and ends whoever is left.
            for (sequence, _) in parts where self.running[sequence.id] != nil {
                self.engine.logger.error("a step failed", metadata: ["error": "\(error)"])
                self.fail(sequence, RPCError(.internal, "the step failed: \(error)"))
            }
            return nil
        }
    }

    // MARK: - Ends

    // The batch slots are free before the client knows, so that whoever has an answer finds room for the next request.

    private func finish(_ sequence: RunningSequence, _ output: EngineResult.Output, outputTokens: Int) {
        // Fewer tokens may have been routed than were possible, so that a fraction is over its limit after all.
        if let error = sequence.ledger.violation(of: sequence.request.dropPolicy) {
            self.fail(sequence, error, .lostTokens)
            return
        }
        let usage = sequence.usage(outputTokens: outputTokens, now: .now)
        self.running[sequence.id] = nil
        self.engine.metrics.ended(.finished)
        self.engine.release(sequence.id, isFinished: true, totals: self.totals)
        sequence.arrival.sink.yield(.finished(EngineResult(output: output, usage: usage)))
        sequence.arrival.sink.finish()
    }

    private func fail(
        _ sequence: RunningSequence,
        _ error: RPCError,
        _ outcome: GatewayMetrics.Outcome = .failed
    ) {
        self.running[sequence.id] = nil
        self.engine.metrics.ended(outcome)
        self.engine.release(sequence.id, isFinished: false, totals: self.totals)
        sequence.arrival.fail(error)
    }

    private func evict(_ sequence: RunningSequence) {
        self.running[sequence.id] = nil
        self.engine.metrics.ended(.cancelled)
        self.engine.release(sequence.id, isFinished: false, totals: self.totals)
        sequence.arrival.sink.finish()
    }
}
