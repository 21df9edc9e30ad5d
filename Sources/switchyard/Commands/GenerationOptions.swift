// SPDX-License-Identifier: Apache-2.0

import ArgumentParser
import SwitchyardProtos

/// How to generate, as flags.
///
/// A flag that is not given is not sent, so that the model's own setting applies; a zero that is given is sent.
struct GenerationOptions: ParsableArguments {
    @OptionGroup(title: "Length and search") var search: SearchOptions

    @OptionGroup(title: "Sampling") var sampling: SamplingOptions

    @OptionGroup(title: "Tokens") var tokens: TokenOptions

    @Option(help: "End the answer before this text; may be given several times.")
    var stop: [String] = []

    @Flag(help: "Leave out the score, so that greedy search can skip logits that cannot be the best.")
    var skipScores = false

    @Option(help: "Begin every answer with this text, and print what follows it.")
    var decoderText: String?

    @Option(help: ArgumentHelp("The same as token ids.", valueName: "ids"))
    var decoderTokens: TokenList?

    @Flag(help: "Fail instead of dropping tokens whose expert host does not answer.")
    var strict = false

    @Option(
        help:
            "Fail when hosts lose more than this fraction of the routed tokens. 0 takes the gateway's limit, 1 accepts any loss. (default: 0)"
    )
    var maxDroppedFraction: Float?

    @Option(
        help: "How soon it gets batch slots among this caller's requests: low, normal or high. (default: the gateway's)"
    )
    var priority: PriorityChoice?

    @Option(
        help: ArgumentHelp(
            "Give up after this long without batch slots; 0 waits for as long as --timeout allows. (default: the gateway's)",
            valueName: "ms"
        )
    )
    var queueTimeoutMs: UInt32?

    func validate() throws {
        if self.decoderText != nil, self.decoderTokens != nil {
            throw ValidationError("--decoder-text and --decoder-tokens both say how an answer begins; choose one")
        }
    }

    /// The flags as the request's message.
    var message: GenerationParameters {
        var message = GenerationParameters()
        self.search.fill(&message)
        self.sampling.fill(&message)
        self.tokens.fill(&message)
        message.stop = self.stop
        message.skipScores = self.skipScores
        return message
    }

    /// Whether any flag says how to generate; those of drops and turns hold for other calls too.
    var isGiven: Bool { !self.message.serialized().isEmpty || self.decoderPrefix != nil }

    /// The flags as what every answer begins with.
    var decoderPrefix: ModelInput? {
        self.decoderText.map { .text($0) } ?? self.decoderTokens.map { .tokenIDs($0.ids) }
    }

    /// The largest fraction of routed tokens that hosts may lose; half of them if no flag says otherwise.
    var acceptedLoss: Float { self.maxDroppedFraction.flatMap { $0 > 0 ? $0 : nil } ?? Self.defaultAcceptedLoss }

    /// What a gateway accepts by default too.
    static let defaultAcceptedLoss: Float = 0.5

    /// The flags as the request's drop policy.
    var dropPolicy: DropPolicy {
        DropPolicy(strict: self.strict, maxDroppedFraction: self.maxDroppedFraction ?? 0)
    }
}

/// How long answers are, and how they are searched for.
struct SearchOptions: ParsableArguments {
    @Option(help: "Generate at most this many tokens. (default: the model's, else 20)")
    var maxNewTokens: UInt32?

    @Option(help: "The same, counting the start token and a decoder prefix; --max-new-tokens wins.")
    var maxLength: UInt32?

    @Option(help: "Do not end before this many tokens. (default: the model's, else 0)")
    var minNewTokens: UInt32?

    @Option(help: "The same, counting the start token and a decoder prefix; --min-new-tokens wins.")
    var minLength: UInt32?

    @Option(help: "Number of beams; 1 is greedy search. (default: the model's, else 1)")
    var beams: UInt32?

    @Option(help: "Divide a score by its length to this power. (default: the model's, else 1)")
    var lengthPenalty: Float?

