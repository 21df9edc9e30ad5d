// SPDX-License-Identifier: Apache-2.0

import Testing

@testable import TrainingData

@Suite("Span corruption")
struct CorruptionTests {
    private struct Golden: Decodable {
        struct Task: Decodable {
            var density: Double
            var mean: Double
            /// For each length from 2: hidden tokens and spans.
            var counts: [[Int]]
        }

        struct Example: Decodable {
            var tokens: [Int32]
            var mask: [Bool]
            var input: [Int32]
            var target: [Int32]
        }

        var tasks: [Task]
        var examples: [Example]
        var vocabulary: Int32
        /// Limit of the input, the longest text, its target's length.
        var longest: [[Int]]
    }

    private func spans(of mask: [Bool]) -> Int {
        mask.indices.count { mask[$0] && ($0 == 0 || !mask[$0 - 1]) }
    }

    @Test("hides as many tokens in as many spans as transformers' script")
    func counts() throws {
        let golden = try Support.fixture(Golden.self, "corruption")
        for task in golden.tasks {
            let corruption = SpanCorruption(density: task.density, meanSpanLength: task.mean)
            for (index, counts) in task.counts.enumerated() {
                var random = KeyedRandom(key: UInt64(index))
                let mask = corruption.mask(length: index + 2, random: &random)
                #expect(mask.count == index + 2)
                #expect(
                    [mask.count { $0 }, self.spans(of: mask)] == counts,
                    "\(task.density) \(task.mean) \(index + 2)"
                )
                #expect(!mask[0] && mask[mask.count - 1])
            }
        }
    }

    @Test("makes the input and target that transformers' script makes of a mask")
    func examples() throws {
        let golden = try Support.fixture(Golden.self, "corruption")
        let sentinels = (1...100).map { golden.vocabulary - Int32($0) }
        for example in golden.examples {
            let made = SpanCorruption.t5.corrupt(example.tokens, mask: example.mask, sentinels: sentinels, end: 1)
            #expect(made.input == example.input)
            #expect(made.target == example.target)
        }
    }

    @Test("finds T5's longest text for an input")
    func longest() throws {
        for golden in try Support.fixture(Golden.self, "corruption").longest {
            let longest = SpanCorruption.t5.longestText(
                maximumInputTokens: golden[0],
                maximumTargetTokens: 4096,
                sentinelCount: 100
            )
            #expect(longest == golden[1])
            #expect(SpanCorruption.t5.lengths(of: golden[1]).target == golden[2])
        }
        // Few sentinels, or a short target, bound the text too.
        let task = SpanCorruption.t5
        let few = try #require(task.longestText(maximumInputTokens: 512, maximumTargetTokens: 512, sentinelCount: 3))
        #expect(task.lengths(of: few).sentinels == 3 && task.lengths(of: few + 1).sentinels > 3)
        let short = try #require(task.longestText(maximumInputTokens: 512, maximumTargetTokens: 20, sentinelCount: 100))
        #expect(task.lengths(of: short).target <= 20 && task.lengths(of: short + 1).target > 20)
        #expect(task.longestText(maximumInputTokens: 512, maximumTargetTokens: 512, sentinelCount: 0) == nil)
    }

    @Test("lengths foretell the example", arguments: [false, true])
    func lengths(endsWithSentinel: Bool) {
        let task = SpanCorruption(density: 0.3, meanSpanLength: 2, endsWithSentinel: endsWithSentinel)
        for length in 2..<120 {
            var random = KeyedRandom(key: 9, UInt64(length))
            let mask = task.mask(length: length, random: &random)
            let tokens = (0..<length).map { Int32($0 + 10) }
            let sentinels = (0..<100).map { Int32(1000 - $0) }
            let made = task.corrupt(tokens, mask: mask, sentinels: sentinels, end: 1)
            let lengths = task.lengths(of: length)
            #expect([made.input.count, made.target.count] == [lengths.input, lengths.target])
            let used = made.target.filter { $0 > 900 }
            #expect(used == Array(sentinels.prefix(lengths.sentinels)))
            #expect(
                made.input.filter { $0 > 900 }
                    == Array(sentinels.prefix(lengths.sentinels - (endsWithSentinel ? 1 : 0)))
            )
            #expect((made.input + made.target).filter { $0 >= 10 && $0 < 900 }.sorted() == tokens)
        }
    }

    @Test("all masks of a short text are as likely as the others")
    func isEven() {
        // 8 tokens, of which 4 are hidden in 2 spans: 3 x 3 masks.
        let task = SpanCorruption(density: 0.5, meanSpanLength: 2)
        var counts: [[Bool]: Int] = [:]
        for key in 0..<9000 {
            var random = KeyedRandom(key: UInt64(key))
            counts[task.mask(length: 8, random: &random), default: 0] += 1
        }
        #expect(counts.count == 9)
        #expect(counts.values.allSatisfy { abs($0 - 1000) < 160 })
    }

    @Test(
        "numbers out of range are refused",
        arguments: [(0, 3.0), (1, 3), (.nan, 3), (0.15, 0.5), (0.15, .infinity), (0.15, .nan)]
    )
    func refused(density: Double, mean: Double) {
        let error = #expect(throws: DataError.self) {
            try SpanCorruption(density: density, meanSpanLength: mean).check()
        }
        #expect(error?.code == .invalidSettings)
    }
}
