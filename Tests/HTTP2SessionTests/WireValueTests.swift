// SPDX-License-Identifier: Apache-2.0

import NIOCore
import Testing

@testable import HTTP2Session

@Suite("Flow windows")
struct FlowWindowTests {
    @Test("take what fits and give credit once half is consumed")
    func receiving() {
        var window = ReceiveWindow(size: 100)
        #expect(window.received(60) == true)
        #expect(window.received(41) == false)
        #expect(window.received(40) == true)
        #expect(window.received(0) == true)
        #expect(window.received(1) == false)
        #expect(window.consume(49) == 0)
        #expect(window.consume(1) == 50)
        #expect(window.used == 50)
        #expect(window.received(50) == true)
        #expect(window.received(1) == false)
        // No more is credited than came.
        #expect(window.consume(1_000) == 100)
        #expect(window.consume(1_000) == 0)
        #expect(window.used == 0)
        #expect(window.checkInvariants() == nil)
    }

    @Test("that become smaller owe the difference, and credit at once what is due by the new size")
    func smaller() {
        var window = ReceiveWindow(size: 65_535)
        #expect(window.received(30_000) == true)
        #expect(window.consume(30_000) == 0)
        window.size = 4_000
        #expect(window.received(1) == false)
        // The end of a body needs no room.
        #expect(window.received(0) == true)
        #expect(window.consume(0) == 30_000)
        #expect(window.received(4_000) == true)
        #expect(window.received(1) == false)
    }

    @Test("of one byte credit every byte")
    func smallest() {
        var window = ReceiveWindow(size: 1)
        for _ in 0..<3 {
            #expect(window.received(1) == true)
            #expect(window.received(1) == false)
            #expect(window.consume(1) == 1)
        }
    }

    @Test("for sending stay below 2^31 and can fall below zero")
    func sending() {
        var window = SendWindow(available: 65_535)
        #expect(window.grow(by: Int(Int32.max) - 65_535) == true)
        #expect(window.grow(by: 1) == false)
        #expect(window.available == Int(Int32.max))
        window.sent(Int(Int32.max))
        #expect(window.grow(by: -65_535) == true)
        #expect(window.available == -65_535)
        #expect(window.grow(by: Int(Int32.max) + 65_536) == false)
        #expect(window.grow(by: Int(Int32.max) + 65_535) == true)
    }
}

@Suite("Cutting bytes into frames")
struct FrameReaderTests {
    /// What the reader saw: headers and whole payloads.
    private struct Seen: Equatable {
        var headers: [FrameHeader] = []
        var payloads: [[UInt8]] = []
        var isBad = false
    }

    private static func read(_ bytes: [UInt8], pieces: [Int], expectsPreface: Bool) -> Seen {
        var reader = FrameReader(expectsPreface: expectsPreface)
        var seen = Seen()
        var start = 0
        for end in pieces + [bytes.count] {
            let piece = Array(bytes[start..<end])
            start = end
            piece.withUnsafeBytes { piece in
                var index = 0
                while true {
                    #expect(reader.checkInvariants() == nil)
                    switch reader.next(piece, from: &index) {
                    case .needsBytes:
                        #expect(index == piece.count)
                        return
                    case .badPreface:
                        seen.isBad = true
                        return
                    case .began(let header):
                        seen.headers.append(header)
                        seen.payloads.append([])
                    case .payload(let start, let count, _):
                        seen.payloads[seen.payloads.count - 1] += piece[start..<start + count]
                    }
                }
            }
        }
        return seen
    }

    @Test("is the same for every way of cutting them")
    func splits() {
        var generator = SplitMix64(state: 3)
        for _ in 0..<60 {
            var bytes = Array("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".utf8)
            var headers: [FrameHeader] = []
            for _ in 0..<Int.random(in: 1...6, using: &generator) {
                let count = [0, 1, 8, 9, 300].randomElement(using: &generator) ?? 0
                let header = FrameHeader(
                    payloadBytes: count,
                    type: .random(in: 0...255, using: &generator),
                    flags: .random(in: 0...255, using: &generator),
                    streamID: .random(in: 0...Int32.max, using: &generator)
                )
                headers.append(header)
                // The reserved bit is set at random.
                let streamID = UInt32(header.streamID) | UInt32.random(in: 0...1, using: &generator) << 31
                let payload = (0..<count).map { UInt8(truncatingIfNeeded: $0) }
                let wire = frame(type: header.type, flags: header.flags, streamID: streamID, payload: payload)
                bytes += Array(wire.readableBytesView)
            }
            let whole = Self.read(bytes, pieces: [], expectsPreface: true)
            #expect(whole.headers == headers)
            #expect(whole.payloads.map(\.count) == headers.map(\.payloadBytes))
            #expect(Self.read(bytes, pieces: Array(1..<bytes.count), expectsPreface: true) == whole)
            let cuts = (0..<5).map { _ in Int.random(in: 0...bytes.count, using: &generator) }.sorted()
            #expect(Self.read(bytes, pieces: cuts, expectsPreface: true) == whole)
        }
    }

    @Test("finds each wrong byte of the preface")
    func preface() {
        let preface = Array("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".utf8)
        for place in preface.indices {
            var wrong = preface
            wrong[place] ^= 0x20
            #expect(Self.read(wrong, pieces: [place], expectsPreface: true).isBad)
        }
        #expect(!Self.read(preface, pieces: [], expectsPreface: true).isBad)
        #expect(Self.read([], pieces: [], expectsPreface: false) == Seen())
    }

    @Test("reads the largest frame header")
    func largest() {
        let seen = Self.read(Array(repeating: 0xff, count: 9), pieces: [], expectsPreface: false)
        #expect(
            seen.headers == [FrameHeader(payloadBytes: (1 << 24) - 1, type: 0xff, flags: 0xff, streamID: .max)]
        )
    }
}

@Suite("A queue whose memory is used again")
struct LineTests {
    @Test("keeps the order, whatever is taken between and swept out")
    func order() {
        var generator = SplitMix64(state: 8)
        var line = Line<Int>()
        var expected: [Int] = []
        for step in 0..<20_000 {
            switch Int.random(in: 0..<100, using: &generator) {
            case 0:
                line.removeAll { $0 % 3 == 0 }
                expected.removeAll { $0 % 3 == 0 }
            case 1..<(step < 10_000 ? 60 : 45):
                line.append(step)
                expected.append(step)
            default:
                #expect(line.popFirst() == (expected.isEmpty ? nil : expected.removeFirst()))
            }
            #expect(line.count == expected.count)
            #expect(line.isEmpty == expected.isEmpty)
            #expect(line.front == expected.first)
        }
    }
}
