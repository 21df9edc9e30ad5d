// SPDX-License-Identifier: Apache-2.0

import Logging
import NIOCore
import NIOPosix
import RPCCore
import RPCTransport
import Synchronization
import Testing

let quietLogger = Logger(label: "test") { _ in SwiftLogNoOpLogHandler() }

/// Runs a server on a free port and gives its port to the body; drains it afterwards.
func withServer<Result>(
    limits: TransportLimits = .defaults,
    timing: ConnectionTiming = .defaults,
    grace: Duration = .seconds(5),
    group: (any EventLoopGroup)? = nil,
    security: ServerSecurity = .plaintext,
    authorize: (@Sendable (ServerContext) -> RPCError?)? = nil,
    admit: (@Sendable (ServerContext) -> RPCError?)? = nil,
    probeServices: Set<String> = [],
    logger: Logger = quietLogger,
    _ methods: [ServiceMethod],
    _ body: (RPCServer, Int) async throws -> Result
) async throws -> Result {
    var configuration = RPCServerConfiguration(
        eventLoopGroup: group,
        limits: limits,
        timing: timing,
        drainGrace: grace,
        security: security,
        authorize: authorize
    )
    configuration.admit = admit
    configuration.probeServices = probeServices
    let server = RPCServer(configuration: configuration, methods: methods, logger: logger)
    return try await withThrowingTaskGroup(of: Void.self) { tasks in
        tasks.addTask { try await server.run() }
        let port = try await server.boundAddress().port
        let outcome: Swift.Result<Result, any Error>
        do { outcome = .success(try await body(server, port)) } catch { outcome = .failure(error) }
        server.beginGracefulShutdown()
        try await tasks.waitForAll()
        return try outcome.get()
    }
}

/// Which event loop carries a test's channels that name none.
enum ClientLoops {
    @TaskLocal static var driven: DrivenEventLoop?

    static func applied(to configuration: RPCChannelConfiguration) -> RPCChannelConfiguration {
        guard let loop = Self.driven, configuration.eventLoopGroup == nil else { return configuration }
        var configuration = configuration
        configuration.eventLoopGroup = loop
        return configuration
    }
}

/// Runs a channel to a port and gives it to the body; shuts it down afterwards.
func withChannel<Result>(
    port: Int,
    _ configuration: RPCChannelConfiguration = .quick,
    logger: Logger = quietLogger,
    onStateChange: (@Sendable (RPCChannel.State) -> Void)? = nil,
    _ body: (RPCChannel) async throws -> Result
) async throws -> Result {
    let channel = RPCChannel(
        target: ("127.0.0.1", port),
        configuration: ClientLoops.applied(to: configuration),
        logger: logger,
        onStateChange: onStateChange
    )
    return try await withThrowingTaskGroup(of: Void.self) { tasks in
        tasks.addTask { try await channel.run() }
        let outcome: Swift.Result<Result, any Error>
        do { outcome = .success(try await body(channel)) } catch { outcome = .failure(error) }
        channel.shutdown()
        try await tasks.waitForAll()
        return try outcome.get()
    }
}

/// A server and a channel to it.
func withPair<Result>(
    server limits: TransportLimits = .defaults,
    client configuration: RPCChannelConfiguration = .quick,
    _ methods: [ServiceMethod],
    _ body: (RPCChannel) async throws -> Result
) async throws -> Result {
    try await withServer(limits: limits, methods) { _, port in
        try await withChannel(port: port, configuration) { try await body($0) }
    }
}

extension RPCChannelConfiguration {
    /// Reconnects fast, so that tests which restart servers are fast.
    static var quick: RPCChannelConfiguration {
        RPCChannelConfiguration(reconnect: ReconnectPolicy(initial: .milliseconds(10), maximum: .milliseconds(50)))
    }

    static func quick(_ change: (inout RPCChannelConfiguration) -> Void) -> RPCChannelConfiguration {
        var configuration = RPCChannelConfiguration.quick
        change(&configuration)
        return configuration
    }
}

extension CallOptions {
    /// Waits for the connection.
    static var waiting: CallOptions { CallOptions(waitForReady: true) }

    static func waiting(_ timeout: Duration) -> CallOptions {
        CallOptions(deadline: .now + timeout, waitForReady: true)
    }
}

enum Methods {
    static let echo = Method(service: "test.Echo", name: "Echo")
    static let loopEcho = Method(service: "test.Echo", name: "LoopEcho")
    static let count = Method(service: "test.Echo", name: "Count")
    static let sum = Method(service: "test.Echo", name: "Sum")
    static let chat = Method(service: "test.Echo", name: "Chat")
    static let missing = Method(service: "test.Echo", name: "Missing")
    static let hang = Method(service: "test.Echo", name: "Hang")
    static let fail = Method(service: "test.Echo", name: "Fail")
}

let echo = ServiceMethod.unary(Methods.echo) { message, _ in Payload(message) }
let loopEcho = ServiceMethod.unaryOnEventLoop(Methods.loopEcho) { message, _, responder in
    responder.finish(.success(Payload(message)))
}
/// Answers with as many messages as the number in the request.
let count = ServiceMethod.serverStreaming(Methods.count) { message, _, writer in
    let limit = message.getInteger(at: message.readerIndex, as: UInt32.self) ?? 0
    for index in 0..<limit { try await writer.write(Payload(number(index))) }
}
let sum = ServiceMethod.clientStreaming(Methods.sum) { requests, _ in
    var total: UInt32 = 0
    for try await message in requests { total += message.getInteger(at: message.readerIndex, as: UInt32.self) ?? 0 }
    return Payload(number(total))
}
let chat = ServiceMethod.bidirectional(Methods.chat) { requests, _, writer in
    for try await message in requests { try await writer.write(Payload(message)) }
}

func number(_ value: UInt32) -> ByteBuffer { ByteBuffer(integer: value) }

func pattern(_ count: Int, seed: Int = 0) -> ByteBuffer {
    var buffer = ByteBufferAllocator().buffer(capacity: count)
    buffer.writeBytes((0..<min(count, 4_096)).map { UInt8(truncatingIfNeeded: ($0 &+ seed) &* 31) })
    while buffer.readableBytes < count {
        let part =
            buffer.getSlice(at: 0, length: min(buffer.readableBytes, count - buffer.readableBytes)) ?? ByteBuffer()
        buffer.writeImmutableBuffer(part)
    }
    return buffer
}

/// Remembers that something happened, and lets a test wait for it.
final class Signal: Sendable {
    private let state = Mutex<(fired: Int, waiters: [CheckedContinuation<Void, Never>])>((0, []))

    var count: Int { self.state.withLock { $0.fired } }

    func fire() {
        let waiters = self.state.withLock { state in
            state.fired += 1
            defer { state.waiters = [] }
            return state.waiters
        }
        for waiter in waiters { waiter.resume() }
    }

    func wait() async {
        await withCheckedContinuation { continuation in
            let fired = self.state.withLock { state in
                if state.fired == 0 { state.waiters.append(continuation) }
                return state.fired > 0
            }
            if fired { continuation.resume() }
        }
    }
}

/// The error that an expression throws, as an ``RPCError``.
func rpcError(_ body: () async throws -> some Any) async -> RPCError? {
    do {
        _ = try await body()
        return nil
    } catch {
        return error as? RPCError
    }
}

/// A method that never answers; tells when it began and when it was cancelled.
func hang(_ began: Signal, _ cancelled: Signal) -> ServiceMethod {
    .unaryOnEventLoop(Methods.hang) { _, context, _ in
        context.onCancel { cancelled.fire() }
        began.fire()
    }
}
