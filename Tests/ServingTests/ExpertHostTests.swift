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

/// An expert host as any gRPC client sees it.
@Suite(.serialized)
struct ExpertHostTests {
    private let model = TestModel.miniature

    /// Runs the second of two pools (experts 4 to 7) and gives a channel to it to the body.
    private func withHost(
        configure: (inout ExpertHostConfiguration) -> Void = { _ in },
        _ body: (RunningHost, RPCChannel) async throws -> Void
    ) async throws {
        let folder = try ShardCache.folder(of: self.model, pools: 2)
        let host = try await RunningHost.start("\(folder)/pool-1", configure: configure)
        let outcome: Result<Void, any Error>
        do {
            outcome = .success(try await withChannel(port: host.port) { try await body(host, $0) })
        } catch {
            outcome = .failure(error)
        }
        await host.kill()
        try outcome.get()
    }

    private func request(_ host: RunningHost, rows: Int = 2) -> ForwardRequest {
        ForwardRequest(
            modelFingerprint: host.host.fingerprint,
            stack: .encoder,
            layer: 1,
            groups: [ExpertRowsMessage(expert: 5, rows: UInt32(rows))],
            tokens: Tensor(dtype: .float32, shape: [UInt32(rows), 128], data: [UInt8](repeating: 0, count: rows * 512))
        )
    }

    @Test("A host describes what it holds")
    func describe() async throws {
        try await self.withHost { host, channel in
            let description = try await channel.call(
                ExpertHostMethods.describe,
                DescribeHostRequest(),
                as: HostDescription.self
            )
            #expect(description.modelFingerprint == host.host.fingerprint)
            #expect(description.shard == "pool-1")
            #expect(description.modelWidth == 128)
            #expect(description.weightDType == .bfloat16)
            #expect(description.held.map(\.experts) == Array(repeating: [4, 5, 6, 7], count: 4))
            #expect(description.held.map(\.layer) == [1, 3, 1, 3])
            #expect(description.maxRowsPerCall == 16_384)
            #expect(!description.kernels.isEmpty)
        }
    }

    @Test("Forward computes what the experts compute in one process, bit for bit")
    func forward() async throws {
        let loaded = try self.model.load()
        let request = ExpertExecutorContractTests.layerRequest(loaded, tokens: 40)
        let first = request.plan.groups.filter { $0.expert < 4 }.reduce(0) { $0 + $1.rows }
        let groups = request.plan.groups.filter { $0.expert >= 4 }
        let rows = request.plan.rowCount - first
        let tokens = FloatMatrix(rows: rows, columns: 128)
        request.gather(rows: first..<request.plan.rowCount, into: tokens.pointer)
        let expected = FloatMatrix(rows: rows, columns: 128)
        try loaded.experts.forward(
            layer: request.layer,
            groups: groups,
            tokens: tokens.pointer,
            outputs: expected.pointer
        )
        let bytes = Array(UnsafeRawBufferPointer(start: tokens.pointer, count: rows * 512))
        try await self.withHost { host, channel in
            let message = ForwardRequest(
                modelFingerprint: host.host.fingerprint,
                stack: .encoder,
                layer: UInt32(request.layer.block),
                groups: groups.map { ExpertRowsMessage(expert: UInt32($0.expert), rows: UInt32($0.rows)) },
                tokens: Tensor(dtype: .float32, shape: [UInt32(rows), 128], data: bytes)
            )
            let response = try await channel.call(ExpertHostMethods.forward, message, as: ForwardResponse.self)
            #expect(response.outputs?.shape == [UInt32(rows), 128])
            #expect(response.outputs?.data == Array(UnsafeRawBufferPointer(start: expected.pointer, count: rows * 512)))
            #expect(response.load?.queueRowLimit == 65_536)
        }
    }

    /// A call that a host refuses.
    struct Fault: Sendable, CustomTestStringConvertible {
        let testDescription: String
        let code: Status.Code
        let word: String
        let change: @Sendable (inout ForwardRequest) -> Void
    }

