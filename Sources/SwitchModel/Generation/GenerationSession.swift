// SPDX-License-Identifier: Apache-2.0

public import Checkpoints
public import TensorKernels

/// One request's generation: takes the scores of a step, says which tokens the next step needs.
///
/// A machine that knows nothing of the model and does no I/O. A step goes like this: the caller runs the decoder on
/// ``nextTokens``, one row each, hands the logits to ``advance(logits:firstRow:)``, ends sequences with
/// ``finish(row:reason:)`` as it sees fit, and then arranges its caches by ``parents``. It is over when ``isFinished``
/// says so.
///
/// Before the first step there is always one row; from then on a running search has at most as many rows as sequences
/// or beams.
public struct GenerationSession: Sendable {
    /// What a step led to.
    public struct Advance: Sendable, Equatable {
        /// For each row of the next step, the row of this step that it continues.
        public var parents: [Int] = []

        /// The tokens that were chosen, in the order of the rows; none in a beam search, where a token is certain only at
        /// the end.
        public var emitted: [EmittedToken] = []

        /// The rows of this step without a single score above minus infinity; their sequences were ended by the end token.
        ///
        /// A sound model has none of these.
        public var unusableRows: [Int] = []

        /// Creates a finished session's empty answer.
        public init() {}
    }

    // Exactly one of these is set; unlike an enum's payloads, optionals can be changed in place.
    private var independent: IndependentSearch?
    private var beams: BeamSearch?
    private var groups: GroupBeamSearch?

    /// The vocabulary.
    public let vocabulary: GenerationVocabulary

    /// The parameters.
    public let parameters: GenerationParameters

    /// The tokens between the start token and the first new one.
    public let decoderPrefix: [Int32]

    /// Whether the first step was taken, and with it the decoder prefix.
    private var isStarted = false

    /// Starts a generation.
    ///
    /// - Parameters:
    ///   - parameters: How tokens are chosen.
    ///   - vocabulary: The model's vocabulary.
    ///   - encoderTokens: The encoder's input, the end token included, which the parameters about it go by.
    ///   - decoderPrefix: Tokens between the start token and the first new one, as the rest of transformers'
    ///     `decoder_input_ids`. They count as generated for penalties and n-grams, but not in lengths, and are not in
    ///     the results.
    /// - Throws: `GenerationError` when the parameters or tokens are invalid, on their own or for this vocabulary.
    public init(
        parameters: GenerationParameters,
        vocabulary: GenerationVocabulary,
        encoderTokens: [Int32] = [],
        decoderPrefix: [Int32] = []
    ) throws(GenerationError) {
        try parameters.validate()
        let ids = 0..<Int32(clamping: vocabulary.size)
        guard ids.contains(vocabulary.startTokenID) else {
            throw GenerationError(
                field: "decoder_start_token_id",
                message: "must be within the vocabulary of \(vocabulary.size), but is \(vocabulary.startTokenID)"
            )
        }
        try GenerationParameters.check("eos_token_id", vocabulary.endTokenIDs, in: vocabulary)
        try GenerationParameters.check("pad_token_id", vocabulary.padTokenID.map { [$0] } ?? [], in: vocabulary)
        try GenerationParameters.check("input_ids", encoderTokens, in: vocabulary)
        try GenerationParameters.check("decoder_input_ids", decoderPrefix, in: vocabulary)
        try parameters.validate(for: vocabulary)
        if encoderTokens.isEmpty {
            try parameters.checkNothingOfEncoder()
        }
        try Self.checkWidth(parameters, vocabulary)
        self.parameters = parameters
        self.vocabulary = vocabulary
        self.decoderPrefix = decoderPrefix
        let processing = ScoreProcessing(
            parameters: parameters,
            vocabulary: vocabulary,
            encoderTokens: encoderTokens,
            decoderPrefix: decoderPrefix
        )
        if parameters.beamGroups > 1 {
            self.groups = GroupBeamSearch(parameters: parameters, vocabulary: vocabulary, processing: processing)
        } else if parameters.beamCount > 1 {
            self.beams = BeamSearch(parameters: parameters, vocabulary: vocabulary, processing: processing)
        } else {
            self.independent = IndependentSearch(
                parameters: parameters,
                vocabulary: vocabulary,
                processing: processing
            )
        }
    }

    /// Checks that the first step's one row has enough continuations for the beams of a search, or of one of its groups.
    private static func checkWidth(
        _ parameters: GenerationParameters,
        _ vocabulary: GenerationVocabulary
    ) throws(GenerationError) {
        let most = parameters.beamGroups * (vocabulary.size / vocabulary.continuationsPerBeam)
        guard parameters.beamCount <= most || parameters.beamCount == 1 else {
            throw GenerationError(
                field: "num_beams",
                message: """
                    must be at most \(most), the vocabulary of \(vocabulary.size) divided by the end tokens and one, \
                    times the groups, but is \(parameters.beamCount)
                    """
            )
        }
    }

