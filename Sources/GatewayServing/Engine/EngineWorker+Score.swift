// SPDX-License-Identifier: Apache-2.0

internal import Checkpoints
internal import SwitchModel
internal import SwitchyardTypes
internal import TensorKernels

extension EngineWorker {
    /// The most tokens of targets in one pass of the decoder; a longer target has a pass of its own.
    ///
    /// Each token has a row of logits as long as the vocabulary, so this bounds the memory of a pass.
    static let targetTokensPerPass = 512

    /// A sequence to score, and the pieces of its request.
    private struct Target {
        let sequence: RunningSequence
        let input: PreparedInput
        let tokens: [Int32]
        let topLogprobs: Int
    }

    /// Ends requests that need no generation: hidden states at once, scores after a pass that they share.
    ///
    /// - Parameter sequences: Requests that went through the encoder.
    func finishEncoded(_ sequences: [RunningSequence]) {
        var targets: [Target] = []
        for sequence in sequences {
            guard case .encoded(let encoded) = sequence.stage else { continue }
            switch sequence.request.work {
            case .generate:
                break
            case .encode:
                self.finish(sequence, .hidden(encoded.hidden), outputTokens: 0)
            case .score(let tokens, let count):
                let target = Target(sequence: sequence, input: encoded, tokens: tokens, topLogprobs: count)
                if case .prefilled(let prompt) = encoded {
                    self.finish(target, afterPrompt: prompt)
                } else {
                    targets.append(target)
                }
            }
        }
        var pass: [Target] = []
        var tokens = 0
        for target in targets {
            if !pass.isEmpty, tokens + target.tokens.count > Self.targetTokensPerPass {
                self.score(pass)
                (pass, tokens) = ([], 0)
            }
            pass.append(target)
            tokens += target.tokens.count
        }
        self.score(pass)
    }

    /// Scores targets in one pass of the decoder.
    private func score(_ targets: [Target]) {
        // A client may have left while an earlier pass ran.
        let targets = targets.filter { self.running[$0.sequence.id] != nil }
        guard !targets.isEmpty else { return }
        let start = GenerationVocabulary(self.engine.model.configuration).startTokenID
        let inputs = targets.map { target in
            DecoderInput(
                cache: target.input.makeCache(),
                tokens: [start] + target.tokens.dropLast(),
                routes: target.sequence.request.routing.decoderRoutes
            )
        }
        let logits = self.call(.decoder, targets.map { ($0.sequence, 1) }) { call, options, record in
            var options = options
            options.logits = .all
            return try self.engine.model.decode(inputs, experts: call, options: options, record: &record)
        }
        guard let logits else { return }
        var firstRow = 0
        for target in targets {
            defer { firstRow += target.tokens.count }
            guard self.running[target.sequence.id] != nil else { continue }
            self.finish(target, logits: logits, firstRow: firstRow)
        }
    }

    /// Scores a target that went through the decoder behind its prompt.
    private func finish(_ target: Target, afterPrompt prompt: PrefilledSequence) {
        guard self.running[target.sequence.id] != nil else { return }
        let first = target.sequence.request.input.count - 1
        let rows = first..<(first + target.tokens.count)
        self.finish(target, logits: self.engine.model.logits(ofFinal: prompt.hidden, rows: rows), firstRow: 0)
    }

    /// Ends a request with the scores of its target.
    private func finish(_ target: Target, logits: FloatMatrix, firstRow: Int) {
        let sequence = target.sequence
        let rows = firstRow..<(firstRow + target.tokens.count)
        let scores = TokenScoring.scores(
            of: target.tokens,
            logits: logits,
            firstRow: firstRow,
            topLogprobs: target.topLogprobs
        )
        if sequence.request.returnsLogits { sequence.logits = TokenScoring.rows(rows, of: logits) }
        sequence.distributions = sequence.request.distributions.map {
            TokenScoring.distributions($0, rows: rows, of: logits)
        }
        self.finish(sequence, .scores(scores), outputTokens: target.tokens.count)
    }
}
