// SPDX-License-Identifier: Apache-2.0

internal import HTTP2Session
public import Logging
internal import NIOCore
internal import NIOPosix
internal import RPCCore
internal import SwitchyardTypes
internal import Synchronization

/// A gRPC server on one address, over HTTP/2: with TLS, or in plaintext with prior knowledge.
///
/// The server lives in ``run()``: handlers that are tasks are its child tasks, and it returns when the last connection
/// has closed and the last handler has returned.
public final class RPCServer: Sendable {
    struct Connection {
        var eventLoop: any EventLoop
        var role: NIOLoopBound<ServerConnection>
        var channel: any Channel
        var activity: ConnectionActivity

        /// Runs on the connection's event loop; one whose handshake is not over is closed instead.
        func perform(_ body: @escaping @Sendable (ServerConnection) -> Void) {
            self.eventLoop.execute {
                if self.role.value.hasBegun { body(self.role.value) } else { self.channel.close(promise: nil) }
            }
        }
    }

    enum Phase {
        case idle
        case running
        case draining
        case stopped
    }

    struct State {
        var phase = Phase.idle
        var listener: (any Channel)?
        var address: Result<(host: String, port: Int), any Error>?
        var addressWaiters: [CheckedContinuation<(host: String, port: Int), any Error>] = []
        var connections: [Int: Connection] = [:]
        var places: ConnectionPlaces
        var nextConnection = 0
        var calls: AsyncStream<AcceptedCall>.Continuation?
        var listenerIsClosed = false
    }

    let configuration: RPCServerConfiguration
    private let methods: [Method: ServiceMethod]
    /// What the server has done since it was created.
    public let counts: ServerCounts

    let logger: Logger
    /// Connections that may be open, so that some of the process's descriptors are left.
    let maxConnections: Int
    /// What all connections hold of requests that no handler has taken.
    private let receivePool: ReceivePool
    let state: Mutex<State>
    let refusals = Mutex(LogBudget(now: .now))

    /// Creates a server; ``run()`` starts it.
    ///
    /// - Parameters:
    ///   - configuration: Where it listens and what its connections may hold.
    ///   - methods: What it answers; of two entries for one method the later one wins.
    ///   - logger: Gets debug messages about connections and errors about responses that cannot be sent.
    public init(configuration: RPCServerConfiguration, methods: [ServiceMethod], logger: Logger) {
        self.configuration = configuration
        self.methods = Dictionary(methods.map { ($0.method, $0) }) { _, later in later }
        self.counts = ServerCounts(methods: Array(self.methods.keys))
        self.logger = logger
        self.receivePool = ReceivePool(limitBytes: configuration.limits.serverReceiveBytes, counts: self.counts)
        self.maxConnections = DescriptorLimit.connections(
            maximum: configuration.limits.maxConnections,
            descriptors: DescriptorLimit.current
        )
        let places = ConnectionPlaces(limits: configuration.limits.places(total: self.maxConnections))
        self.state = Mutex(State(places: places))
    }

    /// Listens and serves until the server has drained.
    ///
    /// Cancelling the task ends all calls at once.
    ///
    /// - Throws: An error when the address cannot be listened on, a certificate cannot be used, a limit is out of
    ///   range, or the server has already run.
    public func run() async throws {
        try self.configuration.limits.codecConfiguration.validate()
        guard case .tls(let tls) = self.configuration.security else { return try await self.serve() }
        do {
            try tls.load()
            try tls.files.begin()
        } catch {
            self.resolveAddress(.failure(error))
            throw error
        }
        defer { tls.files.end() }
        try await self.serve()
    }

    private func serve() async throws {
        let (calls, continuation) = AsyncStream.makeStream(of: AcceptedCall.self)
        let mayRun = self.state.withLock { state in
            guard case .idle = state.phase else { return false }
            state.phase = .running
            state.calls = continuation
            return true
        }
        guard mayRun else {
            self.resolveAddress(.failure(RPCError(.failedPrecondition, "the server has already run; create another")))
            throw RPCError(.failedPrecondition, "the server has already run; create another")
        }
        do {
            try await self.listen()
        } catch {
            self.state.withLock { $0.phase = .stopped }
            self.resolveAddress(.failure(error))
            throw error
        }
        await withTaskCancellationHandler {
            await withDiscardingTaskGroup { group in
                for await call in calls { group.addTask { await call.run() } }
            }
        } onCancel: {
            self.beginGracefulShutdown()
            self.abandonConnections()
        }
        self.state.withLock { $0.phase = .stopped }
    }

    /// The address that the server listens on, once it does.
    ///
    /// - Returns: The host as text and the port; for a Unix socket `UnixAddress.host` and 0.
    /// - Throws: An error when the server could not listen.
    public func boundAddress() async throws -> (host: String, port: Int) {
        try await withCheckedThrowingContinuation { continuation in
            let known = self.state.withLock { state in
                if state.address == nil { state.addressWaiters.append(continuation) }
                return state.address
            }
            if let known { continuation.resume(with: known) }
        }
    }

