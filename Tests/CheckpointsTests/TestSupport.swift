// SPDX-License-Identifier: Apache-2.0

import Foundation
import SwitchyardTypes
import Testing

@testable import Checkpoints

/// A folder that lives as long as the value that holds it.
final class TemporaryFolder: Sendable {
    let path: String

    init() throws {
        self.path = FileManager.default.temporaryDirectory.path + "/checkpoints-\(UUID().uuidString)"
        try FileManager.default.createDirectory(atPath: self.path, withIntermediateDirectories: true)
    }

    deinit { try? FileManager.default.removeItem(atPath: self.path) }

    func write(_ text: String, to name: String) throws {
        try self.write(Array(text.utf8), to: name)
    }

    func write(_ bytes: [UInt8], to name: String) throws {
        try Data(bytes).write(to: URL(fileURLWithPath: "\(self.path)/\(name)"))
    }

    func makeFolder(_ name: String) throws -> String {
        try FileManager.default.createDirectory(atPath: "\(self.path)/\(name)", withIntermediateDirectories: true)
        return "\(self.path)/\(name)"
    }

    var names: [String] {
        get throws { try FileManager.default.contentsOfDirectory(atPath: self.path).sorted() }
    }
}

/// Files that lie in the repository.
enum Repository {
    static let tests = URL(fileURLWithPath: #filePath).deletingLastPathComponent().path
    static let root = URL(fileURLWithPath: #filePath)
        .deletingLastPathComponent().deletingLastPathComponent().deletingLastPathComponent().path
    static let mini = "\(root)/deploy/models/switch-mini"

    static func fixture(_ name: String) -> String { "\(self.tests)/Fixtures/\(name)" }

    static func bytes(_ path: String) throws -> [UInt8] {
        try [UInt8](Data(contentsOf: URL(fileURLWithPath: path)))
    }
}

/// SplitMix64: the same sequence on every run.
struct Generator: RandomNumberGenerator {
    var state: UInt64

    mutating func next() -> UInt64 {
        self.state &+= 0x9E37_79B9_7F4A_7C15
        var value = self.state
        value = (value ^ (value >> 30)) &* 0xBF58_476D_1CE4_E5B9
        value = (value ^ (value >> 27)) &* 0x94D0_49BB_1331_11EB
        return value ^ (value >> 31)
    }

    /// Changes, cuts or lengthens bytes.
    mutating func mutate(_ bytes: [UInt8], within range: Range<Int>) -> [UInt8] {
        var bytes = bytes
        for _ in 0..<Int.random(in: 1...4, using: &self) {
            let position = Int.random(in: range, using: &self)
            guard position < bytes.count else { continue }
            switch Int.random(in: 0..<8, using: &self) {
            case 0: bytes[position] = 0xFF
            case 1: bytes[position] = 0
            case 2: bytes[position] ^= 1 << UInt8.random(in: 0..<8, using: &self)
            case 3: bytes[position] = UInt8(ascii: "9")
            case 4: bytes.remove(at: position)
            case 5: bytes.insert(UInt8.random(in: 0...255, using: &self), at: position)
            default: bytes[position] = UInt8.random(in: 0...255, using: &self)
            }
        }
        return bytes
    }
}

/// The error that a closure throws.
func failure(_ body: () throws -> Void, _ location: SourceLocation = #_sourceLocation) -> CheckpointError? {
    let error = #expect(throws: CheckpointError.self, sourceLocation: location) { try body() }
    return error
}

func storage(_ bytes: [UInt8]) -> CopiedStorage {
    CopiedStorage(byteCount: bytes.count) { $0.copyBytes(from: bytes) }
}

extension TensorView {
    var bytes: [UInt8] { self.withUnsafeBytes { Array($0) } }

    var floats: [Float] {
        self.withUnsafeBytes { bytes in
            (0..<self.elementCount)
                .map { index in
                    switch self.dtype {
                    case .float32: bytes.loadUnaligned(fromByteOffset: index * 4, as: Float.self)
                    case .bfloat16:
                        Float(bitPattern: UInt32(bytes.loadUnaligned(fromByteOffset: index * 2, as: UInt16.self)) << 16)
                    default: .nan
                    }
                }
        }
    }
}

/// A model of a few kilobytes, its tensors filled by a counter.
struct TinyModel {
    var configuration = ModelConfiguration(
        vocabularySize: 12,
        modelWidth: 4,
        keyWidth: 2,
        feedForwardWidth: 6,
        headCount: 3,
        encoderBlocks: 2,
        decoderBlocks: 2,
        encoderSparseStep: 2,
        decoderSparseStep: 2,
        expertCount: 3,
        relativeBuckets: 4
    )
    /// More lines for `config.json`.
    var extra = ""

    var json: String {
        """
        {"model_type": "switch_transformers", "vocab_size": \(self.configuration.vocabularySize), "d_model": 4, "d_kv": 2,
         "d_ff": \(self.configuration.feedForwardWidth), "num_heads": 3, "num_layers": \(self.configuration.encoderBlocks),
         "num_decoder_layers": \(self.configuration.decoderBlocks), "encoder_sparse_step": \(self.configuration.encoderSparseStep),
         "decoder_sparse_step": \(self.configuration.decoderSparseStep), "num_experts": \(self.configuration.expertCount),
         "tie_word_embeddings": \(self.configuration.tiedEmbeddings), "router_bias": \(self.configuration.routerBias),
         "relative_attention_num_buckets": 4\(self.extra)}
        """
    }

    var roles: [TensorRole] {
        let experts = self.configuration.sparseLayers.flatMap { layer in
            (0..<self.configuration.expertCount)
                .flatMap { expert in
                    self.configuration.feedForwardMatrices.map { TensorRole.expert(layer, expert: expert, $0) }
                }
        }
        return self.configuration.gatewayRoles + experts
    }

    func tensors() throws -> [TensorView] {
        var next: Float = 0
        return try self.roles.map { role in
            let shape = self.configuration.shape(of: role)
            let bytes = (0..<shape.reduce(1, *))
                .flatMap { _ in
                    next += 1
                    return withUnsafeBytes(of: next) { Array($0) }
                }
            return try TensorView(name: role.name, dtype: .float32, shape: shape, bytes: bytes)
        }
    }

    /// Writes the model, its tensors changed by a closure.
    func write(to folder: TemporaryFolder, _ change: (inout [TensorView]) throws -> Void = { _ in }) throws {
        var tensors = try self.tensors()
        try change(&tensors)
        try folder.write(self.json, to: "config.json")
        try SafetensorsWriter.write(tensors, to: "\(folder.path)/model.safetensors")
    }
}

extension [TensorView] {
    func named(_ name: String) throws -> TensorView {
        try #require(self.first { $0.name == name })
    }
}

extension TensorView {
    func renamed(_ name: String) throws -> TensorView {
        try TensorView(name: name, dtype: self.dtype, shape: self.shape, bytes: self.bytes)
    }

    func reshaped(_ shape: [Int]) throws -> TensorView {
        try TensorView(name: self.name, dtype: self.dtype, shape: shape, bytes: self.bytes)
    }
}
