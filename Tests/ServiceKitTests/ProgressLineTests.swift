// SPDX-License-Identifier: Apache-2.0

import Testing

@testable import ServiceKit

private let start = ContinuousClock.now

private func after(_ milliseconds: Int) -> ContinuousClock.Instant {
    start.advanced(by: .milliseconds(milliseconds))
}

extension ProgressLine {
    fileprivate mutating func updated(_ label: String, _ megabytes: Int, at milliseconds: Int) -> String? {
        self.updated(
            label,
            completed: megabytes * 1_000_000,
            total: 100_000_000,
            isBytes: true,
            now: after(milliseconds)
        )
    }
}

@Suite("Progress")
struct ProgressLineTests {
    @Test("on a terminal one line is redrawn, with a rate and the time left, and ended once")
    func terminal() {
        var line = ProgressLine(isTerminal: true, columns: 120)
        let first = line.updated("sharding", 0, at: 0)
        #expect(first == "\r\u{1B}[2Ksharding  ░░░░░░░░░░░░░░░░░░░░░░░░    0 %  0.0 / 100.0 MB")
        let second = line.updated("sharding", 25, at: 1000)
        #expect(
            second == "\r\u{1B}[2Ksharding  ██████░░░░░░░░░░░░░░░░░░   25 %  25.0 / 100.0 MB  25 MB/s  3 s left"
        )
        let tooSoon = line.updated("sharding", 26, at: 1049)
        #expect(tooSoon == nil)
        let third = line.updated("sharding", 27, at: 1050)
        #expect(third != nil)
        // The end is always drawn, however soon it comes, and nothing after it.
        let last = line.updated("sharding", 100, at: 1051)
        #expect(last == "\r\u{1B}[2Ksharding  ████████████████████████  100 %  100.0 / 100.0 MB  95 MB/s\n")
        let after = line.updated("sharding", 100, at: 2000)
        #expect(after == nil)
    }

    @Test("another label starts a new bar with its own time; an unfinished one keeps its line")
    func labels() {
        var line = ProgressLine(isTerminal: true, columns: 120)
        _ = line.updated("one", 50, at: 0)
        let second = line.updated("two", 0, at: 10)
        #expect(second?.hasPrefix("\n\r\u{1B}[2Ktwo") == true)
        let finished = line.updated("two", 100, at: 1010)
        #expect(finished?.hasSuffix("100 MB/s\n") == true)
        let third = line.updated("three", 0, at: 1020)
        #expect(third?.hasPrefix("\r\u{1B}[2Kthree") == true)
    }

    @Test("a line is never wider than its terminal", arguments: [1, 10, 40, 200])
    func narrowTerminal(columns: Int) {
        var line = ProgressLine(isTerminal: true, columns: columns)
        let text = line.updated("loading", 50, at: 0)
        let shown = text?.dropFirst("\r\u{1B}[2K".count)
        #expect(shown.map { (1...max(1, columns - 1)).contains($0.count) } == true)
    }

    @Test("elsewhere there is a line every five seconds from the second second on, without a bar")
    func plain() {
        var line = ProgressLine(isTerminal: false, columns: 80)
        // A hundred steps of 130 ms: 13 seconds.
        let lines = (0...100)
            .compactMap { step in line.updated("loading", step, at: step * 130).map { (at: step * 130, text: $0) } }
        #expect(lines.map(\.at) == [2080, 7150, 12220, 13000])
        #expect(lines.first?.text == "loading   16 %  16.0 / 100.0 MB  8 MB/s  11 s left\n")
        #expect(lines.last?.text == "loading  100 %  100.0 / 100.0 MB  8 MB/s\n")
        #expect(lines.allSatisfy { $0.text.hasSuffix("\n") && !$0.text.contains("\u{1B}") })
    }

    @Test("work of less than two seconds gets no line, however many parts it has")
    func short() {
        var line = ProgressLine(isTerminal: false, columns: 80)
        let lines = (0...100).compactMap { line.updated("part \($0 / 10)", $0, at: $0 * 19) }
        #expect(lines.isEmpty)
    }

    @Test("many short parts of long work share one pace")
    func parts() {
        var line = ProgressLine(isTerminal: false, columns: 80)
        let lines = (0...200).compactMap { line.updated("part \($0)", $0 / 3, at: $0 * 100) }
        #expect(lines.count == 4)
    }

    @Test("work without parts, or beyond its total, ends the line", arguments: [(0, 0), (7, 5)])
    func oddTotals(completed: Int, total: Int) {
        var line = ProgressLine(isTerminal: true, columns: 80)
        let first = line.updated("", completed: completed, total: total, isBytes: false, now: start)
        #expect(first?.hasSuffix("100 %  \(completed) / \(total)\n") == true)
        let second = line.updated("", completed: completed, total: total, isBytes: false, now: start)
        #expect(second == nil)
    }
}
