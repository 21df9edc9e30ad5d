// SPDX-License-Identifier: Apache-2.0

import Checkpoints
import RPCCore
import SwitchModel
import SwitchyardProtos
import Testing
import Tokenization

@testable import GatewayServing

/// A request's fields over a model's settings.
@Suite struct RequestedSettingsTests {
    private func work(
        _ message: GenerationParametersMessage,
        _ change: (inout GenerationDefaults) -> Void = { _ in }
    ) throws -> EngineRequest {
        var model = try ModelConfiguration.load(directory: TestModel.miniature.directory)
        model.generation = GenerationDefaults()
        change(&model.generation)
        let reader = RequestReader(
            tokenizer: try Tokenizer(directory: TestModel.miniature.directory),
            model: model,
            limits: RequestLimits(),
            batchSlots: 8
        )
        return try reader.generate(GenerateRequest(input: .tokenIDs([5, 1]), parameters: message), deadline: nil)
    }

    private func parameters(
        _ message: GenerationParametersMessage,
        _ change: (inout GenerationDefaults) -> Void = { _ in }
    ) throws -> SwitchModel.GenerationParameters {
        guard case .generate(let parameters, _) = try self.work(message, change).work else {
            throw RPCError(.internal, "not a request to generate")
        }
        return parameters
    }

    private func refusal(
        _ message: GenerationParametersMessage,
        _ change: (inout GenerationDefaults) -> Void = { _ in }
    ) -> String? {
        #expect(throws: RPCError.self) { try self.parameters(message, change) }?.message
    }

