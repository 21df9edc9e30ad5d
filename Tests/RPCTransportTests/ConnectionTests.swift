// SPDX-License-Identifier: Apache-2.0

import NIOCore
import NIOPosix
import RPCCore
import RPCTransport
import Synchronization
import Testing

@Suite("Connections and drains over loopback", .timeLimit(.minutes(10)))
struct ConnectionTests {
    @Test("without a connection, calls fail at once and were never sent")
    func refused() async throws {
        let port = try await unusedPort()
        let states = Mutex<[RPCChannel.State]>([])
        let failed = Signal()
        let observe: @Sendable (RPCChannel.State) -> Void = { state in
            states.withLock { $0.append(state) }
            if state == .transientFailure { failed.fire() }
        }
        try await withChannel(port: port, onStateChange: observe) { channel in
            await failed.wait()
            let error = await rpcError { try await channel.unary(Methods.echo, Payload(number(1))) }
            #expect(error?.code == .unavailable)
            #expect(error?.isNeverProcessed == true)
            #expect(states.withLock { Array($0.prefix(2)) } == [.connecting, .transientFailure])
        }
        #expect(states.withLock { $0.last } == .shutdown)
    }

    @Test("a drain whose grace has passed ends its calls, each once")
    func abruptClose() async throws {
        let began = Signal()
        let cancelled = Signal()
        let port = try await withServer(grace: .milliseconds(1), [hang(began, cancelled)]) { server, port in
            try await withChannel(port: port) { channel in
                let results = Mutex<[RPCError?]>([])
                let done = Signal()
                for _ in 0..<50 {
                    channel.unary(Methods.hang, Payload(number(1)), options: .waiting) { outcome in
                        let error: RPCError? = if case .failure(let error) = outcome { error } else { nil }
                        let count = results.withLock { results in
                            results.append(error)
                            return results.count
                        }
                        if count == 50 { done.fire() }
                    }
                }
                while began.count < 50 { await Task.yield() }
                server.beginGracefulShutdown()
                await done.wait()
                #expect(results.withLock { $0.count } == 50)
                #expect(results.withLock { $0.allSatisfy { $0?.code == .cancelled } })
                while cancelled.count < 50 { await Task.yield() }
            }
            return port
        }
        #expect(port > 0)
    }

    @Test("a lost connection completes all its calls at once, each once")
    func connectionLoss() async throws {
        // A server of bytes alone: it answers the handshake, reads, and drops the connection.
        let group = MultiThreadedEventLoopGroup.singleton
        let began = Signal()
        let listener = try await ServerBootstrap(group: group)
            .childChannelInitializer { channel in
                channel.eventLoop.makeCompletedFuture {
                    try channel.pipeline.syncOperations.addHandler(DroppingServer(dropAfterHeaders: 50, began))
                }
            }
            .bind(host: "127.0.0.1", port: 0)
            .get()
        try await withChannel(port: listener.localAddress?.port ?? 0) { channel in
            let results = Mutex<[RPCError?]>([])
            let done = Signal()
            for _ in 0..<50 {
                channel.unary(Methods.hang, Payload(number(1)), options: .waiting) { outcome in
                    let error: RPCError? = if case .failure(let error) = outcome { error } else { nil }
                    let count = results.withLock { results in
                        results.append(error)
                        return results.count
                    }
                    if count == 50 { done.fire() }
                }
            }
            await done.wait()
            #expect(results.withLock { $0.count } == 50)
            #expect(results.withLock { $0.allSatisfy { $0?.code == .unavailable } })
            #expect(began.count > 0)
        }
        try await listener.close()
    }

    @Test("a drain finishes calls in flight, refuses others, and the channel reconnects elsewhere")
    func drain() async throws {
        let began = Signal()
        let release = Signal()
        let method = ServiceMethod.unary(Methods.hang) { message, _ in
            began.fire()
            await release.wait()
            return Payload(message)
        }
        try await withServer(grace: .seconds(50), [method, echo]) { server, port in
            try await withChannel(port: port) { channel in
                let slow = Task { try await channel.unary(Methods.hang, Payload(number(9)), options: .waiting) }
                await began.wait()
                server.beginGracefulShutdown()
                // New calls fail sooner or later, and are known not to have run.
                var refused: RPCError?
                while refused == nil {
                    refused = await rpcError { try await channel.unary(Methods.echo, Payload(number(1))) }
                }
                #expect(refused?.code == .unavailable)
                #expect(refused?.isNeverProcessed == true)
                release.fire()
                let reply = try await slow.value
                #expect(reply.message == number(9))
            }
        }
    }

