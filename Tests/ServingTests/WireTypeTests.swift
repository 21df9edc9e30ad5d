// SPDX-License-Identifier: Apache-2.0

import Checkpoints
import ExpertPooling
import ExpertServing
import NIOCore
import RPCCore
import RPCTransport
import SwitchModel
import SwitchyardProtos
import SwitchyardTypes
import TensorKernels
import Testing

@testable import GatewayServing

/// Token rows sent as bfloat16.
@Suite(.serialized)
struct WireTypeTests {
    private let model = TestModel.miniature

    /// Experts in this process whose rows are rounded on the way in and out, like rows on the wire.
    private struct Rounded: ExpertExecutor {
        let experts: LocalExperts

        func begin(_ request: ExpertLayerRequest) -> any PendingExperts {
            Ready(outcome: Result { try self.answer(request) })
        }

        private func answer(_ request: ExpertLayerRequest) throws -> ExpertOutputs {
            let rows = request.plan.rowCount
            let columns = request.hidden.columns
            var bytes = [UInt8](repeating: 0, count: rows * request.rowByteCount(as: .bfloat16))
            let tokens = FloatMatrix(rows: rows, columns: columns)
            let outputs = FloatMatrix(rows: rows, columns: columns)
            bytes.withUnsafeMutableBytes { buffer in
                guard let base = buffer.baseAddress else { return }
                request.gather(rows: 0..<rows, as: .bfloat16, into: base)
                DType.bfloat16.read(base, count: rows * columns, into: tokens.pointer)
            }
            try self.experts.forward(
                layer: request.layer,
                groups: request.plan.groups,
                tokens: tokens.pointer,
                outputs: outputs.pointer
            )
            bytes.withUnsafeMutableBytes { buffer in
                guard let base = buffer.baseAddress else { return }
                DType.bfloat16.write(outputs.pointer, count: rows * columns, to: base)
                DType.bfloat16.read(base, count: rows * columns, into: outputs.pointer)
            }
            return ExpertOutputs(chunks: [.init(rows: 0..<rows, storage: Whole(matrix: outputs))])
        }
    }

    private struct Whole: ExpertOutputStorage {
        let matrix: FloatMatrix

        func withUnsafeBytes(_ body: (UnsafeRawBufferPointer) -> Void) {
            let count = self.matrix.rows * self.matrix.columns * MemoryLayout<Float>.stride
            body(UnsafeRawBufferPointer(start: self.matrix.pointer, count: count))
        }
    }

    private struct Ready: PendingExperts {
        let outcome: Result<ExpertOutputs, any Error>

        func wait() throws -> ExpertOutputs { try self.outcome.get() }

        func cancel() {}
    }

    @Test(
        "Rows that travel as bfloat16 give the bits of a model in this process whose rows are rounded the same way",
        arguments: [TestModel.miniature, TestModel(path: "Tests/Fixtures/parity/asymmetric")],
        [1, 4]
    )
    func sameBits(model: TestModel, pools: Int) async throws {
        let loaded = try model.load()
        let expected = try StepPlanRun(model, loaded, experts: Rounded(experts: loaded.experts))
        let exact = try StepPlanRun(model, loaded, experts: loaded.experts)
        #expect(expected.logits != exact.logits, "rounding changes nothing, so nothing is compared")
        try await withHosts(model, pools: pools) { _, pools in
            try await withRemoteExperts(pools, of: loaded, configure: { $0.wireType = .bfloat16 }) { experts, _ in
                let run = try await onThread { try StepPlanRun(model, loaded, experts: experts) }
                #expect(run.encoded == expected.encoded)
                #expect(run.logits == expected.logits)
                #expect(run.record.drops == expected.record.drops)
            }
        }
    }

    /// A call for two experts of the second of two pools, in a type, and the outputs that must come back, in that type.
    private func sample(
        _ type: DType,
        rows: Int,
        of loaded: LoadedModel
    ) throws -> (request: ForwardRequest, expected: [UInt8]) {
        let layer = loaded.checkpoint.configuration.sparseLayers[0]
        let count = rows * 128
        let tokens = FloatMatrix(rows: rows, columns: 128)
        for index in 0..<count { tokens.pointer[index] = Float((index * 37) % 1013) / 500 - 1 }
        var data = [UInt8](repeating: 0, count: count * type.byteCount)
        data.withUnsafeMutableBytes { buffer in
            guard let base = buffer.baseAddress else { return }
            type.write(tokens.pointer, count: count, to: base)
            type.read(base, count: count, into: tokens.pointer)
        }
        let groups = [SwitchModel.ExpertRows(expert: 4, rows: 1), .init(expert: 6, rows: rows - 1)]
        let outputs = FloatMatrix(rows: rows, columns: 128)
        try loaded.experts.forward(layer: layer, groups: groups, tokens: tokens.pointer, outputs: outputs.pointer)
        var expected = data
        expected.withUnsafeMutableBytes { buffer in
            guard let base = buffer.baseAddress else { return }
            type.write(outputs.pointer, count: count, to: base)
        }
        let request = ForwardRequest(
            modelFingerprint: loaded.checkpoint.fingerprint,
            stack: .encoder,
            layer: UInt32(layer.block),
            groups: groups.map { ExpertRowsMessage(expert: UInt32($0.expert), rows: UInt32($0.rows)) },
            tokens: Tensor(dtype: type == .float32 ? .float32 : .bfloat16, shape: [UInt32(rows), 128], data: data)
        )
        return (request, expected)
    }