    /// Connections that are open.
    public var connectionCount: Int { self.state.withLock { $0.connections.count } }

    /// Drains the server: it takes no new connections and calls, and lets calls in flight finish.
    ///
    /// Calls that take longer than the configuration's grace are reset. ``run()`` returns when the last connection has
    /// closed. Further calls of this method do nothing.
    public func beginGracefulShutdown() {
        let (listener, connections) = self.state.withLock { state -> ((any Channel)?, [Connection]) in
            switch state.phase {
            case .idle:
                state.phase = .stopped
                return (nil, [])
            case .running:
                state.phase = .draining
                return (state.listener, Array(state.connections.values))
            case .draining, .stopped:
                return (nil, [])
            }
        }
        guard let listener else {
            self.finishIfDrained()
            return
        }
        listener.close(promise: nil)
        for connection in connections {
            connection.perform { $0.beginDrain() }
        }
        listener.eventLoop.scheduleTask(in: self.configuration.drainGrace.timeAmount) { self.abandonConnections() }
    }

    // MARK: - Private

    private func listen() async throws {
        let group = self.configuration.eventLoopGroup ?? MultiThreadedEventLoopGroup.singleton
        let (host, port) = (self.configuration.host, self.configuration.port)
        let listener: any Channel
        do {
            if UnixAddress.isMeant(by: host) {
                listener = try await self.listen(on: try UnixAddress(parsing: host), group)
            } else {
                let address = try SocketAddress.makeAddressResolvingHost(host, port: port)
                listener = try await self.bootstrap(group, takesBothFamilies: address.isEveryAddress).bind(to: address)
                    .get()
            }
        } catch {
            throw ListenError(error, host: host, port: port)
        }
        self.configuration.reservation?.release()
        let wasStopped = self.state.withLock { state in
            state.listener = listener
            if case .draining = state.phase { return true }
            return false
        }
        listener.closeFuture.whenComplete { _ in
            self.state.withLock { $0.listenerIsClosed = true }
            self.finishIfDrained()
        }
        if wasStopped { listener.close(promise: nil) }
        let address = (
            host: listener.localAddress?.ipAddress ?? UnixAddress(host: host)?.host ?? host,
            port: UnixAddress.isMeant(by: host) ? 0 : listener.localAddress?.port ?? port
        )
        self.logger.debug("listening", metadata: ["host": "\(address.host)", "port": "\(address.port)"])
        self.resolveAddress(.success(address))
    }

    /// Listens on a Unix socket, whose file goes with the listener.
    private func listen(on address: UnixAddress, _ group: any EventLoopGroup) async throws -> any Channel {
        try UnixSocketFile.clear(address)
        let listener = try await self.bootstrap(group, takesBothFamilies: false)
            .bind(unixDomainSocketPath: address.path).get()
        let file = UnixSocketFile(at: address)
        listener.closeFuture.whenComplete { _ in file?.remove() }
        return listener
    }

    private func bootstrap(_ group: any EventLoopGroup, takesBothFamilies: Bool) -> ServerBootstrap {
        let limits = self.configuration.limits
        let bootstrap = ServerBootstrap(group: group)
            .serverChannelOption(.backlog, value: 1_024)
            .serverChannelOption(.socketOption(.so_reuseaddr), value: 1)
            .serverChannelInitializer { [logger] channel in
                channel.eventLoop.makeCompletedFuture {
                    try channel.pipeline.syncOperations.addHandler(AcceptPauses(logger: logger))
                }
            }
            .childChannelOption(.tcpOption(.tcp_nodelay), value: 1)
            .childChannelOption(.socketOption(.so_reuseaddr), value: 1)
            .childChannelOption(.recvAllocator, value: limits.readAllocator)
            .childChannelOption(.writeBufferWaterMark, value: TransportLimits.waterMark)
            .childChannelInitializer { channel in
                channel.eventLoop.makeCompletedFuture { try self.setUp(channel) }
            }
        guard takesBothFamilies else { return bootstrap }
        // The system's default may be IPv6 alone.
        let onlyIPv6 = ChannelOptions.Types.SocketOption(level: .ipv6, name: .ipv6_v6only)
        return bootstrap.serverChannelOption(onlyIPv6, value: 0)
    }

    private func resolveAddress(_ address: Result<(host: String, port: Int), any Error>) {
        let waiters = self.state.withLock { state in
            if state.address == nil { state.address = address }
            let waiters = state.addressWaiters
            state.addressWaiters = []
            return waiters
        }
        for waiter in waiters { waiter.resume(with: address) }
    }

