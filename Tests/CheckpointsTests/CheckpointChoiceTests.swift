// SPDX-License-Identifier: Apache-2.0

import Foundation
import SwitchyardTypes
import Testing

@testable import Checkpoints

@Suite("Overrides, and what a checkpoint leaves open")
struct CheckpointChoiceTests {
    @Test(
        "a misspelt override names the key that was meant",
        arguments: [
            ("num_decoder_layer", "num_decoder_layers"), ("tie_embeddings", "tie_word_embeddings"),
            ("D_FF", "d_ff"), ("scale_decoder_output", "scale_decoder_outputs"), ("droped_tokens", "dropped_tokens"),
        ]
    )
    func misspelt(key: String, meant: String) {
        let error = failure { try ModelConfiguration.check(overrides: [key: "1"]) }
        #expect(error?.code == .unknownOverride)
        #expect(error?.message.contains("\"\(key)\"") == true)
        let isNear = key != "tie_embeddings"
        #expect(error?.message.contains("did you mean \(meant)?") == isNear, "\(String(describing: error))")
    }

    @Test("a key that is near none is refused without a guess")
    func farFromAll() {
        for key in ["learning_rate", "", String(repeating: "d_ff", count: 10_000)] {
            let error = failure { try ModelConfiguration.check(overrides: [key: "1"]) }
            #expect(error?.code == .unknownOverride)
            #expect(error?.message.contains("did you mean") == false)
        }
    }

    @Test("what only overrides can say is read from them, not from the file")
    func choices() throws {
        let folder = try TemporaryFolder()
        var model = TinyModel()
        model.extra = ", \"is_scale_prob\": false, \"dropped_tokens\": \"pass\", \"scale_decoder_outputs\": false"
        try model.write(to: folder)
        let plain = try ModelConfiguration.load(directory: folder.path)
        #expect(plain.scalesByProbability && plain.droppedTokens == .zero && plain.scalesDecoderOutputs)
        let changed = try ModelConfiguration.load(
            directory: folder.path,
            overrides: ["is_scale_prob": "false", "dropped_tokens": "pass", "scale_decoder_outputs": "false"]
        )
        #expect(!changed.scalesByProbability && changed.droppedTokens == .pass && !changed.scalesDecoderOutputs)
        let wrong = failure {
            _ = try ModelConfiguration.load(directory: folder.path, overrides: ["dropped_tokens": "keep"])
        }
        #expect(wrong?.message.contains("dropped_tokens must be zero or pass, but is \"keep\"") == true)
    }

    @Test(
        "each choice changes the fingerprint, and its default does not",
        arguments: [
            (["is_scale_prob": "false"], false), (["dropped_tokens": "pass"], false),
            (["scale_decoder_outputs": "false"], false), (["is_scale_prob": "true"], true),
            (["dropped_tokens": "zero"], true), (["scale_decoder_outputs": "true"], true),
        ]
    )
    func fingerprints(overrides: [String: String], isSame: Bool) throws {
        let folder = try TemporaryFolder()
        try TinyModel().write(to: folder)
        let (plain, changed) = (
            try Checkpoint.open(folder.path), try Checkpoint.open(folder.path, overrides: overrides)
        )
        #expect((plain.fingerprint == changed.fingerprint) == isSame)
    }

    @Test("a copy of the embedding that differs in any element is found, however large it is")
    func copies() throws {
        var model = TinyModel()
        model.configuration.vocabularySize = 4_096
        for place in [20_000, nil] {
            let folder = try TemporaryFolder()
            try model.write(to: folder) { tensors in
                var bytes = try tensors.named("shared.weight").bytes
                // Far from the bytes that fingerprints read.
                if let place { bytes[place] ^= 1 }
                let copy = try TensorView(
                    name: "decoder.embed_tokens.weight",
                    dtype: .float32,
                    shape: [4_096, 4],
                    bytes: bytes
                )
                tensors.append(copy)
            }
            let checkpoint = try Checkpoint.open(folder.path)
            guard place != nil else {
                try checkpoint.validate()
                continue
            }
            let error = failure { try checkpoint.validate() }
            #expect(error?.code == .conflictingTensors && error?.tensor == "decoder.embed_tokens.weight")
        }
    }

