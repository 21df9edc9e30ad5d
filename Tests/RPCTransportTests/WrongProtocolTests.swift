// SPDX-License-Identifier: Apache-2.0

import Foundation
import NIOCore
import NIOEmbedded
import NIOPosix
import Synchronization
import Testing

@testable import RPCTransport

@Suite("Clients that speak another protocol", .timeLimit(.minutes(10)))
struct WrongProtocolTests {
    /// Gathers what a server sends until it closes.
    private final class Reader: ChannelInboundHandler {
        typealias InboundIn = ByteBuffer
        private var received = ByteBuffer()
        private let done: EventLoopPromise<String>

        init(_ done: EventLoopPromise<String>) { self.done = done }

        func channelRead(context: ChannelHandlerContext, data: NIOAny) {
            self.received.writeImmutableBuffer(self.unwrapInboundIn(data))
        }

        func channelInactive(context: ChannelHandlerContext) {
            self.done.succeed(String(buffer: self.received))
            context.fireChannelInactive()
        }
    }

    /// Sends parts and returns everything that the server answers.
    private static func answer(to parts: [String], port: Int) async throws -> String {
        let loop = MultiThreadedEventLoopGroup.singleton.next()
        let done = loop.makePromise(of: String.self)
        let connecting = ClientBootstrap(group: loop)
            .channelInitializer { channel in
                channel.eventLoop.makeCompletedFuture {
                    try channel.pipeline.syncOperations.addHandler(Reader(done))
                }
            }
            .connect(host: "127.0.0.1", port: port)
        // A promise that nobody keeps would end the process.
        connecting.whenFailure { done.fail($0) }
        let channel = try await connecting.get()
        for part in parts { try await channel.writeAndFlush(ByteBuffer(string: part)) }
        return try await done.futureResult.get()
    }

    @Test(
        "a request in HTTP/1.x is answered in HTTP/1.1 with a sentence, and logged",
        arguments: [
            ["GET / HTTP/1.1\r\nHost: a\r\n\r\n"], ["P", "OST /switchyard.v1.Gateway/Generate HTTP/1.1\r\n\r\n"],
            ["OPTIONS", " * HTTP/1.1\r\n"], ["PROPFIND / HTTP/1.0\r\n\r\n"],
        ]
    )
    func http1(parts: [String]) async throws {
        let log = LogCapture()
        try await withServer(logger: log.logger, [echo]) { server, port in
            let answer = try await Self.answer(to: parts, port: port)
            // Nothing comes before the status line, or no HTTP/1.x client would understand it.
            #expect(answer.hasPrefix("HTTP/1.1 505 HTTP Version Not Supported\r\n"), "\(answer)")
            let body = answer.components(separatedBy: "\r\n\r\n").last ?? ""
            #expect(answer.contains("Content-Length: \(body.utf8.count)\r\n"))
            #expect(body.hasPrefix("This port speaks gRPC over HTTP/2"))
            #expect(body.contains("docs/protocol.md") && body.contains("--admin-listen"))
            let line = await log.line(with: "the client speaks HTTP/1.1")
            #expect(line.contains("warning a connection was refused peer=127.0.0.1:"))
            // The server goes on.
            try await withChannel(port: port) { channel in
                let reply = try await channel.unary(Methods.echo, Payload(number(3)), options: .waiting)
                #expect(reply.message == number(3))
            }
        }
    }

    @Test(
        "the first bytes tell the protocols apart",
        arguments: [
            ("", .unclear), ("P", .unclear), ("PR", .unclear), ("PRI", .forCodec), ("PRI * HTTP/2.0", .forCodec),
            ("PRO", .unclear), ("PUT ", .http1), ("GET", .unclear), ("GET ", .http1), ("M-SEARCH * ", .http1),
            (" GET", .forCodec), ("get ", .forCodec), ("\u{16}\u{3}", .forCodec), ("G\r", .forCodec),
            ("ABCDEFGHIJKLMNOP", .unclear), ("ABCDEFGHIJKLMNOP ", .http1), ("ABCDEFGHIJKLMNOPQ", .forCodec),
        ] as [(String, ProtocolMismatch.Opening)]
    )
    func openings(text: String, expected: ProtocolMismatch.Opening) {
        #expect(ProtocolMismatch.opening(text.utf8) == expected)
    }

    @Test("a client that waits for the server to speak first is spoken to")
    func silent() async throws {
        try await withServer([echo]) { _, port in
            let peer = try await RawPeer.connect(port: port)
            try await peer.waitForFrame(type: 4)
            try await peer.close()
        }
    }
}

@Suite("Descriptors")
struct DescriptorTests {
    @Test("connections leave descriptors for everything else")
    func connections() {
        #expect(DescriptorLimit.connections(maximum: 1_000, descriptors: nil) == 1_000)
        #expect(DescriptorLimit.connections(maximum: 1_000, descriptors: 65_536) == 1_000)
        #expect(DescriptorLimit.connections(maximum: 1_000, descriptors: 1_024) == 1_024 - DescriptorLimit.reserve)
        #expect(DescriptorLimit.connections(maximum: 1_000, descriptors: 64) == 32)
        #expect(DescriptorLimit.connections(maximum: 1_000, descriptors: 1) == 1)
        #expect(DescriptorLimit.connections(maximum: 5, descriptors: 1_024) == 5)
    }

    @Test("the limit is raised as far as the process may, and stays there")
    func raise() throws {
        let first = try #require(DescriptorLimit.raise())
        #expect(first.now >= first.before)
        #expect(DescriptorLimit.current == first.now)
        let second = try #require(DescriptorLimit.raise())
        #expect(second.before == first.now && second.now == first.now)
    }

    @Test("a listener without descriptors pauses and says so once, and other errors pass")
    func pauses() throws {
        let log = LogCapture()
        let channel = EmbeddedChannel()
        try channel.pipeline.syncOperations.addHandler(AcceptPauses(logger: log.logger))
        /// What the listener was told last: false to pause, true to go on.
        func told() -> Bool? {
            channel.options.first { $0.option is ChannelOptions.Types.AutoReadOption }?.value as? Bool
        }
        #expect(told() == nil)
        for code in [EMFILE, ENFILE, EMFILE] {
            channel.pipeline.fireErrorCaught(IOError(errnoCode: code, reason: "accept"))
        }
        #expect(told() == false)
        #expect(log.lines.filter { $0.contains("no connection can be accepted") }.count == 1)
        channel.embeddedEventLoop.advanceTime(by: .seconds(1))
        #expect(told() == true)
        #expect(throws: Never.self) { try channel.throwIfErrorCaught() }
        channel.pipeline.fireErrorCaught(IOError(errnoCode: ECONNABORTED, reason: "accept"))
        #expect(told() == true)
        #expect(throws: IOError.self) { try channel.throwIfErrorCaught() }
        channel.pipeline.fireErrorCaught(IOError(errnoCode: EMFILE, reason: "accept"))
        #expect(told() == false)
        #expect(log.lines.count == 1)
    }
}
