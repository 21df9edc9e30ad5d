// SPDX-License-Identifier: Apache-2.0

internal import SwitchyardClient

/// What the table of `docs/reliability.md` promises.
package enum FaultLimits {
    /// The longest wait for a token when a host with a replica fails, in seconds.
    static let stall = 0.4
    /// Connections that a gateway may make to a host that leaves each of them at once.
    static let leftConnections = 200
    /// The fraction of the throughput that may be lost during the fault.
    static let throughputLost = 0.02
    /// How long a cluster may take to recover once a partition has healed, in seconds.
    static let healing = 2.0
    /// How much longer the 99th percentile of a step may be when one of two hosts answers late.
    static let slowStep = 2.0
    /// How long a new host may wait for its first rows, in seconds.
    static let spreading = 2.0
    /// How long a gateway may take from its start to its first answer, in seconds.
    static let gatewayStart = 3.0
    /// The smallest fraction of the peak that an overloaded gateway still answers.
    static let goodput = 0.9
    /// How much an overloaded gateway may grow, in bytes.
    static let growth = 256 << 20
    /// How long it may take until a host that left its pool's list gets no more calls, in seconds.
    static let leaving = 5.0
    /// How long wrong answers may go out after a mapped file was written to, in seconds: it is looked at every second, and a
    /// call in flight may still end.
    static let exposure = 2.0
    /// How long a host may serve damaged packed weights before it finds them.
    static let backgroundCheck = Duration.seconds(10)
    /// How long it may take until a restarted host is judged by the hosts that are there now.
    static let verdict = Duration.seconds(5)
    /// The longest wait for a token where every layer of a step misses ``HostRows/deadlines``, in seconds: two sparse layers of
    /// the encoder and two of the decoder, and a quarter for a busy machine.
    static let steps = (2 * 0.4 + 2 * 0.2) * 1.25
    /// How much unfinished messages may make a gateway grow, in bytes: those of one connection, and those of four.
    static let unfinishedGrowth = (one: 96 << 20, four: 192 << 20)
    /// The same for a method whose messages are small.
    static let smallGrowth = 32 << 20
    /// The longest wait for a token while one caller's texts or beams cost far more than others', in seconds.
    static let fairStall = 1.0
    /// How much more of a processor a gateway may use because it has no descriptor left.
    static let spinning = 0.25
    /// The longest time until a new caller is answered while another one holds connections, in seconds.
    static let newCaller = 2.0
    /// How long a process whose output nobody reads may take to end after SIGTERM, in seconds.
    static let farewell = 30.0
}

extension RowReport {
    /// Copies the figures of a story.
    init(_ outcome: StoryOutcome) {
        self.figures.load = outcome.summary
        self.figures.longestStall = outcome.longestStall
        self.figures.quietStall = outcome.quiet.longestGap
        self.figures.quietStep = outcome.quiet.highGap
        self.figures.faultStep = outcome.disturbed.highGap
        self.figures.quietRate = outcome.quiet.rate
        self.figures.throughputLost = outcome.throughputLost
        self.figures.toll = outcome.toll
        self.figures.wrongFor = outcome.wrongFor
        self.notes += outcome.summary.statuses.sorted { $0.key < $1.key }.map { "\($0.value) x \($0.key)" }
    }

    /// Clients notice nothing: no call failed, no id differs, no token was lost.
    mutating func requireUnnoticed() {
        let load = self.figures.load
        self.require("no call fails", load.failed == 0, found: "\(load.failed) of \(load.calls)")
        self.require("identical ids", load.otherIDs == 0, found: "\(load.otherIDs) of \(load.calls) differ")
        self.require("no token lost", load.lostTokens == 0, found: "\(load.lost)")
    }

    /// Clients do not wait either.
    mutating func requireSmooth() {
        let stall = self.figures.longestStall
        self.require("stall <= 0.4 s", stall <= FaultLimits.stall, found: Figure.seconds(stall), speed: true)
        let lost = self.figures.throughputLost ?? 0
        self.require(
            "throughput lost <= 2 %",
            lost <= FaultLimits.throughputLost,
            found: Figure.percent(lost),
            speed: true
        )
    }

    /// All calls end; losses are reported; calls that accept no loss end with a status.
    mutating func requireHonest(reasons: Set<WireDropReason>, sureReason: WireDropReason? = nil) {
        let load = self.figures.load
        self.require("all calls end with an answer", load.failed == 0, found: "\(load.failed) of \(load.calls) fail")
        self.require("no wrong answer without a lost token", load.wrongIDs == 0, found: "\(load.wrongIDs)")
        let names = Set(reasons.map(\.word))
        let found = Set(load.lost.filter { $0.value > 0 }.keys)
        self.require(
            "lost tokens are reported as \(names.sorted().joined(separator: " or "))",
            !found.isEmpty && found.isSubset(of: names) && (sureReason.map { found.contains($0.word) } ?? true),
            found: "\(load.lost)"
        )
        self.require("strict calls end with a status", load.strictRefusals > 0, found: "\(load.strictRefusals) did")
    }

    /// Calls that began some time after the fault's end lost nothing.
    mutating func requireWhole(_ outcome: StoryOutcome, after grace: Double) {
        let since = outcome.fault.to + .seconds(grace)
        let later = outcome.calls.filter { $0.start > since }
        let bad = later.filter { call in
            if case .answered(isSame: true) = call.outcome { return !call.lost.isEmpty }
            return true
        }
        self.require(
            "whole again \(Figure.seconds(grace)) after it",
            bad.isEmpty && !later.isEmpty,
            found: "\(bad.count) of \(later.count) later calls",
            speed: true
        )
    }
}

/// Figures as people read them.
package enum Figure {
    /// Seconds: milliseconds below one.
    package static func seconds(_ value: Double) -> String {
        value < 1 ? "\(Int((value * 1000).rounded())) ms" : "\(Self.decimal(value, 1)) s"
    }

    /// A fraction as a percentage.
    package static func percent(_ value: Double) -> String { "\(Self.decimal(value * 100, 1)) %" }

    /// A number with a fixed count of digits after the point.
    package static func decimal(_ value: Double, _ digits: Int) -> String {
        let scale = (0..<digits).reduce(1.0) { power, _ in power * 10 }
        let whole = Int((abs(value) * scale).rounded())
        let sign = value < 0 && whole > 0 ? "-" : ""
        guard digits > 0 else { return "\(sign)\(whole)" }
        let fraction = String(whole % Int(scale))
        let zeros = String(repeating: "0", count: digits - fraction.count)
        return "\(sign)\(whole / Int(scale)).\(zeros)\(fraction)"
    }
}
