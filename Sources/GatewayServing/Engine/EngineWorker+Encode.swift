// SPDX-License-Identifier: Apache-2.0

internal import BatchScheduling
internal import Checkpoints
internal import RPCCore
internal import SwitchModel
internal import SwitchyardTypes

extension EngineWorker {
    /// Sequences whose inputs go through the encoder together, or through the decoder of a model without one, and how far along they are.
    final class Encoding {
        let members: [RunningSequence]
        let tokens: Int
        let run: any InputPass
        let call: WatchedCall
        var record = RoutingRecord()
        let start = ContinuousClock.now

        init(members: [RunningSequence], tokens: Int, run: any InputPass, call: WatchedCall) {
            self.members = members
            self.tokens = tokens
            self.run = run
            self.call = call
        }

        var parts: [(sequence: RunningSequence, inputs: Int)] {
            self.members.map { ($0, 1) }
        }
    }

    /// Encodes everything that waits, without a bound: no decoding is held up.
    func encodeToEnd() {
        while self.beginEncoding(tokens: .max) {
            while self.encoding != nil {
                self.advanceEncoding()
            }
        }
    }

    /// Keeps encoding while the step's bound allows.
    func encodeWithinBound() {
        while self.encodePiece(isWaiting: true) {}
    }

    /// Runs one piece of encoding, if the step's bound allows.
    ///
    /// - Parameter isWaiting: Whether to wait for expert calls in flight.
    /// - Returns: Whether a piece ran.
    func encodePiece(isWaiting: Bool = false) -> Bool {
        guard self.beginEncoding(tokens: self.pacer.tokensPerRun ?? 1), let encoding = self.encoding,
            isWaiting || encoding.run.isReady, self.pacer.mayRun(tokens: encoding.tokens)
        else {
            return false
        }
        self.advanceEncoding()
        return true
    }

    /// Ends an encoder run whose requests have all left.
    func dropAbandonedEncoding() {
        if let encoding, encoding.call.isAbandoned {
            encoding.run.cancel()
            self.end(encoding, result: .failure(CancellationError()))
        }
    }

    /// Starts encoding the next sequences, unless a run is in progress.
    ///
    /// - Parameter limit: Most input tokens to take; one sequence is always taken.
    /// - Returns: Whether there is something to encode.
    private func beginEncoding(tokens limit: Int) -> Bool {
        guard self.encoding == nil else {
            return true
        }
        var members: [RunningSequence] = []
        var tokens = 0
        for sequence in self.toEncode {
            let count = sequence.request.passTokens(isDecoderOnly: self.isDecoderOnly).count
            guard members.isEmpty || tokens + count <= limit else {
                break
            }
            members.append(sequence)
            tokens += count
        }
        guard !members.isEmpty else {
            return false
        }
        self.toEncode.removeFirst(members.count)
        let parts = members.map { (sequence: $0, inputs: 1) }
        let call = self.open(parts)
        do {
            let run = try self.engine.model.inputPass(
                members.map { $0.request.passTokens(isDecoderOnly: self.isDecoderOnly) },
                routes: members.map { $0.request.passRoutes(isDecoderOnly: self.isDecoderOnly) },
                experts: call,
                options: self.options(members)
            )
            self.encoding = Encoding(members: members, tokens: tokens, run: run, call: call)
            return true
        } catch {
            let failed = Result<Void, any Error>.failure(error)
            let record = RoutingRecord()
            _ = self.settle(self.inputStack, parts, call: call, record: record, result: failed, isInput: true)
            return self.beginEncoding(tokens: limit)
        }
    }

    /// Runs one piece of the current run.
    private func advanceEncoding() {
        guard let encoding else {
            return
        }
        let start = ContinuousClock.now
        do {
            try encoding.run.advance(record: &encoding.record)
            self.pacer.pieceDone(tokens: encoding.tokens, time: start.duration(to: .now))
            if encoding.run.isFinished {
                self.end(encoding, result: .success(encoding.run.prepared))
            }
        } catch {
            encoding.run.cancel()
            self.end(encoding, result: .failure(error))
        }
    }

    /// The half of the model that inputs go through.
    private var inputStack: Stack { self.isDecoderOnly ? .decoder : .encoder }

    private func end(_ encoding: Encoding, result: Result<[PreparedInput], any Error>) {
        self.encoding = nil
        let sequences = self.settle(
            self.inputStack,
            encoding.parts,
            call: encoding.call,
            record: encoding.record,
            result: result,
            isInput: true
        )
        guard let sequences else {
            return
        }
        let now = ContinuousClock.now
        self.engine.metrics.encoded(tokens: encoding.tokens, time: encoding.start.duration(to: now))
        var encodedSequences: [RunningSequence] = []
        for (sequence, encoded) in zip(encoding.members, sequences) where self.running[sequence.id] != nil {
            sequence.encodeTime = encoding.start.duration(to: now)
            sequence.encodeEnd = now
            do throws(GenerationError) {
                try sequence.encoded(
                    encoded,
                    configuration: self.engine.model.configuration,
                    tokenizer: self.engine.tokenizer
                )
                encodedSequences.append(sequence)
            } catch {
                self.end(sequence, as: .failed(RPCError(.invalidArgument, "parameters.\(error)")))
            }
        }
        self.finishEncoded(encodedSequences)
    }
}
