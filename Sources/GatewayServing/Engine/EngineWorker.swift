// SPDX-License-Identifier: Apache-2.0

internal import BatchScheduling
internal import Checkpoints
internal import RPCCore
internal import SwitchModel
internal import SwitchyardTypes
internal import Telemetry
internal import TensorKernels

/// The engine's thread: the running sequences, computed one step after another.
///
/// A request that fails ends by itself; its neighbours are unaffected.
final class EngineWorker {
    let engine: InferenceEngine
    var running: [SequenceID: RunningSequence] = [:]
    var totals = EngineTotals()
    private let decoderLayers: Int

    /// Sequences that wait for the encoder, in the order of their admission.
    var toEncode: [RunningSequence] = []
    /// The sequences in the encoder.
    var encoding: Encoding?
    var pacer: EncodePacer
    private var chooser: MicroBatchChooser

    init(engine: InferenceEngine) {
        self.engine = engine
        self.pacer = EncodePacer(bound: engine.configuration.encodeTimePerStep)
        self.chooser = MicroBatchChooser(engine.configuration.overlap)
        self.decoderLayers = engine.model.configuration.sparseLayers.count { $0.stack == .decoder }
    }

    /// Whether the model has no encoder, so that inputs are prompts.
    var isDecoderOnly: Bool { self.engine.model.configuration.design.isDecoderOnly }

    /// Runs one step: decodes a token of each sequence that can decode, and encodes new ones.
    ///
    /// If no sequence decodes, new ones are encoded to the end. Otherwise the encoder gets the time spent waiting for
    /// experts, and a bounded time at the end of the step.
    func step(_ turn: RequestBook.Turn) {
        self.remove(turn.ended + turn.expired)
        guard !turn.running.isEmpty else {
            return
        }
        self.totals.steps += 1
        let now = ContinuousClock.now
        for arrival in turn.joined {
            let sequence = RunningSequence(arrival, started: now, isPrompt: self.isDecoderOnly)
            self.running[sequence.id] = sequence
            self.toEncode.append(sequence)
            self.engine.metrics.queued(arrival.time.duration(to: now))
        }
        self.pacer.stepBegan()
        var decoding = self.decodable(turn.running)
        if decoding.isEmpty {
            self.encodeToEnd()
            decoding = self.decodable(turn.running)
        }
        self.decode(decoding)
        self.encodeWithinBound()
        self.engine.publish(self.totals)
        self.engine.metrics.stepped(now.duration(to: .now))
    }

    private func decodable(_ ids: [SequenceID]) -> [RunningSequence] {
        ids.compactMap { self.running[$0] }.filter { $0.rowCount > 0 }
    }

    /// Drops everything left once the engine has stopped.
    func stop() {
        self.running = [:]
        self.dropAbandonedEncoding()
    }

    /// Drops the state of requests that have ended.
    private func remove(_ ended: [SequenceID]) {
        guard !ended.isEmpty else { return }
        for id in ended {
            self.running[id] = nil
        }
        self.engine.watch.forget(ended)
        self.toEncode.removeAll { self.running[$0.id] == nil }
        self.dropAbandonedEncoding()
    }

    // MARK: - Decoder

