// SPDX-License-Identifier: Apache-2.0

import SwitchyardTypes
import Testing

@testable import Checkpoints

@Suite struct TensorRoleTests {
    @Test(arguments: [
        (TensorRole.sharedEmbedding, "shared.weight"),
        (.lmHead, "lm_head.weight"),
        (.finalNorm(.decoder), "decoder.final_layer_norm.weight"),
        (.attention(.encoder, block: 3, .selfAttention, .query), "encoder.block.3.layer.0.SelfAttention.q.weight"),
        (.attention(.decoder, block: 11, .cross, .output), "decoder.block.11.layer.1.EncDecAttention.o.weight"),
        (.relativeBias(.encoder), "encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight"),
        (.layerNorm(.encoder, block: 2, .feedForward), "encoder.block.2.layer.1.layer_norm.weight"),
        (.layerNorm(.decoder, block: 2, .crossAttention), "decoder.block.2.layer.1.layer_norm.weight"),
        (.layerNorm(.decoder, block: 2, .feedForward), "decoder.block.2.layer.2.layer_norm.weight"),
        (.dense(.encoder, block: 0, .wi), "encoder.block.0.layer.1.mlp.wi.weight"),
        (.dense(.decoder, block: 0, .wo), "decoder.block.0.layer.2.mlp.wo.weight"),
        (.dense(.decoder, block: 0, .wi0), "decoder.block.0.layer.2.mlp.wi_0.weight"),
        (.router(SparseLayer(stack: .decoder, block: 1)), "decoder.block.1.layer.2.mlp.router.classifier.weight"),
        (.routerBias(SparseLayer(stack: .encoder, block: 1)), "encoder.block.1.layer.1.mlp.router.classifier.bias"),
        (
            .expert(SparseLayer(stack: .encoder, block: 5), expert: 127, .wo),
            "encoder.block.5.layer.1.mlp.experts.expert_127.wo.weight"
        ),
    ])
    func namesStandForRoles(role: TensorRole, name: String) {
        #expect(role.name == name)
        #expect(TensorRole(name: name) == role)
    }

    @Test func everyRoleOfAModelComesBackFromItsName() {
        let model = TinyModel()
        for role in model.roles {
            #expect(TensorRole(name: role.name) == role)
            #expect(model.configuration.has(role))
        }
        #expect(Set(model.roles).count == model.roles.count)
    }

    @Test(arguments: [
        "", ".", "shared", "shared.weight.weight", "encoder.block.01.layer.0.layer_norm.weight",
        "encoder.block.+1.layer.0.layer_norm.weight", "encoder.block.1.layer.2.layer_norm.weight",
        "encoder.block.1.layer.1.EncDecAttention.q.weight", "decoder.block.1.layer.0.SelfAttention.x.weight",
        "decoder.block.1.layer.2.mlp.experts.expert_.wi.weight", "decoder.block.1.layer.2.mlp.wi_2.weight",
        "decoder.block.1.layer.2.mlp.experts.expert_1.wi.bias",
        "encoder.block.1.layer.0.SelfAttention.relative_attention_bias.weight",
        "middle.final_layer_norm.weight", "encoder.block.99999999999999999999.layer.0.layer_norm.weight",
    ])
    func otherNamesStandForNothing(name: String) {
        #expect(TensorRole(name: name) == nil)
    }

    @Test func otherNamesOfTiedTensorsStandForThem() {
        #expect(TensorRole(name: "encoder.embed_tokens.weight") == .sharedEmbedding)
        #expect(TensorRole(name: "decoder.embed_tokens.weight") == .sharedEmbedding)
        #expect(TensorRole(name: "decoder.lm_head.weight") == .lmHead)
    }

    @Test func shapesFollowTheConfiguration() {
        // As in switch-c-2048, the heads together are narrower than the model.
        let configuration = ModelConfiguration(
            modelWidth: 2_080,
            feedForwardWidth: 6_144,
            headCount: 30,
            expertCount: 2_048
        )
        let layer = SparseLayer(stack: .encoder, block: 1)
        #expect(configuration.shape(of: .attention(.encoder, block: 0, .selfAttention, .key)) == [1_920, 2_080])
        #expect(configuration.shape(of: .attention(.encoder, block: 0, .selfAttention, .output)) == [2_080, 1_920])
        #expect(configuration.shape(of: .expert(layer, expert: 0, .wi)) == [6_144, 2_080])
        #expect(configuration.shape(of: .dense(.encoder, block: 0, .wo)) == [2_080, 6_144])
        #expect(configuration.shape(of: .router(layer)) == [2_048, 2_080])
        #expect(configuration.shape(of: .relativeBias(.decoder)) == [32, 30])
    }
}
