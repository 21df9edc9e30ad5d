// SPDX-License-Identifier: Apache-2.0

import HTTP2Session
import NIOCore
import NIOPosix
import RPCCore
import RPCTransport
import Synchronization
import Testing

/// What a hostile server does with its first connection.
struct HostileScript: Sendable, CustomTestStringConvertible {
    var name: String
    /// Sent at once.
    var greeting: [ByteBuffer] = [RawPeer.frame(type: 4), RawPeer.frame(type: 4, flags: 1)]
    /// Sent when something of the client has come after the greeting.
    var answer: [ByteBuffer] = []
    /// What the call may end with.
    var codes: Set<Status.Code>

    var testDescription: String { self.name }

    private static let head: [UInt8] = [0x88, 0x0f, 0x10, 16] + Array("application/grpc".utf8)
    private static let headers = RawPeer.frame(type: 1, flags: 4, streamID: 1, payload: head)
    private static let interim = RawPeer.frame(type: 1, flags: 4, streamID: 1, payload: [0x08, 3] + Array("100".utf8))

    private static func data(_ bytes: [UInt8], streamID: UInt32 = 1) -> ByteBuffer {
        RawPeer.frame(type: 0, streamID: streamID, payload: bytes)
    }

    private static func many(_ count: Int, _ frame: ByteBuffer) -> [ByteBuffer] {
        Array(repeating: frame, count: count)
    }

    static let all: [HostileScript] = [
        HostileScript(
            name: "answers in HTTP/1.1",
            greeting: [ByteBuffer(string: "HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n")],
            codes: [.unavailable]
        ),
        HostileScript(name: "floods with SETTINGS", answer: many(5_000, RawPeer.frame(type: 4)), codes: [.unavailable]),
        HostileScript(
            name: "floods with PING",
            answer: many(5_000, RawPeer.frame(type: 6, payload: [UInt8](repeating: 0, count: 8))),
            codes: [.unavailable]
        ),
        HostileScript(
            name: "acknowledges pings that were not sent",
            answer: many(5_000, RawPeer.frame(type: 6, flags: 1, payload: [UInt8](repeating: 0, count: 8))),
            codes: [.unavailable]
        ),
        HostileScript(
            name: "never ends its headers",
            answer: [RawPeer.frame(type: 1, streamID: 1, payload: head)]
                + many(200, RawPeer.frame(type: 9, streamID: 1, payload: [0x00, 1, 0x61, 1, 0x62])),
            codes: [.unavailable]
        ),
        HostileScript(name: "floods with interim responses", answer: many(5_000, interim), codes: [.unavailable]),
        HostileScript(
            name: "sends data on a stream that was not opened",
            answer: [data([1, 2, 3], streamID: 99)],
            codes: [.unavailable]
        ),
        HostileScript(
            name: "pushes",
            answer: [RawPeer.frame(type: 5, flags: 4, streamID: 1, payload: [0, 0, 0, 2, 0x88])],
            codes: [.unavailable]
        ),
        HostileScript(
            name: "says goodbye a thousand times",
            answer: many(1_000, RawPeer.frame(type: 7, payload: [0, 0, 0, 1, 0, 0, 0, 0])),
            codes: [.unavailable]
        ),
        HostileScript(
            name: "overflows the window",
            answer: many(2, RawPeer.frame(type: 8, payload: [0x7f, 0xff, 0xff, 0xff])),
            codes: [.unavailable]
        ),
        HostileScript(
            name: "resets a stream a hundred times",
            answer: many(100, RawPeer.frame(type: 3, streamID: 1, payload: [0, 0, 0, 2])),
            codes: [.internal, .unavailable]
        ),
        HostileScript(
            name: "announces a message of 4 GiB",
            answer: [headers, data([0, 0xff, 0xff, 0xff, 0xff])],
            codes: [.resourceExhausted]
        ),
        HostileScript(
            name: "compresses with nothing",
            answer: [headers, data([1, 0, 0, 0, 1, 7])],
            codes: [.internal]
        ),
        HostileScript(name: "sets an unknown flag", answer: [headers, data([9, 0, 0, 0, 0])], codes: [.internal]),
        HostileScript(
            name: "sends headers twice",
            answer: [headers, headers],
            codes: [.internal, .unavailable]
        ),
        HostileScript(
            name: "sends data before its headers",
            answer: [data([0, 0, 0, 0, 0])],
            codes: [.internal, .unavailable]
        ),
        HostileScript(
            name: "sends a header list over the limit",
            answer: [
                RawPeer.frame(
                    type: 1,
                    flags: 4,
                    streamID: 1,
                    payload: head + [0x00, 1, 0x61, 0x7f, 0xa1, 0x9b, 0x01] + [UInt8](repeating: 0x62, count: 20_000)
                )
            ],
            codes: [.unavailable, .resourceExhausted, .internal]
        ),
        HostileScript(
            name: "stops inside a frame",
            answer: [headers, ByteBuffer(bytes: [0, 0, 50, 0, 0])],
            codes: [.deadlineExceeded]
        ),
        HostileScript(name: "never answers", codes: [.deadlineExceeded]),
    ]
}