    @Test("A host answers each call in the type of its rows, also when it computes calls of both types together")
    func mixedCalls() async throws {
        let loaded = try self.model.load()
        let samples = try (2..<12)
            .map { rows in
                try self.sample(rows.isMultiple(of: 2) ? .float32 : .bfloat16, rows: rows, of: loaded)
            }
        let folder = try ShardCache.folder(of: self.model, pools: 2)
        let host = try await RunningHost.start("\(folder)/pool-1")
        var together = 0
        try await withChannel(port: host.port) { channel in
            // Which calls meet in the queue is chance; that some do within all these rounds is not.
            for _ in 0..<200 where together < 20 {
                together += try await withThrowingTaskGroup(of: Int.self) { group in
                    for sample in samples {
                        group.addTask {
                            let response = try await channel.call(
                                ExpertHostMethods.forward,
                                sample.request,
                                as: ForwardResponse.self
                            )
                            #expect(response.outputs?.dtype == sample.request.tokens?.dtype)
                            #expect(response.outputs?.shape == sample.request.tokens?.shape)
                            #expect(response.outputs?.data == sample.expected)
                            return response.load.map { $0.passCalls > 1 ? 1 : 0 } ?? 0
                        }
                    }
                    return try await group.reduce(0, +)
                }
            }
            var damaged = samples[1].request
            damaged.tokens?.data.replaceSubrange(0..<2, with: [0x80, 0x7F])
            let request = damaged
            let response = try await channel.call(ExpertHostMethods.forward, request, as: ForwardResponse.self)
            let data = response.outputs?.data ?? []
            // Only the damaged row fails.
            let failed = data.withUnsafeBytes { FiniteCheck.rowsNotFinite($0, rowBytes: 256, of: .bfloat16) }
            #expect(failed == [0])
            #expect(data.dropFirst(256).elementsEqual(samples[1].expected.dropFirst(256)))
        }
        #expect(together >= 20)
        await host.kill()
    }

    private func describe(port: Int) async throws -> HostDescription {
        try await withChannel(port: port) { channel in
            try await channel.call(ExpertHostMethods.describe, DescribeHostRequest(), as: HostDescription.self)
        }
    }

    @Test("A host reports that it accepts both types; one that does not accept the gateway's type is mismatched")
    func acceptance() async throws {
        let loaded = try self.model.load()
        try await withHosts(self.model, pools: 1) { hosts, pools in
            var description = try await self.describe(port: hosts[0].port)
            #expect(description.acceptedDTypes == [.float32, .bfloat16])
            description.acceptedDTypes = [.float32]
            try await withIllHost(describing: description, .stalls) { port in
                let targets = pools[0].targets + [.address(host: "127.0.0.1", port: port)]
                let both = [PoolSpecification(name: "pool-0", targets: targets)]
                try await withRemoteExperts(both, of: loaded, configure: { $0.wireType = .bfloat16 }) { _, cluster in
                    let isRefused = await eventually {
                        cluster.view.reports.contains { report in
                            guard case .mismatched(let reason) = report.state else { return false }
                            return report.id.port == port && reason.contains("accepts token rows in float32")
                                && reason.contains("sends bfloat16")
                        }
                    }
                    #expect(isRefused)
                }
            }
        }
    }

    @Test(
        "Answers in another type or of another size are bad replies in both types, and so are rows that are not finite",
        arguments: [DType.float32, .bfloat16]
    )
    func badReplies(type: DType) throws {
        let loaded = try self.model.load()
        let layer = ExpertExecutorContractTests.layerRequest(loaded, tokens: 6)
        var row = 0
        let groups = layer.plan.groups.map { group in
            defer { row += group.rows }
            return PoolAssignment.Group(expert: group.expert, rows: row..<(row + group.rows))
        }
        let call = LayerCall(
            PoolAssignment(pool: "pool-0", groups: groups),
            of: layer,
            fingerprint: 1,
            rowType: type
        )
        let other: DType = type == .float32 ? .bfloat16 : .float32
        func reply(_ dtype: DType, rows: Int = 6, last: [UInt8]? = nil) -> ForwardResponse {
            var data = [UInt8](repeating: 0, count: rows * 128 * dtype.byteCount)
            if let last { data.replaceSubrange((data.count - last.count)..., with: last) }
            let tensor = Tensor(dtype: WireDType(dtype), shape: [UInt32(rows), 128], data: data)
            return ForwardResponse(outputs: tensor)
        }
        func read(_ response: ForwardResponse) throws -> [ExpertOutputs.Chunk] {
            Array(try call.read(.init(bytes: response.serialized())).chunks)
        }
        let last: [UInt8] = type == .float32 ? [0, 0, 0xC0, 0x3F] : [0xC0, 0x3F]
        let chunks = try read(reply(type, last: last))
        #expect(chunks.map(\.rows) == [0..<6])
        var values: [Float] = []
        chunks[0].storage
            .withUnsafeBytes { bytes in
                values = (0..<(bytes.count / 4)).map { bytes.loadUnaligned(fromByteOffset: 4 * $0, as: Float.self) }
            }
        #expect(values == [Float](repeating: 0, count: 6 * 128 - 1) + [1.5])
        let infinite: [UInt8] = type == .float32 ? [0, 0, 0x80, 0x7F] : [0x80, 0x7F]
        // The row that the value is in fails; the other rows are good.
        let lacking = try call.read(.init(bytes: reply(type, last: infinite).serialized()))
        #expect(lacking.failed == [5])
        #expect(lacking.chunks.map(\.rows) == (0..<5).map { $0..<$0 + 1 })
        for (response, word) in [(reply(other), "outputs.dtype"), (reply(type, rows: 5), "outputs.shape")] {
            let error = #expect(throws: BadReply.self) { try read(response) }
            #expect(error?.description.contains(word) == true)
        }
    }
}
