// SPDX-License-Identifier: Apache-2.0

import NIOCore
import NIOPosix
import RPCCore
import RPCTransport
import Synchronization
import Testing

@Suite("Faults over loopback", .timeLimit(.minutes(1)))
struct FaultTests {
    /// A method that never answers; tells when it began and when it was cancelled.
    private static func hang(_ began: Signal, _ cancelled: Signal) -> ServiceMethod {
        .unaryOnEventLoop(Methods.hang) { _, context, _ in
            context.onCancel { cancelled.fire() }
            began.fire()
        }
    }

    // MARK: - Deadlines

    @Test("a deadline ends the call on both sides")
    func deadline() async throws {
        let began = Signal()
        let cancelled = Signal()
        let deadlines = Mutex<[ContinuousClock.Instant?]>([])
        let method = ServiceMethod.unaryOnEventLoop(Methods.hang) { _, context, _ in
            deadlines.withLock { $0.append(context.deadline) }
            context.onCancel { cancelled.fire() }
            began.fire()
        }
        try await withPair([method, echo]) { channel in
            _ = try await channel.unary(Methods.echo, Payload(number(1)), options: .waiting)
            let start = ContinuousClock.now
            let error = await rpcError {
                try await channel.unary(Methods.hang, Payload(number(1)), options: .waiting(.milliseconds(400)))
            }
            #expect(error?.code == .deadlineExceeded)
            #expect(ContinuousClock.now - start >= .milliseconds(400))
            await cancelled.wait()
            #expect(began.count == 1)
            let deadline = try #require(deadlines.withLock { $0.first } ?? nil)
            #expect(deadline > start)
        }
    }

    @Test("a deadline that has passed is not sent")
    func passedDeadline() async throws {
        let began = Signal()
        try await withPair([Self.hang(began, Signal()), echo]) { channel in
            _ = try await channel.unary(Methods.echo, Payload(number(1)), options: .waiting)
            let error = await rpcError {
                try await channel.unary(Methods.hang, Payload(number(1)), options: .waiting(.milliseconds(-1)))
            }
            #expect(error?.code == .deadlineExceeded)
            #expect(began.count == 0)
        }
    }

    @Test("the server ends a call at its deadline when the client does not")
    func serverDeadline() async throws {
        let cancelled = Signal()
        try await withServer([Self.hang(Signal(), cancelled)]) { _, port in
            let peer = try await RawPeer.connect(port: port)
            // In one piece: the handler has to begin before the deadline, however slow the machine is.
            var request = RawPeer.preface
            request.writeImmutableBuffer(RawPeer.headers(path: "/test.Echo/Hang", extra: [("grpc-timeout", "30m")]))
            request.writeImmutableBuffer(RawPeer.data([0, 0, 0, 0, 0], endStream: true))
            try await peer.send(request)
            await cancelled.wait()
            try await peer.waitForFrame(type: 3)
            try await peer.close()
        }
    }

    @Test("a call that waits for a connection ends at its deadline")
    func waitingDeadline() async throws {
        let port = try await unusedPort()
        try await withChannel(port: port) { channel in
            let error = await rpcError {
                try await channel.unary(Methods.echo, Payload(number(1)), options: .waiting(.milliseconds(30)))
            }
            #expect(error?.code == .deadlineExceeded)
        }
    }

    // MARK: - Cancellation

    @Test("cancelling a call tells the server", arguments: ["task", "handle"])
    func cancellation(how: String) async throws {
        let began = Signal()
        let cancelled = Signal()
        try await withPair([Self.hang(began, cancelled)]) { channel in
            let result: RPCError?
            if how == "task" {
                let task = Task { await rpcError { try await channel.unary(Methods.hang, Payload(number(1)), options: .waiting) } }
                await began.wait()
                task.cancel()
                result = await task.value
            } else {
                let codes = Mutex<[RPCError]>([])
                let done = Signal()
                let handle = channel.unary(Methods.hang, Payload(number(1)), options: .waiting) { outcome in
                    if case .failure(let error) = outcome { codes.withLock { $0.append(error) } }
                    done.fire()
                }
                await began.wait()
                handle.cancel()
                handle.cancel()
                await done.wait()
                #expect(codes.withLock { $0.count } == 1)
                result = codes.withLock { $0.first }
            }
            #expect(result?.code == .cancelled)
            await cancelled.wait()
            #expect(cancelled.count == 1)
        }
    }

