// SPDX-License-Identifier: Apache-2.0

import Foundation
import RPCCore
import SwitchyardProtos
import SwitchyardTypes
import Testing

@testable import FaultTools

@Suite("Tools of the fault suite")
struct FaultToolsTests {
    @Test("the kernel's packets are found in its messages, whatever else is in them")
    func packetNumbers() {
        // A netlink header, the queue's header, then attributes: the packet's (1) and a hook's interface (5).
        let attributes: [UInt8] = [8, 0, 5, 0, 0, 0, 0, 2] + [11, 0, 1, 0, 0x01, 0x02, 0x03, 0x04, 8, 0, 1, 0]
        let header: [UInt8] = [40, 0, 0, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 100]
        let acknowledgement: [UInt8] = [20, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]
        let bytes = acknowledgement + header + attributes + header + attributes
        #expect(PacketQueueMessage.packets(in: bytes[...]) == [0x0102_0304, 0x0102_0304])
        for length in 0..<bytes.count {
            let count = PacketQueueMessage.packets(in: bytes[..<length]).count
            #expect(count <= 2)
        }
        let verdict = PacketQueueMessage.accept(0x0102_0304, queue: 100)
        #expect(verdict.count == 32)
        #expect(Array(verdict.suffix(8)) == [0, 0, 0, 1, 1, 2, 3, 4])
    }

    @Test("a window counts the tokens and the waits within it")
    func window() {
        let samples = [
            TokenSample(time: 0.9, gap: 0.5, isFirst: true), TokenSample(time: 1.2, gap: 0.7, isFirst: true),
            TokenSample(time: 1.5, gap: 0.3, isFirst: false), TokenSample(time: 1.6, gap: 0.1, isFirst: false),
            TokenSample(time: 2.0, gap: 0.4, isFirst: false),
        ]
        let window = LoadWindow(samples, from: .seconds(1), to: .seconds(2))
        #expect(window.tokens == 3)
        #expect(window.rate == 3)
        #expect(abs(window.longestGap - 0.3) < 1e-6)
        #expect(abs(window.highGap - 0.3) < 1e-6)
        // The last token was waited for in the window, and came after it.
        #expect(abs(LoadWindow.longestWait(samples, from: .seconds(1), to: .seconds(2)) - 0.4) < 1e-6)
        #expect(LoadWindow.longestWait(samples, from: .seconds(3), to: .seconds(4)) == 0)
    }

    @Test("calls are counted by how they ended")
    func summary() {
        var summary = LoadSummary()
        func call(_ outcome: LoadCall.Outcome, lost: [WireDropReason: UInt64] = [:], strict: Bool = false) -> LoadCall {
            LoadCall(start: .zero, end: .zero, outcome: outcome, lost: lost, isStrict: strict)
        }
        summary.count(call(.answered(isSame: true)))
        summary.count(call(.answered(isSame: false), lost: [.timeout: 3]))
        summary.count(call(.answered(isSame: false)))
        summary.count(call(.failed(.unavailable, "strict"), strict: true))
        summary.count(call(.failed(.internal, "strict"), strict: true))
        summary.count(call(.failed(.unavailable, "gone")))
        #expect(summary.calls == 6)
        #expect(summary.failed == 2)
        #expect(summary.strictRefusals == 1)
        #expect(summary.otherIDs == 2)
        #expect(summary.wrongIDs == 1)
        #expect(summary.lost == ["TIMEOUT": 3])
        #expect(summary.joined(summary).calls == 12)
    }

