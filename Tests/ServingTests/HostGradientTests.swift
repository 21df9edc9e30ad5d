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
