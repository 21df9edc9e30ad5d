// SPDX-License-Identifier: Apache-2.0

import BatchScheduling
import Checkpoints
import RPCCore
import SwitchModel
import SwitchyardTypes
import TensorKernels
import Testing

@testable import GatewayServing

@Suite
struct StepBookTests {
    private let first = SequenceID(1)
    private let second = SequenceID(2)
    private let third = SequenceID(3)

    private var book: StepBook {
        StepBook(members: [
            .init(id: self.first, inputs: 1), .init(id: self.second, inputs: 3), .init(id: self.third, inputs: 2),
        ])
    }

    @Test("Every input has one owner")
    func owners() {
        let owners = (-1..<7).map { self.book.owner(ofInput: $0)?.value }
        #expect(owners == [nil, 1, 2, 2, 2, 3, 3, nil])
        #expect(self.book.inputCount == 6)
        #expect(StepBook(members: []).owner(ofInput: 0) == nil)
    }

    @Test("A call is abandoned when the last of its sequences has left, and not before")
    func leaving() {
        var book = self.book
        let actions = [self.second, self.second, SequenceID(9), self.first].map { book.leave($0) }
        #expect(actions == [.goOn, .ignore, .ignore, .goOn])
        #expect(!book.isAbandoned)
        let last = book.leave(self.third)
        #expect(last == .abandon)
        #expect(book.isAbandoned)
        #expect(book.left == [self.first, self.second, self.third])
        #expect(!StepBook(members: []).isAbandoned)
    }
}

@Suite
struct DropLedgerTests {
    private let encoder = SparseLayer(stack: .encoder, block: 1)
    private let decoder = SparseLayer(stack: .decoder, block: 3)

    @Test("Drops are reported by layer and reason, in order")
    func entries() {
        var ledger = DropLedger()
        ledger.routed(100)
        ledger.dropped(2, layer: self.decoder, reason: .timeout)
        ledger.dropped(1, layer: self.encoder, reason: .unavailable)
        ledger.dropped(3, layer: self.encoder, reason: .capacity)
        ledger.dropped(1, layer: self.decoder, reason: .timeout)
        ledger.dropped(0, layer: self.decoder, reason: .badReply)
        #expect(
            ledger.entries == [
                .init(layer: self.encoder, reason: .capacity, count: 3),
                .init(layer: self.encoder, reason: .unavailable, count: 1),
                .init(layer: self.decoder, reason: .timeout, count: 3),
            ]
        )
        #expect(ledger.lostCount == 4)
    }

    @Test(
        "A strict policy is broken by every reason but capacity",
        arguments: zip(
            DropReason.allCases,
            [nil, .deadlineExceeded, .unavailable, .unavailable, .unavailable] as [Status.Code?]
        )
    )
    func strict(reason: DropReason, code: Status.Code?) {
        var ledger = DropLedger()
        ledger.routed(1000)
        #expect(ledger.violation(of: DropPolicy(strict: true)) == nil)
        ledger.dropped(1, layer: self.encoder, reason: reason)
        #expect(ledger.violation(of: .allow) == nil)
        let error = ledger.violation(of: DropPolicy(strict: true))
        #expect(error?.code == code)
        if let error {
            #expect(error.message.contains("encoder layer 1"))
        }
    }

    @Test("The fraction is tokens lost by hosts over all routed tokens")
    func fraction() {
        let policy = DropPolicy(maxDroppedFraction: 0.1)
        var ledger = DropLedger()
        ledger.routed(100)
        ledger.dropped(50, layer: self.encoder, reason: .capacity)
        ledger.dropped(10, layer: self.encoder, reason: .timeout)
        #expect(ledger.violation(of: policy) == nil)
        ledger.dropped(1, layer: self.encoder, reason: .unavailable)
        let error = ledger.violation(of: policy)
        #expect(error?.code == .deadlineExceeded)
        #expect(error?.message.contains("11 of 100") == true)
        ledger.routed(10)
        #expect(ledger.violation(of: policy) == nil)
    }
}

