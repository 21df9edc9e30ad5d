// SPDX-License-Identifier: Apache-2.0

import SwitchyardTypes
import Testing

@testable import Checkpoints

@Suite struct ModelConfigurationTests {
    private func load(
        _ config: String,
        generation: String? = nil,
        overrides: [String: String] = [:]
    ) throws -> ModelConfiguration {
        let folder = try TemporaryFolder()
        try folder.write(config, to: "config.json")
        if let generation { try folder.write(generation, to: "generation_config.json") }
        return try ModelConfiguration.load(directory: folder.path, overrides: overrides)
    }

    @Test func absentFieldsHaveTheClassDefaultsOfTransformers() throws {
        let configuration = try self.load("{}")
        var expected = ModelConfiguration()
        expected.generation.file = "config.json"
        // The file names no tokens of generation, which are not the class's as in transformers.
        expected.generation.endTokenIDs = []
        expected.assumesStartToken = true
        #expect(configuration == expected)
        #expect(configuration.vocabularySize == 32_128)
        #expect(configuration.feedForwardWidth == 2_048)
        // Three sparse layers of twelve: step 4, blocks 1, 5 and 9.
        #expect(configuration.sparseLayers.map(\.block) == [1, 5, 9, 1, 5, 9])
        #expect(configuration.tiedEmbeddings)
        #expect(configuration.decoderStartTokenID == 0)
        #expect(configuration.generation.newTokenLimit == nil)
    }

