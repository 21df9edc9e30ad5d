// SPDX-License-Identifier: Apache-2.0

public import Logging
internal import NIOCore
internal import NIOHTTP1
internal import NIOPosix
public import ServiceLifecycle
internal import SwitchyardTypes
internal import Synchronization

/// Where the admin port is.
public struct AdminServerConfiguration: Sendable, Hashable {
    /// The address to listen on.
    public var host: String
    /// The port to listen on; 0 takes a free one.
    public var port: Int
    /// Whether the service needs the port; if not, an address in use is only a warning.
    public var isRequired: Bool
    /// Connections that may be open; for further ones the idlest leave.
    public var maxConnections = 64
    /// Connections that one peer may have of them.
    public var maxConnectionsPerPeer = 48

    /// Limits of one connection.
    var limits = AdminConnection.Limits()

    /// Creates a configuration.
    ///
    /// - Parameters:
    ///   - host: The address to listen on.
    ///   - port: The port to listen on.
    ///   - isRequired: Whether the service needs the port.
    public init(host: String, port: Int, isRequired: Bool = true) {
        self.host = host
        self.port = port
        self.isRequired = isRequired
    }
}

/// The admin port cannot listen.
public struct AdminServerError: Error, Sendable, CustomStringConvertible {
    /// Where, why, and what to do.
    public let description: String
}

/// A service's admin port: metrics and probes over HTTP/1.1.
///
/// It runs in ``run()``. Start it before its service loads weights, and stop it after the service, so that probes
/// learn why the service takes no calls.
public final class AdminServer: Sendable {
    private struct Work: Sendable {
        let request: AdminRequest
        let reply: @Sendable (AdminResponse) -> Void
    }

    private struct Connection: Sendable {
        let channel: any Channel
        let handler: NIOLoopBound<AdminHandler>
        let activity: ConnectionActivity
    }

    private struct State {
        var address: Result<(host: String, port: Int)?, any Error>?
        var waiters: [CheckedContinuation<(host: String, port: Int)?, any Error>] = []
        var connections: [Int: Connection] = [:]
        var places: ConnectionPlaces
        var nextConnection = 0
        var listener: (any Channel)?
        var isStopping = false
        var listenerIsClosed = false
    }

    private let configuration: AdminServerConfiguration
    private let pages: AdminPages
    private let logger: Logger
    private let state: Mutex<State>
    private let work: AsyncStream<Work>
    private let workSource: AsyncStream<Work>.Continuation

    /// Creates a server; ``run()`` starts it.
    ///
    /// - Parameters:
    ///   - configuration: Where it listens.
    ///   - pages: What it answers.
    ///   - logger: Logs where it listens, or why it does not.
    public init(configuration: AdminServerConfiguration, pages: AdminPages, logger: Logger) {
        self.configuration = configuration
        self.pages = pages
        self.logger = logger
        let total = configuration.maxConnections
        let limits = ConnectionPlaces.Limits(total: total, share: configuration.maxConnectionsPerPeer, probes: 0)
        self.state = Mutex(State(places: ConnectionPlaces(limits: limits)))
        (self.work, self.workSource) = AsyncStream.makeStream(of: Work.self)
    }

    /// The address that the server listens on, once it is known.
    ///
    /// - Returns: The host as text and the port; nil if the address is in use and the port is not required.
    /// - Throws: What prevented a required server from listening.
    public func boundAddress() async throws -> (host: String, port: Int)? {
        try await withCheckedThrowingContinuation { continuation in
            let known = self.state.withLock { state in
                if state.address == nil { state.waiters.append(continuation) }
                return state.address
            }
            if let known { continuation.resume(with: known) }
        }
    }

    /// Listens and answers until the service stops or the task is cancelled.
    ///
    /// - Throws: ``AdminServerError`` if the port is required and cannot listen.
    public func run() async throws {
        do {
            let address = try await self.listen()
            self.resolve(.success(address))
        } catch {
            let reason = self.configuration.words(for: error)
            guard self.configuration.isRequired else {
                self.logger.warning("there is no admin port", metadata: ["reason": "\(reason)"])
                self.state.withLock { $0.listenerIsClosed = true }
                self.resolve(.success(nil))
                await self.answerUntilStopped()
                return
            }
            let failure = AdminServerError(description: reason)
            self.resolve(.failure(failure))
            throw failure
        }
        await self.answerUntilStopped()
    }

    /// Accepts no new connections and lets answers finish, for at most a second; then ``run()`` returns.
    public func beginGracefulShutdown() { self.stop(atOnce: false) }

    private func answerUntilStopped() async {
        await withTaskCancellationHandler {
            await withGracefulShutdownHandler {
                await withDiscardingTaskGroup { group in
                    for await work in self.work {
                        group.addTask { work.reply(self.pages.answer(work.request)) }
                    }
                }
            } onGracefulShutdown: {
                self.stop(atOnce: false)
            }
        } onCancel: {
            self.stop(atOnce: true)
        }
    }

    // MARK: - Private

