// SPDX-License-Identifier: Apache-2.0

import Checkpoints
import Foundation
import SwitchyardTypes

/// Checkpoints of random weights, for benchmarks that need a shape and no language.
///
/// The weights keep activations at about their size: those of a product are uniform with a variance of one over the length of
/// its sums, so that routers choose about evenly.
struct SyntheticCheckpoint {
    /// The shape; every key that readers need is written.
    var configuration: ModelConfiguration
    /// The experts of each sparse layer that are written.
    var experts: Range<Int>
    /// The type of the stored weights, float32 or bfloat16.
    var dtype = DType.float32

    /// One sparse layer, and otherwise the smallest possible model.
    ///
    /// - Parameters:
    ///   - experts: The layer's experts.
    ///   - width: Elements of a token.
    ///   - inner: Elements between an expert's two matrices.
    /// - Returns: The checkpoint, not yet written.
    static func oneSparseLayer(experts: Int, width: Int, inner: Int) -> SyntheticCheckpoint {
        SyntheticCheckpoint(
            configuration: ModelConfiguration(
                vocabularySize: 64,
                modelWidth: width,
                keyWidth: 1,
                feedForwardWidth: inner,
                headCount: 1,
                encoderBlocks: 1,
                decoderBlocks: 1,
                encoderSparseStep: 0,
                decoderSparseStep: 1,
                expertCount: experts
            ),
            experts: 0..<experts
        )
    }

    /// Writes a checkpoint in several files, each small enough to be put together in memory.
    ///
    /// - Parameter folder: A folder that does not exist yet.
    /// - Throws: `CheckpointError` and what Foundation throws where the folder cannot be written.
    func write(to folder: String) throws {
        try FileManager.default.createDirectory(atPath: folder, withIntermediateDirectories: true)
        try Data(self.json.utf8).write(to: URL(fileURLWithPath: "\(folder)/config.json"))
        var files: [String: String] = [:]
        for (index, roles) in self.parts.enumerated() {
            let name = "model-\(index).safetensors"
            try self.write(roles, to: "\(folder)/\(name)", seed: UInt64(index))
            for role in roles { files[role.name] = name }
        }
        try Self.writeIndex(files, to: folder)
    }

    /// Writes a checkpoint that differs from another only in its number of experts and so its routers: everything else
    /// links to the other one.
    ///
    /// - Parameters:
    ///   - folder: A folder that does not exist yet.
    ///   - original: What was written by another shape's ``write(to:)`` with as many experts' weights.
    ///   - source: The folder that it was written to.
    /// - Throws: `CheckpointError` and what Foundation throws where the folder cannot be written.
    func write(to folder: String, linking original: SyntheticCheckpoint, in source: String) throws {
        try FileManager.default.createDirectory(atPath: folder, withIntermediateDirectories: true)
        try Data(self.json.utf8).write(to: URL(fileURLWithPath: "\(folder)/config.json"))
        var files: [String: String] = [:]
        for (index, roles) in original.parts.enumerated() {
            let name = "model-\(index).safetensors"
            try FileManager.default.createSymbolicLink(
                atPath: "\(folder)/\(name)",
                withDestinationPath: "\(source)/\(name)"
            )
            for role in roles { files[role.name] = name }
        }
        let routers = self.configuration.sparseLayers.map { TensorRole.router($0) }
        try self.write(routers, to: "\(folder)/routers.safetensors", seed: 1 << 32)
        for role in routers { files[role.name] = "routers.safetensors" }
        try Self.writeIndex(files, to: folder)
    }

    /// Tensors that share a file: those of the gateway by block, those of one layer's experts by expert.
    private var parts: [[TensorRole]] {
        var parts: [[TensorRole]] = []
        for role in self.configuration.gatewayRoles {
            if case .layerNorm(_, _, .selfAttention) = role { parts.append([]) }
            if parts.isEmpty { parts.append([]) }
            parts[parts.count - 1].append(role)
        }
        for layer in self.configuration.sparseLayers {
            for expert in self.experts {
                parts.append(self.configuration.feedForwardMatrices.map { .expert(layer, expert: expert, $0) })
            }
        }
        return parts
    }

