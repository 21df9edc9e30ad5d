// SPDX-License-Identifier: Apache-2.0

import Foundation
import SwitchModel
import SwitchyardTypes
import TensorKernels
import Testing

@testable import Checkpoints

/// The bounds of experts' outputs, for each activation, gated or not, against what experts compute.
@Suite struct ActivationBoundTests {
    /// Weights that come near to the bound in one way or another.
    enum Weights: CaseIterable {
        /// All the same, so that rows, columns and inputs are parallel.
        case constant
        /// One hidden unit alone, so that the product of a gate loses nothing either.
        case single
        /// Anything from -1 to 1.
        case random
        /// From 2^-20 to 2^4, of either sign.
        case uneven
    }

    private static let activations = ModelConfiguration.Activation.allCases

    /// A checkpoint of four experts a layer with other weights, in bfloat16.
    private func checkpoint(
        _ activation: ModelConfiguration.Activation,
        gated: Bool,
        _ weights: Weights,
        _ random: inout some RandomNumberGenerator
    ) throws -> (Checkpoint, URL) {
        let source = URL(filePath: TestModel.root)
            .appending(
                path: gated ? "Tests/Fixtures/dense/switch-xxl" : "Tests/Fixtures/cases/plain"
            )
        let folder = FileManager.default.temporaryDirectory.appending(path: "switchyard-bounds-\(UUID().uuidString)")
        try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
        try FileManager.default.copyItem(
            at: source.appending(path: "config.json"),
            to: folder.appending(path: "config.json")
        )
        var bytes = [UInt8](try Data(contentsOf: source.appending(path: "model.safetensors")))
        let start = 8 + bytes[..<8].reversed().reduce(0) { $0 << 8 | Int($1) }
        let header = try #require(JSONSerialization.jsonObject(with: Data(bytes[8..<start])) as? [String: Any])
        for (name, value) in header.sorted(by: { $0.key < $1.key }) where name.contains(".expert_") {
            let entry = try #require(value as? [String: Any])
            let shape = try #require(entry["shape"] as? [Int])
            let begin = start + (try #require(entry["data_offsets"] as? [Int]))[0]
            try #require(entry["dtype"] as? String == "BF16")
            for index in 0..<shape[0] * shape[1] {
                let hidden = name.hasSuffix(".wo.weight") ? index % shape[1] : index / shape[1]
                let weight = self.weight(weights, isFirst: hidden == 3, &random)
                let bits = UInt16(truncatingIfNeeded: weight.bitPattern >> 16)
                bytes[begin + 2 * index] = UInt8(truncatingIfNeeded: bits)
                bytes[begin + 2 * index + 1] = UInt8(truncatingIfNeeded: bits >> 8)
            }
        }
        try Data(bytes).write(to: folder.appending(path: "model.safetensors"))
        // The configuration of the gated one says other layers than the file has, as that of switch-xxl-128.
        var overrides = ["dense_act_fn": activation.rawValue]
        if gated {
            overrides.merge(
                [
                    "num_layers": "2", "num_decoder_layers": "2", "encoder_sparse_step": "2",
                    "decoder_sparse_step": "2",
                    "tie_word_embeddings": "false", "is_gated_act": "true",
                ]
            ) { $1 }
        }
        let opened = try Checkpoint.open(folder.path, overrides: overrides)
        try #require(opened.configuration.activation == activation && opened.configuration.gatedFeedForward == gated)
        return (opened, folder)
    }

    private func weight(_ weights: Weights, isFirst: Bool, _ random: inout some RandomNumberGenerator) -> Float {
        switch weights {
        case .constant: 0.5
        case .single: isFirst ? 0.75 : 0
        case .random: Float.random(in: -1...1, using: &random)
        case .uneven:
            (Bool.random(using: &random) ? 1 : -1)
                * Float(sign: .plus, exponent: .random(in: -20...4, using: &random), significand: 1)
        }
    }

    /// Rows of many sizes: all of one number, one number alone, and anything.
    private func rows(_ count: Int, width: Int, _ random: inout some RandomNumberGenerator) -> FloatMatrix {
        let rows = FloatMatrix(rows: count, columns: width)
        for row in 0..<count {
            let scale: Float = [1e-12, 1e-3, 1, 40, 1e4][row % 5]
            for column in 0..<width {
                let value: Float =
                    switch row % 3 {
                    case 0: 1
                    case 1: column == row % width ? -1 : 0
                    default: .random(in: -1...1, using: &random)
                    }
                rows.row(row)[column] = value * scale
            }
        }
        return rows
    }

    @Test("No expert computes more than its bound", arguments: Self.activations, [false, true])
    func outputsStayWithin(activation: ModelConfiguration.Activation, gated: Bool) throws {
        var random = Xorshift(
            state: 0x9e37_79b9 + UInt64(activation.rawValue.utf8.reduce(0) { $0 &* 31 &+ UInt32($1) })
        )
        var closest: Float = 0
        for weights in Weights.allCases {
            let (checkpoint, folder) = try self.checkpoint(activation, gated: gated, weights, &random)
            defer { try? FileManager.default.removeItem(at: folder) }
            let bounds = try LayerOutputBounds.all(of: checkpoint)
            #expect(bounds.map(\.degree).allSatisfy { $0 == (activation == .squaredReLU ? 2 : 1) + (gated ? 1 : 0) })
            for storage in [WeightStorage.float32, .checkpoint, .int8] {
                let experts = try LocalExperts(checkpoint: checkpoint, pool: WorkPool(threads: 1), storage: storage)
                for bound in bounds {
                    closest = max(closest, try self.check(bound, experts, checkpoint.configuration, storage, &random))
                }
            }
        }
        // Some input comes near, or the bound would say nothing. A hidden unit alone keeps what a gate multiplies; the
        // sigmoid of a large input is 1, and so is the slope of each activation somewhere.
        #expect(closest > 0.9, "\(closest) of the bound")
    }

    /// Computes rows with every expert of a layer.
    ///
    /// - Returns: The largest part of its bound, without slack, that an output reached in float32.
    private func check(
        _ bound: LayerOutputBounds,
        _ experts: LocalExperts,
        _ model: ModelConfiguration,
        _ storage: WeightStorage,
        _ random: inout some RandomNumberGenerator
    ) throws -> Float {
        let layer = try #require(bound.layer)
        let count = 30
        let width = model.modelWidth
        let inputs = self.rows(count, width: width, &random)
        let outputs = FloatMatrix(rows: count, columns: width)
        var closest: Float = 0
        for expert in 0..<model.expertCount {
            try experts.forward(
                layer: layer,
                groups: [ExpertRows(expert: expert, rows: count)],
                tokens: inputs.pointer,
                outputs: outputs.pointer
            )
            for row in 0..<count {
                let squaredNorm = (0..<width).reduce(Float(0)) { $0 + inputs.row(row)[$1] * inputs.row(row)[$1] }
                let largest = (0..<width).reduce(Float(0)) { max($0, abs(outputs.row(row)[$1])) }
                #expect(largest <= bound.limit(of: expert, squaredNorm: squaredNorm), "\(storage), row \(row)")
                guard storage == .float32, squaredNorm > 1e-18 else { continue }
                let exact = Double(bound.experts[expert]) * pow(Double(squaredNorm).squareRoot(), Double(bound.degree))
                #expect(Double(largest) <= exact * (1 + 1e-4), "without slack, row \(row)")
                if exact > 0 { closest = max(closest, Float(Double(largest) / exact)) }
            }
        }
        return closest
    }
}

/// A small generator, so that a failure can be seen again (https://www.jstatsoft.org/article/view/v008i14).
private struct Xorshift: RandomNumberGenerator {
    var state: UInt64

    mutating func next() -> UInt64 {
        self.state ^= self.state << 13
        self.state ^= self.state >> 7
        self.state ^= self.state << 17
        return self.state
    }
}