    static let faults: [Fault] = [
        Fault(testDescription: "fingerprint", code: .failedPrecondition, word: "model_fingerprint") {
            $0.modelFingerprint ^= 1
        },
        Fault(testDescription: "expert not held", code: .failedPrecondition, word: "expert 3") {
            $0.groups[0].expert = 3
        },
        Fault(testDescription: "too many rows", code: .resourceExhausted, word: "limit of 4") {
            $0.groups[0].rows = 5
            $0.tokens = Tensor(dtype: .float32, shape: [5, 128], data: [UInt8](repeating: 0, count: 5 * 512))
        },
        Fault(testDescription: "width", code: .invalidArgument, word: "tokens") {
            $0.tokens = Tensor(dtype: .float32, shape: [2, 64], data: [UInt8](repeating: 0, count: 512))
        },
        Fault(testDescription: "too few bytes", code: .invalidArgument, word: "tokens") {
            $0.tokens?.data.removeLast(4)
        },
        Fault(testDescription: "rows that do not add up", code: .invalidArgument, word: "groups") {
            $0.groups[0].rows = 1
        },
        Fault(testDescription: "type", code: .invalidArgument, word: "dtype") {
            $0.tokens = Tensor(dtype: .float16, shape: [2, 128], data: [UInt8](repeating: 0, count: 512))
        },
        Fault(testDescription: "no tensor", code: .invalidArgument, word: "tokens") { $0.tokens = nil },
        Fault(testDescription: "no stack", code: .invalidArgument, word: "stack") { $0.stack = .unspecified },
    ]

    @Test("A call that does not fit is refused with the right status", arguments: Self.faults)
    func refusals(fault: Fault) async throws {
        func fewRows(_ configuration: inout ExpertHostConfiguration) {
            configuration.maxRowsPerCall = 4
        }
        try await self.withHost(configure: fewRows) { host, channel in
            var request = self.request(host)
            fault.change(&request)
            let message = request
            let error = await rpcError {
                _ = try await channel.call(ExpertHostMethods.forward, message, as: ForwardResponse.self)
            }
            #expect(error?.code == fault.code)
            #expect(error?.message.contains(fault.word) == true, "\(error?.message ?? "no error") lacks \(fault.word)")
            // The host still works.
            _ = try await channel.call(ExpertHostMethods.forward, self.request(host), as: ForwardResponse.self)
        }
    }

    @Test("A row whose values are not finite costs the call's other rows nothing")
    func notFinite() async throws {
        try await self.withHost { host, channel in
            let clean = try await channel.call(ExpertHostMethods.forward, self.request(host), as: ForwardResponse.self)
            var request = self.request(host)
            request.tokens?.data.replaceSubrange(0..<4, with: [0, 0, 0x80, 0x7F])
            let message = request
            let dirty = try await channel.call(ExpertHostMethods.forward, message, as: ForwardResponse.self)
            let values = dirty.outputs?.data ?? []
            #expect(values.count == 1024)
            let failed = values.withUnsafeBytes { FiniteCheck.rowsNotFinite($0, rowBytes: 512, of: .float32) }
            #expect(failed == [0])
            #expect(values.dropFirst(512).elementsEqual((clean.outputs?.data ?? []).dropFirst(512)))
        }
    }

    @Test("Bytes that are not a message are refused")
    func garbage() async throws {
        try await self.withHost { host, channel in
            for bytes in [[0xFF], [0x2A, 0x7F, 0x01], []] as [[UInt8]] {
                let error = await rpcError {
                    _ = try await channel.unary(
                        Method(service: ExpertHostMethods.service, name: "Forward"),
                        Payload(bytes: bytes),
                        options: CallOptions(waitForReady: true)
                    )
                }
                #expect(
                    error?.code == .internal || error?.code == .invalidArgument || error?.code == .failedPrecondition
                )
            }
            _ = try await channel.call(ExpertHostMethods.forward, self.request(host), as: ForwardResponse.self)
        }
    }

    @Test("A folder without experts is refused with the folder's name")
    func noExperts() throws {
        let folder = try ShardCache.folder(of: self.model, pools: 2)
        let configuration = ExpertHostConfiguration(shardDirectory: "\(folder)/gateway")
        let error = #expect(throws: ExpertHostError.self) {
            try ExpertHost(configuration: configuration, logger: quietLogger)
        }
        #expect(error?.code == .noExperts)
        #expect(error?.message.contains("gateway") == true)
    }

    @Test("Health reports when a host serves")
    func health() async throws {
        try await self.withHost { _, channel in
            let serving = try await eventually {
                let answer = try await channel.call(
                    HealthMethods.check,
                    HealthCheckRequest(service: ExpertHostMethods.service),
                    as: HealthCheckResponse.self
                )
                return answer.status == .serving
            }
            #expect(serving)
        }
    }
}
