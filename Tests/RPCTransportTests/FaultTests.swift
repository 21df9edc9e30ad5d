// SPDX-License-Identifier: Apache-2.0

import NIOCore
import NIOPosix
import RPCCore
import RPCTransport
import Synchronization
import Testing

@Suite("Faults over loopback", .timeLimit(.minutes(10)))
struct FaultTests {
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
        try await withPair([hang(began, Signal()), echo]) { channel in
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
        try await withServer([hang(Signal(), cancelled)]) { _, port in
            let peer = try await RawPeer.connect(port: port)
            // In one piece: the handler has to begin before the deadline, however slow the machine is.
            var request = RawPeer.preface
            request.writeImmutableBuffer(RawPeer.headers(path: "/test.Echo/Hang", extra: [("grpc-timeout", "30m")]))
            request.writeImmutableBuffer(RawPeer.data([0, 0, 0, 0, 0], endStream: true))
            try await peer.send(request)
            await cancelled.wait()
            // Trailers with END_STREAM and END_HEADERS, since a reset would pass for a cancellation.
            let trailers = try await peer.waitForFrame(type: 1)
            #expect(trailers.flags == 5)
            try await peer.close()
        }
    }

    @Test("at the deadline of a call whose client does not read, the stream is reset")
    func serverDeadlineBehindFlowControl() async throws {
        // More than the first window of a client that raises none.
        let flood = ServiceMethod.serverStreaming(Methods.count) { _, _, writer in
            while true { try await writer.write(Payload(pattern(30_000))) }
        }
        try await withServer([flood]) { _, port in
            let peer = try await RawPeer.connect(port: port)
            var request = RawPeer.preface
            request.writeImmutableBuffer(RawPeer.headers(path: "/test.Echo/Count", extra: [("grpc-timeout", "200m")]))
            request.writeImmutableBuffer(RawPeer.data([0, 0, 0, 0, 0], endStream: true))
            try await peer.send(request)
            let reset = try await peer.waitForFrame(type: 3)
            #expect(reset.payload.getInteger(at: reset.payload.readerIndex, as: UInt32.self) == 8)
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
        try await withPair([hang(began, cancelled)]) { channel in
            let result: RPCError?
            if how == "task" {
                let task = Task {
                    await rpcError { try await channel.unary(Methods.hang, Payload(number(1)), options: .waiting) }
                }
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
            var responses = channel.serverStreaming(Methods.count, Payload(number(1)), options: .waiting)
                .makeAsyncIterator()
            let first = try await responses.next()
            #expect(first?.readableBytes == 64 << 10)
            // Other calls go on meanwhile; after many round trips the writer is still suspended.
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
}
