// SPDX-License-Identifier: Apache-2.0

import Checkpoints
import ExpertServing
import Metrics
import MetricsTestKit
import RPCCore
import RPCTransport
import SwitchModel
import SwitchyardProtos
import SwitchyardTypes
import TensorKernels
import Testing

/// A host with several callers: calls computed together, refusals, counts, and several shards.
@Suite(.serialized)
struct HostCallsTests {
    private let model = TestModel.miniature

    /// A call for the experts 4 to 7 of a layer, and the bytes that must come back.
    private struct Sample: Sendable {
        var request: ForwardRequest
        var expected: [UInt8]
    }

    /// Calls of several sizes, computed one by one in this process.
    private func samples(_ sizes: [Int], of loaded: LoadedModel) throws -> [Sample] {
        try sizes.map { size in
            let layer = ExpertExecutorContractTests.layerRequest(loaded, tokens: size)
            let first = layer.plan.groups.filter { $0.expert < 4 }.reduce(0) { $0 + $1.rows }
            let groups = layer.plan.groups.filter { $0.expert >= 4 }
            let rows = layer.plan.rowCount - first
            let tokens = FloatMatrix(rows: rows, columns: 128)
            layer.gather(rows: first..<layer.plan.rowCount, into: tokens.pointer)
            let outputs = FloatMatrix(rows: rows, columns: 128)
            try loaded.experts.forward(
                layer: layer.layer,
                groups: groups,
                tokens: tokens.pointer,
                outputs: outputs.pointer
            )
            let request = ForwardRequest(
                modelFingerprint: loaded.checkpoint.fingerprint,
                stack: layer.layer.stack == .encoder ? .encoder : .decoder,
                layer: UInt32(layer.layer.block),
                groups: groups.map { ExpertRowsMessage(expert: UInt32($0.expert), rows: UInt32($0.rows)) },
                tokens: Tensor(
                    dtype: .float32,
                    shape: [UInt32(rows), 128],
                    data: Array(UnsafeRawBufferPointer(start: tokens.pointer, count: rows * 512))
                )
            )
            let expected = Array(UnsafeRawBufferPointer(start: outputs.pointer, count: rows * 512))
            return Sample(request: request, expected: expected)
        }
    }

    private func forward(_ request: ForwardRequest, on channel: RPCChannel) async throws -> ForwardResponse {
        try await channel.call(ExpertHostMethods.forward, request, as: ForwardResponse.self)
    }

    @Test("Calls computed together give the same bits as alone, and a bad one harms no other")
    func together() async throws {
        let samples = try self.samples([300, 3, 40, 7, 64, 2, 20], of: try self.model.load())
        var damaged = samples[3].request
        damaged.tokens?.data.replaceSubrange(0..<4, with: [0, 0, 0x80, 0x7F])
        let bad = damaged
        let folder = try ShardCache.folder(of: self.model, pools: 2)
        let host = try await RunningHost.start("\(folder)/pool-1")
        var together = 0
        try await withChannel(port: host.port) { first in
            try await withChannel(port: host.port) { second in
                // Which calls meet in the queue is chance; that some do within all these rounds is not.
                for _ in 0..<200 where together < 20 {
                    together += try await withThrowingTaskGroup(of: Int.self) { group in
                        for (index, sample) in samples.enumerated() {
                            let channel = index.isMultiple(of: 2) ? first : second
                            group.addTask {
                                let response = try await self.forward(sample.request, on: channel)
                                #expect(response.outputs?.data == sample.expected)
                                return response.load.map { $0.passCalls > 1 ? 1 : 0 } ?? 0
                            }
                        }
                        group.addTask {
                            // Its first row is not finite; the others are what they are without it.
                            let data = try await self.forward(bad, on: second).outputs?.data ?? []
                            #expect(data.dropFirst(512).elementsEqual(samples[3].expected.dropFirst(512)))
                            let row = data.prefix(512)
                                .withUnsafeBytes { bytes in
                                    (0..<128).map { bytes.loadUnaligned(fromByteOffset: 4 * $0, as: Float.self) }
                                }
                            #expect(row.contains { !$0.isFinite })
                            return 0
                        }
                        return try await group.reduce(0, +)
                    }
                }
                let description = try await first.call(
                    ExpertHostMethods.describe,
                    DescribeHostRequest(),
                    as: HostDescription.self
                )
                let load = try #require(description.load)
                #expect(load.passes < load.computedCalls)
                #expect(load.expertReads < load.namedExperts)
                #expect(load.passCalls == 0)
                let saved = 100 - 100 * Double(load.expertReads) / Double(load.namedExperts)
                print(
                    "\(load.computedCalls) calls in \(load.passes) passes, \(load.computedRows) rows; "
                        + "weights read \(load.expertReads) times, call by call \(load.namedExperts) (\(Int(saved)) % saved)"
                )
            }
        }
        await host.kill()
        #expect(together >= 20)
    }

