// SPDX-License-Identifier: Apache-2.0

import CommandKit
import Foundation
import NIOCore
import RPCCore
import RPCTransport
import SwitchyardClient
import SwitchyardProtos
import Synchronization
import Testing

@testable import switchyard

@Suite("Expert hosts in their own processes", .serialized)
struct HostTests {
    /// How one of many calls ended.
    private enum Ending: Sendable {
        case answered(draining: Bool)
        case refused
        case failed(String)
    }

    /// Calls until a call is not answered.
    private static func callUntilRefused(
        _ channel: RPCChannel,
        _ request: [UInt8],
        expected: [UInt8],
        afterEach: (Int) -> Void
    ) async -> [Ending] {
        var endings: [Ending] = []
        while true {
            do {
                let response = try await channel.forward(request)
                guard response.rows == expected else {
                    return endings + [.failed("another answer")]
                }
                endings.append(.answered(draining: response.load?.draining ?? false))
                afterEach(endings.count)
            } catch let error as RPCError where error.isNeverProcessed {
                return endings + [.refused]
            } catch {
                return endings + [.failed("\(error)")]
            }
        }
    }

    @Test("SIGTERM under load: calls are answered or certainly never processed, answers say so, and the status is 0")
    func drainUnderLoad() async throws {
        try await withHostProcess { host, log in
            let all = try await withHostChannel(host) { first in
                try await withHostChannel(host) { second in
                    let description = try await first.describeHost()
                    _ = try await second.describeHost()
                    let request = description.request(rowsPerExpert: 4).serialized()
                    let expected = try await first.forward(request).rows
                    let drains = first.watchedHealth()
                    let held = try await first.heldForward()
                    let all = await withTaskGroup(of: [Ending].self) { group in
                        for index in 0..<8 {
                            group.addTask {
                                let channel = index.isMultiple(of: 2) ? first : second
                                return await Self.callUntilRefused(channel, request, expected: expected) { count in
                                    if index == 0, count == 8 { signal(SIGTERM, to: host) }
                                }
                            }
                        }
                        return await group.reduce(into: [[Ending]]()) { $0.append($1) }
                    }
                    try await drains()
                    // The others may all have been answered before the signal arrived.
                    let last = try await held(request)
                    #expect(last.rows == expected && last.load?.draining == true)
                    return all
                }
            }
            var answered = 0
            var whileDraining = 0
            for endings in all {
                var isDraining = false
                for ending in endings {
                    switch ending {
                    case .answered(let draining):
                        answered += 1
                        whileDraining += draining ? 1 : 0
                        #expect(draining || !isDraining, "an answer denies the drain that one before it told of")
                        isDraining = draining
                    case .refused: break
                    case .failed(let reason): Issue.record("a call failed: \(reason)")
                    }
                }
            }
            #expect(answered >= 8)
            try await FaultTests.eventually { log.exit(of: "host") != nil }
            #expect(log.exit(of: "host")?.contains("exited(0)") == true, "\(log.exit(of: "host") ?? "")")
            print("\(answered) calls answered, \(whileDraining) of them while draining")
        }
    }

    /// Delays a drain with a call whose request never ends, and waits until the host has exited.
    ///
    /// - Returns: How long it took, which on a busy machine is longer, and the status.
    private func leave(_ arguments: [String], signals: Int) async throws -> (time: Duration, status: String?) {
        let result = Mutex<(time: Duration, status: String?)>((.zero, nil))
        try await withHostProcess(arguments) { host, log in
            try await withHostChannel(host) { channel in
                _ = try await channel.describeHost()
                let drains = channel.watchedHealth()
                let endless = try await channel.heldForward()
                let asked = ContinuousClock.now
                signal(SIGTERM, to: host)
                try await drains()
                for _ in 1..<signals { signal(SIGTERM, to: host) }
                try await FaultTests.eventually { log.exit(of: "host") != nil }
                result.withLock { $0 = (asked.duration(to: .now), log.exit(of: "host")) }
                withExtendedLifetime(endless) {}
            }
        }
        return result.withLock { $0 }
    }

    @Test("A second SIGTERM ends a drain at once")
    func secondSignal() async throws {
        // Without the second one it would outlast the test's time limit.
        let (_, status) = try await self.leave(["--drain-seconds", "3600"], signals: 2)
        #expect(status?.contains("exited(1)") == true, "\(status ?? "")")
    }

    @Test("The drain limit ends a call that does not end by itself")
    func drainLimit() async throws {
        let (time, status) = try await self.leave(["--drain-seconds", "1"], signals: 1)
        #expect(time >= .seconds(1))
        #expect(status?.contains("exited(0)") == true, "\(status ?? "")")
    }

    @Test("Several --shard and a --zone: the host describes everything it holds and its memory")
    func severalShards() async throws {
        try await withHostProcess(shards: ["pool-0", "pool-1"], ["--zone", "rack-7"]) { host, log in
            let description = try await withHostChannel(host) { try await $0.describeHost() }
            #expect(description.shard == "pool-0,pool-1")
            #expect(description.zone == "rack-7")
            #expect(description.held.allSatisfy { $0.experts.count == 8 })
            let mebibytes = Double(description.weightBytes) / Double(1 << 20)
            let text = String(format: "memory=\"%.1f MiB\"", mebibytes)
            try await FaultTests.eventually { log.lines.contains { $0.contains(text) } }
        }
    }

