// SPDX-License-Identifier: Apache-2.0

import NIOCore
import NIOPosix
import RPCCore
import RPCTransport
import SwitchyardTypes
import Synchronization
import Testing

@Suite("Addresses that cannot be had", .timeLimit(.minutes(10)))
struct ListenTests {
    private static func problem(host: String, port: Int) -> ListenError? {
        do throws(ListenError) {
            _ = try PortReservation(host: host, port: port)
            return nil
        } catch {
            return error
        }
    }

    @Test("a port on which another server listens is refused in words, reserved or not")
    func taken() async throws {
        try await withServer([echo]) { _, port in
            let refused = try #require(Self.problem(host: "127.0.0.1", port: port))
            #expect(refused.problem == .taken)
            #expect(refused.description.hasPrefix("cannot listen on 127.0.0.1:\(port): another process listens there"))
            #expect(refused.description.contains("--listen"))
            let second = RPCServer(
                configuration: RPCServerConfiguration(port: port),
                methods: [],
                logger: quietLogger
            )
            let error = await #expect(throws: ListenError.self) { try await second.run() }
            #expect(error == refused)
        }
    }

    @Test("addresses of other machines and unknown names are told apart")
    func elsewhere() {
        // An address for documentation (RFC 5737) and a name that never exists (RFC 6761).
        #expect(Self.problem(host: "192.0.2.1", port: 0)?.problem == .notHere)
        let unknown = Self.problem(host: "no-such-host.invalid", port: 7400)
        #expect(unknown?.problem == .unknownName)
        #expect(unknown?.description.contains("no-such-host.invalid:7400: the host name stands for no address") == true)
    }

    @Test("a reserved port refuses connections until the server listens, and the server frees the reservation")
    func reservation() async throws {
        let port = try await unusedPort()
        let reservation = try PortReservation(host: "127.0.0.1", port: port)
        let connected: (any Channel)? = try? await ClientBootstrap(group: MultiThreadedEventLoopGroup.singleton)
            .connect(host: "127.0.0.1", port: port).get()
        #expect(connected == nil)
        var configuration = RPCServerConfiguration(port: port)
        configuration.reservation = reservation
        let server = RPCServer(configuration: configuration, methods: [echo], logger: quietLogger)
        try await withThrowingTaskGroup(of: Void.self) { tasks in
            tasks.addTask { try await server.run() }
            #expect(try await server.boundAddress().port == port)
            try await withChannel(port: port) { channel in
                let reply = try await channel.unary(Methods.echo, Payload(number(7)), options: .waiting)
                #expect(reply.message == number(7))
            }
            server.beginGracefulShutdown()
            try await tasks.waitForAll()
        }
        // Nothing of the server or the reservation is left: the port can be had without sharing it.
        let again = try PortReservation(host: "127.0.0.1", port: port)
        again.release()
        again.release()
    }

    @Test("each problem says what to do, with the address and the setting")
    func words() {
        let problems: [(ListenProblem, String)] = [
            (.taken, "ss -ltnp"), (.notPermitted, "CAP_NET_BIND_SERVICE"), (.notHere, "* for all"),
            (.unknownName, "IP address"), (.noDescriptor, "ulimit -n"),
            (.other("strange (errno: 1)"), "strange (errno: 1)"),
        ]
        for (problem, part) in problems {
            let text = problem.message(at: "host:80", setting: "admin-listen")
            #expect(text.hasPrefix("cannot listen on host:80: "))
            #expect(text.contains(part))
            #expect(problem == .noDescriptor || text.contains("--admin-listen"))
        }
    }

    @Test(
        "a client says in words why it has no connection",
        arguments: [
            ("127.0.0.1", "nothing listens there (connection refused); check the address and port"),
            ("no-such-host.invalid", "the host name is unknown; check its spelling"),
        ]
    )
    func client(host: String, expected: String) async throws {
        let port = try await unusedPort()
        let failed = Signal()
        let channel = RPCChannel(
            target: (host, port),
            configuration: .quick,
            logger: quietLogger,
            onStateChange: { if $0 == .transientFailure { failed.fire() } }
        )
        try await withThrowingTaskGroup(of: Void.self) { tasks in
            tasks.addTask { try await channel.run() }
            await failed.wait()
            let error = await rpcError { try await channel.unary(Methods.echo, Payload(number(1))) }
            #expect(error?.code == .unavailable)
            #expect(error?.message.hasPrefix("no connection to \(host):\(port): \(expected)") == true)
            channel.shutdown()
            try await tasks.waitForAll()
        }
    }
}