    @Test("A caller refused for lack of room is told when to retry")
    func pushback() async throws {
        let samples = try self.samples([400], of: try self.model.load())
        let folder = try ShardCache.folder(of: self.model, pools: 2)
        let host = try await RunningHost.start("\(folder)/pool-1") { $0.queueLimit = 1 }
        try await withChannel(port: host.port) { channel in
            let refusals = await withTaskGroup(of: RPCError?.self) { group in
                for _ in 0..<40 {
                    group.addTask { await rpcError { _ = try await self.forward(samples[0].request, on: channel) } }
                }
                return await group.reduce(into: [RPCError]()) { all, error in all += error.map { [$0] } ?? [] }
            }
            #expect(!refusals.isEmpty)
            for refusal in refusals {
                #expect(refusal.code == .resourceExhausted)
                let hint = try #require(refusal.metadata.first("grpc-retry-pushback-ms").flatMap { Int($0) })
                #expect((1...1000).contains(hint))
            }
        }
        await host.kill()
    }

    @Test("A host counts its calls by how they ended")
    func metrics() async throws {
        let samples = try self.samples([5, 9], of: try self.model.load())
        let rows = samples.reduce(0) { $0 + Int($1.request.tokens?.shape[0] ?? 0) }
        let folder = try ShardCache.folder(of: self.model, pools: 2)
        let system = TestMetrics()
        let host = try await RunningHost.start("\(folder)/pool-1", metrics: system)
        try await withChannel(port: host.port) { channel in
            for sample in samples {
                _ = try await self.forward(sample.request, on: channel)
            }
            var wrong = samples[0].request
            wrong.modelFingerprint ^= 1
            let request = wrong
            _ = await rpcError { _ = try await self.forward(request, on: channel) }
        }
        try await host.drain()
        func total(_ name: String, _ dimensions: [(String, String)] = []) throws -> Int64 {
            try system.expectCounter(name, dimensions).values.reduce(0, +)
        }
        let answered = try total("switchyard_host_calls_total", [("work", "serving"), ("outcome", "ok")])
        #expect(answered == 2)
        let invalid = try total("switchyard_host_calls_total", [("work", "serving"), ("outcome", "invalid")])
        #expect(invalid == 1)
        let computed = try total("switchyard_host_rows_total", [("work", "serving")])
        #expect(computed == rows)
        let passes = try total("switchyard_host_passes_total")
        #expect(passes == 2)
        let waits = try system.expectTimer("switchyard_host_queue_seconds", [("work", "serving")]).values
        #expect(waits.count == 2)
        let times = try system.expectTimer("switchyard_host_compute_seconds", [("work", "serving")]).values
        #expect(times.allSatisfy { $0 > 0 })
        let sizes = try system.expectRecorder("switchyard_host_pass_calls").values
        #expect(sizes == [1, 1])
    }