    private func write(_ roles: [TensorRole], to path: String, seed: UInt64) throws {
        var numbers = BenchNumbers(seed: seed)
        let tensors = try roles.map { role in
            let shape = self.configuration.shape(of: role)
            return try TensorView(
                name: role.name,
                dtype: self.dtype,
                shape: shape,
                bytes: self.bytes(count: shape.reduce(1, *), of: role, &numbers)
            )
        }
        try SafetensorsWriter.write(tensors, to: path, metadata: ["format": "pt"])
    }

    private func bytes(count: Int, of role: TensorRole, _ numbers: inout BenchNumbers) -> [UInt8] {
        let isNarrow = self.dtype == .bfloat16
        let scale = self.scale(of: role)
        return [UInt8](unsafeUninitializedCapacity: count * (isNarrow ? 2 : 4)) { buffer, used in
            for index in 0..<count {
                let bits = (scale.map { numbers.next() * $0 } ?? 1).bitPattern
                if isNarrow {
                    buffer.storeBytes(of: UInt16(bits >> 16), at: 2 * index)
                } else {
                    buffer.storeBytes(of: bits, at: 4 * index)
                }
            }
            used = buffer.count
        }
    }

    /// The largest magnitude of a tensor's weights; nil for norms, which are ones.
    private func scale(of role: TensorRole) -> Float? {
        switch role {
        case .layerNorm, .finalNorm: nil
        case .sharedEmbedding, .lmHead: 1
        default: (3 / Float(self.configuration.shape(of: role).last ?? 1)).squareRoot()
        }
    }

    private static func writeIndex(_ files: [String: String], to folder: String) throws {
        let encoder = JSONEncoder()
        encoder.outputFormatting = [.sortedKeys]
        try encoder.encode(["weight_map": files])
            .write(to: URL(fileURLWithPath: "\(folder)/model.safetensors.index.json"))
    }

    /// The configuration as transformers writes it.
    private var json: String {
        let shape = self.configuration
        let fields: [(String, String)] = [
            ("model_type", "\"switch_transformers\""), ("vocab_size", "\(shape.vocabularySize)"),
            ("d_model", "\(shape.modelWidth)"), ("d_kv", "\(shape.keyWidth)"), ("d_ff", "\(shape.feedForwardWidth)"),
            ("num_heads", "\(shape.headCount)"), ("num_layers", "\(shape.encoderBlocks)"),
            ("num_decoder_layers", "\(shape.decoderBlocks)"), ("encoder_sparse_step", "\(shape.encoderSparseStep)"),
            ("decoder_sparse_step", "\(shape.decoderSparseStep)"), ("num_experts", "\(shape.expertCount)"),
            ("expert_capacity", "\(shape.expertCapacity)"), ("router_bias", "false"),
            ("router_dtype", "\"float32\""), ("dense_act_fn", "\"relu\""),
            ("tie_word_embeddings", shape.tiedEmbeddings ? "true" : "false"), ("decoder_start_token_id", "0"),
            ("eos_token_id", "1"), ("pad_token_id", "0"),
        ]
        return "{" + fields.map { "\"\($0)\": \($1)" }.joined(separator: ", ") + "}\n"
    }
}

extension UnsafeMutableBufferPointer<UInt8> {
    fileprivate func storeBytes<T: BitwiseCopyable>(of value: T, at offset: Int) {
        UnsafeMutableRawBufferPointer(self).storeBytes(of: value, toByteOffset: offset, as: T.self)
    }
}

/// A folder that is removed with the benchmark.
struct BenchFolder {
    let path: String

    init() throws {
        self.path =
            FileManager.default.temporaryDirectory
            .appendingPathComponent("switchyard-bench-\(UUID().uuidString)").path
        try FileManager.default.createDirectory(atPath: self.path, withIntermediateDirectories: true)
    }

    /// Removes the folder and all that is in it.
    func remove() { try? FileManager.default.removeItem(atPath: self.path) }
}
