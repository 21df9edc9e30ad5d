// SPDX-License-Identifier: Apache-2.0

import NIOCore
import RPCCore
import SwitchyardTypes
import Testing

@testable import RPCTransport

@Suite("Machines without sockets")
struct MachineTests {
    private let start = ContinuousClock.now

    @Test("the wait between attempts grows to its maximum and varies by the jitter")
    func backoff() {
        let policy = ReconnectPolicy()
        #expect(policy.wait(afterFailures: 1, chance: 0.5) == .seconds(1))
        #expect(policy.wait(afterFailures: 2, chance: 0.5) == .milliseconds(1_600))
        #expect(policy.wait(afterFailures: 3, chance: 0.5) == .milliseconds(2_560))
        #expect(policy.wait(afterFailures: 1, chance: 0) == .milliseconds(800))
        #expect(policy.wait(afterFailures: 1, chance: 1) == .milliseconds(1_200))
        #expect(policy.wait(afterFailures: 1_000_000, chance: 0.5) == .seconds(120))
    }

    @Test("a slot waits longer with each failure and forgets them when it is ready")
    func slot() {
        var machine = SlotMachine(policy: ReconnectPolicy())
        #expect(machine.started(now: self.start) == .connect)
        #expect(machine.attemptFailed(chance: 0.5) == .wait(.seconds(1)))
        #expect(machine.phase == .waiting)
        #expect(machine.attemptFailed(chance: 0.5) == .none)
        #expect(machine.waitEnded(now: self.start + .seconds(1)) == .connect)
        #expect(machine.attemptFailed(chance: 0.5) == .wait(.milliseconds(1_600)))
        #expect(machine.waitEnded(now: self.start + .seconds(3)) == .connect)
        machine.connectionReady()
        #expect(machine.phase == .ready)
        // A connection that held is replaced at once; one that broke at once is not.
        #expect(machine.connectionLost(now: self.start + .seconds(10), chance: 0.5) == .connect)
        machine.connectionReady()
        let lost = machine.connectionLost(now: self.start + .milliseconds(10_250), chance: 0.5)
        #expect(lost == .wait(.milliseconds(750)))
        #expect(machine.waitEnded(now: self.start + .seconds(11)) == .connect)
        #expect(machine.attemptFailed(chance: 0.5) == .wait(.seconds(1)))
        machine.stopped()
        #expect(machine.waitEnded(now: self.start + .seconds(12)) == .none)
        #expect(machine.phase == .stopped)
    }

    @Test("attempts at a server that takes connections and drops them get rarer, until one lasts")
    func flapping() {
        var machine = SlotMachine(policy: .dataPlane)
        var now = self.start
        #expect(machine.started(now: now) == .connect)
        for expected in [50, 80, 128, 204, 327, 524, 800, 800] as [Int64] {
            machine.connectionReady()
            let action = machine.connectionLost(now: now + .milliseconds(10), chance: 0.5)
            guard case .wait(let wait) = action else {
                Issue.record("no wait of \(expected) ms: \(action)")
                return
            }
            #expect(abs((wait + .milliseconds(10)).inSeconds * 1000 - Double(expected)) < 1)
            now += wait + .milliseconds(10)
            #expect(machine.waitEnded(now: now) == .connect)
        }
        machine.connectionReady()
        now += .seconds(1)
        #expect(machine.connectionLost(now: now, chance: 0.5) == .connect)
        machine.connectionReady()
        #expect(machine.connectionLost(now: now, chance: 0.5) == .wait(.milliseconds(50)))
    }

    @Test("a connection on which no call is allowed is no ready one, and replaced after growing waits")
    func blocked() {
        var machine = SlotMachine(policy: ReconnectPolicy())
        #expect(machine.started(now: self.start) == .connect)
        #expect(machine.connectionBlocked() == true)
        #expect(machine.connectionBlocked() == false)
        #expect(machine.phase == .blocked)
        #expect(machine.attemptFailed(chance: 0.5) == .wait(.seconds(1)))
        #expect(machine.waitEnded(now: self.start + .seconds(1)) == .connect)
        #expect(machine.connectionBlocked() == true)
        #expect(machine.attemptFailed(chance: 0.5) == .wait(.milliseconds(1_600)))
        #expect(machine.waitEnded(now: self.start + .seconds(3)) == .connect)
        machine.connectionReady()
        #expect(machine.connectionBlocked() == true)
        machine.connectionReady()
        #expect(machine.phase == .ready)
        #expect(machine.connectionBlocked() == true)
        #expect(machine.connectionRefused(chance: 0.5) == .wait(.seconds(1)))
        machine.stopped()
        #expect(machine.connectionBlocked() == false)
        #expect(machine.phase == .stopped)
    }

