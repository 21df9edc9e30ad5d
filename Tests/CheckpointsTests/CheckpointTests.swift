// SPDX-License-Identifier: Apache-2.0

import Foundation
import SwitchyardTypes
import Synchronization
import Testing

@testable import Checkpoints

@Suite struct CheckpointTests {
    @Test func theMiniatureIsWhole() throws {
        let checkpoint = try Checkpoint.open(Repository.mini)
        try checkpoint.validate()
        #expect(checkpoint.manifest == nil)
        #expect(checkpoint.heldExperts.count == 4)
        #expect(checkpoint.heldExperts[SparseLayer(stack: .decoder, block: 3)] == Array(0..<8))
        let head = try checkpoint.tensor(.lmHead)
        #expect(head.name == "shared.weight")
        #expect(head.shape == [2_048, 128])
        #expect(head.dtype == .bfloat16)
        #expect(head.byteCount == 524_288)
        #expect(checkpoint.fingerprint == (try Checkpoint.open(Repository.mini)).fingerprint)
    }

    @Test func theThreeLayoutsOfOneModelAreOneModel() throws {
        let reference = try Checkpoint.open(Repository.fixture("safetensors"))
        try reference.validate()
        for name in ["torch", "torch-sharded"] {
            let checkpoint = try Checkpoint.open(Repository.fixture(name))
            try checkpoint.validate()
            #expect(checkpoint.configuration == reference.configuration)
            #expect(checkpoint.fingerprint == reference.fingerprint)
            #expect(checkpoint.heldExperts == reference.heldExperts)
            for role in reference.tensors.keys.compactMap({ TensorRole(name: $0) }) {
                let (left, right) = (try checkpoint.tensor(role), try reference.tensor(role))
                #expect(left.bytes == right.bytes && left.shape == right.shape && left.dtype == right.dtype)
            }
        }
        // Mixed types, as in the published base-8.
        #expect(try reference.tensor(.router(SparseLayer(stack: .encoder, block: 1))).dtype == .float32)
        #expect(try reference.tensor(.sharedEmbedding).dtype == .bfloat16)
    }

    @Test func safetensorsInSeveralFilesAreTheSameModel() throws {
        let (folder, single) = (try TemporaryFolder(), try TemporaryFolder())
        let model = TinyModel()
        try model.write(to: single)
        let tensors = try model.tensors()
        try folder.write(model.json, to: "config.json")
        try SafetensorsWriter.write(Array(tensors[..<5]), to: "\(folder.path)/a.safetensors")
        // A copy that the index does not point at does not count.
        let other = try TensorView(name: tensors[0].name, dtype: .uint8, shape: [1], bytes: [1])
        try SafetensorsWriter.write(tensors[5...] + [other], to: "\(folder.path)/b.safetensors")
        func index(_ change: (inout [String: String]) -> Void) throws -> String {
            var map = Dictionary(
                uniqueKeysWithValues: tensors.enumerated()
                    .map {
                        ($1.name, $0 < 5 ? "a.safetensors" : "b.safetensors")
                    }
            )
            change(&map)
            return String(decoding: try JSONEncoder().encode(["weight_map": map]), as: UTF8.self)
        }
        let seen = Mutex([WorkProgress]())
        try folder.write(try index { _ in }, to: "model.safetensors.index.json")
        let checkpoint = try Checkpoint.open(folder.path) { progress in seen.withLock { $0.append(progress) } }
        try checkpoint.validate()
        #expect(checkpoint.fingerprint == (try Checkpoint.open(single.path)).fingerprint)
        #expect(seen.withLock { $0.map(\.fraction) } == [0.5, 1])

        try folder.write(try index { $0["absent"] = "a.safetensors" }, to: "model.safetensors.index.json")
        let missing = failure { _ = try Checkpoint.open(folder.path) }
        #expect(missing?.code == .missingTensor && missing?.tensor == "absent")
        for path in ["../a.safetensors", "", "..", "/etc/passwd"] {
            try folder.write(try index { $0["absent"] = path }, to: "model.safetensors.index.json")
            #expect(failure { _ = try Checkpoint.open(folder.path) }?.code == .malformed)
        }
        try folder.write(try index { $0["absent"] = "c.safetensors" }, to: "model.safetensors.index.json")
        #expect(failure { _ = try Checkpoint.open(folder.path) }?.code == .notFound)
        try folder.write("{\"weight_map\": {}}", to: "model.safetensors.index.json")
        #expect(failure { _ = try Checkpoint.open(folder.path) }?.code == .malformed)
    }