    /// Builds the pipeline of a new connection.
    private func setUp(_ channel: any Channel) throws {
        let eventLoop = channel.eventLoop
        let now = ContinuousClock.now
        let limits = self.configuration.limits
        let codec = try HTTP2Codec(role: .server, configuration: limits.codecConfiguration, now: now)
        let (id, calls) = self.state.withLock { state in
            state.nextConnection += 1
            return (state.nextConnection, state.calls)
        }
        // Clients of a Unix socket have no address: their connections are numbered, so that each is told from the others.
        let peer =
            channel.remoteAddress.flatMap { address in address.ipAddress.map { "\($0):\(address.port ?? 0)" } }
            ?? "unix:\(id)"
        let role = ServerConnection(
            codec: codec,
            eventLoop: eventLoop,
            configuration: self.configuration,
            peer: peer,
            methods: self.methods,
            counts: self.counts,
            logger: self.logger,
            accept: { call in calls?.yield(call) },
            onMismatch: { [peer] reason in self.logRefusal(reason, peer: peer) },
            places: PlaceKeeper(
                promote: { self.state.withLock { $0.places.promoted(id) } },
                identify: { self.identified(id, as: $0) }
            ),
            onEnd: { self.connectionEnded(id) }
        )
        role.recordsCompression = self.configuration.recordsCompression
        role.account.pool = (self.receivePool, id)
        let handler = ConnectionHandler(
            codec: codec,
            role: role,
            timing: self.configuration.timing,
            traffic: self.counts.traffic,
            eventLoop: eventLoop,
            awaitsOpening: self.configuration.security.isPlaintext,
            now: now
        )
        handler.stages = self.configuration.stages.map { ($0, .arrived, .replied) }
        let connection = Connection(
            eventLoop: eventLoop,
            role: NIOLoopBound(role, eventLoop: eventLoop),
            channel: channel,
            activity: role.activity
        )
        guard self.takePlace(id, connection, role) else { throw ChannelError.ioOnClosedChannel }
        self.counts.connectionOpened()
        // A channel that closes before it becomes active never tells its handler.
        channel.closeFuture.whenComplete { _ in self.connectionEnded(id) }
        if case .tls(let tls) = self.configuration.security { try self.secure(channel, role, tls) }
        try channel.pipeline.syncOperations.addHandler(handler)
    }

    /// Adds TLS to a connection that is being built.
    private func secure(_ channel: any Channel, _ role: ServerConnection, _ tls: ServerTLS) throws {
        let handshake = TLSHandshakeHandler(
            timeout: self.configuration.timing.handshakeTimeout,
            expectedName: nil,
            accept: { outcome throws(TLSFailure) in
                var refusal: TLSFailure?
                if !outcome.isHTTP2 {
                    refusal = TLSFailure("TLS: the client did not offer HTTP/2 (ALPN h2), which gRPC needs")
                } else if case .failure(let error) = tls.admit(outcome.identity) {
                    refusal = TLSFailure("TLS: \(error)")
                }
                if let refusal { self.logRefusal(refusal.description, peer: role.peer) }
                role.secured(identity: outcome.identity, refusal: refusal)
            },
            onFailure: { failure in
                if failure.isTelling {
                    self.logRefusal(failure.description, peer: role.peer)
                } else {
                    self.logger.debug(
                        "a connection ended during its handshake",
                        metadata: ["peer": "\(role.peer)", "reason": "\(failure)"]
                    )
                }
            }
        )
        try channel.pipeline.syncOperations.addHandler(try tls.makeHandler())
        try channel.pipeline.syncOperations.addHandler(handshake)
    }

    /// Logs a client that was refused; a flood of such clients makes few lines.
    func logRefusal(_ reason: String, peer: String) {
        self.counts.connectionRefused()
        guard let unsaid = self.refusals.withLock({ $0.take(now: .now) }) else { return }
        var metadata: Logger.Metadata = ["peer": "\(peer)", "reason": "\(reason)"]
        if unsaid > 0 { metadata["unsaid"] = "\(unsaid)" }
        self.logger.warning("a connection was refused", metadata: metadata)
    }

    private func connectionEnded(_ id: Int) {
        self.state.withLock {
            _ = $0.connections.removeValue(forKey: id)
            $0.places.left(id)
        }
        self.finishIfDrained()
    }

    private func abandonConnections() {
        for connection in self.state.withLock({ Array($0.connections.values) }) {
            connection.perform { $0.abandon() }
        }
    }

    private func finishIfDrained() {
        let calls = self.state.withLock { state -> AsyncStream<AcceptedCall>.Continuation? in
            guard state.listenerIsClosed, state.connections.isEmpty else { return nil }
            return state.calls
        }
        calls?.finish()
    }
}

extension TransportLimits {
    /// How much may wait in a socket's queue before it counts as not writable.
    static let waterMark = ChannelOptions.Types.WriteBufferWaterMark(low: 1 << 18, high: 1 << 20)

    /// Reads small at first and as large as the limits allow when much arrives.
    var readAllocator: AdaptiveRecvByteBufferAllocator {
        let maximum = max(2_048, self.readBufferBytes)
        return AdaptiveRecvByteBufferAllocator(minimum: 2_048, initial: min(16_384, maximum), maximum: maximum)
    }
}
