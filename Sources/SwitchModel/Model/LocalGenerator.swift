// SPDX-License-Identifier: Apache-2.0

internal import Checkpoints

/// Generates for one request at a time, on the calling thread: what a gateway does for many, without the batching.
public struct LocalGenerator: Sendable {
    /// What a generation gave, and what it took.
    public struct Outcome: Sendable {
        /// The sequences, as ``GenerationSession/results`` orders them.
        public var sequences: [GeneratedSequence]

        /// What happened to the tokens in encode and in all decoder steps, the request being sequence 0.
        public var record: RoutingRecord

        /// How long encode took.
        public var encodeTime: Duration

        /// How long all decoder steps took together.
        public var decodeTime: Duration

        /// Number of decoder steps.
        public var steps: Int
    }

    /// The model.
    public let model: SwitchTransformer

    /// Where the experts are.
    public let experts: any ExpertExecutor

    /// Creates a generator.
    ///
    /// - Parameters:
    ///   - model: The model.
    ///   - experts: Where the experts are.
    public init(model: SwitchTransformer, experts: any ExpertExecutor) {
        self.model = model
        self.experts = experts
    }

    /// Generates from one input.
    ///
    /// - Parameters:
    ///   - input: Token ids, the end token included.
    ///   - parameters: How tokens are chosen.
    ///   - options: How to run the model; `logits` has no meaning here.
    ///   - onToken: Told each token of greedy search and sampling as it is chosen; returns whether its sequence ends
    ///     with it. Never called in a beam search.
    /// - Returns: The sequences and what they took.
    /// - Throws: `GenerationError` for parameters that are not valid, `ModelError` for an empty input and unknown ids,
    ///   `StepInterrupted` when the executor refuses to go on.
    public func generate(
        _ input: [Int32],
        parameters: GenerationParameters = GenerationParameters(),
        options: StepOptions = StepOptions(),
        onToken: (EmittedToken) -> Bool = { _ in false }
    ) throws -> Outcome {
        let configuration = self.model.configuration
        var session = try GenerationSession(
            parameters: parameters,
            vocabulary: GenerationVocabulary(
                size: configuration.vocabularySize, startTokenID: Int32(clamping: configuration.decoderStartTokenID),
                endTokenID: Int32(clamping: configuration.endTokenID)
            )
        )
        var options = options
        options.logits = .last
        let clock = ContinuousClock()
        let start = clock.now
        var record = RoutingRecord()
        let encoded = try self.model.encode([input], experts: self.experts, options: options, record: &record)
        let encodedAt = clock.now
        var caches = encoded.map { DecoderCache($0) }
        var steps = 0
        while !session.isFinished {
            let rows = zip(caches, session.nextTokens).map { DecoderInput(cache: $0, tokens: [$1]) }
            options.step = steps
            var stepRecord = RoutingRecord()
            let logits = try self.model.decode(rows, experts: self.experts, options: options, record: &stepRecord)
            record.add(stepRecord, sequences: rows.indices, as: 0)
            let advance = session.advance(logits: logits, firstRow: 0)
            let stopped = advance.emitted.compactMap { token in onToken(token) ? token.row : nil }
            // From the highest row down, since the rows above a finished one move.
            for row in stopped.sorted(by: >) {
                session.finish(row: row)
            }
            caches = caches.continued(by: session.parents)
            steps += 1
        }
        return Outcome(
            sequences: session.results, record: record, encodeTime: start.duration(to: encodedAt),
            decodeTime: encodedAt.duration(to: clock.now), steps: steps
        )
    }
}