    @Test("tensors that no model has are named, a few of them by name")
    func ignored() throws {
        let folder = try TemporaryFolder()
        try TinyModel()
            .write(to: folder) { tensors in
                for index in 0..<7 {
                    tensors.append(try TensorView(name: "head.\(index)", dtype: .uint8, shape: [1], bytes: [0]))
                }
            }
        let checkpoint = try Checkpoint.open(folder.path)
        try checkpoint.validate()
        #expect(checkpoint.ignoredTensors == (0..<7).map { "head.\($0)" })
        let note = try #require(checkpoint.ignoredNote)
        #expect(note.contains("7 tensors") && note.hasSuffix("head.0, head.1, head.2, head.3 and 3 more"))
        #expect(try Checkpoint.open(Repository.mini).ignoredNote == nil)
        var notes: [String] = []
        try CheckpointSharder.shard(
            model: folder.path,
            output: "\(folder.path)/parts",
            pools: 2,
            note: { notes.append($0) }
        )
        #expect(notes == checkpoint.notes && notes.first == note)
        // The tiny model's files name neither an end token nor a start token.
        #expect(notes.dropFirst().map { $0.contains(" has no eos_token_id: ") } == [true, false])
        #expect(notes.last?.contains("has neither decoder_start_token_id nor bos_token_id") == true)
    }

    @Test("a link that leads nowhere is named, with where it leads")
    func brokenLinks() throws {
        for name in ["model.safetensors", "config.json", "generation_config.json"] {
            let folder = try TemporaryFolder()
            try TinyModel().write(to: folder)
            try? FileManager.default.removeItem(atPath: "\(folder.path)/\(name)")
            try FileManager.default.createSymbolicLink(
                atPath: "\(folder.path)/\(name)",
                withDestinationPath: "../../blobs/0123"
            )
            let error = failure { _ = try Checkpoint.open(folder.path) }
            #expect(error?.file == "\(folder.path)/\(name)")
            #expect(error?.message.contains("is a link to ../../blobs/0123, which does not exist") == true)
        }
    }

    private static let encoderClass = ", \"architectures\": [\"SwitchTransformersEncoderModel\"]"

    @Test("an encoder saved by itself is whole, and so are its parts")
    func encoderAlone() throws {
        let folder = try TemporaryFolder()
        var model = TinyModel()
        model.extra = Self.encoderClass
        try model.write(to: folder) { $0.removeAll { $0.name.hasPrefix("decoder.") } }
        let checkpoint = try Checkpoint.open(folder.path)
        try checkpoint.validate()
        #expect(!checkpoint.configuration.hasDecoder)
        #expect(checkpoint.configuration.sparseLayers == [SparseLayer(stack: .encoder, block: 1)])
        try CheckpointSharder.shard(model: folder.path, output: "\(folder.path)/parts", pools: 3)
        for part in ["gateway", "pool-0", "pool-1", "pool-2"] {
            let part = try Checkpoint.open("\(folder.path)/parts/\(part)")
            try part.validate()
            #expect(part.configuration == checkpoint.configuration && part.fingerprint == checkpoint.fingerprint)
        }
    }

    @Test("a decoder that is only partly there is missing, whatever the architecture says")
    func halfADecoder() throws {
        for (extra, isLeft) in [(Self.encoderClass, true), ("", false)] {
            let folder = try TemporaryFolder()
            var model = TinyModel()
            model.extra = extra
            try model.write(to: folder) { tensors in
                tensors.removeAll {
                    $0.name.hasPrefix("decoder.") && !(isLeft && $0.name == "decoder.final_layer_norm.weight")
                }
            }
            let error = failure { try Checkpoint.open(folder.path).validate() }
            #expect(error?.code == .missingTensor)
            #expect(error?.tensor?.hasPrefix("decoder.") == true)
        }
    }
}
