// SPDX-License-Identifier: Apache-2.0

import NIOCore
import RPCCore
import Synchronization
import Testing

@testable import RPCTransport

@Suite("What a call leaves behind", .timeLimit(.minutes(10)))
struct LifetimeTests {
    /// A server's call, seen without keeping it.
    ///
    /// A call owns what its handler shares with it, and nothing else outlives the call that does.
    private final class Witness: Sendable {
        private struct State {
            weak var shared: ServerCallShared?
            var seen = 0
        }

        private let state = Mutex(State())

        func note(_ context: ServerContext) {
            self.state.withLock {
                $0.shared = context.shared
                $0.seen += 1
            }
        }

        var seen: Int { self.state.withLock { $0.seen } }
        var isFreed: Bool { self.state.withLock { $0.shared == nil } }
    }

    private static let number = ByteBuffer(integer: UInt32(3))

    /// Calls a method of each streaming shape, once, and says what is left when the server has gone.
    @Test("a streaming call is freed when it is over", arguments: [CallShape.serverStreaming, .clientStreaming])
    func streaming(shape: CallShape) async throws {
        let witness = Witness()
        let down = ServiceMethod.serverStreaming(Method(service: "test", name: "Down")) { message, context, writer in
            witness.note(context)
            for _ in 0..<3 { try await writer.write(Payload(message)) }
        }
        let up = ServiceMethod.clientStreaming(Method(service: "test", name: "Up")) { messages, context in
            witness.note(context)
            var last = ByteBuffer()
            for try await message in messages { last = message }
            return Payload(last)
        }
        try await withPair([down, up]) { channel in
            if shape == .serverStreaming {
                for try await _ in channel.serverStreaming(down.method, Payload(Self.number), options: .waiting) {}
            } else {
                let call = channel.clientStreaming(up.method, options: .waiting)
                try await call.requests.write(Payload(Self.number))
                call.requests.finish()
                _ = try await call.response()
            }
        }
        #expect(witness.seen == 1)
        // The server has drained; what its last tasks still hold goes as soon as they have run to their ends.
        while !witness.isFreed { await Task.yield() }
    }
}