    @Test("the heap gives deadlines in order and sweeps ended calls")
    func deadlines() {
        let start = NIODeadline.uptimeNanoseconds(1_000_000_000)
        var heap = DeadlineHeap()
        var generator = SystemRandomNumberGenerator()
        let order = (0..<500).shuffled(using: &generator)
        for value in order { heap.insert(Int32(value), deadline: start + .milliseconds(Int64(value))) }
        #expect(heap.earliest == start)
        #expect(heap.popExpired(now: start - .milliseconds(1)) == nil)
        for value in 0..<100 { #expect(heap.popExpired(now: start + .milliseconds(99)) == Int32(value)) }
        #expect(heap.popExpired(now: start + .milliseconds(99)) == nil)
        heap.sweep(liveCount: 300) { $0 % 2 == 0 }
        #expect(heap.count == 400, "not enough ended calls to sweep")
        heap.sweep(liveCount: 10) { $0 % 40 == 0 }
        #expect(heap.count == 10)
        heap.dropEnded { $0 >= 120 }
        #expect(heap.count == 10, "the earliest deadline is of an open call")
        var popped: [Int32] = []
        while let id = heap.popExpired(now: start + .seconds(1)) { popped.append(id) }
        #expect(popped == stride(from: 120, to: 500, by: 40).map { Int32($0) })
        for value in 0..<100 { heap.insert(Int32(value), deadline: start + .milliseconds(Int64(value))) }
        heap.dropEnded { $0 >= 40 }
        #expect(heap.earliest == start + .milliseconds(40))
        #expect(heap.count == 60)
        heap.dropEnded { _ in false }
        #expect(heap.earliest == nil)
    }

    @Test("a connection's handshake, silence and idleness are watched")
    func watch() {
        let timing = ConnectionTiming(
            handshakeTimeout: .seconds(10),
            keepaliveInterval: .seconds(60),
            keepaliveTimeout: .seconds(5),
            probesIdleConnections: true,
            idleTimeout: .seconds(300),
            requestTimeout: nil,
            stallTimeout: nil
        )
        var watch = ConnectionWatch(timing: timing, now: self.start)
        #expect(watch.nextDue == self.start + .seconds(10))
        #expect(watch.timePassed(now: self.start + .seconds(9)) == .wait)
        var late = watch
        guard case .close = late.timePassed(now: self.start + .seconds(10)) else {
            Issue.record("the handshake has no end")
            return
        }
        watch.peerSettingsArrived()
        #expect(!watch.handshakeIsComplete)
        watch.ownSettingsAcknowledged()
        watch.bytesArrived(now: self.start + .seconds(1))
        #expect(watch.nextDue == self.start + .seconds(61))
        #expect(watch.timePassed(now: self.start + .seconds(61)) == .ping)
        #expect(watch.nextDue == self.start + .seconds(66))
        var silent = watch
        guard case .close = silent.timePassed(now: self.start + .seconds(66)) else {
            Issue.record("an unanswered ping has no consequence")
            return
        }
        watch.bytesArrived(now: self.start + .seconds(62))
        #expect(watch.timePassed(now: self.start + .seconds(66)) == .wait)
        watch.openCallsChanged(1, now: self.start + .seconds(70))
        watch.bytesArrived(now: self.start + .seconds(1_000))
        #expect(watch.timePassed(now: self.start + .seconds(1_001)) == .wait)
        watch.openCallsChanged(0, now: self.start + .seconds(1_002))
        watch.bytesArrived(now: self.start + .seconds(1_300))
        #expect(watch.timePassed(now: self.start + .seconds(1_301)) == .wait)
        #expect(watch.timePassed(now: self.start + .seconds(1_302)) == .drain)
        #expect(watch.timePassed(now: self.start + .seconds(1_303)) == .wait)
    }

    @Test("messages are assembled from pieces of any size", arguments: [1, 2, 4, 5, 6, 7, 100, 5_000])
    func assembler(pieceBytes: Int) throws {
        var wire = ByteBuffer()
        let messages = [pattern(0), pattern(1), pattern(3_000), pattern(17)]
        for message in messages { for piece in Payload(message).framed() { wire.writeImmutableBuffer(piece) } }
        var assembler = MessageAssembler(maxMessageBytes: 3_000)
        // All messages are kept, so none may be written over by the next ones.
        var memory = MessageAssembler.memory()
        var received: [ByteBuffer] = []
        while let piece = wire.readSlice(length: min(pieceBytes, wire.readableBytes)), piece.readableBytes > 0 {
            try assembler.feed(piece, &memory) { received.append($0.bytes) }
        }
        try assembler.end()
        #expect(received == messages)
    }

    @Test("a message's buffer has its size before its bytes arrive")
    func noRegrowth() throws {
        var assembler = MessageAssembler(maxMessageBytes: 1 << 20)
        var memory = MessageAssembler.memory()
        var received: [ByteBuffer] = []
        try assembler.feed(ByteBuffer(bytes: [0, 0, 0x01, 0x00, 0x00]), &memory) { received.append($0.bytes) }
        try assembler.feed(pattern(1 << 16), &memory) { received.append($0.bytes) }
        #expect(received.map(\.readableBytes) == [1 << 16])
        #expect(received.first?.capacity == 1 << 16)
    }
}
