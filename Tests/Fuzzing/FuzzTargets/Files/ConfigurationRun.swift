// SPDX-License-Identifier: Apache-2.0

import Checkpoints
import Foundation
import SwitchyardTypes

/// The files around a model's weights: configurations, the index of several weight files, adapters, and what describes
/// the parts of a cut checkpoint.
enum ConfigurationRun {
    /// `config.json` and, behind a separator, `generation_config.json`.
    static func configuration(_ bytes: [UInt8], _ trace: inout Trace) throws(FuzzFinding) {
        let parts = FileParts.split(bytes, into: 2)
        var files = [(name: "config.json", bytes: parts[0])]
        if !parts[1].isEmpty { files.append((name: "generation_config.json", bytes: parts[1])) }
        try ScratchFolder.with(files) { (folder) throws(FuzzFinding) in
            let model: ModelConfiguration
            do throws(CheckpointError) {
                model = try ModelConfiguration.load(directory: folder.path)
            } catch {
                return try expectWords("\(error)", &trace)
            }
            trace.accept()
            do throws(CheckpointError) {
                try model.validate()
            } catch {
                throw FuzzFinding("an accepted configuration is valid", "\(error)")
            }
            trace.note(model.gatedFeedForward ? 1 : 0)
            trace.note(model.sparseLayers.count)
            trace.note(size: model.generation.endTokenIDs.count)
            try expect(model.parameterCount > 0, "a model has parameters", "\(model.parameterCount)")
            let roles = model.gatewayRoles
            try expect(roles.allSatisfy { model.has($0) }, "a model has its own tensors")
            for role in roles {
                let elements = model.shape(of: role).reduce(1, { $0 &* $1 })
                try expect(elements > 0, "a tensor has elements", "\(role)")
            }
            let ids = model.generation.endTokenIDs + [model.decoderStartTokenID, model.padTokenID]
            try expect(ids.allSatisfy { (0..<model.vocabularySize).contains($0) }, "tokens are in the vocabulary")
            for note in model.generationNotes { try expect(!note.isEmpty, "a note says something") }
        }
    }

    /// `model.safetensors.index.json` beside two weight files of a tiny model.
    static func index(_ bytes: [UInt8], _ trace: inout Trace) throws(FuzzFinding) {
        let files = TinyModel.files(split: true) + [(name: "model.safetensors.index.json", bytes: bytes)]
        try ScratchFolder.with(files) { (folder) throws(FuzzFinding) in
            try Self.open(folder, adapter: nil, &trace)
        }
    }

    /// `adapter_config.json` of an adapter of the tiny model.
    static func adapter(_ bytes: [UInt8], _ trace: inout Trace) throws(FuzzFinding) {
        let files =
            TinyModel.files(split: false) + [
                (name: "adapter/adapter_config.json", bytes: bytes),
                (name: "adapter/adapter_model.safetensors", bytes: TinyModel.adapter),
            ]
        try ScratchFolder.with(files) { (folder) throws(FuzzFinding) in
            try Self.open(folder, adapter: "\(folder.path)/adapter", &trace)
        }
    }

    private static func open(
        _ folder: ScratchFolder,
        adapter: String?,
        _ trace: inout Trace
    ) throws(FuzzFinding) {
        do throws(CheckpointError) {
            let checkpoint = try Checkpoint.open(folder.path, adapter: adapter)
            try checkpoint.validate()
            trace.accept()
            for role in checkpoint.configuration.gatewayRoles {
                let view = try checkpoint.tensor(role)
                // Merging is lazy: reading is what computes it.
                trace.note(view.withUnsafeBytes { $0.contains { $0 != 0 } } ? 1 : 0)
            }
        } catch {
            try expectWords("\(error)", &trace)
        }
    }

    /// A part's `manifest.json`.
    static func manifest(_ bytes: [UInt8], _ trace: inout Trace) throws(FuzzFinding) {
        try ScratchFolder.with([(name: ShardManifest.fileName, bytes: bytes)]) { (folder) throws(FuzzFinding) in
            guard
                let manifest = try Self.read(
                    &trace,
                    { () throws(CheckpointError) in
                        try ShardManifest.load(directory: folder.path)
                    }
                ) ?? nil
            else { return }
            trace.accept()
            trace.note(manifest.packing == nil ? 0 : 1)
            trace.note(size: manifest.files?.count ?? 0)
            let sizes = (manifest.files ?? []).map(\.byteCount) + [manifest.byteCount, manifest.tensorCount]
            try expect(sizes.allSatisfy { (0...StatedSizes.most).contains($0) }, "sizes are within their limit")
            try expect(manifest.expertsByLayer.count == manifest.experts.count, "a layer is named once")
            try folder.write(try Self.encoded(manifest), to: ShardManifest.fileName)
            let again = try Self.read(&trace) { () throws(CheckpointError) in
                try ShardManifest.load(directory: folder.path)
            }
            try expect(again == manifest, "a manifest is read as it was written")
        }
    }