    @Test(arguments: [
        "encoder.embed_tokens.weight", "decoder.embed_tokens.weight", "lm_head.weight", "decoder.lm_head.weight",
    ])
    func anyNameOfTheTiedEmbeddingWillDo(name: String) throws {
        let (plain, renamed) = (try TemporaryFolder(), try TemporaryFolder())
        try TinyModel().write(to: plain)
        try TinyModel()
            .write(to: renamed) { tensors in
                tensors[0] = try tensors[0].renamed(name)
            }
        let checkpoint = try Checkpoint.open(renamed.path)
        try checkpoint.validate()
        #expect(try checkpoint.tensor(.sharedEmbedding).name == name)
        #expect(try checkpoint.tensor(.lmHead).name == name)
        #expect(checkpoint.fingerprint == (try Checkpoint.open(plain.path)).fingerprint)
    }

    @Test(arguments: ["lm_head.weight", "decoder.lm_head.weight"])
    func anUntiedHeadIsATensorOfItsOwn(name: String) throws {
        let folder = try TemporaryFolder()
        var model = TinyModel()
        model.configuration.tiedEmbeddings = false
        try model.write(to: folder) { tensors in
            let head = try #require(tensors.firstIndex { $0.name == "lm_head.weight" })
            tensors[head] = try tensors[head].renamed(name)
        }
        let checkpoint = try Checkpoint.open(folder.path)
        try checkpoint.validate()
        #expect(try checkpoint.tensor(.lmHead).name == name)
        #expect(try checkpoint.tensor(.lmHead).bytes != checkpoint.tensor(.sharedEmbedding).bytes)
        // The published configurations of such models do not say so: the difference is found out.
        let tied = try Checkpoint.open(folder.path, overrides: ["tie_word_embeddings": "true"])
        let error = failure { try tied.validate() }
        #expect(error?.code == .conflictingTensors)
        #expect(error?.message.contains("override tie_word_embeddings=false") == true)
    }

    @Test func anUntiedModelWithoutAHeadIsIncomplete() throws {
        let folder = try TemporaryFolder()
        try TinyModel().write(to: folder)
        let checkpoint = try Checkpoint.open(folder.path, overrides: ["tie_word_embeddings": "false"])
        let error = failure { try checkpoint.validate() }
        #expect(error?.code == .missingTensor && error?.tensor == "lm_head.weight")
    }

    @Test(arguments: TinyModel().roles.map(\.name))
    func everyMissingTensorIsNamed(name: String) throws {
        let folder = try TemporaryFolder()
        try TinyModel().write(to: folder) { $0.removeAll { $0.name == name } }
        let checkpoint = try Checkpoint.open(folder.path)
        let error = failure { try checkpoint.validate() }
        #expect(error?.code == .missingTensor)
        #expect(error?.tensor == name)
        #expect(error?.file == folder.path)
    }

    @Test(arguments: [
        ("encoder.block.0.layer.1.mlp.wi_0.weight", "gated"),
        ("encoder.block.2.layer.0.layer_norm.weight", "override num_layers"),
        ("decoder.block.7.layer.2.mlp.wi.weight", "override num_decoder_layers"),
        ("encoder.block.1.layer.1.mlp.wi.weight", "is dense where the configuration makes block 1 sparse"),
        (
            "encoder.block.0.layer.1.mlp.router.classifier.weight",
            "is sparse where the configuration makes block 0 dense"
        ),
        ("encoder.block.1.layer.1.mlp.experts.expert_3.wi.weight", "override num_experts"),
        ("encoder.block.1.layer.1.mlp.router.classifier.bias", "override router_bias=true"),
    ])
    func everyUnknownTensorIsNamed(name: String, complaint: String) throws {
        let folder = try TemporaryFolder()
        try TinyModel()
            .write(to: folder) { tensors in
                tensors.append(try TensorView(name: name, dtype: .float32, shape: [1], bytes: [0, 0, 0, 0]))
            }
        let checkpoint = try Checkpoint.open(folder.path)
        let error = failure { try checkpoint.validate() }
        #expect(error?.code == .unknownTensor)
        #expect(error?.tensor == name)
        #expect(error?.message.contains(complaint) == true, "\(String(describing: error))")
    }

    @Test func routersMayHaveABias() throws {
        let folder = try TemporaryFolder()
        var model = TinyModel()
        model.configuration.routerBias = true
        try model.write(to: folder)
        let checkpoint = try Checkpoint.open(folder.path)
        try checkpoint.validate()
        #expect(try checkpoint.tensor(.routerBias(SparseLayer(stack: .encoder, block: 1))).shape == [3])
    }

