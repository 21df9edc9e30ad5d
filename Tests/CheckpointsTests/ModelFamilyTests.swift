// SPDX-License-Identifier: Apache-2.0

import SwitchyardTypes
import Testing

@testable import Checkpoints

/// What the configurations of each family mean, where transformers 5.23 and a plain reading part.
@Suite struct ModelFamilyTests {
    private func load(
        _ config: String,
        overrides: [String: String] = [:]
    ) throws(CheckpointError) -> ModelConfiguration {
        guard let folder = try? TemporaryFolder(), (try? folder.write(config, to: "config.json")) != nil else {
            throw CheckpointError(code: .notFound, message: "no temporary folder")
        }
        return try ModelConfiguration.load(directory: folder.path, overrides: overrides)
    }

    @Test(arguments: [
        // tie_word_embeddings says whether outputs are scaled; scale_decoder_outputs wins.
        ("t5", #""tie_word_embeddings": true"#, true), ("t5", #""tie_word_embeddings": false"#, false),
        ("t5", #""dropout_rate": 0.1"#, true),
        ("t5", #""tie_word_embeddings": true, "scale_decoder_outputs": false"#, false),
        ("t5", #""tie_word_embeddings": false, "scale_decoder_outputs": true"#, true),
        ("mt5", #""tie_word_embeddings": true"#, false), ("mt5", #""scale_decoder_outputs": true"#, false),
        ("switch_transformers", #""tie_word_embeddings": true, "scale_decoder_outputs": false"#, true),
    ])
    func scaling(family: String, keys: String, isScaled: Bool) throws {
        let model = try self.load(#"{"model_type": "\#(family)", "decoder_start_token_id": 0, \#(keys)}"#)
        #expect(model.family.rawValue == family)
        #expect(model.scalesDecoderOutputs == isScaled)
    }

    @Test(arguments: [
        (#""feed_forward_proj": "relu""#, ModelConfiguration.Activation.relu, false),
        (#""feed_forward_proj": "gated-gelu""#, .geluTanh, true), (#""feed_forward_proj": "gelu""#, .gelu, false),
        (#""feed_forward_proj": "gated-silu""#, .silu, true),
        (#""feed_forward_proj": "gated-gelu", "dense_act_fn": "gelu""#, .gelu, true),
        (#""feed_forward_proj": "gated-gelu", "is_gated_act": false"#, .geluTanh, false),
        (#""is_gated_act": true"#, .relu, true), (#""dropout_rate": 0.1"#, .relu, false),
    ])
    func feedForwards(keys: String, activation: ModelConfiguration.Activation, isGated: Bool) throws {
        let model = try self.load(#"{"model_type": "t5", "decoder_start_token_id": 0, \#(keys)}"#)
        #expect(model.activation == activation)
        #expect(model.gatedFeedForward == isGated)
        #expect(model.feedForwardMatrices == (isGated ? [.wi0, .wi1, .wo] : [.wi, .wo]))
    }

    @Test func defaultsAreTheClasses() throws {
        let t5 = try self.load(#"{"model_type": "t5", "decoder_start_token_id": 0, "num_layers": 3}"#)
        #expect([t5.modelWidth, t5.feedForwardWidth, t5.headCount, t5.keyWidth] == [512, 2_048, 8, 64])
        #expect([t5.encoderBlocks, t5.decoderBlocks, t5.vocabularySize] == [3, 3, 32_128])
        let mt5 = try self.load(#"{"model_type": "mt5", "decoder_start_token_id": 0}"#)
        #expect([mt5.modelWidth, mt5.feedForwardWidth, mt5.headCount, mt5.keyWidth] == [512, 1_024, 6, 64])
        #expect([mt5.encoderBlocks, mt5.decoderBlocks, mt5.vocabularySize] == [8, 8, 250_112])
        #expect(mt5.gatedFeedForward && mt5.activation == .geluTanh)
        for model in [t5, mt5] {
            #expect(!model.hasExperts && model.expertCount == 0)
            #expect(!model.gatewayRoles.contains { $0.isExpert })
        }
    }

    @Test(
        arguments: [
            (#"{"model_type": "t5"}"#, [:], ["decoder_start_token_id", "bos_token_id"]),
            (
                #"{"model_type": "t5", "decoder_start_token_id": 0, "feed_forward_proj": "silu-gated"}"#, [:],
                ["feed_forward_proj", "silu-gated"]
            ),
            (
                #"{"model_type": "t5", "decoder_start_token_id": 0, "feed_forward_proj": "gated-xielu"}"#, [:],
                ["feed_forward_proj", "xielu"]
            ),
            (
                #"{"model_type": "t5", "decoder_start_token_id": 0, "is_gated_act": "yes"}"#, [:],
                ["is_gated_act", "true or false"]
            ),
            (#"{"model_type": "t5", "decoder_start_token_id": 0}"#, ["num_experts": "8"], ["num_experts", "t5"]),
            (
                #"{"model_type": "mt5", "decoder_start_token_id": 0}"#, ["tie_word_embeddings": "true"],
                ["tie_word_embeddings", "mt5"]
            ),
            (
                #"{"model_type": "switch_transformers"}"#, ["feed_forward_proj": "gated-gelu"],
                ["feed_forward_proj", "switch"]
            ),
        ] as [(String, [String: String], [String])]
    )
    func refusals(config: String, overrides: [String: String], words: [String]) {
        let error = failure { _ = try self.load(config, overrides: overrides) }
        for word in words { #expect(error?.description.contains(word) == true, "\(String(describing: error))") }
    }

    @Test func namesOfDenseTensors() {
        let roles: [(TensorRole, String)] = [
            (.dense(.encoder, block: 0, .wi0), "encoder.block.0.layer.1.DenseReluDense.wi_0.weight"),
            (.dense(.decoder, block: 3, .wo), "decoder.block.3.layer.2.DenseReluDense.wo.weight"),
            (.attention(.decoder, block: 1, .cross, .query), "decoder.block.1.layer.1.EncDecAttention.q.weight"),
            (.sharedEmbedding, "shared.weight"), (.lmHead, "lm_head.weight"),
        ]
        for (role, name) in roles {
            #expect(T5Family.name(of: role) == name)
            #expect(T5Family.role(named: name) == role)
        }
        for name in [
            "encoder.block.0.layer.1.mlp.wi.weight", "decoder.lm_head.weight",
            "encoder.block.0.layer.1.DenseReluDense.router.classifier.weight",
            "encoder.block.0.layer.1.DenseReluDense.experts.expert_0.wi.weight",
        ] {
            #expect(T5Family.role(named: name) == nil)
        }
    }
}
