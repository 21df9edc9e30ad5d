// SPDX-License-Identifier: Apache-2.0

import Checkpoints
import ExpertPooling
import RPCCore
import RPCTransport
import ServiceKit
import SwitchModel
import SwitchyardProtos
import SwitchyardTypes
import Synchronization
import TensorKernels
import Testing

@testable import GatewayServing

/// Hosts' sockets in the hands of the threads that wait for layers.
@Suite("Sockets that waiting threads drive", .timeLimit(.minutes(10)))
struct EngineSocketsTests {
    private let model = TestModel.miniature

    /// The output rows of a layer, by row.
    private static func rows(of outputs: ExpertOutputs) -> [Int: [UInt8]] {
        var rows: [Int: [UInt8]] = [:]
        for chunk in outputs.chunks where !chunk.rows.isEmpty {
            chunk.storage.withUnsafeBytes { bytes in
                let size = bytes.count / chunk.rows.count
                for (index, row) in chunk.rows.enumerated() {
                    rows[row] = Array(bytes[index * size..<(index + 1) * size])
                }
            }
        }
        return rows
    }

    @Test("give the bits that event loops give, and auto is the default")
    func sameBits() async throws {
        let loaded = try self.model.load()
        try await withHosts(self.model, pools: 2) { _, pools in
            var all: [[Int: [UInt8]]] = []
            for sockets in ExpertSockets.allCases {
                try await withRemoteExperts(pools, of: loaded, configure: { $0.sockets = sockets }) {
                    experts,
                    cluster in
                    let drives = sockets == .engine || (sockets == .auto && IdleSpin.knowsCrowds)
                    #expect((cluster.sockets != nil) == drives)
                    for tokens in [1, 7, 100] {
                        let request = ExpertExecutorContractTests.layerRequest(loaded, tokens: tokens)
                        all.append(Self.rows(of: try await onThread { try experts.execute(request) }))
                        #expect(all.last?.count == tokens)
                    }
                }
            }
            #expect(all.count == 9 && all[..<3] == all[3..<6] && all[..<3] == all[6...])
            #expect(ExpertClusterConfiguration(pools: pools).sockets == .auto)
        }
    }

    @Test("are left to their keeper while the thread has to wait for a processor, and taken again after that")
    func crowded() async throws {
        let loaded = try self.model.load()
        try await withHosts(self.model, pools: 2) { _, pools in
            try await withRemoteExperts(pools, of: loaded, configure: { $0.sockets = .auto }) { experts, cluster in
                let request = ExpertExecutorContractTests.layerRequest(loaded, tokens: 40)
                let expected = Self.rows(of: try await onThread { try experts.execute(request) })
                #expect(expected.count == 40)
                // What the system would count for a thread; counts of others do not matter for a second.
                var count = ProcessorPressure.Count(thread: 1, ran: .zero, waited: .zero, turns: 0)
                var now = ContinuousClock.now
                func pass(ran: Duration, waited: Duration) {
                    for _ in 0..<50 {
                        count.ran += ran
                        count.waited += waited
                        now += .seconds(2)
                        cluster.spin.counted(count, now: now)
                    }
                }
                let known = cluster.sockets
                for _ in 0..<3 {
                    pass(ran: .milliseconds(10), waited: .milliseconds(20))
                    #expect(cluster.spin.isCrowded && cluster.socketsToDrive == nil)
                    let left = try await onThread { try (0..<20).map { _ in try experts.execute(request) } }
                    pass(ran: .milliseconds(30), waited: .zero)
                    #expect(!cluster.spin.isCrowded && cluster.socketsToDrive === known)
                    let driven = try await onThread { try (0..<20).map { _ in try experts.execute(request) } }
                    #expect((left + driven).allSatisfy { Self.rows(of: $0) == expected })
                }
            }
        }
    }

    @Test("serve several threads that wait at once, of which one drives")
    func severalThreads() async throws {
        let loaded = try self.model.load()
        try await withHosts(self.model, pools: 2) { _, pools in
            try await withRemoteExperts(pools, of: loaded, configure: { $0.sockets = .engine }) { experts, _ in
                let request = ExpertExecutorContractTests.layerRequest(loaded, tokens: 40)
                let expected = Self.rows(of: try await onThread { try experts.execute(request) })
                #expect(expected.count == 40)
                try await withThrowingTaskGroup(of: Void.self) { group in
                    for _ in 0..<4 {
                        group.addTask {
                            let request = ExpertExecutorContractTests.layerRequest(loaded, tokens: 40)
                            try await onThread {
                                for _ in 0..<50 {
                                    // Now and then a layer is begun before the one before it has been waited for.
                                    let (first, second) = (experts.begin(request), experts.begin(request))
                                    for layer in [second, first] {
                                        let rows = Self.rows(of: try layer.wait())
                                        #expect(rows == expected)
                                    }
                                }
                            }
                        }
                    }
                    try await group.waitForAll()
                }
            }
        }
    }