    @Test("a handler's task is cancelled when the caller leaves a stream")
    func handlerTask() async throws {
        let ended = Signal()
        let thrown = Mutex<RPCError?>(nil)
        let method = ServiceMethod.serverStreaming(Methods.count) { _, _, writer in
            defer { ended.fire() }
            do {
                while true { try await writer.write(Payload(pattern(10_000))) }
            } catch {
                thrown.withLock { $0 = error as? RPCError }
                throw error
            }
        }
        try await withPair([method]) { channel in
            do {
                var responses = channel.serverStreaming(Methods.count, Payload(number(1)), options: .waiting)
                    .makeAsyncIterator()
                _ = try await responses.next()
            }
            await ended.wait()
            #expect(thrown.withLock { $0?.code } == .cancelled)
        }
    }

    // MARK: - Backpressure

    @Test("a reader that stops suspends the writer")
    func slowReader() async throws {
        let written = Mutex(0)
        let method = ServiceMethod.serverStreaming(Methods.count) { _, _, writer in
            for _ in 0..<200 {
                try await writer.write(Payload(pattern(64 << 10)))
                written.withLock { $0 += 1 }
            }
        }
        let limits = TransportLimits(streamWindowBytes: 256 << 10)
        try await withPair(client: .quick { $0.limits = limits }, [method, echo]) { channel in
            var responses = channel.serverStreaming(Methods.count, Payload(number(1)), options: .waiting).makeAsyncIterator()
            let first = try await responses.next()
            #expect(first?.readableBytes == 64 << 10)
            // Other calls go on meanwhile; after many round trips the writer stands still all the same.
            var last = -1
            var still = 0
            while still < 20 {
                _ = try await channel.unary(Methods.echo, Payload(number(1)))
                let now = written.withLock { $0 }
                still = now == last ? still + 1 : 0
                last = now
            }
            // Window, write buffer and a message on either side.
            #expect(last <= 4 + 1 + 3)
            var received = 1
            while try await responses.next() != nil { received += 1 }
            #expect(received == 200)
        }
    }

    @Test("a handler that does not read suspends the sender")
    func slowHandler() async throws {
        let go = Signal()
        let method = ServiceMethod.clientStreaming(Methods.sum) { requests, _ in
            await go.wait()
            var total: UInt32 = 0
            for try await message in requests { total += UInt32(message.readableBytes) }
            return Payload(number(total))
        }
        let limits = TransportLimits(streamWindowBytes: 256 << 10)
        try await withPair(server: limits, [method, echo]) { channel in
            let written = Signal()
            let call = channel.clientStreaming(Methods.sum, options: .waiting)
            try await withThrowingTaskGroup(of: Void.self) { group in
                group.addTask {
                    for _ in 0..<200 {
                        try await call.requests.write(Payload(pattern(64 << 10)))
                        written.fire()
                    }
                    call.requests.finish()
                }
                var last = -1
                var still = 0
                while still < 20 {
                    _ = try await channel.unary(Methods.echo, Payload(number(1)), options: .waiting)
                    let now = written.count
                    still = now == last ? still + 1 : 0
                    last = now
                }
                #expect(last <= 4 + 1 + 3)
                go.fire()
                let reply = try await call.response()
                #expect(reply.message == number(200 * (64 << 10)))
                try await group.waitForAll()
            }
        }
    }

    // MARK: - Connections

    @Test("no connection fails calls at once, and they never left")
    func refused() async throws {
        let port = try await unusedPort()
        let states = Mutex<[RPCChannel.State]>([])
        let failed = Signal()
        try await withChannel(
            port: port,
            onStateChange: { state in
                states.withLock { $0.append(state) }
                if state == .transientFailure { failed.fire() }
            }
        ) { channel in
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
        let port = try await withServer(grace: .milliseconds(1), [Self.hang(began, cancelled)]) { server, port in
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

    @Test("a drain finishes calls under way, refuses others, and the channel reconnects elsewhere")
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

    @Test("a server that cannot listen says so to everybody")
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
            methods: [Self.hang(began, cancelled)],
            logger: quietLogger
        )
        let running = Task { try await server.run() }
        let port = try await server.boundAddress().port
        try await withChannel(port: port) { channel in
            let call = Task { await rpcError { try await channel.unary(Methods.hang, Payload(number(1)), options: .waiting) } }
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
