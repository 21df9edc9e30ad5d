// SPDX-License-Identifier: Apache-2.0

import Foundation
import Synchronization
import Testing

@testable import ServiceKit

@Suite("Output behind a queue")
struct OutputQueueTests {
    private func all(_ queue: inout OutputQueue) -> (texts: [String], count: Int) {
        var texts: [String] = []
        var count = 0
        while let batch = queue.next(note: { "[\($0)]" }) {
            texts.append(batch.text)
            count += batch.count
        }
        return (texts, count)
    }

    @Test("what fits comes out in order and in one piece")
    func order() {
        var queue = OutputQueue()
        #expect(queue.isEmpty)
        for index in 0..<100 { queue.append("\(index)\n") }
        #expect(!queue.isEmpty)
        let (texts, count) = self.all(&queue)
        #expect(texts == [(0..<100).map { "\($0)\n" }.joined()])
        #expect(count == 100 && queue.droppedCount == 0 && queue.isEmpty)
    }

    @Test("what does not fit is counted, and said where it is missing")
    func gaps() {
        var queue = OutputQueue(limits: .init(texts: 3, bytes: 1000))
        for text in ["a", "b", "c", "d", "e"] { queue.append(text) }
        #expect(queue.droppedCount == 2)
        #expect(queue.next { "[\($0)]" } == OutputQueue.Batch(text: "abc[2]", count: 3))
        #expect(queue.next { "[\($0)]" } == nil)
        // There is room again, and what was said is not said again.
        queue.append("f")
        #expect(queue.next { "[\($0)]" } == OutputQueue.Batch(text: "f", count: 1))
        #expect(queue.droppedCount == 2)
    }

    @Test("bytes are limited too, and a text that is larger than the limit never fits", arguments: [10, 64, 4096])
    func bytes(limit: Int) {
        var queue = OutputQueue(limits: .init(texts: 1000, bytes: limit))
        queue.append(String(repeating: "x", count: limit + 1))
        #expect(queue.droppedCount == 1)
        queue.append(String(repeating: "é", count: limit / 2))
        queue.append("y")
        queue.append("")
        #expect(queue.droppedCount == 2)
        let batch = queue.next { "[\($0)]" }
        #expect(batch?.text == "[1]" + String(repeating: "é", count: limit / 2) + "[1]")
        #expect(batch?.count == 2)
    }

    @Test("a batch is bounded, and lines that were taken out make room before the rest is written")
    func batches() {
        var queue = OutputQueue(limits: .init(texts: 4, bytes: 1 << 20))
        let text = String(repeating: "x", count: OutputQueue.batchBytes / 2 + 1)
        for _ in 0..<5 { queue.append(text) }
        #expect(queue.next { "[\($0)]" }?.count == 1)
        queue.append("late")
        #expect(queue.droppedCount == 1)
        let (texts, count) = self.all(&queue)
        #expect(count == 4)
        #expect(texts.joined() == String(repeating: text, count: 3) + "[1]late")
        // A text of more bytes than a batch is one of its own.
        queue.append(text + text)
        #expect(queue.next { "[\($0)]" }?.count == 1)
    }

    @Test("gaps alone take no memory: a million drops are one entry")
    func manyDrops() {
        var queue = OutputQueue(limits: .init(texts: 1, bytes: 100))
        for _ in 0..<1_000_000 { queue.append("x") }
        #expect(queue.next { "[\($0)]" }?.text == "x[999999]")
    }

    /// A reader that can be slow.
    private final class Reader: Sendable {
        let state = Monitor((isOpen: false, text: "", isWaiting: false))

        func write(_ text: String) -> Int32? {
            self.state.notify { $0.isWaiting = true }
            let isWritten: Bool? = self.state.wait { state in
                guard state.isOpen else { return nil }
                state.isWaiting = false
                state.text += text
                return true
            }
            return isWritten == nil ? 32 : nil
        }
    }

    @Test("a reader that does not read holds up no writer; the queue stays bounded and says what it lost")
    func blocked() throws {
        let reader = Reader()
        let started = OutputWriter(
            limits: .init(texts: 10, bytes: 1000),
            note: { "lost \($0)\n" },
            write: { reader.write($0) }
        )
        let writer = try #require(started)
        defer { writer.end() }
        writer.append("first\n")
        #expect(reader.state.wait { $0.isWaiting ? true : nil } == true)
        for index in 0..<500 { writer.append("\(index)\n") }
        #expect(!writer.flush(within: .milliseconds(20)))
        #expect(writer.droppedCount == 490)
        reader.state.notify { $0.isOpen = true }
        #expect(writer.flush(within: .seconds(300)))
        let text = reader.state.withLock { $0.text }
        #expect(text == "first\n" + (0..<10).map { "\($0)\n" }.joined() + "lost 490\n")
        writer.append("last\n")
        #expect(writer.flush(within: .seconds(300)))
        #expect(reader.state.withLock { $0.text.hasSuffix("lost 490\nlast\n") })
    }

    @Test("what cannot be written is lost and counted, and the next text is tried")
    func failing() throws {
        let failures = Mutex<[Int32]>([])
        let isBroken = Mutex(true)
        let written = Mutex("")
        let started = OutputWriter(
            note: { "\($0)" },
            onFailure: { code in failures.withLock { $0.append(code) } },
            write: { text in
                if isBroken.withLock({ $0 }) { return 32 }
                written.withLock { $0 += text }
                return nil
            }
        )
        let writer = try #require(started)
        defer { writer.end() }
        writer.append("a")
        #expect(writer.flush(within: .seconds(300)))
        #expect(writer.droppedCount == 1)
        isBroken.withLock { $0 = false }
        writer.append("b")
        #expect(writer.flush(within: .seconds(300)))
        #expect(written.withLock { $0 } == "b")
        #expect(failures.withLock { $0 } == [32])
        #expect(writer.droppedCount == 1)
    }

    @Test("the line about lost lines has the log's format")
    func note() {
        let text = LineLogHandler.note(3, format: .text, time: .init(timeIntervalSince1970: 0))
        #expect(
            text
                == "1970-01-01T00:00:00.000Z warning  switchyard: dropped 3 log lines while standard error was blocked\n"
        )
        let json = LineLogHandler.note(1, format: .json, time: .init(timeIntervalSince1970: 0))
        #expect(json.hasPrefix("{") && json.hasSuffix("}\n"))
        #expect(json.contains(#""message":"dropped 1 log line while standard error was blocked""#))
    }
}