    @Test("lies are messages that differ from the truth in what they are named after", arguments: Lie.allCases)
    func lies(lie: Lie) {
        let truth: [[Float]] = [[1, 2, 3], [4, 5, 6]]
        let bytes = truth.joined().flatMap { value in withUnsafeBytes(of: value) { Array($0) } }
        let told = lie.distorted(
            ForwardResponse(outputs: Tensor(dtype: .float32, shape: [2, 3], data: bytes)).serialized()
        )
        let outputs = (try? ForwardResponse(serialized: told))?.outputs
        let words = outputs?.data.withUnsafeBytes { Array($0.bindMemory(to: Float.self)) } ?? []
        switch lie {
        case .noMessage: #expect(outputs == nil)
        case .shape: #expect(outputs?.shape == [3, 2])
        case .rows:
            #expect(outputs?.shape == [1, 3])
            #expect(words == truth[0])
        case .nan, .infinity: #expect(words.count { !$0.isFinite } == 1)
        case .huge: #expect(words == Array(repeating: 3e38, count: 6))
        case .otherRows: #expect(words == truth[1] + truth[0])
        case .zeroRows: #expect(words == Array(repeating: 0, count: 6))
        }
        if lie != .shape, lie != .rows, lie != .noMessage { #expect(outputs?.shape == [2, 3]) }
    }

    @Test("a single row is told with its halves exchanged")
    func singleRow() {
        let bytes = [1, 2, 3, 4].flatMap { (value: Float) in withUnsafeBytes(of: value) { Array($0) } }
        let truth = ForwardResponse(outputs: Tensor(dtype: .float32, shape: [1, 4], data: bytes))
        let told = try? ForwardResponse(serialized: Lie.otherRows.distorted(truth.serialized()))
        let words = told?.outputs?.data.withUnsafeBytes { Array($0.bindMemory(to: Float.self)) }
        #expect(words == [3, 4, 1, 2])
    }

    @Test("the same seed draws the same faults, and never kills a pool's first host")
    func drawnFaults() {
        var first = SeededGenerator(seed: 7)
        var second = SeededGenerator(seed: 7)
        var seen: Set<SoakFault> = []
        for _ in 0..<200 {
            let step = SoakStep.drawn(&first, pools: 2, replicas: 2, mayScale: true)
            #expect(step == SoakStep.drawn(&second, pools: 2, replicas: 2, mayScale: true))
            if step.fault == .kill || step.fault == .drain { #expect(step.replica > 0) }
            seen.insert(step.fault)
        }
        #expect(seen == Set(SoakFault.allCases))
        let fixed = (0..<100).map { _ in SoakStep.drawn(&first, pools: 1, replicas: 2, mayScale: false).fault }
        #expect(!fixed.contains(.scale))
    }

    @Test("growth compares the end of a life with its start after warm-up")
    func growth() {
        let log = MemoryLog()
        for second in 0..<100 {
            let warm = second < 10 ? 50 : 100
            let sample = MemoryLog.Sample(time: Double(second), bytes: warm + (second >= 90 ? 10 : 0))
            log.add(name: "gateway", identifier: 1, sample)
            log.add(name: "pool-0/0", identifier: 2, MemoryLog.Sample(time: Double(second), bytes: warm))
        }
        #expect(log.all.count == 2)
        #expect(abs(log.all[0].growth - 0.1) < 1e-9)
        #expect(log.all[1].growth == 0)
        #expect(log.csv.split(separator: "\n").count == 201)
        #expect(log.svg.contains("<path"))
    }

    @Test("the table has one line per row, and names failed expectations")
    func table() {
        var passed = FaultResult(name: "sigkill", title: "SIGKILL", variant: .replica, verdict: .passed)
        passed.figures = FaultFigures()
        passed.figures?.load.calls = 7
        var failed = passed
        failed.verdict = .failed
        failed.checks = [
            FaultCheck(name: "identical ids", holds: false, found: "1 of 7 differ", isAboutSpeed: false),
            FaultCheck(name: "no call fails", holds: true, found: "0", isAboutSpeed: false),
        ]
        var skipped = FaultResult(name: "loss", title: "1 % loss", variant: .alone, verdict: .skipped)
        skipped.reason = "needs root"
        let lines = FaultTable.markdown([passed, failed, skipped]).split(separator: "\n")
        #expect(lines.count == 5)
        #expect(lines[2].hasSuffix("| pass |"))
        #expect(lines[3].hasSuffix("| FAIL: identical ids (1 of 7 differ) |"))
        #expect(lines[4].hasSuffix("| skipped: needs root |"))
        #expect(Set(lines.map { $0.count { $0 == "|" } }).count == 1)
    }

    @Test("hostile rows have a table of their own, with the gateway's memory")
    func hostileTable() {
        let plain = FaultResult(name: "sigkill", title: "SIGKILL", variant: .replica, verdict: .passed)
        var hostile = FaultResult(name: "idle", title: "Idle", variant: .replica, verdict: .passed)
        hostile.isHostile = true
        var figures = FaultFigures()
        figures.toll = GatewayToll(
            residentBefore: 50 << 20,
            residentPeak: 60 << 20,
            residentAfter: nil,
            processors: 0.5
        )
        figures.wrongFor = 1.5
        hostile.figures = figures
        let tables = FaultTable.markdown([hostile, plain]).components(separatedBy: "\n\n")
        #expect(tables.count == 2)
        #expect(tables.first?.contains("SIGKILL") == true)
        let lines = tables.last?.split(separator: "\n") ?? []
        #expect(lines.count == 3)
        #expect(lines.last?.contains("| 1.5 s | 50, 60, gone MiB | 0.50 |") == true)
        #expect(Set(lines.map { $0.count { $0 == "|" } }).count == 1)
    }

    @Test("every row has its own name, and both variants where it names them")
    func names() {
        let names = FaultRow.all.map { "\($0.name)/\($0.variant.rawValue)" }
        #expect(Set(names).count == names.count)
        #expect(FaultRow.named("rubbish").count == 2)
        #expect(FaultRow.named("goaway/alone").map(\.variant) == [.alone])
        #expect(FaultRow.all.count(where: \.isHostile) > 20)
    }

    @Test("figures are formatted for people")
    func figures() {
        #expect(Figure.seconds(0.4) == "400 ms")
        #expect(Figure.seconds(1.26) == "1.3 s")
        #expect(Figure.percent(0.0204) == "2.0 %")
        #expect(Figure.percent(-0.259) == "-25.9 %")
        #expect(Figure.decimal(0.04, 1) == "0.0")
        #expect(Figure.decimal(1.05, 2) == "1.05")
    }
}