    @Test("go on while the thread computes: other calls are answered, and a begun layer's answers are read")
    func computing() async throws {
        let loaded = try self.model.load()
        try await withHosts(self.model, pools: 2) { _, pools in
            try await withRemoteExperts(pools, of: loaded, configure: { $0.sockets = .engine }) { experts, cluster in
                let begun = Mutex(false)
                let release = Mutex(false)
                async let outcome = onThread { () -> (isReady: Bool, rows: Int) in
                    let request = ExpertExecutorContractTests.layerRequest(loaded, tokens: 40)
                    _ = try experts.execute(request)
                    let layer = experts.begin(request)
                    begun.withLock { $0 = true }
                    while !release.withLock({ $0 }) {}
                    // The keeper reads the answers; this thread only looks.
                    var isReady = layer.isReady
                    while !isReady { isReady = layer.isReady }
                    return (isReady, Self.rows(of: try layer.wait()).count)
                }
                let hasBegun = await eventually { begun.withLock { $0 } }
                #expect(hasBegun)
                let channels = cluster.state.withLock { Array($0.channels.values) }
                #expect(channels.count == 2)
                for channel in channels {
                    let method = ExpertHostMethods.describe
                    let described = try await channel.call(method, DescribeHostRequest(), as: HostDescription.self)
                    #expect(described.modelFingerprint == loaded.checkpoint.fingerprint)
                }
                release.withLock { $0 = true }
                let result = try await outcome
                #expect(result.isReady && result.rows == 40)
            }
        }
    }

    /// Begins a layer whose one host says what it holds and then never answers.
    ///
    /// - Parameters:
    ///   - body: Gets the layer.
    ///   - afterwards: Runs when the cluster has ended, and the host has not.
    /// - Throws: What the two throw, and the error for which there is no such layer.
    private func withStalledLayer(
        _ body: (any PendingExperts) async throws -> Void,
        afterwards: () async throws -> Void = {}
    ) async throws {
        let loaded = try self.model.load()
        try await withHosts(self.model, pools: 1) { hosts, pools in
            let description = try await withChannel(port: hosts[0].port) { channel in
                try await channel.call(ExpertHostMethods.describe, DescribeHostRequest(), as: HostDescription.self)
            }
            try await withIllHost(describing: description, .stalls) { port in
                let target = PoolTarget.address(host: "127.0.0.1", port: port)
                try await withRemoteExperts(
                    [PoolSpecification(name: pools[0].name, targets: [target])],
                    of: loaded,
                    deadline: .seconds(600),
                    configure: { $0.sockets = .engine }
                ) { experts, _ in
                    try await body(experts.begin(ExpertExecutorContractTests.layerRequest(loaded, tokens: 4)))
                }
                try await afterwards()
            }
        }
    }

    @Test("wake the driving thread when another one cancels its layer")
    func cancelled() async throws {
        try await self.withStalledLayer { layer in
            async let outcome = onThread { () -> Bool in
                do {
                    _ = try layer.wait()
                    return false
                } catch is StepInterrupted {
                    return true
                }
            }
            try await Task.sleep(for: .milliseconds(50))
            layer.cancel()
            let wasInterrupted = try await outcome
            #expect(wasInterrupted)
        }
    }

    @Test("end with the cluster while a thread waits for a layer")
    func ended() async throws {
        let waiting = Mutex<Task<Int, any Error>?>(nil)
        try await self.withStalledLayer { layer in
            let task = Task { try await onThread { try layer.wait().dropped.count } }
            waiting.withLock { $0 = task }
            try await Task.sleep(for: .milliseconds(50))
        } afterwards: {
            // The cluster has ended: its connections are closed, so the layer's rows have no host.
            let dropped = try await waiting.withLock { $0 }?.value
            let count = try #require(dropped)
            #expect(count > 0)
        }
    }
}