    /// Starts a generation with a model's vocabulary.
    ///
    /// - Parameters:
    ///   - parameters: How tokens are chosen.
    ///   - configuration: The model's configuration.
    ///   - encoderTokens: The encoder's input, the end token included, which the parameters about it go by.
    ///   - decoderPrefix: Tokens between the start token and the first new one.
    /// - Throws: `GenerationError` when the parameters or tokens are invalid, on their own or for this model.
    public init(
        parameters: GenerationParameters,
        configuration: ModelConfiguration,
        encoderTokens: [Int32] = [],
        decoderPrefix: [Int32] = []
    ) throws(GenerationError) {
        try self.init(
            parameters: parameters,
            vocabulary: GenerationVocabulary(configuration),
            encoderTokens: encoderTokens,
            decoderPrefix: decoderPrefix
        )
    }

    /// The number of decoder rows that the next step needs; 0 once finished.
    public var rowCount: Int { self.nextTokens.count }

    /// One token for each row of the next step; the first time the start token, which the decoder prefix follows, see
    /// ``decoderInputs(_:)``.
    public var nextTokens: [Int32] {
        self.independent?.nextTokens ?? self.beams?.nextTokens ?? self.groups?.nextTokens ?? []
    }

    /// For each row of the next step, the row of the last step that it continues; empty before the first step.
    ///
    /// Unlike ``Advance/parents`` this is without the rows that were finished since.
    public var parents: [Int] {
        self.independent?.parents ?? self.beams?.parents ?? self.groups?.parents ?? []
    }

    /// Whether every sequence has ended.
    public var isFinished: Bool {
        self.independent?.isFinished ?? self.beams?.isFinished ?? self.groups?.isFinished ?? true
    }

    /// The finished sequences: in the order of their numbers, or, once a beam search is finished, the best first.
    public var results: [GeneratedSequence] {
        self.independent?.results ?? self.beams?.results ?? self.groups?.results ?? []
    }

    /// Whether the next step's logits may be those of ``StepOptions/Logits/greatest``.
    public var needsOnlyGreatest: Bool { self.independent?.needsOnlyGreatest ?? false }

    /// The next step's rows.
    ///
    /// - Parameter caches: The rows' caches, one each.
    /// - Returns: For each cache one token, or in the first step the start token and the decoder prefix, and what the
    ///   row must not choose next.
    public func decoderInputs(_ caches: [DecoderCache]) -> [DecoderInput] {
        let excluded = self.independent?.excludedTokens ?? []
        return zip(caches, self.nextTokens).enumerated()
            .map { row, next in
                DecoderInput(
                    cache: next.0,
                    tokens: self.isStarted ? [next.1] : [next.1] + self.decoderPrefix,
                    excludedToken: excluded.indices.contains(row) ? excluded[row] : nil
                )
            }
    }

    /// Takes a step's scores.
    ///
    /// - Parameters:
    ///   - logits: The scores, float32, [rows, vocabulary]; they are only read.
    ///   - firstRow: Where this session's ``rowCount`` rows begin.
    /// - Returns: What the step led to. Empty when the session has already finished.
    public mutating func advance(logits: FloatMatrix, firstRow: Int) -> Advance {
        let count = self.rowCount
        guard count > 0 else { return Advance() }
        precondition(
            logits.columns == self.vocabulary.size,
            "logits of \(logits.columns) columns for a vocabulary of \(self.vocabulary.size)"
        )
        precondition(
            firstRow >= 0 && count <= logits.rows - firstRow,
            "rows \(firstRow)..<\(firstRow + count) of logits that have \(logits.rows)"
        )
        self.isStarted = true
        return self.independent?.advance(logits: logits, firstRow: firstRow)
            ?? self.beams?.advance(logits: logits, firstRow: firstRow)
            ?? self.groups?.advance(logits: logits, firstRow: firstRow)
            ?? Advance()
    }

    /// Ends the sequence that a row of the next step would continue.
    ///
    /// The rows above it move down by one, as in ``nextTokens`` and ``parents``, so end several from the highest row to
    /// the lowest. In a beam search the sequence competes with the other finished ones.
    ///
    /// - Parameters:
    ///   - row: The next step's row, below ``rowCount``.
    ///   - reason: Why; a beam search always says ``FinishReason/stop``.
    public mutating func finish(row: Int, reason: FinishReason = .stop) {
        precondition(row >= 0 && row < self.rowCount, "row \(row) of \(self.rowCount)")
        self.independent?.finish(row: row, reason: reason)
        self.beams?.finish(row: row)
        self.groups?.finish(row: row)
    }
}