    @Test func wrongShapesAndTypesAreNamed() throws {
        let name = "encoder.block.0.layer.1.mlp.wi.weight"
        let folder = try TemporaryFolder()
        try TinyModel()
            .write(to: folder) { tensors in
                let index = try #require(tensors.firstIndex { $0.name == name })
                tensors[index] = try tensors[index].reshaped([4, 6])
            }
        let error = failure { try Checkpoint.open(folder.path).validate() }
        #expect(error?.code == .wrongShape && error?.tensor == name)
        #expect(error?.message.contains("has the shape [4, 6], but the configuration requires [6, 4]") == true)
        #expect(error?.file == "\(folder.path)/model.safetensors")

        let other = try TemporaryFolder()
        try TinyModel()
            .write(to: other) { tensors in
                let index = try #require(tensors.firstIndex { $0.name == name })
                tensors[index] = try TensorView(name: name, dtype: .int32, shape: [6, 4], bytes: tensors[index].bytes)
            }
        let typed = failure { try Checkpoint.open(other.path).validate() }
        #expect(typed?.code == .wrongDType && typed?.tensor == name)
    }

    @Test func anExpertIsHeldOnlyWithBothMatrices() throws {
        let folder = try TemporaryFolder()
        try TinyModel().write(to: folder) { $0.removeAll { $0.name.hasSuffix("expert_1.wo.weight") } }
        let checkpoint = try Checkpoint.open(folder.path)
        #expect(checkpoint.heldExperts[SparseLayer(stack: .encoder, block: 1)] == [0, 2])
    }

    @Test func aConfigurationOfAnotherSizeAsksForNoMemory() throws {
        let folder = try TemporaryFolder()
        try TinyModel().write(to: folder)
        let checkpoint = try Checkpoint.open(folder.path, overrides: ["d_model": "1048576", "num_layers": "1024"])
        #expect(failure { try checkpoint.validate() }?.code == .wrongShape)
    }

    @Test func foldersWithoutWeightsOrAtAllAreNamed() throws {
        let folder = try TemporaryFolder()
        try folder.write("{}", to: "config.json")
        let error = failure { _ = try Checkpoint.open(folder.path) }
        #expect(error?.code == .notFound && error?.message.contains("pytorch_model.bin.index.json") == true)
        #expect(
            failure { _ = try Checkpoint.open("\(folder.path)/config.json") }?.message.contains("is not a folder")
                == true
        )
    }
}

@Suite struct FingerprintTests {
    private func fingerprint(
        _ overrides: [String: String] = [:],
        _ change: (inout [TensorView]) throws -> Void = { _ in }
    ) throws -> UInt64 {
        let folder = try TemporaryFolder()
        try TinyModel().write(to: folder, change)
        return try Checkpoint.open(folder.path, overrides: overrides).fingerprint
    }

    @Test func itIsTheSameOnEveryMachine() throws {
        // A changed value here means that parts cut by earlier versions no longer match their whole.
        #expect(Fingerprint.text(try Checkpoint.open(Repository.mini).fingerprint) == "c3740e877a445517")
    }

    @Test func orderAndForeignTensorsDoNotMatter() throws {
        let reference = try self.fingerprint()
        #expect(try self.fingerprint { $0.reverse() } == reference)
        #expect(
            try self.fingerprint { tensors in
                tensors.append(try TensorView(name: "other", dtype: .uint8, shape: [1], bytes: [1]))
            } == reference
        )
        #expect(try self.fingerprint(["expert_capacity": "7", "eos_token_id": "3"]) == reference)
    }

    @Test(arguments: TinyModel().roles.map(\.name))
    func everyTensorMatters(name: String) throws {
        let changed = try self.fingerprint { tensors in
            let index = try #require(tensors.firstIndex { $0.name == name })
            var bytes = tensors[index].bytes
            bytes[bytes.count / 2] ^= 1
            tensors[index] = try TensorView(name: name, dtype: .float32, shape: tensors[index].shape, bytes: bytes)
        }
        #expect(try changed != self.fingerprint())
    }

    @Test(arguments: [
        ["d_kv": "3", "num_heads": "2"], ["encoder_sparse_step": "0"], ["layer_norm_epsilon": "1e-5"],
        ["dense_act_fn": "gelu"],
    ])
    func theConfigurationMatters(overrides: [String: String]) throws {
        #expect(try self.fingerprint(overrides) != self.fingerprint())
    }

    @Test(arguments: [(0, true), (1_023, true), (99_999, true), (98_977, true), (50_000, false)])
    func largeTensorsAreSampled(position: Int, counts: Bool) {
        func digest(_ change: Bool) -> UInt64 {
            var bytes = (0..<100_000).map { UInt8(truncatingIfNeeded: $0 * 7) }
            if change { bytes[position] ^= 255 }
            let tensor = StoredTensor(
                name: "w",
                dtype: .uint8,
                shape: [100_000],
                storage: storage(bytes),
                range: 0..<100_000,
                strides: nil,
                file: "memory"
            )
            return Fingerprint.digest(tensor)
        }
        #expect((digest(true) != digest(false)) == counts)
    }
}
