// SPDX-License-Identifier: Apache-2.0

import CertificateAuthority
import Foundation
import NIOCore
import NIOSSL
import RPCCore
import RPCTransport
import Synchronization
import Testing

@Suite("Calls over TLS")
struct TLSTests {
    /// Answers who calls.
    static let whoami = ServiceMethod.unary(Method(service: "test.Who", name: "Ami")) { _, context in
        Payload(bytes: Array((context.identity?.description ?? "nobody").utf8))
    }

    @Test("of every shape go through, large messages included")
    func calls() async throws {
        try await TLSFixture.with { fixture in
            try await withServer(security: fixture.server(), [echo, count, chat, Self.whoami]) { _, port in
                try await withChannel(port: port, fixture.client()) { channel in
                    let large = pattern(3_000_000)
                    let reply = try await channel.unary(Methods.echo, Payload(large), options: .waiting)
                    #expect(reply.message == large)
                    var received = 0
                    for try await _ in channel.serverStreaming(Methods.count, Payload(number(100))) { received += 1 }
                    #expect(received == 100)
                    let call = channel.bidirectional(Methods.chat)
                    for index in 0..<10 { try await call.requests.write(Payload(number(UInt32(index)))) }
                    call.requests.finish()
                    var answers = 0
                    for try await _ in call.responses { answers += 1 }
                    #expect(answers == 10)
                    let who = try await channel.unary(Self.whoami.method, Payload(bytes: []))
                    #expect(String(buffer: who.message) == "nobody")
                }
            }
        }
    }

    @Test("a client's certificate is asked for, checked, and known to the handler")
    func mutual() async throws {
        try await TLSFixture.with { fixture in
            let security = fixture.server(mutual: true, allowed: ["elsewhere.test", "test:client"])
            try await withServer(security: security, [Self.whoami]) { _, port in
                try await withChannel(port: port, fixture.client("client")) { channel in
                    let who = try await channel.unary(Self.whoami.method, Payload(bytes: []), options: .waiting)
                    #expect(String(buffer: who.message) == "test:client, client.test")
                }
            }
        }
    }

    /// One way in which two ends do not come together.
    struct Refusal: Sendable, CustomTestStringConvertible {
        var testDescription: String
        var server: @Sendable (TLSFixture) throws -> ServerSecurity
        var client: @Sendable (TLSFixture) throws -> RPCChannelConfiguration
        /// What the client's status says.
        var told: String
        /// What the server's log says; empty where the client leaves silently.
        var logged: String
    }

    static let refusals = [
        Refusal(
            testDescription: "another authority",
            server: { $0.server() },
            client: { fixture in
                let other = try CertificateAuthority()
                try other.certificatePEM.write(toFile: fixture.path("other"), atomically: true, encoding: .utf8)
                return fixture.client(authority: "other")
            },
            told: "not signed by an authority that this side trusts",
            logged: "does not trust the authority"
        ),
        Refusal(
            testDescription: "a server's certificate that has ended",
            server: { fixture in
                try fixture.issue("ended", names: [.address("127.0.0.1")], lifetime: -60)
                return fixture.server("ended")
            },
            client: { $0.client() },
            told: "ended on",
            logged: "has expired"
        ),
        Refusal(
            testDescription: "a certificate for another host",
            server: { fixture in
                try fixture.issue("elsewhere", names: [.dns("elsewhere.test")])
                return fixture.server("elsewhere")
            },
            client: { $0.client() },
            told: "is not for 127.0.0.1",
            logged: ""
        ),
        Refusal(
            testDescription: "another server name",
            server: { $0.server() },
            client: { $0.client(serverName: "elsewhere.test") },
            told: "not for elsewhere.test but for test:server, localhost",
            logged: ""
        ),
        Refusal(
            testDescription: "no client certificate",
            server: { $0.server(mutual: true) },
            client: { $0.client() },
            told: "takes only clients with a certificate",
            logged: "showed no certificate"
        ),
        Refusal(
            testDescription: "a client certificate of another authority",
            server: { $0.server(mutual: true) },
            client: { fixture in
                try fixture.issue("stranger", names: [.uri("test:client")], by: try CertificateAuthority())
                return fixture.client("stranger")
            },
            told: "does not trust the authority",
            logged: "not signed by an authority that this side trusts"
        ),
        Refusal(
            testDescription: "a client certificate that has ended",
            server: { $0.server(mutual: true) },
            client: { fixture in
                try fixture.issue("late", names: [.uri("test:client")], lifetime: -60)
                return fixture.client("late")
            },
            told: "has expired",
            logged: "ended on"
        ),
        Refusal(
            testDescription: "a client that is not on the list",
            server: { $0.server(mutual: true, allowed: ["test:gateway"]) },
            client: { $0.client("client") },
            told: "(test:client, client.test) is not among the allowed clients",
            logged: "(test:client, client.test) is not among the allowed clients"
        ),
        Refusal(
            testDescription: "a plaintext client at a TLS port",
            server: { $0.server() },
            client: { _ in .quick },
            told: "the server speaks TLS, but this side is plaintext",
            logged: "the peer speaks plaintext, but this port speaks TLS"
        ),
        Refusal(
            testDescription: "a TLS client at a plaintext port",
            server: { _ in .plaintext },
            client: { $0.client() },
            told: "in plaintext, not TLS",
            logged: "began a TLS handshake, but this port is plaintext"
        ),
    ]

