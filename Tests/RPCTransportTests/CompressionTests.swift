// SPDX-License-Identifier: Apache-2.0

import NIOCore
import RPCCore
import Synchronization
import Testing

@testable import RPCTransport

@Suite("Compressed messages", .timeLimit(.minutes(10)))
struct CompressionTests {
    @Test("come out unchanged", arguments: [1, 2, 100, 20_000, 300_000, 5_000_000])
    func roundTrip(count: Int) throws {
        let message = pattern(count)
        let halves = [
            message.getSlice(at: 0, length: count / 2), message.getSlice(at: count / 2, length: count - count / 2),
        ]
        let compressed = Gzip.compressed(Payload(segments: halves.compactMap { $0 }))
        guard let compressed else {
            #expect(count <= 100, "a pattern of \(count) bytes gets smaller")
            return
        }
        #expect(compressed.readableBytes < count)
        #expect(try Gzip.decompressed(compressed, limitBytes: count) == message)
        let error = #expect(throws: RPCError.self) { try Gzip.decompressed(compressed, limitBytes: count - 1) }
        #expect(error?.code == .resourceExhausted)
    }

    @Test("that do not get smaller are not compressed")
    func incompressible() {
        var generator = SystemRandomNumberGenerator()
        let noise = ByteBuffer(bytes: (0..<50_000).map { _ in UInt8.random(in: 0...255, using: &generator) })
        #expect(Gzip.compressed(Payload(noise)) == nil)
        #expect(Gzip.compressed(Payload(ByteBuffer())) == nil)
    }

    @Test(
        "that are not gzip, end too early, continue after their end or blow up fail with a status, within the memory limit"
    )
    func faults() throws {
        let good = try #require(Gzip.compressed(Payload(pattern(10_000))))
        for length in 0..<good.readableBytes {
            let cut = try #require(good.getSlice(at: 0, length: length))
            let error = #expect(throws: RPCError.self) { try Gzip.decompressed(cut, limitBytes: 20_000) }
            #expect(error?.code == .internal)
        }
        var longer = good
        longer.writeInteger(UInt8(0))
        #expect(throws: RPCError.self) { try Gzip.decompressed(longer, limitBytes: 20_000) }
        #expect(throws: RPCError.self) { try Gzip.decompressed(pattern(500), limitBytes: 20_000) }
        // A hundred megabytes of nothing in a hundred kilobytes.
        let bomb = try #require(Gzip.compressed(Payload(ByteBuffer(repeating: 0, count: 100 << 20))))
        #expect(bomb.readableBytes < 1 << 20)
        let error = #expect(throws: RPCError.self) { try Gzip.decompressed(bomb, limitBytes: 4 << 20) }
        #expect(error?.code == .resourceExhausted)
    }

    @Test("go both ways where both sides enable them, and are never forced on a caller")
    func calls() async throws {
        let encodings = Mutex<[String?]>([])
        let method = ServiceMethod.unary(Methods.echo) { message, context in
            encodings.withLock { $0.append(context.request.head?.encoding) }
            return Payload(message)
        }
        let server = RPCServer(
            configuration: RPCServerConfiguration(compression: .gzip(minimumBytes: 1_000)),
            methods: [method, chat],
            logger: quietLogger
        )
        try await withThrowingTaskGroup(of: Void.self) { tasks in
            tasks.addTask { try await server.run() }
            let port = try await server.boundAddress().port
            for compression in [MessageCompression.none, .gzip(minimumBytes: 1), .gzip(minimumBytes: 100_000)] {
                try await withChannel(port: port, .quick { $0.compression = compression }) { channel in
                    for size in [0, 10, 5_000, 200_000] {
                        let reply = try await channel.unary(Methods.echo, Payload(pattern(size)), options: .waiting)
                        #expect(reply.message == pattern(size))
                    }
                    let call = channel.bidirectional(Methods.chat, options: .waiting)
                    for size in [3_000, 1, 70_000] { try await call.requests.write(Payload(pattern(size))) }
                    call.requests.finish()
                    var sizes: [Int] = []
                    for try await message in call.responses { sizes.append(message.readableBytes) }
                    #expect(sizes == [3_000, 1, 70_000])
                }
            }
            server.beginGracefulShutdown()
            try await tasks.waitForAll()
        }
        #expect(encodings.withLock { $0 } == Array(repeating: nil, count: 4) + Array(repeating: "gzip", count: 8))
    }

    @Test("larger than the limit when decompressed end the call, not the connection")
    func bomb() async throws {
        let limits = TransportLimits(maxReceiveMessageBytes: 100_000)
        try await withPair(
            server: limits,
            client: .quick { $0.compression = .gzip(minimumBytes: 1) },
            [echo]
        ) { channel in
            let error = await #expect(throws: RPCError.self) {
                try await channel.unary(
                    Methods.echo,
                    Payload(ByteBuffer(repeating: 1, count: 1 << 20)),
                    options: .waiting
                )
            }
            #expect(error?.code == .resourceExhausted)
            let reply = try await channel.unary(Methods.echo, Payload(pattern(1_000)), options: .waiting)
            #expect(reply.message == pattern(1_000))
        }
    }
}
