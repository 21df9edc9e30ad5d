// SPDX-License-Identifier: Apache-2.0

import Foundation
import Testing

@testable import FaultTools

@Suite("Hostile clients of the fault suite")
struct HostileToolsTests {
    @Test("frames are found wherever the bytes are cut")
    func cuts() {
        let frames = [
            HostileFrames.frame(HostileFrames.settings), HostileFrames.politeGoAway,
            HostileFrames.call("/a/b", 3), HostileFrames.frame(HostileFrames.data, 5, Array(repeating: 7, count: 300)),
        ]
        let bytes = [1, 2, 3] + frames.joined()
        for size in [1, 2, 7, 10, 1000] {
            var cutter = FrameCutter(preface: 3)
            var found: [CutFrame] = []
            for start in stride(from: 0, to: bytes.count, by: size) {
                found += cutter.take(Array(bytes[start..<min(bytes.count, start + size)]))
            }
            #expect(found.map(\.bytes) == frames, "in pieces of \(size)")
            #expect(found.map(\.stream) == [0, 0, 3, 5])
            #expect(found.map(\.type) == [4, 7, 1, 0])
        }
    }

    private func settings(window: UInt32, frame: UInt32) -> [UInt8] {
        HostileFrames.frame(
            HostileFrames.settings,
            0,
            [0, 4] + HostileFrames.number(window) + [0, 5] + HostileFrames.number(frame)
        )
    }

    /// Sends until nothing may be sent, and counts payloads by stream.
    private func drain(_ messages: inout UnfinishedMessages) -> [UInt32: Int] {
        var counts: [UInt32: Int] = [:]
        while let bytes = messages.next() {
            let frame = CutFrame(bytes: bytes)
            counts[frame.stream, default: 0] += frame.payload.count
        }
        return counts
    }

    @Test("messages that never end stay within the other side's credit and one byte short")
    func unfinished() {
        var messages = UnfinishedMessages(streams: 3, messageBytes: 10_000, path: "/s/m")
        #expect(messages.next() == nil)
        let opened = messages.receive(self.settings(window: 4_000, frame: 1_000))
        var cutter = FrameCutter()
        #expect(cutter.take(opened).map(\.stream) == [0, 1, 3, 5])
        #expect(self.drain(&messages) == [1: 4_000, 3: 4_000, 5: 4_000])
        // Credit for one stream; then a smaller window for all, which makes their credit negative.
        _ = messages.receive(HostileFrames.frame(HostileFrames.windowUpdate, 3, HostileFrames.number(2_500)))
        #expect(self.drain(&messages) == [3: 2_500])
        _ = messages.receive(self.settings(window: 1_000, frame: 1_000))
        #expect(self.drain(&messages).isEmpty)
        for stream: UInt32 in [1, 3, 5] {
            _ = messages.receive(HostileFrames.frame(HostileFrames.windowUpdate, stream, HostileFrames.number(60_000)))
        }
        // Ten thousand bytes and a prefix of five, less one.
        #expect(self.drain(&messages) == [1: 6_004, 3: 3_504, 5: 6_004])
        #expect(messages.sent == 3 * 10_004)
    }

    @Test("a connection's credit is shared, and ended streams get no more")
    func ended() {
        var messages = UnfinishedMessages(streams: 4, messageBytes: 1 << 20, path: "/s/m")
        _ = messages.receive(self.settings(window: 1 << 20, frame: 16_384))
        let first = self.drain(&messages)
        #expect(first.values.reduce(0, +) == 65_535)
        _ = messages.receive(HostileFrames.frame(HostileFrames.reset, 3, HostileFrames.number(8)))
        _ = messages.receive(HostileFrames.frame(HostileFrames.headers, flags: 5, 5))
        #expect(messages.ended == 2)
        _ = messages.receive(HostileFrames.frame(HostileFrames.windowUpdate, 0, HostileFrames.number(100_000)))
        #expect(Set(self.drain(&messages).keys) == [1, 7])
        let ping = HostileFrames.frame(HostileFrames.ping, 0, [1, 2, 3, 4, 5, 6, 7, 8])
        #expect(messages.receive(ping).suffix(8) == [1, 2, 3, 4, 5, 6, 7, 8])
        _ = messages.receive(HostileFrames.politeGoAway)
        _ = messages.receive(HostileFrames.frame(HostileFrames.windowUpdate, 0, HostileFrames.number(100_000)))
        #expect(messages.isOver)
        #expect(messages.next() == nil)
    }

    @Test("damage changes the weights as it says, and repairing puts a new file in place")
    func damage() throws {
        let folder = FileManager.default.temporaryDirectory.appendingPathComponent("damage-\(UUID().uuidString)").path
        defer { try? FileManager.default.removeItem(atPath: folder) }
        try FileManager.default.createDirectory(atPath: "\(folder)/part", withIntermediateDirectories: true)
        let header = Array(#"{"a":{}}"#.utf8)
        let weights = (0..<(64 << 10)).map { UInt8(truncatingIfNeeded: $0 / 4096 + 1) }
        let bytes = [UInt8(header.count), 0, 0, 0, 0, 0, 0, 0] + header + weights
        let file = URL(fileURLWithPath: "\(folder)/part/model.safetensors")
        try Data(bytes).write(to: file)
        let damage = try WeightDamage(copying: "\(folder)/part", to: "\(folder)/copy")
        func now() throws -> [UInt8] { Array(try Data(contentsOf: URL(fileURLWithPath: damage.file))) }

        try damage.zero(pages: 2, at: 0.5)
        let zeroed = try now()
        #expect(zeroed.count == bytes.count)
        #expect(zeroed[32768..<40960].allSatisfy { $0 == 0 })
        #expect(zeroed[..<32768] == bytes[..<32768])
        #expect(zeroed[40960...] == bytes[40960...])

        for cutting in [true, false] {
            try damage.repair()
            try damage.overwrite(cutting: cutting)
            let other = try now()
            #expect(other.count == bytes.count)
            #expect(other.prefix(16) == bytes.prefix(16))
            #expect(other[16] == 3)
            #expect(other.sorted() == bytes.sorted())
        }

        try damage.truncate()
        #expect(try now().count == bytes.count / 2)
        let mapped = try FileHandle(forReadingFrom: URL(fileURLWithPath: damage.file))
        try damage.repair()
        #expect(try now() == bytes)
        #expect(try mapped.readToEnd()?.count == bytes.count / 2)
    }
}