    @Test("A host holds several shards of one checkpoint, each expert once, and computes across them")
    func severalShards() async throws {
        let folder = try ShardCache.folder(of: self.model, pools: 2)
        let one = try await RunningHost.start("\(folder)/pool-1")
        let both = try await RunningHost.start(["\(folder)/pool-1", "\(folder)/pool-0", "\(folder)/pool-1"]) {
            $0.zone = "rack-7.eu_1"
        }
        let loaded = try self.model.load()
        let layer = ExpertExecutorContractTests.layerRequest(loaded, tokens: 60)
        let expected = try loaded.experts.execute(layer)
        try await withChannel(port: one.port) { alone in
            try await withChannel(port: both.port) { channel in
                let part = try await self.describe(alone)
                let whole = try await self.describe(channel)
                #expect(part.zone.isEmpty)
                #expect(whole.zone == "rack-7.eu_1")
                #expect(whole.shard == "pool-1,pool-0")
                #expect(whole.held.allSatisfy { $0.experts == [0, 1, 2, 3, 4, 5, 6, 7] })
                #expect(part.weightBytes > 0)
                #expect(whole.weightBytes == 2 * part.weightBytes)
                let tokens = FloatMatrix(rows: layer.plan.rowCount, columns: 128)
                layer.gather(rows: 0..<layer.plan.rowCount, into: tokens.pointer)
                let request = ForwardRequest(
                    modelFingerprint: whole.modelFingerprint,
                    stack: layer.layer.stack == .encoder ? .encoder : .decoder,
                    layer: UInt32(layer.layer.block),
                    groups: layer.plan.groups.map {
                        ExpertRowsMessage(expert: UInt32($0.expert), rows: UInt32($0.rows))
                    },
                    tokens: Tensor(
                        dtype: .float32,
                        shape: [UInt32(layer.plan.rowCount), 128],
                        data: Array(UnsafeRawBufferPointer(start: tokens.pointer, count: layer.plan.rowCount * 512))
                    )
                )
                let response = try await self.forward(request, on: channel)
                var bytes: [UInt8] = []
                for chunk in expected.chunks.sorted(by: { $0.rows.lowerBound < $1.rows.lowerBound }) {
                    chunk.storage.withUnsafeBytes { bytes += Array($0) }
                }
                #expect(response.outputs?.data == bytes)
            }
        }
        await one.kill()
        await both.kill()
    }

    private func describe(_ channel: RPCChannel) async throws -> HostDescription {
        try await channel.call(ExpertHostMethods.describe, DescribeHostRequest(), as: HostDescription.self)
    }

    @Test("Shards of different checkpoints are refused by the names and fingerprints of both")
    func mixedShards() throws {
        let mine = try ShardCache.folder(of: self.model, pools: 2) + "/pool-0"
        let other = try ShardCache.folder(of: TestModel.all[1], pools: 2) + "/pool-0"
        let configuration = ExpertHostConfiguration(shardDirectories: [mine, other])
        let error = #expect(throws: ExpertHostError.self) {
            try ExpertHost(configuration: configuration, logger: quietLogger)
        }
        #expect(error?.code == .mixedShards)
        for folder in [mine, other] {
            let fingerprint = String(try Checkpoint.open(folder).fingerprint, radix: 16)
            #expect(error?.message.contains(folder) == true)
            #expect(error?.message.contains(fingerprint) == true)
        }
    }

    @Test(
        "A zone is a short name of few characters",
        arguments: [
            ("rack-7", true), ("A", true), (String(repeating: "z", count: 63), true), ("", false),
            (String(repeating: "z", count: 64), false), ("rack 7", false), ("zürich", false), ("a/b", false),
        ]
    )
    func zones(zone: String, isLegal: Bool) {
        var configuration = ExpertHostConfiguration(shardDirectory: "shard")
        configuration.zone = zone
        do {
            try configuration.validate()
            #expect(isLegal)
        } catch {
            #expect(!isLegal)
            #expect(error.code == .configuration)
            #expect(error.message.contains("zone"))
        }
    }
}