    @Option(help: "When beam search may stop: true, false or never. (default: the model's, else false)")
    var earlyStopping: StoppingChoice?

    @Option(help: "Groups of beams that search side by side. (default: the model's, else 1)")
    var beamGroups: UInt32?

    @Option(help: "Take this from a token's score for each beam of an earlier group that chose it.")
    var diversityPenalty: Float?

    @Option(help: "Number of answers: up to the number of beams, or any with --sample. (default: the model's, else 1)")
    var returnSequences: UInt32?

    func fill(_ message: inout GenerationParameters) {
        message.maxNewTokens = self.maxNewTokens
        message.maxLength = self.maxLength
        message.minNewTokens = self.minNewTokens
        message.minLength = self.minLength
        message.numBeams = self.beams
        message.lengthPenalty = self.lengthPenalty
        message.earlyStopping = self.earlyStopping?.message ?? .unspecified
        message.numBeamGroups = self.beamGroups
        message.diversityPenalty = self.diversityPenalty
        message.numReturnSequences = self.returnSequences
    }
}

/// How tokens are drawn.
struct SamplingOptions: ParsableArguments {
    @Flag(inversion: .prefixedNo, help: "Sample instead of taking the best token. (default: the model's, else no)")
    var sample: Bool?

    @Option(help: "Seed of sampling. (default: drawn, and told with --json)")
    var seed: UInt64?

    @Option(help: "Divide logits by this before sampling. (default: the model's, else 1)")
    var temperature: Float?

    @Option(help: "Sample from this many of the best tokens; 0 is all. (default: the model's, else 50)")
    var topK: UInt32?

    @Option(help: "Sample from the best tokens that together have this probability. (default: the model's, else 1)")
    var topP: Float?

    @Option(help: "Sample from tokens at least this fraction as likely as the best. (default: the model's, else 0)")
    var minP: Float?

    @Option(help: "Sample from typical tokens that together have this probability. (default: the model's, else 1)")
    var typicalP: Float?

    @Option(help: "Sample from tokens of at least this probability. (default: the model's, else 0)")
    var epsilonCutoff: Float?

    @Option(help: "The same, where the probability depends on the entropy. (default: the model's, else 0)")
    var etaCutoff: Float?

    func fill(_ message: inout GenerationParameters) {
        message.doSample = self.sample
        message.seed = self.seed
        message.temperature = self.temperature
        message.topK = self.topK
        message.topP = self.topP
        message.minP = self.minP
        message.typicalP = self.typicalP
        message.epsilonCutoff = self.epsilonCutoff
        message.etaCutoff = self.etaCutoff
    }
}

/// Which tokens are favored, forced or left out.
struct TokenOptions: ParsableArguments {
    @Option(help: "Divide the logits of tokens that already occurred by this. (default: the model's, else 1)")
    var repetitionPenalty: Float?

    @Option(help: "Above 1, favor the input's tokens. (default: the model's, else 1)")
    var encoderRepetitionPenalty: Float?

    @Option(help: "Let no sequence of this many tokens occur twice; 0 is off. (default: the model's, else 0)")
    var noRepeatNgramSize: UInt32?

    @Option(help: "Let no sequence of this many of the input's tokens occur; 0 is off. (default: the model's, else 0)")
    var encoderNoRepeatNgramSize: UInt32?

    @Option(help: ArgumentHelp("A sequence of token ids that must not occur; repeatable.", valueName: "ids"))
    var badWords: [TokenList] = []

    @Option(help: ArgumentHelp("Never choose these tokens; none to lift the model's.", valueName: "ids"))
    var suppressTokens: TokenList?

    @Option(help: ArgumentHelp("Do not choose these tokens first; none to lift the model's.", valueName: "ids"))
    var beginSuppressTokens: TokenList?

    @Option(help: ArgumentHelp("Choose this token first; none to lift the model's.", valueName: "id"))
    var forcedFirstToken: TokenList?

    @Option(help: ArgumentHelp("Choose one of these last, at the greatest length; none to lift.", valueName: "ids"))
    var forcedLastTokens: TokenList?

