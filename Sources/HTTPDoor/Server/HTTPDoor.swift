// SPDX-License-Identifier: Apache-2.0

internal import HummingbirdCore
public import Logging
internal import NIOCore
internal import NIOPosix
internal import RPCTransport
internal import Synchronization

/// HTTP and JSON in front of a gateway: OpenAI's dialect, text-generation-inference's and the gateway's own.
///
/// Every request takes the way of a call over gRPC: the same limits, queue, fair turns, drop policies and cancellation.
public final class HTTPDoor: Sendable {
    private struct State {
        var address: Result<(host: String, port: Int), any Error>?
        var waiters: [CheckedContinuation<(host: String, port: Int), any Error>] = []
        var isClosing = false
        var closing: AsyncStream<Never>.Continuation?
    }

    private let configuration: DoorConfiguration
    let responder: DoorResponder
    let connections: DoorConnections
    private let logger: Logger
    private let state = Mutex(State())

    /// Creates a door; ``run()`` opens it.
    ///
    /// - Parameters:
    ///   - configuration: Where it listens and what its connections may hold.
    ///   - backend: The gateway.
    ///   - logger: Logs where it listens and whom it refuses.
    public init(configuration: DoorConfiguration, backend: any DoorBackend, logger: Logger) {
        self.configuration = configuration
        let counts = DoorCounts()
        self.connections = DoorConnections(configuration, counts: counts)
        self.logger = logger
        self.responder = DoorResponder(
            backend: backend,
            configuration: configuration,
            connections: self.connections,
            counts: counts,
            logger: logger
        )
    }

    /// The address that the door listens on, once it does.
    ///
    /// - Returns: The host as text and the port.
    /// - Throws: What prevented it from listening.
    public func boundAddress() async throws -> (host: String, port: Int) {
        try await withCheckedThrowingContinuation { continuation in
            let known = self.state.withLock { state in
                if state.address == nil { state.waiters.append(continuation) }
                return state.address
            }
            if let known { continuation.resume(with: known) }
        }
    }

    /// Takes no new connections and lets requests finish; then ``run()`` returns.
    public func beginDraining() {
        let closing = self.state.withLock { state in
            state.isClosing = true
            return state.closing
        }
        closing?.finish()
    }

    /// Listens and answers until the door has been closed, or the task is cancelled.
    ///
    /// - Throws: `ListenError` where the address cannot be listened on.
    public func run() async throws {
        let (closing, source) = AsyncStream.makeStream(of: Never.self)
        let isClosing = self.state.withLock { state in
            state.closing = source
            return state.isClosing
        }
        if isClosing { source.finish() }
        self.configuration.reservation?.release()
        let responder = self.responder
        let server = Server(
            childChannelSetup: DoorChannel(self.configuration, self.connections, responder.counts) {
                try await responder.respond(to: $0, $1, on: $2)
            },
            configuration: ServerConfiguration(
                address: .hostname(self.configuration.host, port: self.configuration.port),
                backlog: 1_024
            ),
            onServerRunning: { channel in self.isListening(channel) },
            eventLoopGroup: MultiThreadedEventLoopGroup.singleton,
            logger: Self.quiet(self.logger)
        )
        do {
            try await self.serve(server, until: closing)
        } catch {
            let failure = ListenError(
                error,
                host: self.configuration.host,
                port: self.configuration.port,
                setting: "http-listen"
            )
            self.resolve(.failure(failure))
            throw failure
        }
        self.resolve(.failure(CancellationError()))
    }

    private func serve(_ server: Server<DoorChannel>, until closing: AsyncStream<Never>) async throws {
        try await withTaskCancellationHandler {
            try await withThrowingTaskGroup(of: Bool.self) { group in
                group.addTask {
                    try await server.run()
                    return true
                }
                group.addTask {
                    for await _ in closing {}
                    guard !Task.isCancelled else { return false }
                    try? await server.shutdownGracefully()
                    return false
                }
                group.addTask {
                    for await _ in closing {}
                    try? await Task.sleep(for: self.configuration.drainTimeout)
                    // Clients that are not done by now are cut off.
                    self.connections.closeAll()
                    return false
                }
                group.addTask {
                    await self.responder.bodies.run()
                    return false
                }
                for try await isServer in group where isServer { group.cancelAll() }
            }
        } onCancel: {
            self.connections.closeAll()
        }
    }

    private func isListening(_ channel: any Channel) {
        let address = (
            host: channel.localAddress?.ipAddress ?? self.configuration.host,
            port: channel.localAddress?.port ?? self.configuration.port
        )
        self.logger.info("HTTP is served", metadata: ["address": "\(address.host):\(address.port)"])
        self.resolve(.success(address))
    }

    private func resolve(_ address: Result<(host: String, port: Int), any Error>) {
        let (known, waiters) = self.state.withLock { state in
            let known = state.address ?? address
            state.address = known
            defer { state.waiters = [] }
            return (known, state.waiters)
        }
        for waiter in waiters { waiter.resume(with: known) }
    }

    /// What the library says of every connection is for debugging alone.
    private static func quiet(_ logger: Logger) -> Logger {
        var logger = logger
        if logger.logLevel != .trace { logger.logLevel = max(logger.logLevel, .warning) }
        return logger
    }
}
