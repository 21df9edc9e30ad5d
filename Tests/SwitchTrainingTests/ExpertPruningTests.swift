// SPDX-License-Identifier: Apache-2.0

import Checkpoints
import Foundation
import SwitchModel
import SwitchyardTypes
import TensorKernels
import Testing

@testable import SwitchTraining

@Suite("Pruning experts")
struct ExpertPruningTests {
    /// Runs a body with a name for a folder that does not exist, and removes it afterwards.
    private func withOutput(_ body: (String) throws -> Void) throws {
        let output = FileManager.default.temporaryDirectory.appending(path: "pruned-\(UUID().uuidString)").path
        defer { try? FileManager.default.removeItem(atPath: output) }
        try body(output)
    }

    /// Loads by which experts 6, 1, 4, 7, 2, 5, 0, 3 are used most, in this order, but in the decoder's first layer the other way.
    private static func loads(_ configuration: ModelConfiguration) -> [SparseLayer: [Double]] {
        let rising = [2.0, 7, 4, 1, 6, 3, 8, 5]
        return Dictionary(
            uniqueKeysWithValues: configuration.sparseLayers.map { layer in
                (layer, layer == SparseLayer(stack: .decoder, block: 1) ? rising.map { 9 - $0 } : rising)
            }
        )
    }

    private func logits(_ directory: String) throws -> [UInt32] {
        let checkpoint = try Checkpoint.open(directory)
        try checkpoint.validate()
        let pool = WorkPool(threads: 1)
        let model = try SwitchTransformer(checkpoint: checkpoint, pool: pool)
        let experts = try LocalExperts(checkpoint: checkpoint, pool: pool)
        var record = RoutingRecord()
        let options = StepOptions(logits: .all)
        let encoded = try model.encode([[9, 33, 7, 120, 1]], experts: experts, options: options, record: &record)
        let row = DecoderInput(cache: DecoderCache(encoded[0]), tokens: [0, 12, 50])
        let logits = try model.decode([row], experts: experts, options: options, record: &record)
        return UnsafeBufferPointer(start: logits.pointer, count: logits.rows * logits.columns).map(\.bitPattern)
    }

    private func bytes(_ checkpoint: Checkpoint, _ role: TensorRole) throws -> [UInt8] {
        try checkpoint.tensor(role).withUnsafeBytes { Array($0) }
    }

    @Test("The experts with the greatest loads stay, in their order, and routers are cut to them")
    func half() throws {
        try self.withOutput { (output: String) throws in
            let whole = try Checkpoint.open(ParameterTests.miniature)
            let pruning = ExpertPruning(kept: 4, loads: Self.loads(whole.configuration))
            let written = try pruning.write(model: ParameterTests.miniature, output: output)
            let half = try Checkpoint.open(output)
            try half.validate()
            #expect(half.configuration.expertCount == 4 && written.expertCapacity == 128)
            #expect(half.configuration.expertCapacity == 128)
            #expect(half.configuration.sparseLayers == whole.configuration.sparseLayers)
            for layer in half.configuration.sparseLayers {
                let stay = layer == SparseLayer(stack: .decoder, block: 1) ? [0, 2, 3, 5] : [1, 4, 6, 7]
                for matrix in half.configuration.feedForwardMatrices {
                    for (place, expert) in stay.enumerated() {
                        let bytes = try self.bytes(half, .expert(layer, expert: place, matrix))
                        #expect(try bytes == self.bytes(whole, .expert(layer, expert: expert, matrix)))
                    }
                }
                let rows = try self.bytes(whole, .router(layer))
                let rowBytes = rows.count / 8
                let expected = stay.flatMap { rows[$0 * rowBytes..<($0 + 1) * rowBytes] }
                #expect(try self.bytes(half, .router(layer)) == expected)
                #expect(pruning.share(layer, of: stay) == 26.0 / 36)
            }
            for role in half.configuration.gatewayRoles {
                if case .router = role { continue }
                #expect(try self.bytes(half, role) == self.bytes(whole, role))
            }
            for file in ["generation_config.json", "spiece.model"] {
                #expect(
                    FileManager.default.contentsEqual(
                        atPath: "\(output)/\(file)",
                        andPath: "\(whole.directory)/\(file)"
                    )
                )
            }
            #expect(try self.logits(output) != self.logits(ParameterTests.miniature))
        }
    }

    @Test("Where all experts stay, the model computes the same bits, and one of them is enough for a model")
    func ends() throws {
        let configuration = try ModelConfiguration.load(directory: ParameterTests.miniature)
        try self.withOutput { (output: String) throws in
            var pruning = ExpertPruning(kept: 8, loads: Self.loads(configuration))
            #expect(try pruning.write(model: ParameterTests.miniature, output: output).expertCapacity == 64)
            #expect(try self.logits(output) == self.logits(ParameterTests.miniature))
            pruning.kept = 1
            pruning.expertCapacity = 7
            #expect(try pruning.write(model: ParameterTests.miniature, output: output + "/one").expertCapacity == 7)
            #expect(try self.logits(output + "/one").count == 3 * 2048)
        }
        #expect(ExpertPruning.count(0.5, of: 8) == 4 && ExpertPruning.count(0.01, of: 8) == 1)
        #expect(ExpertPruning.count(1, of: 8) == 8 && ExpertPruning.count(0.45, of: 8) == 4)
    }

    @Test("What cannot be pruned is refused in words, and nothing is written")
    func refused() throws {
        let configuration = try ModelConfiguration.load(directory: ParameterTests.miniature)
        func refusal(_ model: String, _ change: (inout ExpertPruning) -> Void = { _ in }) throws -> String {
            var message = ""
            try self.withOutput { (output: String) throws in
                var pruning = ExpertPruning(kept: 4, loads: Self.loads(configuration))
                change(&pruning)
                let error = #expect(throws: CheckpointError.self) { try pruning.write(model: model, output: output) }
                message = error?.message ?? ""
                #expect(!FileManager.default.fileExists(atPath: output))
            }
            return message
        }
        let layer = SparseLayer(stack: .encoder, block: 3)
        let miniature = ParameterTests.miniature
        #expect(try refusal(miniature) { $0.kept = 0 }.contains("keep 1 through 8"))
        #expect(try refusal(miniature) { $0.kept = 9 }.contains("keep 1 through 8"))
        #expect(try refusal(miniature) { $0.expertCapacity = 0 }.contains("capacity 0"))
        #expect(try refusal(miniature) { $0.loads[layer] = nil }.contains("loads of 0"))
        #expect(
            try refusal(miniature) { $0.loads[layer] = [1, 2] }.contains("layer encoder 3, but there are loads of 2")
        )
        #expect(try refusal(miniature) { $0.loads[layer]?[2] = .nan }.contains("no number"))
        #expect(try refusal(miniature) { $0.loads[layer] = Array(repeating: 0, count: 8) }.contains("no token"))
        let dense = URL(filePath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
            .appending(path: "Fixtures/dense/t5").path
        #expect(try refusal(dense).contains("has no experts to remove"))
    }
}
