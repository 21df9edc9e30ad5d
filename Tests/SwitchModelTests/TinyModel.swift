// SPDX-License-Identifier: Apache-2.0

import Checkpoints
import Foundation
import SwitchModel
import SwitchyardTypes
import TensorKernels

/// A model of a few thousand random weights in its own folder, which is removed with it.
final class TinyModel: Sendable {
    let directory: String
    let model: SwitchTransformer
    let experts: LocalExperts

    /// Odd sizes, more heads' width than model width, two sparse blocks per stack.
    static let configuration: [String: String] = [
        "d_model": "20", "d_kv": "6", "d_ff": "37", "num_heads": "5", "num_layers": "3", "num_decoder_layers": "4",
        "encoder_sparse_step": "2", "decoder_sparse_step": "2", "num_experts": "5", "expert_capacity": "64",
        "vocab_size": "71", "dense_act_fn": "\"relu\"", "decoder_start_token_id": "0", "eos_token_id": "1",
        "pad_token_id": "0", "router_dtype": "\"float32\"", "model_type": "\"switch_transformers\"",
        "is_encoder_decoder": "true", "tie_word_embeddings": "true",
    ]

    init(
        _ changes: [String: String] = [:],
        seed: UInt64 = 1,
        threads: Int = 2,
        dtype: DType = .float32,
        storage: WeightStorage = .checkpoint
    ) throws {
        let folder = FileManager.default.temporaryDirectory.appending(path: "switchyard-tiny-\(UUID().uuidString)")
        try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
        self.directory = folder.path(percentEncoded: false)
        let fields = TinyModel.configuration.merging(changes) { $1 }
        let json =
            "{" + fields.sorted { $0.key < $1.key }.map { "\"\($0.key)\": \($0.value)" }.joined(separator: ",") + "}"
        try Data(json.utf8).write(to: folder.appending(path: "config.json"))
        let configuration = try ModelConfiguration.load(directory: self.directory)
        try TinyModel.weights(of: configuration, seed: seed, dtype: dtype)
            .write(
                to: folder.appending(path: "model.safetensors")
            )
        let checkpoint = try Checkpoint.open(self.directory)
        let pool = WorkPool(threads: threads)
        self.model = try SwitchTransformer(checkpoint: checkpoint, pool: pool, storage: storage)
        self.experts = try LocalExperts(checkpoint: checkpoint, pool: pool, storage: storage)
    }

    deinit {
        try? FileManager.default.removeItem(atPath: self.directory)
    }

    /// A safetensors file: the length of the header, the header, the tensors one after another.
    private static func weights(of configuration: ModelConfiguration, seed: UInt64, dtype: DType) -> Data {
        var roles = configuration.gatewayRoles
        for layer in configuration.sparseLayers {
            for expert in 0..<configuration.expertCount {
                roles += [.expert(layer, expert: expert, .wi), .expert(layer, expert: expert, .wo)]
            }
        }
        var numbers = NumberSource(seed: seed)
        var header: [String] = []
        var bytes = Data()
        for role in roles {
            let shape = configuration.shape(of: role)
            let start = bytes.count
            for _ in 0..<shape.reduce(1, *) {
                let value = TinyModel.weight(for: role, &numbers)
                if dtype == .bfloat16 {
                    withUnsafeBytes(of: UInt16(value.bitPattern >> 16).littleEndian) { bytes.append(contentsOf: $0) }
                } else {
                    withUnsafeBytes(of: value.bitPattern.littleEndian) { bytes.append(contentsOf: $0) }
                }
            }
            header.append(
                "\"\(role.name)\": {\"dtype\": \"\(dtype.safetensorsName)\", \"shape\": \(shape),"
                    + " \"data_offsets\": [\(start), \(bytes.count)]}"
            )
        }
        let text = Data(("{" + header.joined(separator: ",") + "}").utf8)
        var file = Data()
        withUnsafeBytes(of: UInt64(text.count).littleEndian) { file.append(contentsOf: $0) }
        return file + text + bytes
    }

    /// Weights that make every part matter: scores and routers with some spread, norms away from 1.
    private static func weight(for role: TensorRole, _ numbers: inout NumberSource) -> Float {
        let value: Float
        switch role {
        case .layerNorm, .finalNorm: value = Float.random(in: 0.5...1.5, using: &numbers)
        case .relativeBias: value = Float.random(in: -1...1, using: &numbers)
        case .sharedEmbedding, .lmHead: value = Float.random(in: -2...2, using: &numbers)
        case .router, .routerBias: value = Float.random(in: -0.7...0.7, using: &numbers)
        default: value = Float.random(in: -0.4...0.4, using: &numbers)
        }
        // A bfloat16 value, so that a checkpoint in either type holds the same numbers.
        return Float(bitPattern: value.bitPattern & 0xFFFF_0000)
    }
}

/// Reproducible numbers for tests (SplitMix64: Steele, Lea and Flood, "Fast splittable pseudorandom number generators",
/// 2014, figure 17).
struct NumberSource: RandomNumberGenerator {
    private var state: UInt64

    init(seed: UInt64) {
        self.state = seed
    }

    mutating func next() -> UInt64 {
        self.state &+= 0x9E37_79B9_7F4A_7C15
        var z = self.state
        z = (z ^ (z >> 30)) &* 0xBF58_476D_1CE4_E5B9
        z = (z ^ (z >> 27)) &* 0x94D0_49BB_1331_11EB
        return z ^ (z >> 31)
    }

    mutating func tokens(_ count: Int, below bound: Int32 = 71) -> [Int32] {
        (0..<count).map { _ in Int32.random(in: 2..<bound, using: &self) }
    }
}

extension FloatMatrix {
    /// The bits of all elements, so that a comparison tells -0 from 0 and equals NaN to itself.
    var bits: [UInt32] {
        self.bits(rows: 0..<self.rows)
    }

    func bits(rows: Range<Int>) -> [UInt32] {
        rows.flatMap { self.row($0).map(\.bitPattern) }
    }
}
