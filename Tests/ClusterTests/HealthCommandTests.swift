// SPDX-License-Identifier: Apache-2.0

import CommandKit
import FaultTools
import Foundation
import Logging
import NIOCore
import NIOPosix
import RPCCore
import RPCTransport
import SwitchyardProtos
import Testing

@testable import switchyard

@Suite("switchyard health", .serialized)
struct HealthCommandTests {
    private static func health(
        _ arguments: [String],
        environment: [String: String] = [:]
    ) async throws -> Commands.Output {
        try await Commands.run(TestCluster.executable, ["health"] + arguments, environment: environment)
    }

    @Test("explains itself with an example")
    func help() async throws {
        let output = try await Self.health(["--help"])
        #expect(output.status == 0)
        #expect(output.text.contains("EXAMPLE") && output.text.contains("switchyard health"))
    }

    @Test("reports that a gateway and its host take calls, until they hang")
    func cluster() async throws {
        try await TestCluster.runProcesses(pools: 1) { cluster in
            let host = try #require(cluster.hosts.running.first)
            for (address, service) in [
                (cluster.gatewayAddress, "switchyard.v1.Gateway"), (host.address, "switchyard.v1.ExpertHost"),
            ] {
                let whole = try await Self.health(["--endpoint", address])
                #expect(whole.status == 0, "\(whole.errors)")
                #expect(whole.text == "\(address) SERVING\n")
                let one = try await Self.health(["--endpoint", address, "--service", service])
                #expect(one.status == 0, "\(one.errors)")
                let other = try await Self.health(["--endpoint", address, "--service", "no.such.Service"])
                #expect(other.status == 1)
                #expect(other.errors.contains("NOT_FOUND"), "\(other.errors)")
            }
            signal(SIGSTOP, to: host)
            let hung = try await Self.health(["--endpoint", host.address, "--timeout", "0.2"])
            signal(SIGCONT, to: host)
            #expect(hung.status == 1)
            #expect(hung.errors.contains("DEADLINE_EXCEEDED"), "\(hung.errors)")
        }
    }

    @Test("asks the listener that the environment describes, unless an endpoint is given")
    func environment() async throws {
        try await withHostProcess { host, _ in
            let port = host.address.split(separator: ":").last ?? ""
            let beside = try await Self.health([], environment: ["SWITCHYARD_LISTEN": "0.0.0.0:\(port)"])
            #expect(beside.status == 0, "\(beside.errors)")
            #expect(beside.text == "127.0.0.1:\(port) SERVING\n")
            let told = try await Self.health(
                ["--endpoint", host.address],
                environment: ["SWITCHYARD_LISTEN": "127.0.0.1:1"]
            )
            #expect(told.status == 0, "\(told.errors)")
            let set = try await Self.health(
                [],
                environment: ["SWITCHYARD_ENDPOINT": host.address, "SWITCHYARD_LISTEN": "nonsense"]
            )
            #expect(set.status == 0, "\(set.errors)")
        }
    }

    @Test("exits with status 1 if a server takes no calls")
    func notServing() async throws {
        let server = RPCServer(
            configuration: RPCServerConfiguration(drainGrace: .zero),
            methods: [
                .unary(Method(service: HealthMethods.service, name: HealthMethods.check.name)) { _, _ in
                    Payload(bytes: HealthCheckResponse(status: .notServing).serialized())
                }
            ],
            logger: Logger(label: "test") { _ in SwiftLogNoOpLogHandler() }
        )
        let task = Task { try await server.run() }
        let bound = try await server.boundAddress()
        let output = try await Self.health(["--endpoint", "127.0.0.1:\(bound.port)"])
        task.cancel()
        _ = await task.result
        #expect(output.status == 1)
        #expect(output.text == "127.0.0.1:\(bound.port) NOT_SERVING\n")
        #expect(output.errors.isEmpty, "\(output.errors)")
    }

    @Test("a gateway that waits for its hosts serves nothing, and exits at once when told to stop")
    func waiting() async throws {
        let workspace = try FaultWorkspace(executable: TestCluster.executable)
        defer { workspace.discard() }
        let shards = try await workspace.shards(pools: 1)
        let probe = try await ServerBootstrap(group: MultiThreadedEventLoopGroup.singleton)
            .bind(host: "127.0.0.1", port: 0).get()
        let port = try #require(probe.localAddress?.port)
        try await probe.close()
        let endpoint = "127.0.0.1:\(port)"
        try await ProcessKeeper.with { keeper in
            let gateway = keeper.start(
                ProcessSpecification(
                    name: "gateway",
                    executable: TestCluster.executable,
                    arguments: [
                        "gateway", "--model", "\(shards)/gateway", "--pool", "pool-0=127.0.0.1:1", "--listen", endpoint,
                        "--admin-listen", "off", "--drain-seconds", "3600",
                    ],
                    addressFile: "\(workspace.folder)/gateway.address",
                    logFile: "\(workspace.folder)/gateway.log"
                )
            )
            try await FaultTests.eventually {
                try await Self.health(["--endpoint", endpoint]).text == "\(endpoint) NOT_SERVING\n"
            }
            try gateway.signal(SIGTERM)
            // It does not wait for the drain limit: there is nothing to finish.
            let exit = try await gateway.ended(within: .seconds(300))
            #expect(exit.code == 0, "\(exit.description)")
        }
    }

    @Test(
        "says what is wrong with what it was given",
        arguments: [
            (["--endpoint", "127.0.0.1:1"], [:], "127.0.0.1:1"),
            ([], ["SWITCHYARD_LISTEN": "0.0.0.0:0"], "--endpoint"),
            ([], ["SWITCHYARD_LISTEN": "nonsense"], "nonsense"),
            (["--timeout=-1"], [:], "from 0 to 86400"),
            (["--timeout", "nan"], [:], "from 0 to 86400"),
        ]
    )
    func errors(arguments: [String], environment: [String: String], part: String) async throws {
        let output = try await Self.health(arguments, environment: environment)
        #expect(output.status == 1)
        #expect(output.errors.contains(part), "\(output.errors)")
    }
}
