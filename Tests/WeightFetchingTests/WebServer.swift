// SPDX-License-Identifier: Apache-2.0

import Foundation
import NIOCore
import NIOHTTP1
import NIOPosix
import NIOSSL
import Synchronization

/// An HTTP/1.1 server on loopback whose answers a test writes, with everything that it was asked.
final class WebServer: Sendable {
    /// What was asked.
    struct Request: Sendable {
        var method: String
        /// The path, escaped as it came, with the query.
        var target: String
        /// Headers by their names in lowercase.
        var headers: [String: String]

        /// The path without the query, unescaped.
        var path: String {
            String(self.target.prefix { $0 != "?" }).removingPercentEncoding ?? self.target
        }
    }

    /// What is answered.
    struct Reply: Sendable {
        var status = 200
        var headers: [String: String] = [:]
        var body: [UInt8] = []
        /// Bytes of the body after which the connection is cut; nil for none.
        var cutAfter: Int?
        /// Whether the connection stays open after that, silent.
        var hangs = false
    }

    typealias Handler = @Sendable (Request) -> Reply

    private let handler: Handler
    private let state = Mutex<(requests: [Request], served: [String: Int])>(([], [:]))
    private let bound = Mutex<Int>(0)
    private let scheme: String
    /// Tells of every request, in the order of arrival.
    let arrivals: AsyncStream<Request>
    private let arrived: AsyncStream<Request>.Continuation

    private init(scheme: String, handler: @escaping Handler) {
        self.scheme = scheme
        self.handler = handler
        (self.arrivals, self.arrived) = AsyncStream.makeStream()
    }

    /// Where the server is reached.
    var address: String { "\(self.scheme)://127.0.0.1:\(self.bound.withLock { $0 })" }

    /// All requests so far.
    var requests: [Request] { self.state.withLock { $0.requests } }

    /// Requests for a path.
    func requests(for path: String) -> [Request] { self.requests.filter { $0.path == path } }

    /// Bytes of bodies that were written for a path.
    func served(_ path: String) -> Int { self.state.withLock { $0.served[path] ?? 0 } }

    /// Bytes of bodies that were written.
    var served: Int { self.state.withLock { $0.served.values.reduce(0, +) } }

    /// Runs a server for as long as a body takes.
    static func with<Result>(
        certificate: (chain: String, key: String)? = nil,
        handler: @escaping Handler,
        _ body: (WebServer) async throws -> Result
    ) async throws -> Result {
        let server = WebServer(scheme: certificate == nil ? "http" : "https", handler: handler)
        let tls = try certificate.map { files in
            try NIOSSLContext(
                configuration: .makeServerConfiguration(
                    certificateChain: try NIOSSLCertificate.fromPEMFile(files.chain).map { .certificate($0) },
                    privateKey: .privateKey(try NIOSSLPrivateKey(file: files.key, format: .pem))
                )
            )
        }
        let channel = try await ServerBootstrap(group: MultiThreadedEventLoopGroup.singleton)
            .serverChannelOption(.socketOption(.so_reuseaddr), value: 1)
            .childChannelInitializer { channel in
                channel.eventLoop.makeCompletedFuture {
                    let pipeline = channel.pipeline.syncOperations
                    if let tls { try pipeline.addHandler(NIOSSLServerHandler(context: tls)) }
                    try pipeline.configureHTTPServerPipeline()
                    try pipeline.addHandler(WebHandler(server: server))
                }
            }
            .bind(host: "127.0.0.1", port: 0)
            .get()
        server.bound.withLock { $0 = channel.localAddress?.port ?? 0 }
        let result: Swift.Result<Result, any Error>
        do {
            result = .success(try await body(server))
        } catch {
            result = .failure(error)
        }
        try? await channel.close()
        return try result.get()
    }

    fileprivate func answer(_ request: Request) -> Reply {
        self.state.withLock { $0.requests.append(request) }
        self.arrived.yield(request)
        let reply = self.handler(request)
        if request.method != "HEAD" {
            let count = min(reply.body.count, reply.cutAfter ?? reply.body.count)
            self.state.withLock { $0.served[request.path, default: 0] += count }
        }
        return reply
    }
}

/// One connection.
private final class WebHandler: ChannelInboundHandler {
    typealias InboundIn = HTTPServerRequestPart
    typealias OutboundOut = HTTPServerResponsePart

    private let server: WebServer
    private var head: HTTPRequestHead?

    init(server: WebServer) {
        self.server = server
    }

    func channelRead(context: ChannelHandlerContext, data: NIOAny) {
        switch self.unwrapInboundIn(data) {
        case .head(let head): self.head = head
        case .body: break
        case .end: self.answer(context)
        }
    }

    func errorCaught(context: ChannelHandlerContext, error: any Error) {
        context.close(promise: nil)
    }

    private func answer(_ context: ChannelHandlerContext) {
        guard let head = self.head else { return }
        var headers: [String: String] = [:]
        for (name, value) in head.headers { headers[name.lowercased()] = value }
        let reply = self.server.answer(.init(method: head.method.rawValue, target: head.uri, headers: headers))
        var fields = HTTPHeaders(reply.headers.map { ($0.key, $0.value) })
        if !fields.contains(name: "content-length") {
            fields.add(name: "content-length", value: "\(reply.body.count)")
        }
        let status = HTTPResponseStatus(statusCode: reply.status)
        let response = HTTPResponseHead(version: .http1_1, status: status, headers: fields)
        context.write(self.wrapOutboundOut(.head(response)), promise: nil)
        let count = min(reply.body.count, reply.cutAfter ?? reply.body.count)
        if count > 0, head.method != .HEAD {
            let bytes = ByteBuffer(bytes: reply.body[..<count])
            context.write(self.wrapOutboundOut(.body(.byteBuffer(bytes))), promise: nil)
        }
        if reply.hangs {
            context.flush()
            return
        }
        guard reply.cutAfter == nil || count == reply.body.count else {
            let bound = NIOLoopBound(context, eventLoop: context.eventLoop)
            let flushed = context.eventLoop.makePromise(of: Void.self)
            flushed.futureResult.whenComplete { _ in bound.value.close(promise: nil) }
            context.writeAndFlush(self.wrapOutboundOut(.body(.byteBuffer(ByteBuffer()))), promise: flushed)
            return
        }
        context.writeAndFlush(self.wrapOutboundOut(.end(nil)), promise: nil)
    }
}