    @Option(help: ArgumentHelp("Add to a token sequence's score, as in 45,7=-1.5; repeatable.", valueName: "ids=bias"))
    var sequenceBias: [BiasChoice] = []

    @Option(help: ArgumentHelp("From a length on, favor the end by a factor, as in 15,1.6.", valueName: "start,factor"))
    var lengthDecay: DecayChoice?

    @Flag(
        inversion: .prefixedNo,
        help: "Make scores log-probabilities again after all changes. (default: the model's, else no)"
    )
    var renormalize: Bool?

    @Option(help: ArgumentHelp("End at any of these tokens. (default: the model's)", valueName: "ids"))
    var endTokens: TokenList?

    @Option(help: ArgumentHelp("Start from this token. (default: the model's)", valueName: "id"))
    var startToken: UInt32?

    func fill(_ message: inout GenerationParameters) {
        message.repetitionPenalty = self.repetitionPenalty
        message.encoderRepetitionPenalty = self.encoderRepetitionPenalty
        message.noRepeatNgramSize = self.noRepeatNgramSize
        message.encoderNoRepeatNgramSize = self.encoderNoRepeatNgramSize
        message.badWordsIDs = self.badWords.isEmpty ? nil : TokenLists(lists: self.badWords.map(\.message))
        message.suppressTokens = self.suppressTokens?.message
        message.beginSuppressTokens = self.beginSuppressTokens?.message
        message.forcedBosTokenID = self.forcedFirstToken?.message
        message.forcedEosTokenID = self.forcedLastTokens?.message
        message.sequenceBias =
            self.sequenceBias.isEmpty ? nil : SequenceBiases(biases: self.sequenceBias.map(\.message))
        message.exponentialDecayLengthPenalty = self.lengthDecay?.message
        message.renormalizeLogits = self.renormalize
        message.eosTokenID = self.endTokens?.message
        message.decoderStartTokenID = self.startToken
    }
}

/// Token ids as a flag's value: `17,4`, or `none`.
struct TokenList: ExpressibleByArgument {
    var ids: [UInt32]

    var message: TokenIDs { TokenIDs(ids: self.ids) }

    init?(argument: String) {
        guard argument != "none" else {
            self.ids = []
            return
        }
        self.ids = []
        for part in argument.split(separator: ",", omittingEmptySubsequences: false) {
            guard let id = UInt32(part) else { return nil }
            self.ids.append(id)
        }
    }
}

/// A bias as a flag's value: `45,7=-1.5`.
struct BiasChoice: ExpressibleByArgument {
    var message: SequenceBias

    init?(argument: String) {
        let parts = argument.split(separator: "=", omittingEmptySubsequences: false)
        guard parts.count == 2, let tokens = TokenList(argument: String(parts[0])), !tokens.ids.isEmpty,
            let bias = Float(parts[1])
        else { return nil }
        self.message = SequenceBias(tokens: tokens.ids, bias: bias)
    }
}

/// A length and a factor as a flag's value: `15,1.6`.
struct DecayChoice: ExpressibleByArgument {
    var message: LengthDecay

    init?(argument: String) {
        let parts = argument.split(separator: ",", omittingEmptySubsequences: false)
        guard parts.count == 2, let start = UInt32(parts[0]), let factor = Float(parts[1]) else { return nil }
        self.message = LengthDecay(startIndex: start, factor: factor)
    }
}

/// When beam search may stop, as a flag's value.
enum StoppingChoice: String, ExpressibleByArgument, CaseIterable {
    case `true`
    case `false`
    case never

    var message: WireEarlyStopping {
        switch self {
        case .true: .always
        case .false: .heuristic
        case .never: .never
        }
    }
}

/// How soon a request gets batch slots, as a flag's value.
enum PriorityChoice: String, ExpressibleByArgument, CaseIterable {
    case low
    case normal
    case high

    var message: Priority {
        switch self {
        case .low: .low
        case .normal: .normal
        case .high: .high
        }
    }
}