@Suite
struct StopMatcherTests {
    /// Text in pieces, the stop strings, the text shown, and whether it stops.
    struct Case: Sendable, CustomTestStringConvertible {
        let pieces: [String]
        let stops: [String]
        let shown: [String]
        let stopped: Bool
        var testDescription: String { "\(self.pieces) / \(self.stops)" }
    }

    static let cases: [Case] = [
        Case(pieces: ["one", " two"], stops: [], shown: ["one", " two", ""], stopped: false),
        Case(pieces: ["one", " two"], stops: [" t"], shown: ["one", ""], stopped: true),
        Case(pieces: ["ab", "ac"], stops: ["abb"], shown: ["", "abac", ""], stopped: false),
        Case(pieces: ["xa", "b", "c"], stops: ["abc"], shown: ["x", "", ""], stopped: true),
        Case(pieces: ["xa", "b", "d"], stops: ["abc"], shown: ["x", "", "abd", ""], stopped: false),
        Case(pieces: ["aab"], stops: ["ab"], shown: ["a"], stopped: true),
        Case(pieces: ["end a", "b"], stops: ["abc"], shown: ["end ", "", "ab"], stopped: false),
        // The stop string that starts first wins, not the one listed first.
        Case(pieces: ["say yes no"], stops: ["no", "yes"], shown: ["say "], stopped: true),
        Case(pieces: ["caf", "\u{E9}!"], stops: ["\u{E9}"], shown: ["caf", ""], stopped: true),
    ]

    @Test("Text is held back exactly as long as it may be a stop string", arguments: Self.cases)
    func matching(example: Case) {
        var matcher = StopMatcher(stops: example.stops)
        var shown: [String] = []
        var stopped = false
        for piece in example.pieces where !stopped {
            let output = matcher.feed(piece)
            shown.append(output.text)
            stopped = output.isStopped
        }
        if stopped {
            let more = matcher.feed("more")
            #expect(more == .init(text: "", isStopped: true))
            let rest = matcher.finish()
            #expect(rest == "")
        } else {
            shown.append(matcher.finish())
        }
        #expect(shown == example.shown)
        #expect(stopped == example.stopped)
    }

    @Test("The same text is shown however it is cut into pieces")
    func cuts() {
        let text = "aabababcabc and abd abcd"
        for stop in ["abc", "abd", "abab", "zz", "d"] {
            var whole = StopMatcher(stops: [stop])
            let expected = whole.feed(text).text + whole.finish()
            for size in 1...text.count {
                var matcher = StopMatcher(stops: [stop])
                var shown = ""
                var rest = text[...]
                while !rest.isEmpty {
                    shown += matcher.feed(String(rest.prefix(size))).text
                    rest = rest.dropFirst(size)
                }
                shown += matcher.finish()
                #expect(shown == expected, "\(stop) in pieces of \(size)")
            }
        }
    }
}

@Suite
struct TokenScoringTests {
    @Test("Log-probabilities are those of the softmax, best first")
    func scores() {
        let logits = FloatMatrix(rows: 2, columns: 4)
        for (index, value) in [0, 1, 2, 1, -100, 3, 3, 100].enumerated() {
            logits.pointer[index] = Float(value)
        }
        let scores = TokenScoring.scores(of: [1, 0], logits: logits, topLogprobs: 3)
        // ln(e^0 + e^1 + e^2 + e^1) = 2.6265...
        #expect(abs(scores[0].logprob - (1 - 2.626_523)) < 1e-5)
        #expect(scores[0].topLogprobs.map(\.id) == [2, 1, 3])
        #expect(abs(scores[0].topLogprobs[0].logprob - (2 - 2.626_523)) < 1e-5)
        #expect(scores[1].logprob == -200)
        #expect(scores[1].topLogprobs.map(\.id) == [3, 1, 2])
        #expect(TokenScoring.scores(of: [1, 0], logits: logits, topLogprobs: 0).allSatisfy { $0.topLogprobs.isEmpty })
    }
}
