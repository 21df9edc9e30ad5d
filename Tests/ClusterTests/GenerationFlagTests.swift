// SPDX-License-Identifier: Apache-2.0

import ArgumentParser
import Checkpoints
import Foundation
import PeerTools
import SwitchyardProtos
import Testing

@testable import switchyard

/// The keys of generation as flags and as fields of a request.
@Suite("Generation's keys")
struct GenerationFlagTests {
    /// Flags, and what they ask for.
    private static let samples: [(flags: [String], message: GenerationParameters)] = [
        (["--max-new-tokens", "0"], .init(maxNewTokens: 0)), (["--max-length", "9"], .init(maxLength: 9)),
        (["--min-new-tokens", "0"], .init(minNewTokens: 0)), (["--min-length", "4"], .init(minLength: 4)),
        (["--end-tokens", "1,7"], .init(eosTokenID: TokenIDs(ids: [1, 7]))),
        (["--start-token", "5"], .init(decoderStartTokenID: 5)), (["--beams", "3"], .init(numBeams: 3)),
        (["--length-penalty=-0.5"], .init(lengthPenalty: -0.5)), (["--length-penalty", "0"], .init(lengthPenalty: 0)),
        (["--early-stopping", "true"], .init(earlyStopping: .always)),
        (["--early-stopping", "false"], .init(earlyStopping: .heuristic)),
        (["--early-stopping", "never"], .init(earlyStopping: .never)),
        (["--beam-groups", "2"], .init(numBeamGroups: 2)),
        (["--diversity-penalty", "0.5"], .init(diversityPenalty: 0.5)),
        (["--return-sequences", "2"], .init(numReturnSequences: 2)), (["--sample"], .init(doSample: true)),
        (["--no-sample"], .init(doSample: false)),
        (
            ["--sequence-bias", "45,7=-1.5", "--sequence-bias", "9=2"],
            .init(
                sequenceBias: SequenceBiases(biases: [
                    SequenceBias(tokens: [45, 7], bias: -1.5), SequenceBias(tokens: [9], bias: 2),
                ])
            )
        ), (["--encoder-repetition-penalty", "1.5"], .init(encoderRepetitionPenalty: 1.5)),
        (["--repetition-penalty", "1.25"], .init(repetitionPenalty: 1.25)),
        (["--no-repeat-ngram-size", "0"], .init(noRepeatNgramSize: 0)),
        (["--encoder-no-repeat-ngram-size", "2"], .init(encoderNoRepeatNgramSize: 2)),
        (
            ["--bad-words", "17,4", "--bad-words", "8"],
            .init(badWordsIDs: TokenLists(lists: [TokenIDs(ids: [17, 4]), TokenIDs(ids: [8])]))
        ), (["--forced-first-token", "none"], .init(forcedBosTokenID: TokenIDs(ids: []))),
        (["--forced-last-tokens", "1,2"], .init(forcedEosTokenID: TokenIDs(ids: [1, 2]))),
        (
            ["--length-decay", "15,1.5"],
            .init(exponentialDecayLengthPenalty: LengthDecay(startIndex: 15, factor: 1.5))
        ), (["--suppress-tokens", "3"], .init(suppressTokens: TokenIDs(ids: [3]))),
        (["--begin-suppress-tokens", "none"], .init(beginSuppressTokens: TokenIDs(ids: []))),
        (["--renormalize"], .init(renormalizeLogits: true)), (["--no-renormalize"], .init(renormalizeLogits: false)),
        (["--temperature", "0"], .init(temperature: 0)), (["--top-k", "0"], .init(topK: 0)),
        (["--top-p", "0.5"], .init(topP: 0.5)), (["--min-p", "0.25"], .init(minP: 0.25)),
        (["--typical-p", "0.5"], .init(typicalP: 0.5)), (["--epsilon-cutoff", "0.125"], .init(epsilonCutoff: 0.125)),
        (["--eta-cutoff", "0.125"], .init(etaCutoff: 0.125)),
    ]

    @Test("every key has flags, and each flag sets its field and no other")
    func flags() throws {
        #expect(try GenerationOptions.parse([]).message == GenerationParameters())
        for sample in Self.samples {
            #expect(try GenerationOptions.parse(sample.flags).message == sample.message, "\(sample.flags)")
        }
        let names = Self.samples.map { $0.flags[0].prefix { $0 != "=" } }
        #expect(Set(GenerationKey.all.flatMap(\.flags)) == Set(names.map(String.init)))
    }

    @Test("every key is a field of a request, and every other field is none of a checkpoint")
    func fields() throws {
        let proto = try String(contentsOfFile: "\(Peers.root)/Protos/switchyard/v1/gateway.proto", encoding: .utf8)
        let message = try #require(proto.components(separatedBy: "message GenerationParameters {").last)
        let body = try #require(message.components(separatedBy: "\n}").first)
        let declared = body.split(separator: "\n").filter { $0.hasSuffix(";") && !$0.contains("//") }
            .compactMap { $0.split(separator: " = ").first?.split(separator: " ").last.map(String.init) }
        #expect(Set(declared) == Set(GenerationKey.all.map(\.field) + ["seed", "stop", "top_logprobs", "skip_scores"]))
        #expect(declared.count == 36)
    }

    @Test(
        "a flag that cannot be read is refused",
        arguments: [
            ["--suppress-tokens", "3,"], ["--suppress-tokens", "x"], ["--sequence-bias", "3"],
            ["--sequence-bias", "=1"],
            ["--length-decay", "3"], ["--early-stopping", "maybe"], ["--start-token=-1"],
            ["--decoder-text", "a", "--decoder-tokens", "3"],
        ]
    )
    func wrong(flags: [String]) {
        #expect(throws: (any Error).self) { try GenerationOptions.parse(flags) }
    }

    @Test("a decoder prefix is text or ids")
    func prefix() throws {
        #expect(try GenerationOptions.parse(["--decoder-text", "a b"]).decoderPrefix == .text("a b"))
        #expect(try GenerationOptions.parse(["--decoder-tokens", "3,4"]).decoderPrefix == .tokenIDs([3, 4]))
        #expect(try GenerationOptions.parse([]).decoderPrefix == nil)
    }
}