    @Test("A zero or false that is given is meant")
    func zeros() throws {
        let greedy = try self.parameters(.init(doSample: false)) {
            $0.sampling = true
            $0.temperature = 0.7
        }
        #expect(!greedy.sampling)
        #expect(try self.parameters(.init(lengthPenalty: 0)) { $0.lengthPenalty = 2 }.lengthPenalty == 0)
        #expect(try self.parameters(.init(minNewTokens: 0)) { $0.minNewTokens = 4 }.minNewTokens == 0)
        #expect(try self.parameters(.init(doSample: true, topK: 0)) { $0.topK = 9 }.topK == 0)
        #expect(try self.parameters(.init(topP: 0)).topP == 0)
        #expect(try self.parameters(.init(temperature: 0)).temperature == 1)
        #expect(
            self.refusal(.init(doSample: true, temperature: 0))?.contains("parameters.temperature: must be") == true
        )
        #expect(self.refusal(.init(maxNewTokens: 0))?.contains("parameters.max_new_tokens is 0") == true)
        #expect(self.refusal(.init(numBeams: 0))?.contains("parameters.num_beams is 0") == true)
        #expect(self.refusal(.init(numReturnSequences: 0))?.contains("parameters.num_return_sequences is 0") == true)
        #expect(self.refusal(.init(repetitionPenalty: 0))?.contains("parameters.repetition_penalty: must") == true)
    }

    @Test("What only sampling reads of the model's settings counts with sampling alone")
    func samplingKeys() throws {
        func change(_ defaults: inout GenerationDefaults) {
            defaults.temperature = 0
            defaults.topP = 7
            defaults.topK = -3
        }
        #expect(try self.parameters(.init(), change) == SwitchModel.GenerationParameters())
        #expect(self.refusal(.init(doSample: true), change)?.contains("parameters.top_k") == true)
    }

    @Test("Lengths count the start token, and those in new tokens win")
    func lengths() throws {
        #expect(try self.parameters(.init(maxLength: 12)).maxNewTokens == 11)
        #expect(try self.parameters(.init(maxLength: 12)) { $0.maxNewTokens = 5 }.maxNewTokens == 5)
        #expect(try self.parameters(.init(maxNewTokens: 3, maxLength: 12)).maxNewTokens == 3)
        #expect(try self.parameters(.init(minLength: 6)).minNewTokens == 5)
        #expect(try self.parameters(.init(minLength: 6)) { $0.minNewTokens = 2 }.minNewTokens == 2)
        #expect(try self.parameters(.init(minLength: 60)).minNewTokens == 20)
        #expect(try self.parameters(.init()) { $0.maxLength = 20 }.maxNewTokens == 19)
        #expect(self.refusal(.init(maxLength: 1))?.contains("parameters.max_length is 1") == true)
    }

    @Test("Early stopping can be said in full")
    func stopping() throws {
        for (asked, expected) in [
            (WireEarlyStopping.unspecified, EarlyStopping.never), (.heuristic, .heuristic), (.always, .always),
        ] {
            #expect(
                try self.parameters(.init(earlyStopping: asked)) { $0.earlyStopping = .never }.earlyStopping == expected
            )
        }
        #expect(try self.parameters(.init(earlyStopping: .never)).earlyStopping == .never)
    }

    @Test("Sampling without a seed draws one, and a given one is used")
    func seeds() throws {
        let drawn = try Set((0..<4).map { _ in try self.parameters(.init(doSample: true)).seed })
        #expect(drawn.count == 4)
        #expect(try self.parameters(.init(doSample: true, seed: 0)).seed == 0)
        #expect(try self.parameters(.init(doSample: true, seed: 9)).seed == 9)
    }

    @Test("A request can start from another token and end at another")
    func vocabulary() throws {
        let work = try self.work(.init(eosTokenID: TokenIDs(ids: [7, 1]), decoderStartTokenID: 6))
        #expect(work.vocabulary?.startTokenID == 6)
        #expect(work.vocabulary?.endTokenIDs == [7, 1])
        #expect(self.refusal(.init(eosTokenID: TokenIDs()))?.contains("eos_token_id.ids has 0 ids") == true)
        #expect(self.refusal(.init(decoderStartTokenID: 2_048))?.contains("decoder_start_token_id: must") == true)
    }

    @Test(
        "Lists of tokens are checked",
        arguments: [
            (GenerationParametersMessage(suppressTokens: TokenIDs(ids: [3, 2_048])), "suppress_tokens.ids[1] is 2048"),
            (.init(beginSuppressTokens: TokenIDs(ids: [.max])), "begin_suppress_tokens.ids[0] is 4294967295"),
            (.init(badWordsIDs: TokenLists(lists: [TokenIDs(ids: [1]), TokenIDs()])), "bad_words_ids.lists[1]"),
            (.init(badWordsIDs: TokenLists(lists: [TokenIDs(ids: [4_000])])), "bad_words_ids.lists[0].ids[0] is 4000"),
            (.init(forcedBosTokenID: TokenIDs(ids: [1, 2])), "forced_bos_token_id is 2"),
            (.init(forcedEosTokenID: TokenIDs(ids: [2_048])), "forced_eos_token_id.ids[0] is 2048"),
            (.init(sequenceBias: SequenceBiases(biases: [.init(tokens: [], bias: 1)])), "sequence_bias.biases[0]"),
            (.init(suppressTokens: TokenIDs(ids: Array(repeating: 1, count: 4_097))), "listed token ids is 4097"),
        ]
    )
    func lists(message: GenerationParametersMessage, complaint: String) {
        #expect(self.refusal(message)?.contains(complaint) == true)
    }

    private static let unservable: [(String, @Sendable (inout GenerationDefaults) -> Void)] = [
        ("num_return_sequences", { $0.returnedSequences = 2 }),
        ("num_beams", { $0.beamCount = 33 }),
        ("bad_words_ids", { $0.badWords = [[3], [2_048]] }),
        ("forced_bos_token_id", { $0.forcedBeginToken = 2_048 }),
    ]

    @Test("A model whose own settings cannot be served is refused at the start", arguments: 0..<4)
    func start(index: Int) throws {
        let (key, change) = Self.unservable[index]
        var model = try ModelConfiguration.load(directory: TestModel.miniature.directory)
        try SwitchModel.GenerationParameters.check(settingsOf: model)
        change(&model.generation)
        let error = #expect(throws: CheckpointError.self) {
            try SwitchModel.GenerationParameters.check(settingsOf: model, widest: 32)
        }
        #expect(error?.message.hasPrefix(key) == true, "\(String(describing: error))")
        #expect(error?.file == "generation_config.json")
    }

    @Test("A decoder prefix leaves out the start token and the end token, and counts in max_length")
    func prefix() throws {
        func work(
            _ prefix: ModelInput?,
            _ message: GenerationParametersMessage = .init()
        ) throws -> EngineRequest {
            let reader = RequestReader(
                tokenizer: try Tokenizer(directory: TestModel.miniature.directory),
                model: try ModelConfiguration.load(directory: TestModel.miniature.directory),
                limits: RequestLimits(),
                batchSlots: 8
            )
            let request = GenerateRequest(input: .tokenIDs([5, 1]), parameters: message, decoderPrefix: prefix)
            return try reader.generate(request, deadline: nil)
        }
        let tokenizer = try Tokenizer(directory: TestModel.miniature.directory)
        #expect(try work(nil).decoderPrefix == [])
        #expect(try work(.text("")).decoderPrefix == [])
        #expect(try work(.text("my kingdom")).decoderPrefix == tokenizer.encode("my kingdom").dropLast())
        #expect(try work(.tokenIDs([0, 7, 8])).decoderPrefix == [7, 8])
        #expect(try work(.tokenIDs([7, 8])).decoderPrefix == [7, 8])
        #expect(try work(.tokenIDs([0, 7]), .init(decoderStartTokenID: 3)).decoderPrefix == [0, 7])
        guard case .generate(let parameters, _) = try work(.tokenIDs([7, 8]), .init(maxLength: 9)).work else {
            Issue.record("not a request to generate")
            return
        }
        #expect(parameters.maxNewTokens == 6)
        let long = #expect(throws: RPCError.self) { try work(.tokenIDs([7, 8]), .init(maxLength: 3)) }
        #expect(long?.message.contains("a decoder prefix of 2 tokens") == true)
        let unknown = #expect(throws: RPCError.self) { try work(.tokenIDs([7, 2_048])) }
        #expect(unknown?.message.contains("decoder_input_ids.ids[1] is 2048") == true)
    }
}
