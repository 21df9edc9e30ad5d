// SPDX-License-Identifier: Apache-2.0

import Testing

@testable import TrainingData

@Suite("Orders of lines")
struct OrderTests {
    @Test(
        "every number has one place, whatever the count",
        arguments: [0, 1, 2, 3, 4, 5, 16, 17, 64, 65, 1000, 4096, 70_001]
    )
    func permutes(count: Int) {
        for epoch in [UInt64(0), 1, .max] {
            let order = Permutation(count: count, seed: 7, epoch: epoch)
            var seen = [Bool](repeating: false, count: count)
            for place in 0..<count {
                let number = order[place]
                #expect(!seen[number], "\(number) twice")
                seen[number] = true
            }
            #expect(seen.allSatisfy { $0 })
        }
    }

    @Test("an order is a function of seed, epoch and count")
    func isPure() {
        func order(_ seed: UInt64, _ epoch: UInt64, count: Int = 500) -> [Int] {
            let order = Permutation(count: count, seed: seed, epoch: epoch)
            return (0..<count).map { order[$0] }
        }
        #expect(order(1, 0) == order(1, 0))
        #expect(order(1, 0) != order(1, 1))
        #expect(order(1, 0) != order(2, 0))
        // A run that was saved must get the same order from any later version: this one is written down.
        #expect(order(1, 0, count: 8) == Self.written)
    }

    private static let written = [2, 7, 6, 1, 4, 3, 0, 5]

    @Test("all places are as likely as the others")
    func isEven() {
        // Each of 10 numbers at each of 10 places: 400 expected of 4,000 orders, 19 standard deviation.
        var counts = [[Int]](repeating: [Int](repeating: 0, count: 10), count: 10)
        for epoch in 0..<4000 {
            let order = Permutation(count: 10, seed: 3, epoch: UInt64(epoch))
            for place in 0..<10 {
                counts[place][order[place]] += 1
            }
        }
        for count in counts.flatMap({ $0 }) {
            #expect(abs(count - 400) < 100)
        }
        // Neighbours do not stay neighbours: of 100,000 pairs about 2 would by chance.
        let order = Permutation(count: 100_000, seed: 3, epoch: 0)
        let together = (1..<100_000).count { abs(order[$0] - order[$0 - 1]) == 1 }
        #expect(together < 30)
    }

    @Test("a vast count needs no table")
    func vast() {
        let count = 1 << 40 + 12345
        let order = Permutation(count: count, seed: 1, epoch: 2)
        #expect(Set((0..<1000).map { order[$0] }).count == 1000)
        #expect((0..<1000).allSatisfy { order[$0] >= 0 && order[$0] < count })
    }

    @Test("held-out lines and the others are all lines, each once", arguments: [0.0, 0.001, 0.1, 0.5, 0.99])
    func split(share: Double) throws {
        let split = try DataSplit(lineCount: 1001, evaluationShare: share, seed: 5)
        let held = (0..<split.evaluationCount).map { split.evaluationLine($0) }
        let learned = (0..<split.trainingCount).map { split.trainingLine($0) }
        #expect(held.count == Int((1001 * share).rounded()))
        #expect((held + learned).sorted() == Array(0..<1001))
        let again = try DataSplit(lineCount: 1001, evaluationShare: share, seed: 5)
        #expect((0..<again.evaluationCount).map { again.evaluationLine($0) } == held)
    }

    @Test("a share that leaves nothing is refused", arguments: [-0.1, 1, 0.99999, .nan])
    func refusedShare(share: Double) {
        let error = #expect(throws: DataError.self) {
            try DataSplit(lineCount: 100, evaluationShare: share, seed: 0)
        }
        #expect(error?.code == .invalidSettings)
        #expect(error?.message.contains("\(share)") == true)
    }

    @Test("bounded numbers reach all values and no others")
    func below() {
        var random = KeyedRandom(key: 1, 2, 3)
        var counts = [Int](repeating: 0, count: 7)
        for _ in 0..<7000 {
            counts[random.below(7)] += 1
        }
        #expect(counts.allSatisfy { abs($0 - 1000) < 200 })
        #expect(random.below(1) == 0)
    }
}
