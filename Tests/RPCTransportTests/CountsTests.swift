// SPDX-License-Identifier: Apache-2.0

import NIOCore
import RPCCore
import RPCTransport
import Testing

@Suite("What servers and channels count", .timeLimit(.minutes(10)))
struct CountsTests {
    /// How often calls of a method ended with a code.
    private static func count(_ server: RPCServer, _ method: Method?, _ code: Status.Code) -> UInt64 {
        server.counts.calls.filter { $0.method == method && $0.code == code }.reduce(0) { $0 + $1.count }
    }

    @Test("every call is counted once, by how it ended")
    func calls() async throws {
        let began = Signal()
        let cancelled = Signal()
        let fail = ServiceMethod.unary(Methods.fail) { _, _ in throw RPCError(.notFound, "there is nothing") }
        try await withServer([echo, loopEcho, chat, fail, hang(began, cancelled)]) { server, port in
            #expect(server.counts.calls.allSatisfy { $0.count == 0 && $0.code == .ok })
            #expect(server.counts.calls.count == 5)
            try await withChannel(port: port) { channel in
                for _ in 0..<10 {
                    _ = try await channel.unary(Methods.loopEcho, Payload(number(1)), options: .waiting)
                }
                _ = try await channel.unary(Methods.echo, Payload(number(1)), options: .waiting)
                let notFound = await rpcError {
                    try await channel.unary(Methods.fail, Payload(number(1)), options: .waiting)
                }
                #expect(notFound?.code == .notFound)
                let missing = await rpcError {
                    try await channel.unary(Methods.missing, Payload(number(1)), options: .waiting)
                }
                #expect(missing?.code == .unimplemented)
                let handle = channel.unary(Methods.hang, Payload(number(1)), options: .waiting) { _ in }
                await began.wait()
                #expect(server.counts.openCalls == 1)
                handle.cancel()
                await cancelled.wait()
                // On a busy machine a call may not reach the server before its deadline; then another one is made.
                while began.count < 2 {
                    let late = await rpcError {
                        try await channel.unary(Methods.hang, Payload(number(1)), options: .waiting(.milliseconds(50)))
                    }
                    #expect(late?.code == .deadlineExceeded)
                }
                // A response is in flight before its call is counted as ended, but another one follows it.
                _ = try await channel.unary(Methods.echo, Payload(number(1)), options: .waiting)
                #expect(server.connectionCount == 1)
            }
            #expect(Self.count(server, Methods.loopEcho, .ok) == 10)
            #expect(Self.count(server, Methods.echo, .ok) == 2)
            #expect(Self.count(server, Methods.fail, .notFound) == 1)
            #expect(Self.count(server, nil, .unimplemented) == 1)
            // Who gives up first at a deadline, client or server, is a matter of luck.
            let hung =
                Self.count(server, Methods.hang, .cancelled) + Self.count(server, Methods.hang, .deadlineExceeded)
            #expect(hung == 2)
            #expect(Self.count(server, Methods.hang, .cancelled) >= 1)
            let all = server.counts.calls.reduce(0) { $0 + $1.count }
            #expect(all == 16)
            #expect(server.counts.openCalls == 0)
            #expect(server.counts.openedConnections == 1)
            #expect(server.counts.refusedConnections == 0)
        }
    }

    @Test("bytes are counted on both sides")
    func bytes() async throws {
        let traffic = TrafficCounts()
        let configuration = RPCChannelConfiguration.quick { $0.traffic = traffic }
        try await withServer([loopEcho]) { server, port in
            try await withChannel(port: port, configuration) { channel in
                _ = try await channel.unary(Methods.loopEcho, Payload(pattern(1_000_000)), options: .waiting)
                // The answer has come whole, so the request has gone whole.
                #expect(server.counts.traffic.receivedBytes > 1_000_000)
                #expect(server.counts.traffic.receivedBytes < 1_010_000)
                #expect(traffic.sentBytes >= server.counts.traffic.receivedBytes)
                #expect(traffic.receivedBytes > 1_000_000)
                #expect(traffic.receivedBytes <= server.counts.traffic.sentBytes)
            }
        }
    }

    @Test("refused connections are counted")
    func refused() async throws {
        var limits = TransportLimits.defaults
        limits.maxConnections = 1
        // Otherwise the second connection would get a place for probes.
        limits.probeConnections = 0
        let (began, cancelled) = (Signal(), Signal())
        try await withServer(limits: limits, grace: .zero, [echo, hang(began, cancelled)]) { server, port in
            try await withChannel(port: port) { channel in
                // A busy connection does not leave for another one.
                let busy = Task { try await channel.unary(Methods.hang, Payload(number(1)), options: .waiting) }
                defer { busy.cancel() }
                await began.wait()
                try await withChannel(port: port) { other in
                    while server.counts.refusedConnections == 0 { await Task.yield() }
                    let error = await rpcError {
                        try await other.unary(Methods.echo, Payload(number(1)), options: .waiting(.milliseconds(200)))
                    }
                    #expect(error != nil)
                }
            }
            #expect(server.counts.openedConnections == 1)
            #expect(server.counts.refusedConnections >= 1)
        }
    }
}