    @Test("Two gateways on the same hosts: the recorded ids from both, and calls computed together")
    func twoGateways() async throws {
        let prompts = try Array(TestCluster.prompts().prefix(8))
        try await TestCluster.runProcesses(pools: 2, gatewayArguments: Self.patientGateway) { cluster in
            try await Self.withSecondGateway(of: cluster) { second in
                let before = try await Self.loads(of: cluster)
                var after = before
                try await Self.whileBusy(cluster.hosts.running) {
                    // Which calls meet is chance; that some do within all these rounds is not.
                    for _ in 0..<20
                    where zip(before, after).contains(where: { $0.calls(until: $1) == $0.passes(until: $1) }) {
                        try await withThrowingTaskGroup(of: Void.self) { group in
                            for address in [cluster.gatewayAddress, second] {
                                group.addTask { try await Self.generate(prompts, at: address) }
                            }
                            try await group.waitForAll()
                        }
                        after = try await Self.loads(of: cluster)
                    }
                }
                for (before, after) in zip(before, after) {
                    let calls = before.calls(until: after)
                    let passes = before.passes(until: after)
                    #expect(passes < calls)
                    print(
                        "\(calls) calls in \(passes) passes; \(after.expertReads - before.expertReads) experts read, "
                            + "\(after.namedExperts - before.namedExperts) named"
                    )
                }
            }
        }
    }

    /// Keeps hosts busy with calls for a layer of the encoder while the body runs, so that others' calls wait and meet.
    private static func whileBusy(_ hosts: [ChildProcess], body: () async throws -> Void) async throws {
        let busy = hosts.map { host in
            Task {
                try await withHostChannel(host) { channel in
                    let request = try await channel.describeHost().request(rowsPerExpert: 8).serialized()
                    while !Task.isCancelled {
                        _ = try? await channel.forward(request)
                    }
                }
            }
        }
        let outcome: Result<Void, any Error>
        do {
            outcome = .success(try await body())
        } catch {
            outcome = .failure(error)
        }
        for task in busy {
            task.cancel()
            _ = await task.result
        }
        try outcome.get()
    }

    /// Sends prompts to a gateway, all at once, and compares the answers with the recorded ones.
    private static func generate(_ prompts: [TestCluster.Prompt], at address: String) async throws {
        try await GatewayClient.with(endpoint: Endpoint(parsing: address)) { client in
            try await withThrowingTaskGroup(of: Void.self) { requests in
                for prompt in prompts {
                    requests.addTask {
                        let policy = DropPolicy(strict: true)
                        let request = GenerateRequest(input: .text(prompt.prompt), dropPolicy: policy)
                        let response = try await client.generate(request)
                        #expect(response.generations.first?.tokenIDs == prompt.tokenIDs)
                    }
                }
                try await requests.waitForAll()
            }
        }
    }

    /// Arguments of a gateway that waits long enough on a busy machine.
    private static let patientGateway = ["--encoder-deadline-ms", "60000", "--decoder-deadline-ms", "60000"]

    /// How busy each host has been.
    private static func loads(of cluster: LocalCluster) async throws -> [HostLoad] {
        var loads: [HostLoad] = []
        for host in cluster.hosts.running {
            let description = try await withHostChannel(host) { try await $0.describeHost() }
            loads.append(try #require(description.load))
        }
        return loads
    }

    /// Starts another gateway on a cluster's hosts and gives its address to the body.
    private static func withSecondGateway(
        of cluster: LocalCluster,
        body: @escaping @Sendable (String) async throws -> Void
    ) async throws {
        let workspace = try ShardWorkspace.prepare(model: TestCluster.miniature, pools: 2, folder: nil)
        defer { workspace.discard() }
        let addressFile = "\(workspace.folder)/second.address"
        var arguments =
            [
                "gateway", "--model", "\(workspace.folder)/gateway", "--listen", "127.0.0.1:0", "--admin-listen", "off",
                "--threads", "1",
                "--address-file", addressFile, "--exit-with-standard-input",
            ] + Self.patientGateway
        for host in cluster.hosts.running {
            arguments += ["--pool", "\(host.name.prefix { $0 != "/" })=\(host.address)"]
        }
        try await ChildProcesses.run(
            [ChildSpecification(name: "second", arguments: arguments, addressFile: addressFile)],
            executable: TestCluster.executable,
            onExit: .fail,
            startTimeout: .seconds(300),
            events: { _ in },
            body: { gateways in try await body(try #require(gateways.running.first).address) }
        )
    }
}

extension HostLoad {
    /// Calls computed from this load to a later one of the same host.
    fileprivate func calls(until later: HostLoad) -> UInt64 { later.computedCalls - self.computedCalls }

    /// Passes from this load to a later one of the same host.
    fileprivate func passes(until later: HostLoad) -> UInt64 { later.passes - self.passes }
}