    @Test("the channel reconnects when its server comes back")
    func reconnect() async throws {
        let port = try await unusedPort()
        try await withChannel(port: port) { channel in
            for round in 0..<2 {
                let server = RPCServer(
                    configuration: RPCServerConfiguration(port: port, drainGrace: .seconds(1)),
                    methods: [echo],
                    logger: quietLogger
                )
                try await withThrowingTaskGroup(of: Void.self) { group in
                    group.addTask { try await server.run() }
                    let reply = try await channel.unary(Methods.echo, Payload(number(UInt32(round))), options: .waiting)
                    #expect(reply.message == number(UInt32(round)))
                    server.beginGracefulShutdown()
                    try await group.waitForAll()
                }
            }
        }
    }

    @Test("calls beyond the server's stream limit wait for their turn")
    func streamLimit() async throws {
        let running = Mutex((now: 0, most: 0))
        let method = ServiceMethod.unary(Methods.echo) { message, _ in
            running.withLock {
                $0.now += 1
                $0.most = max($0.most, $0.now)
            }
            for _ in 0..<5 { await Task.yield() }
            running.withLock { $0.now -= 1 }
            return Payload(message)
        }
        try await withPair(server: TransportLimits(maxConcurrentStreams: 4), [method]) { channel in
            try await withThrowingTaskGroup(of: Void.self) { group in
                for index in 0..<UInt32(100) {
                    group.addTask {
                        let reply = try await channel.unary(Methods.echo, Payload(number(index)), options: .waiting)
                        #expect(reply.message == number(index))
                    }
                }
                try await group.waitForAll()
            }
        }
        #expect(running.withLock { $0.most } <= 4)
    }

    @Test("a server that cannot listen tells every caller")
    func portInUse() async throws {
        try await withServer([echo]) { _, port in
            let second = RPCServer(
                configuration: RPCServerConfiguration(port: port),
                methods: [],
                logger: quietLogger
            )
            await #expect(throws: (any Error).self) { try await second.run() }
            await #expect(throws: (any Error).self) { try await second.boundAddress() }
        }
    }

    @Test("cancelling the server's task ends calls and the server")
    func serverCancelled() async throws {
        let began = Signal()
        let cancelled = Signal()
        let server = RPCServer(
            configuration: RPCServerConfiguration(),
            methods: [hang(began, cancelled)],
            logger: quietLogger
        )
        let running = Task { try await server.run() }
        let port = try await server.boundAddress().port
        try await withChannel(port: port) { channel in
            let call = Task {
                await rpcError { try await channel.unary(Methods.hang, Payload(number(1)), options: .waiting) }
            }
            await began.wait()
            running.cancel()
            let error = await call.value
            #expect(error?.code == .cancelled || error?.code == .unavailable)
            await cancelled.wait()
            try await running.value
        }
    }
}

/// A port that was free a moment ago.
func unusedPort() async throws -> Int {
    let channel = try await ServerBootstrap(group: MultiThreadedEventLoopGroup.singleton)
        .serverChannelOption(.socketOption(.so_reuseaddr), value: 1)
        .bind(host: "127.0.0.1", port: 0)
        .get()
    let port = channel.localAddress?.port ?? 0
    try await channel.close()
    return port
}

/// Speaks just enough HTTP/2 to get calls, then drops the connection.
private final class DroppingServer: ChannelInboundHandler {
    typealias InboundIn = ByteBuffer
    typealias OutboundOut = ByteBuffer

    private var missing: Int
    private let began: Signal
    private var buffer = ByteBuffer()
    private var sawPreface = false

    init(dropAfterHeaders count: Int, _ began: Signal) {
        self.missing = count
        self.began = began
    }

    func channelActive(context: ChannelHandlerContext) {
        context.writeAndFlush(self.wrapOutboundOut(RawPeer.frame(type: 4)), promise: nil)
    }

    func channelRead(context: ChannelHandlerContext, data: NIOAny) {
        self.buffer.writeImmutableBuffer(self.unwrapInboundIn(data))
        if !self.sawPreface {
            guard self.buffer.readableBytes >= 24 else { return }
            self.buffer.moveReaderIndex(forwardBy: 24)
            self.sawPreface = true
        }
        while let head = self.buffer.getInteger(at: self.buffer.readerIndex, as: UInt32.self) {
            let length = Int(head >> 8)
            guard self.buffer.readableBytes >= 9 + length else { return }
            self.buffer.moveReaderIndex(forwardBy: 9 + length)
            if head & 0xff == 1 {
                self.missing -= 1
                self.began.fire()
            }
            if self.missing == 0 {
                context.close(promise: nil)
                return
            }
        }
    }
}