    @Test("both sides say what was refused", arguments: Self.refusals)
    func refused(refusal: Refusal) async throws {
        try await TLSFixture.with { fixture in
            let log = LogCapture()
            try await withServer(security: try refusal.server(fixture), logger: log.logger, [echo]) { _, port in
                let failed = Signal()
                let configuration = try refusal.client(fixture)
                try await withChannel(
                    port: port,
                    configuration,
                    onStateChange: { if $0 == .transientFailure { failed.fire() } }
                ) { channel in
                    await failed.wait()
                    let error = await rpcError { try await channel.unary(Methods.echo, Payload(bytes: [])) }
                    #expect(error?.code == .unavailable)
                    #expect(error?.message.contains(refusal.told) == true, "\(String(describing: error))")
                    #expect(error?.isNeverProcessed == true)
                }
                if !refusal.logged.isEmpty {
                    let line = await log.line(with: refusal.logged)
                    #expect(line.contains("warning a connection was refused peer=127.0.0.1:"))
                }
            }
        }
    }

    @Test("a call that waits for the connection ends with its deadline, and a client that hangs up is not logged")
    func waiting() async throws {
        try await TLSFixture.with { fixture in
            let log = LogCapture()
            try await withServer(security: fixture.server(mutual: true), logger: log.logger, [echo]) { _, port in
                let peer = try await RawPeer.connect(port: port)
                try await peer.close()
                try await withChannel(port: port, fixture.client()) { channel in
                    let options = CallOptions.waiting(.milliseconds(50))
                    let error = await rpcError {
                        try await channel.unary(Methods.echo, Payload(bytes: []), options: options)
                    }
                    #expect(error?.code == .deadlineExceeded)
                }
            }
            #expect(log.lines.allSatisfy { $0.contains("showed no certificate") })
        }
    }

    @Test("ciphers that HTTP/2 refuses are not offered: without authentication or without ephemeral keys")
    func ciphers() async throws {
        try await TLSFixture.with { fixture in
            try await withServer(security: fixture.server(), [echo]) { _, port in
                let good = await TLSProbe.agrees(on: [.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256], port: port)
                #expect(good)
                let chained: [NIOTLSCipher] = [
                    .TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA, .TLS_ECDHE_ECDSA_WITH_AES_256_CBC_SHA,
                    .TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA, .TLS_RSA_WITH_AES_128_GCM_SHA256,
                ]
                let bad = await TLSProbe.agrees(on: chained, port: port)
                #expect(!bad)
            }
        }
    }

    @Test("a client that begins no handshake is disconnected after the handshake timeout")
    func silence() async throws {
        try await TLSFixture.with { fixture in
            let timing = ConnectionTiming(handshakeTimeout: .milliseconds(50))
            try await withServer(timing: timing, security: fixture.server(), [echo]) { _, port in
                let peer = try await RawPeer.connect(port: port)
                _ = await peer.goAwayCodeAtEnd()
            }
        }
    }

    @Test("a server that drains does not wait for handshakes")
    func drain() async throws {
        try await TLSFixture.with { fixture in
            // Either wait would be one for ever.
            let timing = ConnectionTiming(handshakeTimeout: .seconds(86_400))
            try await withServer(timing: timing, grace: .seconds(86_400), security: fixture.server(), [echo]) {
                server,
                port in
                let peer = try await RawPeer.connect(port: port)
                try await withChannel(port: port, fixture.client()) { channel in
                    // The server has accepted the silent peer before it answers this call.
                    _ = try await channel.unary(Methods.echo, Payload(bytes: []), options: .waiting)
                }
                server.beginGracefulShutdown()
                _ = await peer.goAwayCodeAtEnd()
            }
        }
    }

    @Test("a channel shut down during its handshake ends at once")
    func shutdownInHandshake() async throws {
        try await TLSFixture.with { fixture in
            // A plaintext listener that says nothing: the handshake never ends by itself.
            let accepted = Signal()
            let listener = try await SilentListener.start(accepted)
            try await withChannel(port: listener.port, fixture.client()) { _ in await accepted.wait() }
            try await listener.close()
        }
    }
}
