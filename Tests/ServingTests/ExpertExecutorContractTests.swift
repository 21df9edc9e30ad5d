// SPDX-License-Identifier: Apache-2.0

import Checkpoints
import ExpertPooling
import GatewayServing
import SwitchModel
import SwitchyardTypes
import TensorKernels
import Testing

/// The contract of every expert executor, checked for the one in this process and for clusters of hosts.
@Suite(.serialized)
struct ExpertExecutorContractTests {
    /// Where the experts are.
    enum Setup: Sendable, CustomTestStringConvertible, Equatable {
        case local
        case hosts(Int)

        var testDescription: String {
            switch self {
            case .local: "in this process"
            case .hosts(let count): "\(count) hosts"
            }
        }
    }

    static let setups: [Setup] = [.local, .hosts(1), .hosts(2), .hosts(4), .hosts(8)]

    /// Runs the body with an executor of the model's experts.
    private func withExecutor(
        _ setup: Setup,
        _ model: TestModel,
        _ loaded: LoadedModel,
        _ body: (any ExpertExecutor) async throws -> Void
    ) async throws {
        switch setup {
        case .local:
            try await body(loaded.experts)
        case .hosts(let count):
            try await withHosts(model, pools: min(count, loaded.checkpoint.configuration.expertCount)) { _, pools in
                try await withRemoteExperts(pools, of: loaded) { experts, _ in
                    try await body(experts)
                }
            }
        }
    }

    @Test("The same step plan gives the same bits wherever the experts are", arguments: TestModel.all, setups)
    func bits(model: TestModel, setup: Setup) async throws {
        let loaded = try model.load()
        let expected = try StepPlanRun(model, loaded, experts: loaded.experts)
        #expect(
            expected.record.droppedCount
                == expected.record.drops.filter { $0.key.reason == .capacity }.values.reduce(0, +)
        )
        try await self.withExecutor(setup, model, loaded) { experts in
            let run = try await onThread { try StepPlanRun(model, loaded, experts: experts) }
            #expect(run.encoded == expected.encoded)
            #expect(run.logits == expected.logits)
            #expect(run.record.drops == expected.record.drops)
            #expect(run.record.routedPerSequence == expected.record.routedPerSequence)
        }
    }

    @Test("Every row is in exactly one chunk", arguments: setups)
    func rows(setup: Setup) async throws {
        let model = TestModel.miniature
        let loaded = try model.load()
        try await self.withExecutor(setup, model, loaded) { experts in
            let request = Self.layerRequest(loaded, tokens: 50)
            let outputs = try await onThread { try experts.execute(request) }
            #expect(outputs.dropped.isEmpty)
            let rows = outputs.chunks.flatMap { Array($0.rows) }.sorted()
            #expect(rows == Array(0..<request.plan.rowCount))
            for chunk in outputs.chunks {
                chunk.storage.withUnsafeBytes { bytes in
                    #expect(bytes.count == chunk.rows.count * request.rowByteCount)
                }
            }
        }
    }

    @Test("Work that no client waits for can be cancelled", arguments: setups)
    func cancellation(setup: Setup) async throws {
        let model = TestModel.miniature
        let loaded = try model.load()
        try await self.withExecutor(setup, model, loaded) { experts in
            let request = Self.layerRequest(loaded, tokens: 20)
            experts.begin(request).cancel()
            // The executor still works.
            let outputs = try await onThread { try experts.execute(request) }
            #expect(outputs.dropped.isEmpty)
        }
    }

    /// A layer's work with rows for every expert.
    static func layerRequest(_ loaded: LoadedModel, tokens: Int) -> ExpertLayerRequest {
        let configuration = loaded.checkpoint.configuration
        let hidden = FloatMatrix(rows: tokens, columns: configuration.modelWidth)
        for row in 0..<tokens {
            for column in 0..<configuration.modelWidth {
                hidden.row(row)[column] = Float((row * 31 + column * 17) % 101) / 50 - 1
            }
        }
        let plan = DispatchPlan(
            choices: (0..<tokens).map { Int32($0 * 5 % configuration.expertCount) },
            probabilities: (0..<tokens).map { _ in 0.5 },
            sequences: (0..<tokens).map { _ in 0 },
            expertCount: configuration.expertCount,
            policy: .unlimited,
            checkpointCapacity: configuration.expertCapacity
        )
        return ExpertLayerRequest(
            layer: configuration.sparseLayers[0],
            plan: plan,
            hidden: hidden,
            sequences: (0..<tokens).map { _ in 0 }
        )
    }
}

/// One batch through encoder and decoder: three sequences, the second of two rows, some steps.
struct StepPlanRun: Sendable {
    var encoded: [[UInt32]] = []
    var logits: [[UInt32]] = []
    var record = RoutingRecord()

    init(_ model: TestModel, _ loaded: LoadedModel, experts: any ExpertExecutor) throws {
        let inputs = model.inputs([7, 1, 19], configuration: loaded.checkpoint.configuration)
        let sequences = try loaded.model.encode(inputs, experts: experts, record: &self.record)
        self.encoded = sequences.map { Self.bits($0.hidden) }
        let caches = [sequences[0], sequences[1], sequences[1], sequences[2]].map { DecoderCache($0) }
        for step in 0..<4 {
            let rows = caches.enumerated()
                .map { row, cache in
                    let id = (step * 13 + row * 7) % loaded.checkpoint.configuration.vocabularySize
                    return DecoderInput(cache: cache, tokens: [Int32(id)])
                }
            self.logits.append(Self.bits(try loaded.model.decode(rows, experts: experts, record: &self.record)))
        }
    }

    static func bits(_ matrix: FloatMatrix) -> [UInt32] {
        UnsafeBufferPointer(start: matrix.pointer, count: matrix.rows * matrix.columns).map(\.bitPattern)
    }
}