    private func listen() async throws -> (host: String, port: Int) {
        let listener = try await ServerBootstrap(group: MultiThreadedEventLoopGroup.singleton)
            .serverChannelOption(.backlog, value: 64)
            .serverChannelOption(.socketOption(.so_reuseaddr), value: 1)
            .serverChannelInitializer { channel in
                channel.eventLoop.makeCompletedFuture {
                    try channel.pipeline.syncOperations.addHandler(AdminAcceptPauses())
                }
            }
            .childChannelOption(.recvAllocator, value: FixedSizeRecvByteBufferAllocator(capacity: 4096))
            .childChannelInitializer { channel in
                channel.eventLoop.makeCompletedFuture { try self.setUp(channel) }
            }
            .bind(host: self.configuration.host, port: self.configuration.port)
            .get()
        listener.closeFuture.whenComplete { _ in
            self.state.withLock { $0.listenerIsClosed = true }
            self.finishIfStopped()
        }
        let isStopping = self.state.withLock { state in
            state.listener = listener
            return state.isStopping
        }
        if isStopping { listener.close(promise: nil) }
        let address = (
            host: listener.localAddress?.ipAddress ?? self.configuration.host,
            port: listener.localAddress?.port ?? self.configuration.port
        )
        let isOpen = !["127.0.0.1", "::1"].contains(address.host)
        self.logger.info(
            isOpen
                ? "metrics and probes are served to everyone who can reach this address"
                : "metrics and probes are served",
            metadata: ["address": "\(address.host):\(address.port)"]
        )
        return address
    }

    private func resolve(_ address: Result<(host: String, port: Int)?, any Error>) {
        let waiters = self.state.withLock { state in
            state.address = address
            defer { state.waiters = [] }
            return state.waiters
        }
        for waiter in waiters { waiter.resume(with: address) }
    }

    private func setUp(_ channel: any Channel) throws {
        let source = self.workSource
        let pages = self.pages
        let handler = AdminHandler(eventLoop: channel.eventLoop, limits: self.configuration.limits) { request, reply in
            switch request.route {
            case .metrics:
                // On the cooperative pool: writing thousands of series would block an event loop.
                source.yield(Work(request: request, reply: reply))
            case .live, .ready, .unknownPath, .wrongMethod, .tooLarge, .malformed:
                // At once: probes are answered even while loading weights uses every thread of the pool.
                reply(pages.answer(request))
            }
        }
        let connection = Connection(
            channel: channel,
            handler: NIOLoopBound(handler, eventLoop: channel.eventLoop),
            activity: handler.activity
        )
        guard let id = self.takePlace(connection) else { throw ChannelError.ioOnClosedChannel }
        channel.closeFuture.whenComplete { _ in
            self.state.withLock {
                $0.connections[id] = nil
                $0.places.left(id)
            }
            self.finishIfStopped()
        }
        let pipeline = channel.pipeline.syncOperations
        try pipeline.addHandler(AdminHandler.ByteCounter(handler))
        try pipeline.addHandler(HTTPResponseEncoder())
        try pipeline.addHandler(ByteToMessageHandler(HTTPRequestDecoder(leftOverBytesStrategy: .dropBytes)))
        try pipeline.addHandler(handler)
    }

    /// Finds a place for a connection; the idlest one may leave for it.
    ///
    /// - Returns: The connection's number; nil if all are busy.
    private func takePlace(_ connection: Connection) -> Int? {
        let address = connection.channel.remoteAddress?.ipAddress ?? ""
        let (id, leaving) = self.state.withLock { state -> (Int?, Connection?) in
            // Those that leave take a moment, and must not become many.
            guard !state.isStopping, state.connections.count < 2 * self.configuration.maxConnections else {
                return (nil, nil)
            }
            state.nextConnection += 1
            let id = state.nextConnection
            let (place, leaves) = state.places.arrived(id, from: ConnectionPlaces.peer(of: address)) {
                [connections = state.connections] in
                connections[$0]?.activity.idleSince
            }
            guard place == .regular else { return (nil, nil) }
            state.connections[id] = connection
            return (id, leaves.flatMap { state.connections[$0] })
        }
        leaving?.channel.close(promise: nil)
        return id
    }

    /// Accepts no new connections and closes open ones: idle ones now, others after their answer or a second.
    private func stop(atOnce: Bool) {
        let (listener, connections) = self.state.withLock { state in
            state.isStopping = true
            return (state.listener, Array(state.connections.values))
        }
        listener?.close(promise: nil)
        for connection in connections {
            if atOnce {
                connection.channel.close(promise: nil)
            } else {
                connection.channel.eventLoop.execute { connection.handler.value.beginDraining() }
                connection.channel.eventLoop.scheduleTask(in: .seconds(1)) { connection.channel.close(promise: nil) }
            }
        }
        self.finishIfStopped()
    }

    private func finishIfStopped() {
        let isStopped = self.state.withLock { $0.isStopping && $0.listenerIsClosed && $0.connections.isEmpty }
        if isStopped { self.workSource.finish() }
    }
}

extension AdminServer: Service {}