    @Test func otherNamesOfTransformersAreRead() throws {
        let text =
            #"{"hidden_size": 32, "num_attention_heads": 3, "num_hidden_layers": 5, "num_layers": 5, "head_dim": null}"#
        let configuration = try self.load(text)
        #expect(configuration.modelWidth == 32)
        #expect(configuration.headCount == 3)
        #expect(configuration.encoderBlocks == 5)
        #expect(configuration.keyWidth == 64)
        // An override stands above both.
        let other = try self.load(#"{"hidden_size": 32, "d_model": 16}"#, overrides: ["d_model": "64"])
        #expect(other.modelWidth == 64)
        #expect(throws: Never.self) { try self.load(#"{"quantization_config": null}"#) }
    }

    @Test func anAdapterInAModelsPlaceIsNamed() throws {
        let folder = try TemporaryFolder()
        try folder.write(#"{"base_model_name_or_path": "google/switch-base-8"}"#, to: "adapter_config.json")
        let error = failure { _ = try ModelConfiguration.load(directory: folder.path) }
        #expect(error?.description.contains("holds an adapter and no model") == true, "\(String(describing: error))")
        #expect(error?.description.contains("switchyard up google/switch-base-8 --merge-adapter") == true)
    }

    @Test func theMiniatureLoads() throws {
        let configuration = try ModelConfiguration.load(directory: Repository.mini)
        #expect(configuration.modelWidth == 128)
        #expect(configuration.feedForwardWidth == 512)
        #expect(configuration.attentionWidth == 128)
        #expect(configuration.expertCapacity == 64)
        #expect(configuration.vocabularySize == 2_048)
        #expect(
            configuration.sparseLayers == [
                SparseLayer(stack: .encoder, block: 1), SparseLayer(stack: .encoder, block: 3),
                SparseLayer(stack: .decoder, block: 1), SparseLayer(stack: .decoder, block: 3),
            ]
        )
    }

    @Test(arguments: [
        (1, 4, [0, 1, 2, 3], [0, 1, 2, 3]),
        (2, 6, [1, 3, 5], [1, 3, 5]),
        (3, 7, [1, 4], [2, 5]),
        (4, 12, [1, 5, 9], [3, 7, 11]),
        (0, 4, [], []),
        (9, 4, [1], []),
    ])
    func stepsChooseBlocks(step: Int, blocks: Int, huggingFace: [Int], google: [Int]) {
        var configuration = ModelConfiguration(encoderBlocks: blocks, encoderSparseStep: step)
        #expect((0..<blocks).filter { configuration.isSparse(.encoder, block: $0) } == huggingFace)
        configuration.sparseStepRule = .google
        #expect((0..<blocks).filter { configuration.isSparse(.encoder, block: $0) } == google)
        #expect(!configuration.isSparse(.encoder, block: blocks))
        #expect(!configuration.isSparse(.encoder, block: -1))
    }

    @Test(arguments: [
        // The step in the file wins over the one that the number of sparse layers gives.
        (#"{"num_layers": 12, "num_sparse_encoder_layers": 6, "encoder_sparse_step": 4}"#, [:], 4),
        (#"{"num_layers": 12, "num_sparse_encoder_layers": 6}"#, [:], 2),
        (#"{"num_layers": 12, "num_sparse_encoder_layers": 0}"#, [:], 12),
        (#"{"num_layers": 4, "num_sparse_encoder_layers": 6}"#, [:], 0),
        // An override of the number sets the file's step aside, an override of the step wins over both.
        (#"{"num_layers": 12, "encoder_sparse_step": 4}"#, ["num_sparse_encoder_layers": "6"], 2),
        (#"{"encoder_sparse_step": 4}"#, ["num_sparse_encoder_layers": "6", "encoder_sparse_step": "1"], 1),
    ])
    func stepsComeFromStepOrCount(config: String, overrides: [String: String], step: Int) throws {
        #expect(try self.load(config, overrides: overrides).encoderSparseStep == step)
    }

    @Test func overridesMakeThePublishedC2048RunAsItWasTrained() throws {
        let published = """
            {"num_layers": 15, "num_decoder_layers": 12, "num_experts": 2048, "d_model": 2080, "d_ff": 6144, "num_heads": 30,
             "num_sparse_encoder_layers": 15, "encoder_sparse_step": 1, "decoder_sparse_step": 0}
            """
        #expect(try self.load(published).sparseLayers.count == 15)
        let configuration = try self.load(
            published,
            overrides: ["num_decoder_layers": "15", "decoder_sparse_step": "1", "tie_word_embeddings": "false"]
        )
        #expect(configuration.sparseLayers.count == 30)
        #expect(!configuration.tiedEmbeddings)
        #expect(configuration.attentionWidth == 1_920)
        #expect(configuration.gatewayRoles.contains(.lmHead))
    }

    @Test func tokensComeFromTheGenerationFileFirst() throws {
        let config = #"{"decoder_start_token_id": 5, "eos_token_id": 6, "pad_token_id": 7}"#
        let plain = try self.load(config)
        #expect([plain.decoderStartTokenID, plain.endTokenID, plain.padTokenID] == [5, 6, 7])
        let both = try self.load(config, generation: #"{"decoder_start_token_id": 2, "eos_token_id": [3, 4]}"#)
        #expect([both.decoderStartTokenID, both.endTokenID, both.padTokenID] == [2, 3, 7])
        #expect(both.generation.endTokenIDs == [3, 4])
        let overridden = try self.load(
            config,
            generation: #"{"decoder_start_token_id": 2}"#,
            overrides: ["decoder_start_token_id": "9"]
        )
        #expect(overridden.decoderStartTokenID == 9)
        // Three published checkpoints lack the start token, and one may say null.
        #expect(try self.load(#"{"decoder_start_token_id": null}"#).decoderStartTokenID == 0)
    }

    @Test func generationDefaultsAreRead() throws {
        let text = """
            {"max_length": 64, "num_beams": 4, "early_stopping": "never", "length_penalty": 2, "do_sample": false, "top_p": 0.9,
             "repetition_penalty": 1.2, "top_k": 50, "temperature": 0.7, "min_new_tokens": 3, "num_return_sequences": 2}
            """
        let defaults = try self.load("{}", generation: text).generation
        #expect(defaults.newTokenLimit == 63)
        #expect(defaults.beamCount == 4)
        #expect(defaults.earlyStopping == .never)
        #expect(defaults.lengthPenalty == 2)
        #expect(defaults.sampling == false)
        #expect(defaults.topP == 0.9)
        #expect(defaults.minNewTokens == 3)
        #expect(defaults.returnedSequences == 2)
        // config.json replaces an absent file, and is not consulted where the file exists.
        #expect(try self.load(text).generation.beamCount == 4)
        #expect(try self.load(text, generation: "{}").generation.beamCount == nil)
        #expect(
            try self.load("{}", generation: #"{"max_length": 9, "max_new_tokens": 5}"#).generation.newTokenLimit == 5
        )
    }

    @Test func nullDecoderLayersMeanAsManyAsTheEncoderHas() throws {
        #expect(try self.load(#"{"num_layers": 6, "num_decoder_layers": null}"#).decoderBlocks == 6)
        #expect(try self.load(#"{"num_layers": 6}"#).decoderBlocks == 12)
    }

    @Test(arguments: [
        (#"{"d_model": 1000000000000}"#, "d_model must be 1 through 1048576, but is 1000000000000"),
        (#"{"d_model": 0}"#, "d_model must be"),
        (#"{"d_model": "768"}"#, "d_model must be an integer, but is the string \"768\""),
        (#"{"d_model": true}"#, "d_model must be an integer, but is the boolean true"),
        (#"{"d_model": 7.5}"#, "d_model must be an integer, but is the number 7.5"),
        (#"{"d_model": [1]}"#, "d_model must be an integer, but is an array"),
        (#"{"num_heads": 4096, "d_kv": 1000000}"#, "num_heads * d_kv must be"),
        (#"{"num_layers": -1}"#, "num_layers must be"),
        (#"{"num_experts": 65537}"#, "num_experts must be"),
        (#"{"num_experts": 65536, "num_layers": 1000, "encoder_sparse_step": 1}"#, "all sparse layers together"),
        (#"{"num_sparse_encoder_layers": -3}"#, "num_sparse_encoder_layers must not be negative"),
        (#"{"expert_capacity": 0}"#, "expert_capacity must be"),
        (#"{"router_bias": 1}"#, "router_bias must be true or false"),
        (#"{"router_dtype": "int8"}"#, "router_dtype must be float32"),
        (#"{"layer_norm_epsilon": 0.0}"#, "layer_norm_epsilon must be above 0"),
        (#"{"layer_norm_epsilon": 1e300}"#, "layer_norm_epsilon must be above 0"),
        (#"{"eos_token_id": 40000}"#, "eos_token_id must be 0 through 32127, but is 40000"),
        (#"{"eos_token_id": []}"#, "eos_token_id must list 1 through 64 integers"),
        (#"{"decoder_start_token_id": -1}"#, "decoder_start_token_id must be"),
        (#"{"dense_act_fn": "xielu"}"#, "dense_act_fn must be one of relu, gelu"),
        (#"{"model_type": "umt5"}"#, "model_type is \"umt5\"; only \"switch_transformers\", \"t5\", \"mt5\""),
        (#"{"d_model": 768, "hidden_size": 512}"#, "hidden_size is 512, and d_model, which is the same thing, is 768"),
        (#"{"num_hidden_layers": "12"}"#, "num_hidden_layers must be an integer"),
        (#"{"quantization_config": {"load_in_8bit": true}}"#, #"quantization_config is {"load_in_8bit": ...}"#),
        (#"{"num_beams": 0}"#, "num_beams must be"),
        (#"{"early_stopping": 3}"#, "early_stopping must be"),
        (#"{"do_sample": true, "temperature": -1}"#, "temperature must be"),
        (#"[]"#, "an array where a JSON object is needed"),
        (#"{"d_model": 768"#, "not the expected JSON"),
        (#""#, "is empty"),
        ("<!DOCTYPE html><html></html>", "is an HTML page"),
        ("version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "a pointer of Git LFS"),
        (#"{"d_model": NaN}"#, "d_model must be an integer"),
        (#"{"layer_norm_epsilon": Infinity}"#, "layer_norm_epsilon must be"),
        (#"{"d_model": NaNo}"#, "not the expected JSON"),
        (#"{"d_model": 99999999999999999999999999}"#, "d_model must be an integer"),
    ])
    func wrongFieldsAreNamed(config: String, complaint: String) {
        let error = failure { _ = try self.load(config) }
        #expect(error?.description.contains(complaint) == true, "\(String(describing: error))")
        #expect(error?.file?.hasSuffix("config.json") == true)
    }

    /// What the configuration classes of transformers 5.23 say to one key of each type; `eos_token_id: []` is refused here
    /// alone.
    @Test(
        arguments: [
            (
                "switch_transformers",
                [
                    "num_experts": "4 4.0 null true \"4\" [4]", "num_layers": "2 2.0 null",
                    "num_decoder_layers": "null 2 2.0 true",
                    "layer_norm_epsilon": "1e-6 0.5 1 null true \"1e-6\"", "router_bias": "true 1 null \"true\"",
                    "router_dtype": "\"float16\" null 16 \"float64\"", "dense_act_fn": "\"gelu\" null 1 []",
                    "tie_word_embeddings": "false null 0", "use_cache": "true null 1",
                    "dropout_rate": "0 0.1 null true \"0\"",
                    "initializer_factor": "1.0 1 null", "router_jitter_noise": "0 0.01 null",
                    "router_z_loss_coef": "0.001 0 null",
                    "pad_token_id": "0 null 0.0 false", "eos_token_id": "1 [1,2] null 1.0 [1.0] true",
                    "bos_token_id": "null 0 0.0",
                    "encoder_sparse_step": "2 null", "hidden_size": "768 null 768.0 \"768\"",
                    "feed_forward_proj": "null 3",
                    "is_encoder_decoder": "true null", "num_sparse_encoder_layers": "3 3.0 null",
                    "expert_capacity": "64 6.4e1",
                ]
            ),
            (
                "t5",
                [
                    "feed_forward_proj": "\"relu\" \"gated-gelu\" null true [] \"gelu-gated\"", "d_ff": "64 64.0 null",
                    "classifier_dropout": "0.0 0 null", "layer_norm_epsilon": "1e-6 null", "num_experts": "null 4.0",
                    "tie_word_embeddings": "null true false", "bos_token_id": "0 null",
                    "num_decoder_layers": "null 3 \"3\"",
                ]
            ),
            (
                "mt5",
                [
                    "feed_forward_proj": "\"gated-silu\" null", "tie_word_embeddings": "true null",
                    "bos_token_id": "null 1.5",
                    "decoder_start_token_id": "0 0.0 true", "relative_attention_num_buckets": "32 32.0 null",
                ]
            ),
        ] as [(String, [String: String])]
    )
    func typesAreThoseOfTransformers(family: String, keys: [String: String]) {
        // Values that this family's class takes; the others of a row it refuses.
        let taken: [String: Set<String>] = [
            "switch_transformers": [
                "num_experts 4", "num_layers 2", "num_decoder_layers null", "num_decoder_layers 2",
                "layer_norm_epsilon 1e-6", "layer_norm_epsilon 0.5", "router_bias true", "router_dtype \"float16\"",
                "dense_act_fn \"gelu\"", "tie_word_embeddings false", "use_cache true", "dropout_rate 0",
                "dropout_rate 0.1",
                "initializer_factor 1.0", "initializer_factor 1", "layer_norm_epsilon 1", "router_z_loss_coef 0",
                "router_jitter_noise 0", "router_jitter_noise 0.01",
                "router_z_loss_coef 0.001",
                "pad_token_id 0", "pad_token_id null", "eos_token_id 1", "eos_token_id [1,2]", "eos_token_id null",
                "bos_token_id null", "bos_token_id 0", "encoder_sparse_step 2", "hidden_size 768",
                "feed_forward_proj null",
                "feed_forward_proj 3", "is_encoder_decoder true", "num_sparse_encoder_layers 3", "expert_capacity 64",
            ],
            "t5": [
                "feed_forward_proj \"relu\"", "feed_forward_proj \"gated-gelu\"", "d_ff 64", "classifier_dropout 0.0",
                "classifier_dropout 0", "layer_norm_epsilon 1e-6", "num_experts null", "num_experts 4.0",
                "tie_word_embeddings null",
                "tie_word_embeddings true", "tie_word_embeddings false", "bos_token_id 0", "bos_token_id null",
                "num_decoder_layers null", "num_decoder_layers 3",
            ],
            "mt5": [
                "feed_forward_proj \"gated-silu\"", "tie_word_embeddings true", "bos_token_id null",
                "decoder_start_token_id 0", "relative_attention_num_buckets 32",
            ],
        ]
        for (key, values) in keys {
            for value in values.split(separator: " ") {
                let start = key == "decoder_start_token_id" ? "" : #", "decoder_start_token_id": 0"#
                var error: CheckpointError?
                do {
                    _ = try self.load(#"{"model_type": "\#(family)"\#(start), "\#(key)": \#(value)}"#)
                } catch let thrown as CheckpointError {
                    error = thrown
                } catch {
                    Issue.record(error)
                }
                let isTaken = taken[family]?.contains("\(key) \(value)") == true
                #expect((error == nil) == isTaken, "\(family) \(key) \(value): \(String(describing: error))")
                if !isTaken { #expect(error?.description.contains(key) == true, "\(String(describing: error))") }
            }
        }
        // An override stands in place of the file's value.
        #expect(throws: Never.self) { try self.load(#"{"num_experts": 4.0}"#, overrides: ["num_experts": "4"]) }
        #expect(throws: Never.self) {
            try self.load(#"{"layer_norm_epsilon": 1}"#, overrides: ["layer_norm_epsilon": "1"])
        }
    }

    @Test(arguments: [
        (["d_modell": "768"], "no configuration key \"d_modell\""),
        (["d_model": "wide"], "the override of d_model must be an integer, but is \"wide\""),
        (["router_bias": "yes"], "the override of router_bias must be true or false"),
        (["sparse_step_rule": "mine"], "sparse_step_rule must be hf or google"),
        (["d_model": "-3"], "d_model must be"),
    ])
    func wrongOverridesAreNamed(overrides: [String: String], complaint: String) {
        let error = failure { _ = try self.load("{}", overrides: overrides) }
        #expect(error?.description.contains(complaint) == true, "\(String(describing: error))")
    }

    @Test func theSameFunctionUnderTransformersOtherNames() throws {
        for (name, activation) in [
            ("gelu_fast", ModelConfiguration.Activation.geluTanh), ("gelu_python", .gelu), ("swish", .silu),
            ("quick_gelu", .quickGELU),
            ("tanh", .tanh), ("relu6", .relu6), ("relu2", .squaredReLU),
        ] {
            #expect(try self.load("{\"dense_act_fn\": \"\(name)\"}").activation == activation)
        }
    }

    @Test func aClaimOfGatingIsIgnored() throws {
        // transformers' Switch Transformers do not read these keys, whatever the weights are.
        let overrides = ["sparse_step_rule": "google"]
        let configuration = try self.load(
            #"{"is_gated_act": true, "feed_forward_proj": "gated-gelu"}"#,
            overrides: overrides
        )
        #expect(configuration.sparseStepRule == .google)
        #expect(configuration.sparseLayers.map(\.block) == [3, 7, 11, 3, 7, 11])
    }

    @Test func aMissingFileIsNotFound() throws {
        let folder = try TemporaryFolder()
        let error = failure { _ = try ModelConfiguration.load(directory: folder.path) }
        #expect(error?.code == .notFound)
        #expect(error?.file == "\(folder.path)/config.json")
    }

    @Test func aNestedBombIsRefused() throws {
        let depth = 20_000
        let text = "{\"a\":" + String(repeating: "[", count: depth) + String(repeating: "]", count: depth) + "}"
        #expect(failure { _ = try self.load(text) }?.code == .malformed)
        let deepest = "{\"a\":" + String(repeating: "[", count: 500) + String(repeating: "]", count: 500) + "}"
        #expect(try self.load(deepest).modelWidth == 768)
    }

    @Test func mutatedFilesGiveConfigurationsOrErrors() throws {
        let folder = try TemporaryFolder()
        let original = try Repository.bytes("\(Repository.mini)/config.json")
        var generator = Generator(state: 1)
        var refused = 0
        for _ in 0..<800 {
            try folder.write(generator.mutate(original, within: 0..<original.count), to: "config.json")
            do {
                let configuration = try ModelConfiguration.load(directory: folder.path)
                #expect(configuration.modelWidth >= 1)
            } catch {
                refused += 1
            }
        }
        #expect(refused > 160 && refused < 800)
    }
}
