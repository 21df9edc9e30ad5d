// SPDX-License-Identifier: Apache-2.0

internal import NIOCore
internal import NIOPosix
internal import Synchronization

/// Connections of one hostile client, which ends them all at once.
///
/// They come from an address of their own on this machine, so that a server can tell them from clients that mean well.
final class HostileConnections: Sendable {
    /// Where they come from, unless said otherwise.
    static let address = "127.0.0.2"

    private let open = Mutex<[any Channel]>([])
    private let source: String

    private init(source: String) { self.source = source }

    /// Runs a body, and closes what it opened.
    ///
    /// - Parameters:
    ///   - source: The address that the connections come from.
    ///   - body: Opens connections.
    /// - Returns: What the body returns.
    /// - Throws: What the body throws.
    static func with<Result: Sendable>(
        from source: String = HostileConnections.address,
        _ body: (HostileConnections) async throws -> Result
    ) async throws -> Result {
        let connections = HostileConnections(source: source)
        let outcome: Swift.Result<Result, any Error>
        do {
            outcome = .success(try await body(connections))
        } catch {
            outcome = .failure(error)
        }
        for channel in connections.open.withLock({ $0 }) { channel.close(promise: nil) }
        return try outcome.get()
    }

    /// How many connections are open on both sides.
    var count: Int { self.open.withLock { $0.count(where: \.isActive) } }

    /// Opens connections that send a few bytes and then nothing.
    ///
    /// - Parameters:
    ///   - count: How many.
    ///   - address: `host:port` of the server.
    ///   - opening: What each sends.
    /// - Returns: How many could be opened; a server may refuse some.
    /// - Throws: ``FaultError`` for an address that is none.
    @discardableResult
    func silent(_ count: Int, to address: String, opening: [UInt8] = []) async throws -> Int {
        var opened = 0
        for _ in 0..<count where try await self.connect(to: address, { SilentClient(opening: opening) }) { opened += 1 }
        return opened
    }

    /// Opens connections that are idle in the eyes of HTTP/2: preface, settings and their acknowledgement.
    func idle(_ count: Int, to address: String) async throws -> Int {
        try await self.silent(count, to: address, opening: HostileFrames.preface + HostileFrames.acknowledgement)
    }

    /// Opens a connection whose messages never end.
    ///
    /// - Parameters:
    ///   - messages: What it sends.
    ///   - address: `host:port` of the server.
    /// - Returns: What it has sent so far; nil where it could not be opened.
    /// - Throws: ``FaultError`` for an address that is none.
    func unfinished(_ messages: UnfinishedMessages, to address: String) async throws -> UnfinishedCounts? {
        let counts = UnfinishedCounts()
        return try await self.connect(to: address) { UnfinishedClient(messages, counts) } ? counts : nil
    }

    private func connect(
        to address: String,
        _ handler: @escaping @Sendable () -> some ChannelInboundHandler
    ) async throws -> Bool {
        let target = try SocketAddressText(address)
        let channel = try? await ClientBootstrap(group: MultiThreadedEventLoopGroup.singleton)
            .bind(to: SocketAddress(ipAddress: self.source, port: 0))
            .connectTimeout(.seconds(2))
            .channelOption(.writeBufferWaterMark, value: .init(low: 1 << 18, high: 1 << 19))
            .channelInitializer { channel in
                channel.eventLoop.makeCompletedFuture {
                    try channel.pipeline.syncOperations.addHandler(handler())
                }
            }
            .connect(host: target.host, port: target.port)
            .get()
        guard let channel else { return false }
        self.open.withLock { $0.append(channel) }
        return true
    }
}

/// Sends its opening, and reads and stays silent.
private final class SilentClient: ChannelInboundHandler {
    typealias InboundIn = ByteBuffer
    typealias OutboundOut = ByteBuffer

    private let opening: [UInt8]

    init(opening: [UInt8]) { self.opening = opening }

    func channelActive(context: ChannelHandlerContext) {
        guard !self.opening.isEmpty else { return }
        context.writeAndFlush(self.wrapOutboundOut(ByteBuffer(bytes: self.opening)), promise: nil)
    }

    func channelRead(context: ChannelHandlerContext, data: NIOAny) {}

    func errorCaught(context: ChannelHandlerContext, error: any Error) { context.close(promise: nil) }
}

/// What a connection of unfinished messages has done.
final class UnfinishedCounts: Sendable {
    private let counts = Mutex((sent: 0, ended: 0, isOver: false))

    /// Bytes of messages that the server let it send.
    var sent: Int { self.counts.withLock { $0.sent } }
    /// Streams that the server ended.
    var ended: Int { self.counts.withLock { $0.ended } }
    /// Whether the server ended the connection.
    var isOver: Bool { self.counts.withLock { $0.isOver } }

    fileprivate func note(_ messages: UnfinishedMessages) {
        self.counts.withLock { $0 = (messages.sent, messages.ended, $0.isOver || messages.isOver) }
    }

    fileprivate func close() { self.counts.withLock { $0.isOver = true } }
}

/// Sends unfinished messages as fast as the server takes them.
private final class UnfinishedClient: ChannelInboundHandler {
    typealias InboundIn = ByteBuffer
    typealias OutboundOut = ByteBuffer

    private var messages: UnfinishedMessages
    private let counts: UnfinishedCounts

    init(_ messages: UnfinishedMessages, _ counts: UnfinishedCounts) {
        self.messages = messages
        self.counts = counts
    }

    func channelActive(context: ChannelHandlerContext) {
        context.writeAndFlush(self.wrapOutboundOut(ByteBuffer(bytes: self.messages.opening)), promise: nil)
    }

    func channelRead(context: ChannelHandlerContext, data: NIOAny) {
        let answer = self.messages.receive(Array(self.unwrapInboundIn(data).readableBytesView))
        if !answer.isEmpty { context.write(self.wrapOutboundOut(ByteBuffer(bytes: answer)), promise: nil) }
        self.send(context)
    }

    func channelWritabilityChanged(context: ChannelHandlerContext) { self.send(context) }

    func channelInactive(context: ChannelHandlerContext) { self.counts.close() }

    func errorCaught(context: ChannelHandlerContext, error: any Error) { context.close(promise: nil) }

    private func send(_ context: ChannelHandlerContext) {
        while context.channel.isWritable, let frame = self.messages.next() {
            context.write(self.wrapOutboundOut(ByteBuffer(bytes: frame)), promise: nil)
        }
        context.flush()
        self.counts.note(self.messages)
    }
}
