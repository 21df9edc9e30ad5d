// SPDX-License-Identifier: Apache-2.0

import CertificateAuthority
import Foundation
import NIOCore
import NIOPosix
import NIOSSL
import NIOTLS
import RPCCore
import RPCTransport
import Testing

@Suite("Certificates while a server runs")
struct TLSReloadTests {
    @Test("new ones serve new connections, streams in flight continue, and bad ones change nothing")
    func reload() async throws {
        try await TLSFixture.with { fixture in
            let log = LogCapture()
            let security = fixture.server(reload: .milliseconds(10), logger: log.logger)
            try await withServer(security: security, [chat]) { _, port in
                try await withChannel(port: port, fixture.client()) { channel in
                    let call = channel.bidirectional(Methods.chat, options: .waiting)
                    var answers = call.responses.makeAsyncIterator()
                    func exchange(_ value: UInt32) async throws {
                        try await call.requests.write(Payload(number(value)))
                        #expect(try await answers.next() == number(value))
                    }
                    try await exchange(1)
                    #expect(try await TLSProbe.names(port: port).contains("test:server"))

                    try fixture.issue("server", names: [.address("127.0.0.1"), .uri("test:second")])
                    _ = await log.line(with: "was reloaded")
                    try await exchange(2)
                    #expect(try await TLSProbe.names(port: port).contains("test:second"))

                    try "nonsense".write(toFile: fixture.path("server"), atomically: true, encoding: .utf8)
                    let line = await log.line(with: "cannot be loaded; the old one stays in use")
                    #expect(line.contains("error "))
                    #expect(line.contains("\(fixture.path("server")) holds no certificate in PEM"))
                    try await exchange(3)
                    #expect(try await TLSProbe.names(port: port).contains("test:second"))
                    call.requests.finish()
                    #expect(try await answers.next() == nil)
                }
            }
        }
    }

    @Test("an expired certificate does not replace a valid one")
    func ended() async throws {
        try await TLSFixture.with { fixture in
            let log = LogCapture()
            let security = fixture.server(reload: .milliseconds(10), logger: log.logger)
            try await withServer(security: security, [echo]) { _, port in
                try fixture.issue("server", names: [.address("127.0.0.1")], lifetime: -60)
                let line = await log.line(with: "the old one stays in use")
                #expect(line.contains("ended on"))
                #expect(try await TLSProbe.names(port: port).contains("test:server"))
            }
        }
    }

    @Test("unusable files stop the start and say what to do")
    func unusable() async throws {
        try await TLSFixture.with { fixture in
            try fixture.issue("other", names: [.dns("other.test")])
            let ca = fixture.path("ca")
            let cases: [(String, String, String?, [String], String)] = [
                ("/nowhere.pem", fixture.path("server-key"), nil, [], "cannot read /nowhere.pem"),
                (fixture.folder, fixture.path("server-key"), nil, [], "is not a regular file"),
                (fixture.path("server-key"), fixture.path("server-key"), nil, [], "holds no certificate"),
                (fixture.path("server"), fixture.path("server"), nil, [], "holds no private key"),
                (fixture.path("server"), fixture.path("other-key"), nil, [], "does not belong to"),
                (fixture.path("server"), fixture.path("server-key"), "/nowhere", [], "cannot read /nowhere"),
                (fixture.path("server"), fixture.path("server-key"), nil, ["a"], "clientAuthorityFile"),
            ]
            for (certificate, key, authority, allowed, part) in cases {
                let options = ServerTLSOptions(
                    certificateFile: certificate,
                    keyFile: key,
                    clientAuthorityFile: authority,
                    allowedClients: allowed
                )
                let server = RPCServer(
                    configuration: RPCServerConfiguration(security: .tls(ServerTLS(options, logger: quietLogger))),
                    methods: [],
                    logger: quietLogger
                )
                let error = await #expect(throws: TLSError.self) { try await server.run() }
                #expect(error?.description.contains(part) == true, "\(String(describing: error))")
                await #expect(throws: TLSError.self) { try await server.boundAddress() }
            }
            let half = ClientTLS(ClientTLSOptions(authorityFile: ca, certificateFile: ca), logger: quietLogger)
            #expect(throws: TLSError.self) { try half.load() }
            let address = ClientTLS(ClientTLSOptions(authorityFile: ca, serverName: "127.0.0.1"), logger: quietLogger)
            #expect(throws: TLSError.self) { try address.load() }
        }
    }

    @Test("a client that does not offer HTTP/2 is told so and closed", arguments: [[], ["http/1.1"]])
    func withoutProtocol(protocols: [String]) async throws {
        try await TLSFixture.with { fixture in
            let log = LogCapture()
            try await withServer(security: fixture.server(), logger: log.logger, [echo]) { _, port in
                let received = try await TLSProbe.read(port: port, protocols: protocols)
                #expect(String(buffer: received).contains("the client did not offer HTTP/2 (ALPN h2)"))
                let line = await log.line(with: "did not offer HTTP/2")
                #expect(line.contains("a connection was refused"))
            }
        }
    }

    @Test("a client leaves a server that does not agree to HTTP/2")
    func serverWithoutProtocol() async throws {
        try await TLSFixture.with { fixture in
            let listener = try await SilentListener.start(Signal(), tls: fixture)
            let failed = Signal()
            try await withChannel(
                port: listener.port,
                fixture.client(),
                onStateChange: { if $0 == .transientFailure { failed.fire() } }
            ) { channel in
                await failed.wait()
                let error = await rpcError { try await channel.unary(Methods.echo, Payload(bytes: [])) }
                #expect(error?.code == .unavailable)
                #expect(error?.message.contains("did not agree to HTTP/2 (ALPN h2)") == true)
            }
            try await listener.close()
        }
    }
}
