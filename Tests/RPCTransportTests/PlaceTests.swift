// SPDX-License-Identifier: Apache-2.0

import NIOCore
import RPCCore
import RPCTransport
import Testing

@Suite("Places of connections", .timeLimit(.minutes(5)))
struct PlaceTests {
    @Test("the idlest connection leaves for one above the limit, with a GOAWAY, and the newcomer is served")
    func idlest() async throws {
        try await withServer(limits: TransportLimits(maxConnections: 4), [echo]) { server, port in
            var peers: [RawPeer] = []
            for _ in 0..<3 {
                let peer = try await RawPeer.connect(port: port)
                try await peer.send(RawPeer.preface)
                // The acknowledgement of this side's settings: the handshake is complete.
                for _ in 0..<2 { try await peer.waitForFrame(type: 4) }
                peers.append(peer)
            }
            // One peer has its share of three.
            try await withChannel(port: port) { channel in
                let reply = try await channel.unary(Methods.echo, Payload(pattern(5)), options: .waiting)
                #expect(reply.message == pattern(5))
                #expect(await peers[0].goAwayCodeAtEnd() == 0)
                #expect(server.counts.displacedConnections == 1)
                #expect(server.counts.refusedConnections == 0)
            }
            for peer in peers { try await peer.close() }
        }
    }

    @Test("however many silent sockets there are, each newcomer is served")
    func silent() async throws {
        try await withServer(limits: TransportLimits(maxConnections: 8), [echo]) { _, port in
            var sockets: [RawPeer] = []
            for _ in 0..<40 { sockets.append(try await RawPeer.connect(port: port)) }
            for _ in 0..<3 {
                try await withChannel(port: port) { channel in
                    let reply = try await channel.unary(Methods.echo, Payload(pattern(7)), options: .waiting)
                    #expect(reply.message == pattern(7))
                }
            }
            for socket in sockets { try await socket.close() }
        }
    }

    @Test("where all connections are busy, a probe is answered, and another call is refused in words")
    func probes() async throws {
        let (began, cancelled) = (Signal(), Signal())
        try await withServer(
            limits: TransportLimits(maxConnections: 1),
            grace: .zero,
            probeServices: ["probe"],
            [
                hang(began, cancelled),
                .unary(Method(service: "probe", name: "Check")) { message, _ in Payload(message) },
            ]
        ) { _, port in
            try await withChannel(port: port) { channel in
                let busy = Task { try await channel.unary(Methods.hang, Payload(number(1)), options: .waiting) }
                await began.wait()
                try await withChannel(port: port) { other in
                    let check = Method(service: "probe", name: "Check")
                    let reply = try await other.unary(check, Payload(pattern(3)), options: .waiting)
                    #expect(reply.message == pattern(3))
                    let error = await rpcError {
                        try await other.unary(Methods.hang, Payload(number(1)), options: .waiting)
                    }
                    #expect(error?.code == .resourceExhausted)
                    #expect(error?.message == "all connections of the server are busy; try again later")
                    // Once the busy one has gone, the same connection serves every call.
                    busy.cancel()
                    await cancelled.wait()
                    channel.shutdown()
                    while began.count == 1 {
                        let time = CallOptions.waiting(.milliseconds(50))
                        _ = await rpcError { try await other.unary(Methods.hang, Payload(number(1)), options: time) }
                    }
                }
            }
        }
    }
}
