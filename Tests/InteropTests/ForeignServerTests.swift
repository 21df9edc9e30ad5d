// SPDX-License-Identifier: Apache-2.0

import NIOCore
import PeerTools
import RPCCore
import RPCTransport
import Testing

@testable import InteropCases

private let hasPython = Peers.mayRun(Peers.python)

/// What the cases leave out: this project's client at its limits, and when the server leaves.
@Suite(
    "This project's client against python's grpcio",
    .serialized,
    .timeLimit(.minutes(10)),
    .enabled(if: hasPython, "make test sets SWITCHYARD_TEST_PYTHON")
)
struct ForeignServerTests {
    private var options: CallOptions { CallOptions(deadline: .now + .seconds(300), waitForReady: true) }

    /// Runs python's server, on a free port or the given one, and gives its port to the body.
    private func withServer<Result: Sendable>(
        port: Int = 0,
        _ body: @escaping @Sendable (Int) async throws -> Result
    ) async throws -> Result {
        let arguments = ["\(Peers.folder)/interop_server.py", "\(port)"]
        return try await PeerProcess.serve(try Peers.path(Peers.python), arguments, readyPrefix: "listening on ") {
            try await body(try #require(Int($0)))
        }
    }

    private func withChannel(port: Int, _ body: (RPCChannel) async throws -> Void) async throws {
        let channel = RPCChannel(
            target: ("127.0.0.1", port),
            configuration: RPCChannelConfiguration(
                reconnect: ReconnectPolicy(initial: .milliseconds(20), maximum: .milliseconds(100))
            ),
            logger: quietLogger
        )
        try await withThrowingTaskGroup(of: Void.self) { tasks in
            tasks.addTask { try await channel.run() }
            let outcome: Result<Void, any Error>
            do { outcome = .success(try await body(channel)) } catch { outcome = .failure(error) }
            channel.shutdown()
            try await tasks.waitForAll()
            try outcome.get()
        }
    }

    private func unary(_ request: SimpleRequest, _ channel: RPCChannel) async throws -> Int {
        let reply = try await channel.unary(
            InteropMethods.unaryCall,
            Payload(request.serialized),
            options: self.options
        )
        return try SimpleResponse(reading: reply.message).payload?.body.readableBytes ?? 0
    }

    @Test("a response over the limit ends only its call")
    func tooLarge() async throws {
        try await self.withServer { port in
            try await self.withChannel(port: port) { channel async throws in
                let error = await #expect(throws: RPCError.self) {
                    try await self.unary(SimpleRequest(responseSize: 5 << 20, zeros: 0), channel)
                }
                #expect(error?.code == .resourceExhausted)
                #expect(try await self.unary(SimpleRequest(responseSize: 1 << 20, zeros: 0), channel) == 1 << 20)
            }
        }
    }

    @Test("every status and its message come back")
    func statuses() async throws {
        try await self.withServer { port in
            try await self.withChannel(port: port) { channel async throws in
                for code in Status.Code.allCases where code != .ok {
                    var request = SimpleRequest()
                    request.responseStatus = EchoStatus(Int32(code.rawValue), "ü\n\(code.name) 100%")
                    let sent = request
                    let error = await #expect(throws: RPCError.self) { try await self.unary(sent, channel) }
                    #expect(error?.code == code)
                    #expect(error?.message == "ü\n\(code.name) 100%")
                }
            }
        }
    }

    @Test("a reader that falls behind by more than all windows hold still gets everything")
    func slowReader() async throws {
        try await self.withServer { port in
            try await self.withChannel(port: port) { channel async throws in
                let request = StreamingOutputCallRequest(sizes: Array(repeating: 1 << 20, count: 16))
                let responses = channel.serverStreaming(
                    InteropMethods.streamingOutputCall,
                    Payload(request.serialized),
                    options: self.options
                )
                var iterator = responses.makeAsyncIterator()
                _ = try await iterator.next()
                // A call beside it: the stream that waits must not keep the connection from others.
                #expect(try await self.unary(SimpleRequest(responseSize: 314_159, zeros: 271_828), channel) == 314_159)
                var count = 1
                while let message = try await iterator.next() {
                    #expect(try StreamingOutputCallResponse(reading: message).payload?.body.readableBytes == 1 << 20)
                    count += 1
                }
                #expect(count == 16)
            }
        }
    }

    @Test("a status that arrives while the client is still sending ends the call with that status")
    func earlyStatus() async throws {
        try await self.withServer { port in
            try await self.withChannel(port: port) { channel async throws in
                let call = channel.bidirectional(InteropMethods.fullDuplexCall, options: self.options)
                var first = StreamingOutputCallRequest()
                first.responseStatus = EchoStatus(9, "early")
                try await call.requests.write(Payload(first.serialized))
                let filling = Payload(StreamingOutputCallRequest(sizes: [], zeros: 60_000).serialized)
                let error = await #expect(throws: RPCError.self) {
                    // More than the windows take from a client whose server reads no further.
                    for _ in 0..<2_000 { try await call.requests.write(filling) }
                    for try await _ in call.responses {}
                }
                #expect(error?.code == .failedPrecondition)
                #expect(error?.message == "early")
            }
        }
    }

    @Test("a server that leaves in the middle of a stream is UNAVAILABLE, and the next one is found at its address")
    func restart() async throws {
        let port = try await unusedPort()
        try await self.withChannel(port: port) { channel async throws in
            var request = StreamingOutputCallRequest(sizes: [9, 9])
            request.responseParameters[1].intervalMicroseconds = 20_000_000
            // The call waits for the server that is about to start.
            let responses = channel.serverStreaming(
                InteropMethods.streamingOutputCall,
                Payload(request.serialized),
                options: self.options
            )
            let (firstCame, continuation) = AsyncStream.makeStream(of: Void.self)
            let reader = Task { for try await _ in responses { continuation.yield() } }
            try await self.withServer(port: port) { _ in
                for await _ in firstCame { break }
            }
            let error = await #expect(throws: RPCError.self) { try await reader.value }
            #expect(error?.code == .unavailable)
            try await self.withServer(port: port) { _ async throws in
                #expect(try await self.unary(SimpleRequest(responseSize: 9, zeros: 0), channel) == 9)
            }
        }
    }
}
