// SPDX-License-Identifier: Apache-2.0

import Foundation
import NIOCore
import NIOPosix
import Synchronization

/// An HTTP proxy on loopback: tunnels for `CONNECT`, and requests with a whole address for the rest.
///
/// Every name leads to loopback, so that tests can ask for hosts that exist nowhere and see who looks them up.
final class ProxyServer: Sendable {
    /// The requests to the proxy.
    struct Request: Sendable {
        /// The request line.
        var line: String
        /// Header lines, as they came.
        var headers: [String]

        /// The value of a header.
        subscript(name: String) -> String? {
            let prefix = name.lowercased() + ":"
            return self.headers.first { $0.lowercased().hasPrefix(prefix) }
                .map { String($0.dropFirst(prefix.count).drop { $0 == " " }) }
        }
    }

    private typealias Stream = NIOAsyncChannel<ByteBuffer, ByteBuffer>

    /// The required `user:password` in base64; nil for none.
    private let credentials: String?
    private let log = Mutex<[Request]>([])
    private let bound = Mutex<Int>(0)

    private init(credentials: String?) {
        self.credentials = credentials
    }

    /// The proxy's address without user and password.
    var address: String { "http://127.0.0.1:\(self.port)" }

    /// The proxy's port.
    var port: Int { self.bound.withLock { $0 } }

    /// All requests so far.
    var requests: [Request] { self.log.withLock { $0 } }

    /// Runs a proxy for as long as a body takes.
    static func with<Result: Sendable>(
        credentials: String? = nil,
        _ body: (ProxyServer) async throws -> Result
    ) async throws -> Result {
        let proxy = ProxyServer(credentials: credentials)
        let server = try await ServerBootstrap(group: MultiThreadedEventLoopGroup.singleton)
            .serverChannelOption(.socketOption(.so_reuseaddr), value: 1)
            .bind(host: "127.0.0.1", port: 0) { channel in Self.wrapped(channel) }
        proxy.bound.withLock { $0 = server.channel.localAddress?.port ?? 0 }
        let serving = Task { try await proxy.serve(server) }
        let result: Swift.Result<Result, any Error>
        do {
            result = .success(try await body(proxy))
        } catch {
            result = .failure(error)
        }
        serving.cancel()
        _ = try? await serving.value
        return try result.get()
    }

    private static func wrapped(_ channel: any Channel) -> EventLoopFuture<Stream> {
        channel.eventLoop.makeCompletedFuture { try NIOAsyncChannel(wrappingChannelSynchronously: channel) }
    }

    private func serve(_ server: NIOAsyncChannel<Stream, Never>) async throws {
        try await server.executeThenClose { clients in
            try await withThrowingDiscardingTaskGroup { group in
                for try await client in clients {
                    group.addTask { try? await self.serve(client) }
                }
            }
        }
    }

    /// One client: a tunnel, or requests that go to one server after the other.
    private func serve(_ client: Stream) async throws {
        try await client.executeThenClose { inbound, outbound in
            var bytes = Bytes(inbound.makeAsyncIterator())
            while let request = try await bytes.head() {
                self.log.withLock { $0.append(request) }
                if let credentials = self.credentials, request["proxy-authorization"] != "Basic \(credentials)" {
                    let refusal = "HTTP/1.1 407 Proxy Authentication Required\r\ncontent-length: 0\r\n\r\n"
                    try await outbound.write(ByteBuffer(string: refusal))
                    continue
                }
                let words = request.line.split(separator: " ").map(String.init)
                guard words.count == 3 else { return }
                let isTunnel = words[0] == "CONNECT"
                let rest = isTunnel ? words[1] : String(words[1].dropFirst("http://".count))
                let authority = rest.prefix { $0 != "/" }
                guard let port = authority.split(separator: ":").last.flatMap({ Int($0) }) else { return }
                let upstream = try await ClientBootstrap(group: MultiThreadedEventLoopGroup.singleton)
                    .connect(host: "127.0.0.1", port: port) { channel in Self.wrapped(channel) }
                if isTunnel {
                    try await outbound.write(ByteBuffer(string: "HTTP/1.1 200 Connected\r\n\r\n"))
                } else {
                    let path = rest.dropFirst(authority.count)
                    let own = request.headers.filter { !$0.lowercased().hasPrefix("proxy-") }
                    bytes.unread((["\(words[0]) \(path) \(words[2])"] + own).joined(separator: "\r\n") + "\r\n\r\n")
                }
                return try await Self.join(&bytes, outbound, upstream)
            }
        }
    }

    /// Passes bytes on both ways until one side ends; a client of requests asks one server alone.
    private static func join(
        _ bytes: inout Bytes,
        _ outbound: NIOAsyncChannelOutboundWriter<ByteBuffer>,
        _ upstream: Stream
    ) async throws {
        try await upstream.executeThenClose { answers, requests in
            async let back: Void = {
                for try await piece in answers { try await outbound.write(piece) }
                outbound.finish()
            }()
            while let piece = try await bytes.next() { try await requests.write(piece) }
            requests.finish()
            try await back
        }
    }
}

/// Bytes of a connection, of which heads can be taken.
private struct Bytes {
    private var iterator: NIOAsyncChannelInboundStream<ByteBuffer>.AsyncIterator
    private var held = ByteBuffer()

    init(_ iterator: NIOAsyncChannelInboundStream<ByteBuffer>.AsyncIterator) {
        self.iterator = iterator
    }

    /// Everything up to an empty line; nil at the end of the connection.
    mutating func head() async throws -> ProxyServer.Request? {
        while true {
            let text = String(buffer: self.held)
            if let end = text.range(of: "\r\n\r\n") {
                self.held.moveReaderIndex(forwardBy: text[..<end.upperBound].utf8.count)
                let lines = text[..<end.lowerBound].components(separatedBy: "\r\n")
                return ProxyServer.Request(line: lines[0], headers: Array(lines.dropFirst()))
            }
            guard var more = try await self.iterator.next(isolation: #isolation) else { return nil }
            self.held.writeBuffer(&more)
        }
    }

    /// Puts bytes in front of what comes next.
    mutating func unread(_ text: String) {
        var buffer = ByteBuffer(string: text)
        buffer.writeBuffer(&self.held)
        self.held = buffer
    }

    /// The next bytes; nil at the end.
    mutating func next() async throws -> ByteBuffer? {
        guard self.held.readableBytes == 0 else {
            defer { self.held.clear() }
            return self.held
        }
        return try await self.iterator.next(isolation: #isolation)
    }
}
