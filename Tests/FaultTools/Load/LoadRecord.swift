// SPDX-License-Identifier: Apache-2.0

package import SwitchyardClient
internal import Synchronization

/// How one call of the load ended.
package struct LoadCall: Sendable {
    /// How it ended.
    package enum Outcome: Sendable, Hashable {
        /// With an answer; `isSame` says whether the ids are those of the undisturbed run.
        case answered(isSame: Bool)
        /// With a status.
        case failed(Status.Code, String)
    }

    /// When it was made and when it ended, since the record began.
    package var start: Duration
    package var end: Duration
    package var outcome: Outcome
    /// Tokens that hosts lost, by reason, without those that capacity dropped.
    package var lost: [WireDropReason: UInt64] = [:]
    /// Whether it asked that no token be lost.
    package var isStrict: Bool
    /// Whether a refusal said when to retry.
    package var hasRetryHint = false
    /// Tokens of the answer.
    package var tokens = 0
}

/// One token as the client saw it.
package struct TokenSample: Sendable, Hashable {
    /// When it arrived, in seconds since the record began.
    package var time: Float
    /// How long after the one before it, or after the call was made, in seconds.
    package var gap: Float
    /// Whether it is the first of its call.
    package var isFirst: Bool
}

/// What clients saw, in real time.
package final class LoadRecord: Sendable {
    private struct State {
        var calls: [LoadCall] = []
        var samples: [TokenSample] = []
        /// Counts that replace samples and calls that are not kept.
        var summary = LoadSummary()
    }

    private let begin = ContinuousClock.now
    private let keepsEverything: Bool
    private let state = Mutex(State())

    /// Creates an empty record; its time begins now.
    ///
    /// - Parameter keepsEverything: Whether every call and token is kept, or only what ``summary`` holds.
    package init(keepsEverything: Bool = true) {
        self.keepsEverything = keepsEverything
    }

    /// Time since the record began.
    package var now: Duration { self.begin.duration(to: .now) }

    /// Everything that was kept, in the order of its end.
    package var contents: (calls: [LoadCall], samples: [TokenSample]) {
        self.state.withLock { ($0.calls, $0.samples) }
    }

    /// Counts of everything.
    package var summary: LoadSummary { self.state.withLock { $0.summary } }

    func add(_ call: LoadCall) {
        self.state.withLock { state in
            if self.keepsEverything { state.calls.append(call) }
            state.summary.count(call)
        }
    }

    func add(_ sample: TokenSample) {
        self.state.withLock { state in
            if self.keepsEverything { state.samples.append(sample) }
            state.summary.tokens += 1
            state.summary.longestGap = max(state.summary.longestGap, Double(sample.gap))
        }
    }
}

/// Calls counted by how they ended.
package struct LoadSummary: Sendable, Codable, Hashable {
    /// Calls that ended.
    package var calls = 0
    /// Calls that ended with a status instead of an answer, without strict ones.
    package var failed = 0
    /// Strict calls that ended with `UNAVAILABLE` or `DEADLINE_EXCEEDED`, as they asked to.
    package var strictRefusals = 0
    /// Answers whose ids are not those of the undisturbed run.
    package var otherIDs = 0
    /// Those of them that lost no token: wrong answers.
    package var wrongIDs = 0
    /// Answers that lost tokens.
    package var degraded = 0
    /// Tokens that hosts lost, by the reason's name.
    package var lost: [String: UInt64] = [:]
    /// Statuses of failed calls and how often they came.
    package var statuses: [String: Int] = [:]
    /// Tokens that came.
    package var tokens = 0
    /// The longest wait of a client for its next token, in seconds.
    package var longestGap = 0.0

    /// Creates an empty summary.
    package init() {}

    /// Tokens that hosts lost, for any reason.
    package var lostTokens: UInt64 { self.lost.values.reduce(0, +) }

    /// Both together.
    package func joined(_ other: LoadSummary) -> LoadSummary {
        var joined = self
        joined.calls += other.calls
        joined.failed += other.failed
        joined.strictRefusals += other.strictRefusals
        joined.otherIDs += other.otherIDs
        joined.wrongIDs += other.wrongIDs
        joined.degraded += other.degraded
        joined.lost.merge(other.lost) { $0 + $1 }
        joined.statuses.merge(other.statuses) { $0 + $1 }
        joined.tokens += other.tokens
        joined.longestGap = max(self.longestGap, other.longestGap)
        return joined
    }

    mutating func count(_ call: LoadCall) {
        self.calls += 1
        for (reason, tokens) in call.lost { self.lost[reason.word, default: 0] += tokens }
        switch call.outcome {
        case .answered(let isSame):
            if !call.lost.isEmpty { self.degraded += 1 }
            if !isSame { self.otherIDs += 1 }
            if !isSame, call.lost.isEmpty { self.wrongIDs += 1 }
        case .failed(let code, let message):
            self.statuses["\(code): \(message.prefix(160))", default: 0] += 1
            if call.isStrict, code == .unavailable || code == .deadlineExceeded {
                self.strictRefusals += 1
            } else {
                self.failed += 1
            }
        }
    }
}

extension WireDropReason {
    /// The reason as the protocol writes it.
    package var word: String {
        switch self {
        case .unspecified: "UNSPECIFIED"
        case .capacity: "CAPACITY"
        case .timeout: "TIMEOUT"
        case .unavailable: "UNAVAILABLE"
        case .overloaded: "OVERLOADED"
        case .badReply: "BAD_REPLY"
        }
    }
}