@Suite("A channel whose server is hostile", .timeLimit(.minutes(10)))
struct HostileServerTests {
    @Test("ends its call with a status and continues on the next connection", arguments: HostileScript.all)
    func survives(script: HostileScript) async throws {
        let connections = Mutex<[any Channel]>([])
        let listener = try await ServerBootstrap(group: MultiThreadedEventLoopGroup.singleton)
            .childChannelInitializer { channel in
                let isFirst = connections.withLock { all in
                    all.append(channel)
                    return all.count == 1
                }
                return channel.eventLoop.makeCompletedFuture {
                    if isFirst {
                        try channel.pipeline.syncOperations.addHandler(HostileConnection(script))
                    } else {
                        try channel.pipeline.syncOperations.addHandler(
                            ScriptedConnection { codec, stream, _ in
                                let fields = [
                                    HTTP2HeaderField(":status", "200"),
                                    HTTP2HeaderField("content-type", "application/grpc"),
                                    HTTP2HeaderField("grpc-status", "5"),
                                ]
                                try codec.submitResponse(streamID: stream, fields, endStream: true)
                            } record: { _ in
                                0
                            }
                        )
                    }
                }
            }
            .bind(host: "127.0.0.1", port: 0)
            .get()
        let port = try #require(listener.localAddress?.port)
        try await withChannel(port: port) { channel in
            let waits = script.codes == [.deadlineExceeded]
            let options = CallOptions(deadline: .now + (waits ? .milliseconds(100) : .seconds(300)))
            let error = await #expect(throws: RPCError.self) {
                try await channel.unary(Methods.echo, Payload(pattern(100)), options: options)
            }
            if let code = error?.code { #expect(script.codes.contains(code), "\(code): \(error?.message ?? "")") }
            try? await connections.withLock { $0.first }?.close()
            // A call that meets the first connection on its way out is lost with it; the next connection is a good one.
            var next: Status.Code?
            for _ in 0..<50 where next == nil || next == .unavailable {
                let error = await #expect(throws: RPCError.self) {
                    try await channel.unary(Methods.echo, Payload(pattern(100)), options: .waiting(.seconds(300)))
                }
                next = error?.code
            }
            #expect(next == .notFound)
        }
        try await listener.close()
    }
}

/// Writes what the script says, whatever the client does.
private final class HostileConnection: ChannelInboundHandler {
    typealias InboundIn = ByteBuffer
    typealias OutboundOut = ByteBuffer

    private let script: HostileScript
    private var received = ByteBuffer()
    private var hasAnswered = false

    init(_ script: HostileScript) {
        self.script = script
    }

    func channelActive(context: ChannelHandlerContext) { self.write(self.script.greeting, context) }

    func channelRead(context: ChannelHandlerContext, data: NIOAny) {
        var bytes = self.unwrapInboundIn(data)
        self.received.writeBuffer(&bytes)
        // The request's method is in it: HPACK's index of POST, or the path as text.
        guard !self.hasAnswered, self.received.readableBytesView.contains(0x83) else { return }
        self.hasAnswered = true
        self.write(self.script.answer, context)
    }

    func errorCaught(context: ChannelHandlerContext, error: any Error) { context.close(promise: nil) }

    private func write(_ buffers: [ByteBuffer], _ context: ChannelHandlerContext) {
        for buffer in buffers { context.write(self.wrapOutboundOut(buffer), promise: nil) }
        context.flush()
    }
}
