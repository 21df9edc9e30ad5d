// SPDX-License-Identifier: Apache-2.0

import SwitchModel

/// The shortest way from token ids to finished sequences: what search, caches and model are compared with transformers by.
struct PlainGenerator: Sendable {
    /// The model.
    let model: SwitchTransformer

    /// Where the experts are.
    let experts: any ExpertExecutor

    /// Generates.
    ///
    /// - Parameters:
    ///   - input: The encoder's token ids, the end token included.
    ///   - parameters: How tokens are chosen.
    ///   - options: How to run the model.
    ///   - record: Counts what happens to the tokens.
    ///   - onAdvance: Is called after each step of the decoder with what it led to, and may end sequences.
    /// - Returns: The sequences, in the order of ``GenerationSession/results``.
    /// - Throws: `GenerationError` for the parameters; what the model, the executor and `onAdvance` throw.
    func generate(
        _ input: [Int32],
        parameters: GenerationParameters,
        options: StepOptions = StepOptions(),
        record: inout RoutingRecord,
        onAdvance: (inout GenerationSession, GenerationSession.Advance) throws -> Void = { _, _ in }
    ) throws -> [GeneratedSequence] {
        var session = try GenerationSession(parameters: parameters, configuration: self.model.configuration)
        var options = options
        let encoded = try self.model.encode([input], experts: self.experts, options: options, record: &record)
        var caches = encoded.map { DecoderCache($0) }
        while !session.isFinished {
            options.logits = session.needsOnlyGreatest ? .greatest : .last
            let rows = session.decoderInputs(caches)
            let logits = try self.model.decode(rows, experts: self.experts, options: options, record: &record)
            let advance = session.advance(logits: logits, firstRow: 0)
            try onAdvance(&session, advance)
            caches = DecoderCache.arranged(caches, by: session.parents)
        }
        return session.results
    }
}
