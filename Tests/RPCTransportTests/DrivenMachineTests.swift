// SPDX-License-Identifier: Apache-2.0

import NIOCore
import Testing

@testable import RPCTransport

private struct Numbers: RandomNumberGenerator {
    var state: UInt64

    mutating func next() -> UInt64 {
        self.state = self.state &* 6_364_136_223_846_793_005 &+ 1_442_695_040_888_963_407
        return self.state ^ (self.state >> 29)
    }
}

private func at(_ time: UInt64) -> NIODeadline { .uptimeNanoseconds(time) }

@Suite("The agenda of an event loop")
struct LoopAgendaTests {
    private func taken(_ agenda: inout LoopAgenda<Int>, _ time: UInt64) -> [Int] {
        var work: [Int] = []
        agenda.takeReady(into: &work, now: at(time))
        return work
    }

    @Test("work comes in its order, timed work in the order of its times, and what was cancelled never")
    func order() {
        var agenda = LoopAgenda<Int>()
        agenda.add(1)
        let late = agenda.add(5, at: at(20))
        let early = agenda.add(4, at: at(10))
        _ = agenda.add(3, at: at(10))
        agenda.add(2)
        #expect(agenda.nextDue == at(10))
        let result1 = self.taken(&agenda, 5)
        #expect(result1 == [1, 2])
        do {
            let gone = early.flatMap { agenda.cancel($0) }
            #expect(gone == 4)
        }
        do {
            let gone = early.flatMap { agenda.cancel($0) }
            #expect(gone == nil)
        }
        let result2 = self.taken(&agenda, 10)
        #expect(result2 == [3])
        #expect(agenda.nextDue == at(20))
        do {
            let gone = late.flatMap { agenda.cancel($0) }
            #expect(gone == 5)
        }
        let result3 = self.taken(&agenda, 30)
        #expect(result3 == [])
        #expect(agenda.nextDue == nil)
    }

    @Test("the driver is told once of what comes until it has heard")
    func ringing() {
        var agenda = LoopAgenda<Int>()
        #expect(agenda.ring() == true)
        #expect(agenda.ring() == false)
        agenda.heard()
        #expect(agenda.ring() == true)
    }

    @Test("after its end timed work is refused, and other work is not")
    func end() {
        var agenda = LoopAgenda<Int>()
        _ = agenda.add(1, at: at(9))
        _ = agenda.add(2, at: at(4))
        #expect(agenda.end() == [1, 2])
        #expect(agenda.add(3, at: at(1)) == nil)
        agenda.add(4)
        let result4 = self.taken(&agenda, 100)
        #expect(result4 == [4])
        #expect(agenda.checkInvariants() == nil)
    }

    @Test("does what a list would, whatever comes", arguments: [1, 2, 3] as [UInt64])
    func random(seed: UInt64) {
        var random = Numbers(state: seed)
        var agenda = LoopAgenda<Int>()
        var list: [(due: UInt64, id: UInt64, work: Int)] = []
        var ready: [Int] = []
        var now: UInt64 = 0
        for work in 0..<20_000 {
            switch Int.random(in: 0..<10, using: &random) {
            case 0...4:
                let due = now + UInt64.random(in: 0...400, using: &random)
                if let id = agenda.add(work, at: at(due)) { list.append((due, id, work)) }
            case 5...6:
                if let place = list.indices.randomElement(using: &random) {
                    let gone = list.remove(at: place)
                    #expect(agenda.cancel(gone.id) == gone.work)
                }
            case 7:
                agenda.add(work)
                ready.append(work)
            default:
                now += UInt64.random(in: 0...100, using: &random)
                let due = list.filter { $0.due <= now }.sorted { ($0.due, $0.id) < ($1.due, $1.id) }
                list.removeAll { $0.due <= now }
                let result5 = self.taken(&agenda, now)
                #expect(result5 == ready + due.map(\.work))
                ready = []
                #expect(agenda.nextDue == list.map { at($0.due) }.min())
            }
            #expect(agenda.timerCount == list.count)
            #expect(agenda.checkInvariants() == nil)
        }
    }
}

@Suite("What waits to be written to a socket")
struct OutboundQueueTests {
    @Test("only flushed bytes are written, and a receipt comes back with its last byte")
    func receipts() {
        var queue = OutboundQueue<Int>(low: 10, high: 20)
        #expect(queue.add(ByteBuffer(string: "abc"), 1) == false)
        #expect(!queue.hasFlushed)
        queue.flush()
        #expect(queue.add(ByteBuffer(), 2) == false)
        #expect(queue.add(ByteBuffer(string: "defg"), 3) == false)
        #expect(queue.head?.bytes == ByteBuffer(string: "abc") && queue.head?.isOnly == true)
        var finished: [Int] = []
        let result6 = queue.wrote(2, finished: &finished)
        #expect(result6 == false)
        #expect(finished == [] && queue.byteCount == 5)
        queue.flush()
        #expect(queue.next(limit: 9) == ["c", "", "defg"].map { ByteBuffer(string: $0) })
        #expect(queue.next(limit: 1) == [ByteBuffer(string: "c")])
        _ = queue.wrote(1, finished: &finished)
        #expect(finished == [1, 2])
        #expect(queue.end() == [3])
        #expect(queue.isEmpty)
        #expect(queue.checkInvariants() == nil)
    }

    @Test("stops being writable over the high mark and is again under the low one")
    func marks() {
        var queue = OutboundQueue<Int>(low: 10, high: 20)
        #expect(queue.add(ByteBuffer(repeating: 0, count: 20), 1) == false)
        #expect(queue.add(ByteBuffer(repeating: 0, count: 1), 2) == true)
        #expect(queue.add(ByteBuffer(repeating: 0, count: 1), 3) == false)
        queue.flush()
        var finished: [Int] = []
        let result7 = queue.wrote(11, finished: &finished)
        #expect(result7 == false)
        let result8 = queue.wrote(1, finished: &finished)
        #expect(result8 == true)
        #expect(queue.isWritable)
    }

    @Test("brings all bytes in their order, whatever the socket takes", arguments: [1, 2, 3] as [UInt64])
    func random(seed: UInt64) {
        var random = Numbers(state: seed)
        var queue = OutboundQueue<Int>(low: 300, high: 900)
        var (added, flushed, written) = ([UInt8](), 0, [UInt8]())
        var (receipts, isWritable) = ([Int](), true)
        for step in 0..<10_000 {
            switch Int.random(in: 0..<4, using: &random) {
            case 0:
                let bytes = (0..<Int.random(in: 0...90, using: &random))
                    .map { _ in UInt8.random(in: 0...255, using: &random) }
                added += bytes
                if queue.add(ByteBuffer(bytes: bytes), step) { isWritable = false }
            case 1:
                queue.flush()
                flushed = added.count
            default:
                let next = queue.next(limit: Int.random(in: 1...9, using: &random))
                let all = next.flatMap { Array($0.readableBytesView) }
                let count = all.isEmpty ? 0 : Int.random(in: 0...all.count, using: &random)
                written += all.prefix(count)
                if queue.wrote(count, finished: &receipts) { isWritable = true }
            }
            #expect(queue.isWritable == isWritable)
            #expect(written.count <= flushed)
            #expect(queue.byteCount == added.count - written.count)
            #expect(queue.checkInvariants() == nil)
        }
        #expect(written.elementsEqual(added.prefix(written.count)))
        #expect(receipts == receipts.sorted())
    }
}
