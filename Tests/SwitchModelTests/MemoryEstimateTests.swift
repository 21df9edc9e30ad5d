// SPDX-License-Identifier: Apache-2.0

import Checkpoints
import Foundation
import SwitchyardTypes
import TensorKernels
import Testing

@testable import SwitchModel

@Suite("Memory estimates")
struct MemoryEstimateTests {
    @Test(
        "the experts' bytes are those that loaded experts take",
        arguments: [WeightStorage.float32, .bfloat16, .int8]
    )
    func experts(storage: WeightStorage) throws {
        let checkpoint = try Checkpoint.open(Miniature.directory)
        let loaded = try LocalExperts(checkpoint: checkpoint, pool: WorkPool(threads: 1), storage: storage)
        for pools in [1, 2, 3, 8] {
            let estimate = try MemoryEstimate(checkpoint, storage: storage, pools: pools)
            #expect(estimate.pools.count == pools)
            #expect(estimate.pools.reduce(0, +) == loaded.byteCount)
        }
    }

    @Test(
        "the gateway's bytes are those that a loaded model takes",
        arguments: [WeightStorage.float32, .bfloat16, .int8]
    )
    func gateway(storage: WeightStorage) throws {
        let tiny = try TinyModel(seed: 6)
        for directory in [Miniature.directory, tiny.directory] {
            let checkpoint = try Checkpoint.open(directory)
            let model = try SwitchTransformer(checkpoint: checkpoint, pool: WorkPool(threads: 1), storage: storage)
            var loaded = model.embedding.view.byteCount + model.head.byteCount + (model.headScreen?.byteCount ?? 0)
            loaded += Self.bytes(model)
            let estimate = try MemoryEstimate(checkpoint, storage: storage, pools: 1)
            #expect(estimate.gateway == loaded)
        }
    }

    /// What a mirror of the model's layers finds: every packed matrix and every vector, wherever it is kept.
    private static func bytes(_ model: SwitchTransformer) -> Int {
        func count(_ value: Any) -> Int {
            if let matrix = value as? PackedMatrix { return matrix.byteCount }
            if let floats = value as? FloatMatrix { return floats.rows * floats.columns * MemoryLayout<Float>.stride }
            return Mirror(reflecting: value).children.reduce(0) { $0 + count($1.value) }
        }
        let blocks: [Any] = model.encoderBlocks as [Any] + model.decoderBlocks as [Any]
        let rest: [Any] = [model.encoderBias as Any, model.decoderBias as Any, model.encoderNorm, model.decoderNorm]
        return (blocks + rest).reduce(0) { $0 + count($1) }
    }
}