    /// `placement.json`.
    static func placement(_ bytes: [UInt8], _ trace: inout Trace) throws(FuzzFinding) {
        try ScratchFolder.with([(name: PlacementFile.fileName, bytes: bytes)]) { (folder) throws(FuzzFinding) in
            func load() throws(CheckpointError) -> PlacementFile { try PlacementFile.load(directory: folder.path) }
            guard let placement = try Self.read(&trace, load) else { return }
            trace.accept()
            trace.note(size: placement.expertCount)
            let experts = placement.pools.flatMap(\.experts)
            try expect(experts.sorted() == Array(0..<placement.expertCount), "every expert has one pool")
            for bounds in placement.outputBounds ?? [] {
                trace.note(bounds.degree)
                for norm in [0, 1, 1e30, .infinity, .nan] as [Float] {
                    let limit = bounds.limit(of: placement.expertCount - 1, squaredNorm: norm)
                    try expect(limit.isFinite && limit >= 0, "a bound is a number", "\(limit)")
                }
            }
            try folder.write(try Self.encoded(placement), to: PlacementFile.fileName)
            let again = try Self.read(&trace, load)
            try expect(again == placement, "a placement is read as it was written")
        }
    }

    private static func read<Value>(
        _ trace: inout Trace,
        _ body: () throws(CheckpointError) -> Value
    ) throws(FuzzFinding) -> Value? {
        do throws(CheckpointError) {
            return try body()
        } catch {
            try expectWords("\(error)", &trace)
            return nil
        }
    }

    private static func encoded(_ value: some Encodable) throws(FuzzFinding) -> [UInt8] {
        do {
            return Array(try JSONEncoder().encode(value))
        } catch {
            throw FuzzFinding("what was read can be written", "\(error)")
        }
    }
}

/// A dense T5 model of a few numbers, written by hand.
enum TinyModel {
    static let configuration = """
        {"model_type":"t5","architectures":["T5ForConditionalGeneration"],"vocab_size":8,"d_model":4,"d_kv":2,"d_ff":4,\
        "num_layers":1,"num_decoder_layers":1,"num_heads":2,"relative_attention_num_buckets":4,\
        "relative_attention_max_distance":8,"feed_forward_proj":"relu","decoder_start_token_id":0,"eos_token_id":1,\
        "pad_token_id":0,"layer_norm_epsilon":1e-6}
        """

    private static let tensors: [(name: String, shape: [Int])] = {
        var tensors: [(name: String, shape: [Int])] = [("shared.weight", [8, 4])]
        for stack in ["encoder", "decoder"] {
            let kinds = stack == "encoder" ? ["SelfAttention"] : ["SelfAttention", "EncDecAttention"]
            for (layer, kind) in kinds.enumerated() {
                let name = "\(stack).block.0.layer.\(layer)"
                tensors.append(("\(name).layer_norm.weight", [4]))
                tensors += ["q", "k", "v", "o"].map { ("\(name).\(kind).\($0).weight", [4, 4]) }
            }
            tensors.append(("\(stack).block.0.layer.0.SelfAttention.relative_attention_bias.weight", [4, 2]))
            tensors.append(("\(stack).block.0.layer.\(kinds.count).layer_norm.weight", [4]))
            tensors += ["wi", "wo"]
                .map { ("\(stack).block.0.layer.\(kinds.count).DenseReluDense.\($0).weight", [4, 4]) }
            tensors.append(("\(stack).final_layer_norm.weight", [4]))
        }
        return tensors
    }()

    /// The names of the tensors in each of two files.
    static let halves: [[String]] = {
        let names = Self.tensors.map(\.name)
        return [Array(names[..<(names.count / 2)]), Array(names[(names.count / 2)...])]
    }()

    /// The adapter's weights: a pair of matrices of rank 2 for the encoder's queries.
    static let adapter = Self.safetensors([
        ("base_model.model.encoder.block.0.layer.0.SelfAttention.q.lora_A.weight", [2, 4]),
        ("base_model.model.encoder.block.0.layer.0.SelfAttention.q.lora_B.weight", [4, 2]),
    ])

    /// The model's files.
    ///
    /// - Parameter split: Whether the weights are in two files, `a.safetensors` and `b.safetensors`.
    /// - Returns: Names and contents.
    static func files(split: Bool) -> [(name: String, bytes: [UInt8])] {
        let configuration = [(name: "config.json", bytes: Array(Self.configuration.utf8))]
        guard split else { return configuration + [(name: "model.safetensors", bytes: Self.whole)] }
        return configuration + [
            (name: "a.safetensors", bytes: Self.parts[0]), (name: "b.safetensors", bytes: Self.parts[1]),
        ]
    }

    private static let whole = Self.safetensors(Self.tensors)

    private static let parts = Self.halves.map { names in
        Self.safetensors(Self.tensors.filter { names.contains($0.name) })
    }

    /// A file of float32 tensors that hold small numbers.
    private static func safetensors(_ tensors: [(name: String, shape: [Int])]) -> [UInt8] {
        var data: [UInt8] = []
        var entries: [String] = []
        for tensor in tensors {
            let begin = data.count
            for index in 0..<tensor.shape.reduce(1, *) {
                let bits = (Float(index % 7) - 3).bitPattern
                data += (0..<4).map { UInt8(truncatingIfNeeded: bits >> (8 * $0)) }
            }
            entries.append(
                "\"\(tensor.name)\":{\"dtype\":\"F32\",\"shape\":\(tensor.shape),\"data_offsets\":[\(begin),\(data.count)]}"
            )
        }
        let header = Array("{\(entries.joined(separator: ","))}".utf8)
        return (0..<8).map { UInt8(truncatingIfNeeded: header.count >> (8 * $0)) } + header + data
    }
}
