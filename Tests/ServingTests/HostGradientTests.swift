// SPDX-License-Identifier: Apache-2.0

import Checkpoints
import ExpertServing
import RPCCore
import RPCTransport
import SwitchModel
import SwitchyardProtos
import SwitchyardTypes
import TensorKernels
import Testing

/// Gradients from an expert host.
@Suite(.serialized)
struct HostGradientTests {
    private let model = TestModel.miniature

    /// A `Backward` call for the experts 4 to 7 of a layer, and the bytes that must come back.
    private func sample(_ tokens: Int, of loaded: LoadedModel) throws -> (request: BackwardRequest, expected: [UInt8]) {
        let layer = ExpertExecutorContractTests.layerRequest(loaded, tokens: tokens)
        let first = layer.plan.groups.filter { $0.expert < 4 }.reduce(0) { $0 + $1.rows }
        let groups = layer.plan.groups.filter { $0.expert >= 4 }
        let rows = layer.plan.rowCount - first
        let sent = FloatMatrix(rows: 2 * rows, columns: 128)
        layer.gather(rows: first..<layer.plan.rowCount, into: sent.pointer)
        for index in 0..<rows * 128 { sent.pointer[rows * 128 + index] = Float((index * 13) % 89) / 400 - 0.1 }
        let expected = FloatMatrix(rows: rows, columns: 128)
        try loaded.experts.backward(
            layer: layer.layer,
            groups: groups,
            tokens: sent.pointer,
            outputGradients: sent.pointer + rows * 128,
            inputGradients: expected.pointer
        )
        let request = BackwardRequest(
            modelFingerprint: loaded.checkpoint.fingerprint,
            stack: layer.layer.stack == .encoder ? .encoder : .decoder,
            layer: UInt32(layer.layer.block),
            groups: groups.map { ExpertRowsMessage(expert: UInt32($0.expert), rows: UInt32($0.rows)) },
            rows: Tensor(
                dtype: .float32,
                shape: [UInt32(2 * rows), 128],
                data: Array(UnsafeRawBufferPointer(start: sent.pointer, count: 2 * rows * 512))
            )
        )
        return (request, Array(UnsafeRawBufferPointer(start: expected.pointer, count: rows * 512)))
    }

    @Test("Gradients have the bits that they have here, alone, together, and beside calls for outputs")
    func gradients() async throws {
        let loaded = try self.model.load()
        let samples = try [300, 3, 40, 7].map { try self.sample($0, of: loaded) }
        #expect(samples[0].expected.contains { $0 != 0 })
        let folder = try ShardCache.folder(of: self.model, pools: 2)
        let host = try await RunningHost.start("\(folder)/pool-1")
        try await withChannel(port: host.port) { channel in
            for _ in 0..<10 {
                try await withThrowingTaskGroup(of: Void.self) { group in
                    for sample in samples {
                        group.addTask {
                            let response = try await channel.call(
                                ExpertHostMethods.backward,
                                sample.request,
                                as: BackwardResponse.self
                            )
                            #expect(response.inputGradients?.data == sample.expected)
                            #expect(response.inputGradients?.shape == [UInt32(sample.expected.count / 512), 128])
                            #expect(response.load != nil)
                        }
                        group.addTask {
                            var request = ForwardRequest(
                                modelFingerprint: sample.request.modelFingerprint,
                                stack: sample.request.stack,
                                layer: sample.request.layer,
                                groups: sample.request.groups
                            )
                            let data = sample.request.rows?.data ?? []
                            request.tokens = Tensor(
                                dtype: .float32,
                                shape: [UInt32(data.count / 1024), 128],
                                data: Array(data.prefix(data.count / 2))
                            )
                            let response = try await channel.call(
                                ExpertHostMethods.forward,
                                request,
                                as: ForwardResponse.self
                            )
                            #expect(response.outputs?.shape == [UInt32(sample.expected.count / 512), 128])
                        }
                    }
                    try await group.waitForAll()
                }
            }
        }
        await host.kill()
    }

    @Test("Pauses, and what is computed in them, change no bit of outputs and gradients", arguments: [1, 2, 3])
    func pauses(threads: Int) throws {
        let checkpoint = try self.model.load().checkpoint
        let experts = try LocalExperts(checkpoint: checkpoint, pool: WorkPool(threads: threads))
        let layer = checkpoint.configuration.sparseLayers[1]
        let groups = [(1, 1500), (4, 700), (6, 3)].map { SwitchModel.ExpertRows(expert: $0.0, rows: $0.1) }
        let rows = groups.reduce(0) { $0 + $1.rows }
        let (tokens, gradients) = (FloatMatrix(rows: rows, columns: 128), FloatMatrix(rows: rows, columns: 128))
        for index in 0..<rows * 128 {
            tokens.pointer[index] = Float((index * 17) % 101) / 50 - 1
            gradients.pointer[index] = Float((index * 13) % 89) / 400 - 0.1
        }
        func bits(_ matrix: FloatMatrix) -> [UInt32] {
            (0..<matrix.rows * 128).map { matrix.pointer[$0].bitPattern }
        }
        let few = [SwitchModel.ExpertRows(expert: 1, rows: 2)]
        let outputs = bits(try experts.forward(layer, groups: groups, tokens: tokens))
        let inputGradients = bits(
            try experts.backward(layer, groups: groups, tokens: tokens, outputGradients: gradients)
        )
        let served = FloatMatrix(rows: 2, columns: 128)
        try experts.forward(layer: layer, groups: few, tokens: tokens.pointer, outputs: served.pointer)
        var (pauses, differing) = (0, 0)
        let pausing = WorkPauses {
            pauses += 1
            let beside = FloatMatrix(rows: 2, columns: 128)
            try? experts.forward(layer: layer, groups: few, tokens: tokens.pointer, outputs: beside.pointer)
            differing += bits(beside) == bits(served) ? 0 : 1
        }
        let result = FloatMatrix(rows: rows, columns: 128)
        try experts.forward(
            layer: layer,
            groups: groups,
            tokens: tokens.pointer,
            outputs: result.pointer,
            pauses: pausing
        )
        #expect(bits(result) == outputs)
        let forwardPauses = pauses
        try experts.backward(
            layer: layer,
            groups: groups,
            tokens: tokens.pointer,
            outputGradients: gradients.pointer,
            inputGradients: result.pointer,
            pauses: pausing
        )
        #expect(bits(result) == inputGradients)
        #expect(differing == 0)
        #expect(forwardPauses >= 4 && pauses > forwardPauses + 2)
    }

    @Test("A host that keeps weights in int8 computes outputs, but refuses gradients in words")
    func int8() async throws {
        let (request, _) = try self.sample(20, of: try self.model.load())
        let folder = try ShardCache.folder(of: self.model, pools: 2)
        let host = try await RunningHost.start("\(folder)/pool-1") { $0.storage = .int8 }
        try await withChannel(port: host.port) { channel in
            let error = await rpcError {
                _ = try await channel.call(ExpertHostMethods.backward, request, as: BackwardResponse.self)
            }
            #expect(error?.code == .failedPrecondition)
            #expect(error?.message.contains("int8") == true)
        }
        await host.kill()
    }
}
