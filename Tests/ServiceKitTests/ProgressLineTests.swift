// SPDX-License-Identifier: Apache-2.0

import Testing

@testable import ServiceKit

private let start = ContinuousClock.now

private func after(_ milliseconds: Int) -> ContinuousClock.Instant {
    start.advanced(by: .milliseconds(milliseconds))
}

@Suite("Progress")
struct ProgressLineTests {
    @Test("on a terminal one line is redrawn, with a rate and the time left, and ended once")
    func terminal() {
        var line = ProgressLine(label: "sharding", isTerminal: true, columns: 120, start: start)
        #expect(
            line.updated(completed: 25_000_000, total: 100_000_000, now: after(1000))
                == "\r\u{1B}[2Ksharding  ██████░░░░░░░░░░░░░░░░░░   25 %  25.0 / 100.0 MB  25 MB/s  3 s left"
        )
        #expect(line.updated(completed: 26_000_000, total: 100_000_000, now: after(1049)) == nil)
        #expect(line.updated(completed: 27_000_000, total: 100_000_000, now: after(1050)) != nil)
        // The end is drawn however soon it comes, and nothing after it.
        #expect(
            line.updated(completed: 100_000_000, total: 100_000_000, now: after(1051))
                == "\r\u{1B}[2Ksharding  ████████████████████████  100 %  100.0 / 100.0 MB  95 MB/s\n"
        )
        #expect(line.updated(completed: 100_000_000, total: 100_000_000, now: after(2000)) == nil)
    }

    @Test("a line is never wider than its terminal", arguments: [1, 10, 40, 200])
    func narrowTerminal(columns: Int) throws {
        var line = ProgressLine(label: "loading", isTerminal: true, columns: columns, start: start)
        let text = try #require(line.updated(completed: 1, total: 2, now: after(1)))
        #expect(text.dropFirst("\r\u{1B}[2K".count).count <= max(1, columns - 1))
    }

    @Test("elsewhere each tenth is a line of its own, without a bar")
    func plain() {
        var line = ProgressLine(label: "loading", isTerminal: false, columns: 80, start: start)
        var lines: [String] = []
        for percent in 0...100 {
            if let text = line.updated(completed: percent * 10_000, total: 1_000_000, now: after(percent)) {
                lines.append(text)
            }
        }
        #expect(lines.count == 11)
        #expect(lines[0] == "loading    0 %  0.0 / 1.0 MB\n")
        #expect(lines[10] == "loading  100 %  1.0 / 1.0 MB  10 MB/s\n")
        #expect(lines.allSatisfy { $0.hasSuffix("\n") && !$0.contains("\u{1B}") })
    }

    @Test("work without bytes, and more bytes than announced, end the line", arguments: [(0, 0), (7, 5)])
    func oddTotals(completed: Int, total: Int) {
        var line = ProgressLine(label: "", isTerminal: false, columns: 80, start: start)
        #expect(line.updated(completed: completed, total: total, now: start)?.contains("100 %") == true)
        #expect(line.updated(completed: completed, total: total, now: start) == nil)
    }
}