    private func decode(_ sequences: [RunningSequence]) {
        guard !sequences.isEmpty else {
            return
        }
        let rows = sequences.flatMap(\.decoderInputs)
        let parts = sequences.map { ($0, $0.rowCount) }
        let microBatches = self.chooser.microBatches(rows: rows.count)
        let start = ContinuousClock.now
        var filled = false
        let logits = self.call(.decoder, parts) { call, options, record in
            var options = options
            options.microBatches = microBatches
            options.logits = sequences.allSatisfy(\.needsOnlyGreatest) ? .greatest : .last
            return try self.engine.model.decode(rows, experts: call, options: options, record: &record) {
                filled = true
                return self.encodePiece()
            }
        }
        guard let logits else {
            return
        }
        if !filled {
            self.chooser.stepDone(rows: rows.count, microBatches: microBatches, time: start.duration(to: .now))
        }
        self.totals.decodedTokens += UInt64(rows.count)
        let now = ContinuousClock.now
        self.engine.metrics.decoded(rows: rows.count, time: start.duration(to: now))
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
                self.end(sequence, as: .failed(error))
                continue
            }
            if let generations = sequence.generations(tokenizer: self.engine.tokenizer) {
                let count = generations.reduce(0) { $0 + $1.sequence.tokenIDs.count }
                self.finish(sequence, .generations(generations), outputTokens: count)
            }
        }
    }

    // MARK: - Calls of the model

    /// Calls the model for some requests, then drops those that were cancelled, failed or lost more tokens than they
    /// accept.
    ///
    /// - Parameters:
    ///   - stack: The half of the model to call.
    ///   - parts: The requests with their input counts, in the order of the inputs.
    ///   - body: Calls the model with the given experts.
    /// - Returns: What the model returned; nil if no request is left to need it.
    func call<Output>(
        _ stack: Stack,
        _ parts: [(sequence: RunningSequence, inputs: Int)],
        _ body: (WatchedCall, StepOptions, inout RoutingRecord) throws -> Output
    ) -> Output? {
        let call = self.open(parts)
        var record = RoutingRecord()
        let result = Result { try body(call, self.options(parts.map(\.sequence)), &record) }
        return self.settle(stack, parts, call: call, record: record, result: result)
    }

    /// The options of the next call: what any of its requests needs, all of them get, without another result.
    func options(_ sequences: [RunningSequence]) -> StepOptions {
        var options = StepOptions()
        options.collectRouting = sequences.contains { $0.request.routing.isCollected }
        options.collectRouterStatistics = sequences.contains { $0.request.routing.returnsStatistics }
        options.capacityPolicy = self.engine.configuration.capacityPolicy
        return options
    }

    /// Starts a call of the model for some requests.
    func open(_ parts: [(sequence: RunningSequence, inputs: Int)]) -> WatchedCall {
        let members = parts.map { StepBook.Member(id: $0.sequence.id, inputs: $0.inputs) }
        var strict: [SequenceID: @Sendable (RPCError) -> Void] = [:]
        for (sequence, _) in parts where sequence.request.dropPolicy.strict {
            strict[sequence.id] = { [engine = self.engine, id = sequence.id] in engine.end(id, as: .lostTokens($0)) }
        }
        let trace = StepTrace(parts.lazy.compactMap(\.sequence.sampledTrace))
        return self.engine.watch.open(StepBook(members: members), strict: strict, trace: trace)
    }

    /// Ends a call of the model: counts what it did, and drops requests that were cancelled, failed or lost more
    /// tokens than they accept.
    ///
    /// - Parameters:
    ///   - stack: The half of the model that was called.
    ///   - parts: The requests with their input counts, in the order of the inputs.
    ///   - call: The call.
    ///   - record: What happened to the tokens.
    ///   - result: What the model returned, or why it did not.
    ///   - isInput: Whether the model was called with the requests' inputs, before their first step.
    /// - Returns: What the model returned; nil if no request is left to need it.
    func settle<Output>(
        _ stack: Stack,
        _ parts: [(sequence: RunningSequence, inputs: Int)],
        call: WatchedCall,
        record: RoutingRecord,
        result: Result<Output, any Error>,
        isInput: Bool = false
    ) -> Output? {
        let outcome = call.end()
        self.totals.ledger.add(record)
        self.totals.add(outcome.expertRows)
        self.engine.metrics.add(record, stack: stack)
        var firstInput = 0
        for (sequence, inputs) in parts {
            sequence.account(record, inputs: firstInput..<(firstInput + inputs), stack: stack, isInput: isInput)
            firstInput += inputs
            guard self.running[sequence.id] != nil else {
                continue
            }
            let coming = sequence.comingTokens(layers: self.decoderLayers)
            if outcome.left.contains(sequence.id) {
                // It ended when it was cancelled.
                self.running[sequence.id] = nil
            } else if let error = sequence.ledger.violation(of: sequence.request.dropPolicy, coming: coming) {
                self.end(sequence, as: .lostTokens(error))
            }
        }
        switch result {
        case .success(let output):
            return output
        case .failure(let error):
            // A stopped step has no request left. Anything else is our own fault and ends the remaining requests.
            for (sequence, _) in parts where self.running[sequence.id] != nil {
                self.end(sequence, as: .failed(RPCError(.internal, "the step failed: \(error)")))
            }
            return nil
        }
    }

    // MARK: - Ends

    /// Ends a request with its answer, unless it lost more tokens than it accepts.
    func finish(_ sequence: RunningSequence, _ output: EngineResult.Output, outputTokens: Int) {
        self.end(sequence, as: sequence.end(with: output, outputTokens: outputTokens, now: .now))
    }

    /// Ends a request that is on this thread.
    func end(_ sequence: RunningSequence, as end: RequestEnd) {
        self.running[sequence.id] = nil
        // Publish the counts first, so that they include the request once its client has the answer.
        self.engine.publish(self.totals)
        self.engine.end(sequence.id, as: end)
    }
}
