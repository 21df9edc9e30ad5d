// SPDX-License-Identifier: Apache-2.0

import ArgumentParser
import SwitchyardProtos

/// How to generate, as flags.
///
/// A flag that is not given is not sent, so that the model's own default applies.
struct GenerationOptions: ParsableArguments {
    @Option(help: "Generate at most this many tokens. (default: the model's, else 20)")
    var maxNewTokens: UInt32?

    @Option(help: "Do not end before this many tokens. (default: the model's, else 0)")
    var minNewTokens: UInt32?

    @Option(help: "Number of beams; 1 is greedy search. (default: the model's, else 1)")
    var beams: UInt32?

    @Option(help: "Divide a score by its length to this power. (default: the model's, else 1)")
    var lengthPenalty: Float?

    @Flag(help: "Sample instead of taking the best token.")
    var sample = false

    @Option(help: "Divide logits by this before sampling. (default: the model's, else 1)")
    var temperature: Float?

    @Option(help: "Sample from this many of the best tokens. (default: the model's, else 50)")
    var topK: UInt32?

    @Option(help: "Sample from the best tokens that together have this probability. (default: the model's, else 1)")
    var topP: Float?

    @Option(help: "Divide the logits of tokens that already occurred by this. (default: the model's, else 1)")
    var repetitionPenalty: Float?

    @Option(help: "Seed of sampling. (default: 0)")
    var seed: UInt64?

    @Option(help: "End the answer before this text; may be given several times.")
    var stop: [String] = []

    @Option(help: "Number of answers: up to the number of beams, or any with --sample. (default: the model's, else 1)")
    var returnSequences: UInt32?

    @Flag(help: "Leave out the score, so that greedy search can skip logits that cannot be the best.")
    var skipScores = false

    @Flag(help: "Fail instead of dropping tokens whose expert host does not answer.")
    var strict = false

    @Option(help: "Fail when hosts lose more than this fraction of the routed tokens. (default: unlimited)")
    var maxDroppedFraction: Float?

    /// The flags as the request's message; a missing flag is zero, which means the model's default.
    var message: GenerationParameters {
        var message = GenerationParameters()
        message.maxNewTokens = self.maxNewTokens ?? 0
        message.minNewTokens = self.minNewTokens ?? 0
        message.numBeams = self.beams ?? 0
        message.lengthPenalty = self.lengthPenalty ?? 0
        message.doSample = self.sample
        message.temperature = self.temperature ?? 0
        message.topK = self.topK ?? 0
        message.topP = self.topP ?? 0
        message.repetitionPenalty = self.repetitionPenalty ?? 0
        message.seed = self.seed ?? 0
        message.stop = self.stop
        message.numReturnSequences = self.returnSequences ?? 0
        message.skipScores = self.skipScores
        return message
    }

    /// The flags as the request's drop policy.
    var dropPolicy: DropPolicy {
        DropPolicy(strict: self.strict, maxDroppedFraction: self.maxDroppedFraction ?? 0)
    }
}
