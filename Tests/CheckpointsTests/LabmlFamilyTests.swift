// SPDX-License-Identifier: Apache-2.0

import Foundation
import SwitchyardTypes
import Testing

@testable import Checkpoints

/// labml's Switch Transformer: what its files mean, and in what words they are refused.
@Suite struct LabmlFamilyTests {
    private static let tiny = "\(Repository.root)/Tests/Fixtures/labml/tiny"

    /// The fixture's folder with keys of its configuration replaced, or removed where they are nil.
    private func folder(_ changes: [String: Any?] = [:]) throws -> TemporaryFolder {
        let folder = try TemporaryFolder()
        var fields = try #require(
            try JSONSerialization.jsonObject(with: Data(try Repository.bytes("\(Self.tiny)/config.json")))
                as? [String: Any]
        )
        for (key, value) in changes { fields[key] = value }
        try folder.write([UInt8](JSONSerialization.data(withJSONObject: fields)), to: "config.json")
        try folder.write(Repository.bytes("\(Self.tiny)/pytorch_model.bin"), to: "pytorch_model.bin")
        return folder
    }

    @Test func defaultsAreLabmls() throws {
        let folder = try TemporaryFolder()
        try folder.write(#"{"model_type": "labml_switch", "n_tokens": 65}"#, to: "config.json")
        let model = try ModelConfiguration.load(directory: folder.path)
        #expect(model.family == .labmlSwitch && model.design == .labml)
        let widths: [Int] = [model.vocabularySize, model.modelWidth, model.headCount, model.keyWidth]
        #expect(widths == [65, 128, 4, 32])
        #expect(model.feedForwardWidth == 256 && model.encoderBlocks == 0 && model.decoderBlocks == 6)
        #expect(model.expertCount == 4 && model.sparseLayers.count == 6 && model.routerBias)
        #expect(!model.hasEncoder && model.hasDecoder && !model.dropsTokens && model.scalesByProbability)
        #expect(model.capacityFactor == 1 && model.checkpointCapacity == .max && model.droppedTokens == .pass)
        #expect(model.generation.endTokenIDs.isEmpty && model.generationNotes.isEmpty)
        // labml's own count: sum(p.numel() for p in model.parameters()).
        #expect(model.parameterCount == 2_001_497)
    }

    @Test func namesAreLabmls() throws {
        let checkpoint = try Checkpoint.open(Self.tiny)
        try checkpoint.validate()
        #expect(checkpoint.ignoredTensors.isEmpty && checkpoint.contents.unused.isEmpty)
        let model = checkpoint.configuration
        let experts = model.sparseLayers.flatMap { layer in
            (0..<model.expertCount).flatMap { model.expertRoles(layer, expert: $0) }
        }
        let roles = model.gatewayRoles + experts
        #expect(Set(roles.map { model.name(of: $0) }) == Set(checkpoint.tensors.keys))
        #expect(Set(roles).count == checkpoint.tensors.count)
        for role in roles {
            #expect(LabmlFamily.role(named: model.name(of: role)) == role)
            #expect(model.has(role) && checkpoint.tensors[model.name(of: role)]?.shape == model.shape(of: role))
        }
        let layer = SparseLayer(stack: .decoder, block: 2)
        let named: [(TensorRole, String)] = [
            (
                .bias(of: .attention(.decoder, block: 1, .selfAttention, .value)),
                "transformer.layers.1.attn.value.linear.bias"
            ),
            (.attention(.decoder, block: 0, .selfAttention, .output), "transformer.layers.0.attn.output.weight"),
            (.routerBias(layer), "transformer.layers.2.feed_forward.switch.bias"),
            (.bias(of: .expert(layer, expert: 4, .wo)), "transformer.layers.2.feed_forward.experts.4.layer2.bias"),
        ]
        for (role, name) in named { #expect(model.name(of: role) == name) }
        for name in [
            "src_embed.bias", "transformer.layers.01.norm_ff.weight", "transformer.layers.0.attn.query.weight",
            "transformer.layers.0.attn.output.linear.weight",
            "transformer.layers.0.feed_forward.experts.1.layer3.weight",
            "shared.weight", "transformer.layers.0.feed_forward.switch.scale", "transformer", "",
        ] {
            #expect(LabmlFamily.role(named: name) == nil)
        }
    }

    @Test(
        arguments: [
            (["n_experts": 6], ["layers.0.feed_forward.switch.weight", "[5, 24]", "[6, 24]", "n_experts, d_model"]),
            (["n_experts": 4], ["experts.4.layer1.bias", "beyond the 4 experts", "correct n_experts"]),
            (["d_ff": 41], ["layer1", "[40", "[41", "d_ff"]),
            (["d_model": 12, "heads": 3], ["[18, 24]", "[18, 12]", "n_tokens, d_model"]),
            (["n_layers": 2], ["transformer.layers.2", "beyond the 2", "correct n_layers"]),
            (["heads": 5], ["heads must divide d_model, 24, but is 5"]),
            (["heads": 0], ["heads must be 1 through 4096, but is 0"]),
            (["d_model": "24"], ["d_model must be an integer"]),
            (["n_tokens": 17], ["n_tokens is 17", "characters lists 18"]),
            (["characters": nil], ["characters is missing", "n_tokens"]),
            (["characters": ["a", "b"]], ["characters must be a word"]),
            (["capacity_factor": 0], ["capacity_factor must be above 0"]),
            (["vocab_size": 18], ["vocab_size is no key of a labml Switch Transformer", "n_experts"]),
            (["decoder_start_token_id": 0], ["decoder_start_token_id is no key"]),
            (["dropout": 2], ["dropout must be 0 through 1"]),
            (["drop_tokens": "no"], ["drop_tokens must be true or false"]),
            (["max_new_tokens": 0], ["max_new_tokens"]), (["eos_token_id": 18], ["eos_token_id", "17"]),
        ] as [([String: (any Sendable)?], [String])]
    )
    func refusals(changes: [String: (any Sendable)?], words: [String]) throws {
        let folder = try self.folder(changes.mapValues { $0 as Any? })
        let error = failure { try Checkpoint.open(folder.path).validate() }
        for word in words { #expect(error?.description.contains(word) == true, "\(error?.description ?? "none")") }
    }

    @Test func otherFilesAreRefused() throws {
        let objects = failure { _ = try Checkpoint.open("\(Repository.root)/Tests/Fixtures/labml/objects") }
        for word in ["pytorch_model.bin", "labml_nn.transformers.feed_forward"] {
            #expect(objects?.description.contains(word) == true, "\(objects?.description ?? "none")")
        }
        let override = failure { _ = try ModelConfiguration.load(directory: Self.tiny, overrides: ["num_heads": "2"]) }
        #expect(override?.description.contains("num_heads would change nothing") == true)
        // A tensor too many: load_state_dict refuses it too.
        let folder = try self.folder()
        try FileManager.default.removeItem(atPath: "\(folder.path)/pytorch_model.bin")
        let checkpoint = try Checkpoint.open(Self.tiny)
        let tensors = checkpoint.tensors.values.map { $0.view() }
        let more = try TensorView(name: "transformer.scale", dtype: .float32, shape: [1], bytes: [0, 0, 0, 0])
        try SafetensorsWriter.write(tensors + [more], to: "\(folder.path)/model.safetensors")
        let unknown = failure { try Checkpoint.open(folder.path).validate() }
        #expect(unknown?.code == .unknownTensor && unknown?.tensor == "transformer.scale")
        let pruning = ExpertPruning(kept: 1, loads: [:])
        let pruned = failure { _ = try pruning.experts(of: checkpoint.configuration, directory: "here") }
        #expect(pruned?.description.contains("labml_switch") == true)
    }

    @Test func whatTheFileSaysOfTrainingIsToldNotIgnored() throws {
        let folder = try self.folder(["drop_tokens": true, "capacity_factor": 1.2, "is_scale_prob": false])
        let model = try Checkpoint.open(folder.path).configuration
        #expect(model.dropsTokens && model.capacityFactor == 1.2 && !model.scalesByProbability)
        #expect(model.generationNotes.count == 1 && model.generationNotes[0].contains("floor:1.2"))
        #expect(try Checkpoint.open(folder.path).fingerprint != Checkpoint.open(Self.tiny).fingerprint)
        let ended = try self.folder(["eos_token_id": 0, "max_new_tokens": 7])
        #expect(try Checkpoint.open(ended.path).configuration.generation.endTokenIDs == [0])
    }

    @Test(arguments: [true, false])
    func partsHoldTheExpertsBiases(isPacked: Bool) throws {
        let folder = try TemporaryFolder()
        let packing: PlainPacking? = isPacked ? PlainPacking() : nil
        try CheckpointSharder.shard(model: Self.tiny, output: "\(folder.path)/out", pools: 2, packing: packing)
        let whole = try Checkpoint.open(Self.tiny)
        let gateway = try Checkpoint.open("\(folder.path)/out/gateway")
        try gateway.validate()
        #expect(gateway.fingerprint == whole.fingerprint && gateway.heldExperts.isEmpty)
        #expect(
            try Repository.bytes("\(folder.path)/out/gateway/config.json")
                == Repository.bytes("\(Self.tiny)/config.json")
        )
        for (pool, experts) in [(0, [0, 1, 2]), (1, [3, 4])] {
            let part = try Checkpoint.open("\(folder.path)/out/pool-\(pool)")
            try part.validate()
            try part.verifyFiles()
            #expect(part.fingerprint == whole.fingerprint)
            #expect(part.heldExperts.count == 3 && part.heldExperts.values.allSatisfy { $0 == experts })
            for layer in whole.configuration.sparseLayers {
                for role in experts.flatMap({ whole.configuration.expertRoles(layer, expert: $0) }) {
                    guard !isPacked || role.isBias else {
                        #expect(try part.packedTensor(role).rows == whole.tensor(role).shape[0])
                        continue
                    }
                    #expect(try part.tensor(role).bytes == whole.tensor(role).bytes)
                }
            }
            for name in part.packedNames { try part.verifyPacked(name) }
        }
    }

    @Test func aBiasThatIsGoneIsMissed() throws {
        let folder = try self.folder()
        try FileManager.default.removeItem(atPath: "\(folder.path)/pytorch_model.bin")
        let name = "transformer.layers.1.feed_forward.experts.2.layer2.bias"
        let tensors = try Checkpoint.open(Self.tiny).tensors.values.map { $0.view() }.filter { $0.name != name }
        try SafetensorsWriter.write(tensors, to: "\(folder.path)/model.safetensors")
        let checkpoint = try Checkpoint.open(folder.path)
        #expect(checkpoint.heldExperts[SparseLayer(stack: .decoder, block: 1)] == [0, 1, 3, 4])
        let error = failure { try checkpoint.validate() }
        #expect(error?.code == .missingTensor && error?.tensor == name)
    }

    @Test func outputsOfBiasedExpertsAreBounded() throws {
        let checkpoint = try Checkpoint.open(Self.tiny)
        let model = checkpoint.configuration
        var numbers = Generator(state: 5)
        for bounds in try LayerOutputBounds.all(of: checkpoint) {
            let layer = try #require(bounds.layer)
            #expect(bounds.constants?.count == model.expertCount && bounds.degree == 1)
            for expert in 0..<model.expertCount {
                let role = { (matrix: FeedForwardMatrix) in TensorRole.expert(layer, expert: expert, matrix) }
                let (wi, wo) = (try checkpoint.tensor(role(.wi)).floats, try checkpoint.tensor(role(.wo)).floats)
                let b = try checkpoint.tensor(.bias(of: role(.wi))).floats
                let c = try checkpoint.tensor(.bias(of: role(.wo))).floats
                // Also for no input at all, where only biases are left.
                for size: Float in [0, 0.01, 1, 30] {
                    let x = (0..<24).map { _ in Float.random(in: -size...size, using: &numbers) }
                    let hidden = b.indices.map { row in
                        max(0, (0..<24).reduce(b[row]) { $0 + wi[row * 24 + $1] * x[$1] })
                    }
                    let outputs = c.indices.map { row in
                        hidden.indices.reduce(c[row]) { $0 + wo[row * hidden.count + $1] * hidden[$1] }
                    }
                    let limit = bounds.limit(of: expert, squaredNorm: x.reduce(0) { $0 + $1 * $1 })
                    let largest = outputs.map(abs).max() ?? 0
                    #expect(largest <= limit && limit < 1_000 * max(largest, 1))
                }
            }
        }
    }
}
