// SPDX-License-Identifier: Apache-2.0

import NIOCore
import RPCCore
import Testing

@testable import RPCTransport

private let start = ContinuousClock.now

private func at(_ milliseconds: Int) -> ContinuousClock.Instant { start.advanced(by: .milliseconds(milliseconds)) }

@Suite("Pace of refusals")
struct RefusalPaceTests {
    @Test("a few refusals cost nothing, many in a row make longer and longer pauses up to the bound")
    func grows() {
        var pace = RefusalPace()
        #expect(pace.readEnded(admitted: 0, refused: 7, chance: 0, now: at(0)) == nil)
        var pauses: [Duration] = []
        for step in 1...8 {
            if let pause = pace.readEnded(admitted: 0, refused: 1, chance: 0, now: at(step)) { pauses.append(pause) }
        }
        #expect(pauses == [2, 4, 8, 16, 32, 64, 64, 64].map { .milliseconds($0) })
        #expect(pace.checkInvariants() == nil)
    }

    @Test("a read that brings only calls with room ends the pauses at once")
    func recovers() {
        var pace = RefusalPace()
        for step in 0..<20 { _ = pace.readEnded(admitted: 0, refused: 10, chance: 0, now: at(step)) }
        #expect(pace.pause == RefusalPace.longest)
        #expect(pace.readEnded(admitted: 1, refused: 0, chance: 0, now: at(20)) == nil)
        #expect(pace == RefusalPace())
        #expect(pace.readEnded(admitted: 0, refused: 1, chance: 0, now: at(21)) == nil)
    }

    @Test("a client that waits a second after a refusal starts anew")
    func forgets() {
        var pace = RefusalPace()
        for step in 0..<20 { _ = pace.readEnded(admitted: 0, refused: 10, chance: 0, now: at(step)) }
        #expect(pace.readEnded(admitted: 0, refused: 1, chance: 0, now: at(1_019)) == nil)
        #expect(pace.debt == 1)
    }

    @Test("where one call in five finds room, none is slowed down")
    func mixed() {
        var pace = RefusalPace()
        for step in 0..<1_000 {
            #expect(pace.readEnded(admitted: 1, refused: 4, chance: 0, now: at(step)) == nil)
        }
    }

    @Test("the rules hold whatever comes", arguments: [1, 2, 3] as [UInt64])
    func holds(seed: UInt64) {
        var generator = Numbers(state: seed)
        var pace = RefusalPace()
        var now = 0
        for _ in 0..<20_000 {
            now += Int.random(in: 0...400, using: &generator) / 40 * Int.random(in: 0...40, using: &generator)
            let admitted = max(0, Int.random(in: -8...4, using: &generator))
            let refused = max(0, Int.random(in: -2...12, using: &generator))
            let chance = Double.random(in: 0...1, using: &generator)
            let pause = pace.readEnded(admitted: admitted, refused: refused, chance: chance, now: at(now))
            #expect(pace.checkInvariants() == nil)
            if refused == 0 { #expect(pause == nil) }
            if let pause { #expect(pause <= RefusalPace.longest && pause >= RefusalPace.shortest * 0.75) }
        }
    }

    private struct Numbers: RandomNumberGenerator {
        var state: UInt64

        mutating func next() -> UInt64 {
            self.state = self.state &* 6_364_136_223_846_793_005 &+ 1_442_695_040_888_963_407
            return self.state ^ (self.state >> 29)
        }
    }
}

@Suite("Refusals on headers", .timeLimit(.minutes(5)))
struct RefusalTests {
    /// Has room for calls of other methods only.
    private static let admit: @Sendable (ServerContext) -> RPCError? = { context in
        guard context.method == Methods.hang else { return nil }
        var error = RPCError(.resourceExhausted, "there is no room for a call of \(context.callerName)")
        error.askToRetry(after: .milliseconds(75))
        return error
    }

    @Test("a call without room is refused before its message has come, and its stream is closed")
    func onHeaders() async throws {
        let (began, cancelled) = (Signal(), Signal())
        try await withServer(admit: Self.admit, [hang(began, cancelled)]) { _, port in
            let peer = try await RawPeer.connect(port: port)
            try await peer.send(RawPeer.preface)
            // The message is announced, and most of it never comes.
            try await peer.send(RawPeer.headers(path: Methods.hang.path))
            try await peer.send(RawPeer.data([0, 0, 0x10, 0, 0, 1, 2, 3]))
            let end = try await peer.waitForFrame(type: 1)
            #expect(end.streamID == 1 && end.flags & 1 == 1)
            let reset = try await peer.waitForFrame(type: 3)
            #expect(reset.streamID == 1)
            #expect(reset.payload.getInteger(at: reset.payload.readerIndex, as: UInt32.self) == 0)
            try await peer.close()
        }
        #expect(began.count == 0)
    }

    @Test("a flood of refused calls is answered to its end with hints, as are calls of other methods beside it")
    func flood() async throws {
        let (began, cancelled) = (Signal(), Signal())
        try await withServer(admit: Self.admit, [hang(began, cancelled), echo]) { server, port in
            try await withChannel(port: port) { channel in
                await withTaskGroup(of: Void.self) { group in
                    for index in 0..<400 {
                        group.addTask {
                            let message = pattern(100_000 * (index % 2), seed: index)
                            if index % 40 == 0 {
                                let reply = try? await channel.unary(Methods.echo, Payload(message), options: .waiting)
                                #expect(reply?.message == message)
                                return
                            }
                            let error = await rpcError {
                                try await channel.unary(Methods.hang, Payload(message), options: .waiting)
                            }
                            #expect(error?.code == .resourceExhausted)
                            #expect(error?.message == "there is no room for a call of host 127.0.0.1")
                            #expect(error.map { RetryPushback($0.metadata) } == .wait(.milliseconds(75)))
                        }
                    }
                }
            }
            let refused = server.counts.calls.first { $0.method == Methods.hang && $0.code == .resourceExhausted }
            #expect(refused?.count == 390)
        }
        #expect(began.count == 0)
    }
}
