// SPDX-License-Identifier: Apache-2.0

import Synchronization
import TensorKernels
import Testing

@testable import SwitchModel

@Suite("A decoder call's queries")
struct DecoderShareTests {
    /// Tokens of some rows, each with a length so far and new tokens.
    private static func positions(_ rows: [(length: Int, tokens: Int)]) -> [DecoderPosition] {
        rows.enumerated()
            .flatMap { row, size in
                (0..<size.tokens).map { DecoderPosition(row: row, position: size.length + $0) }
            }
    }

    private static let calls: [[DecoderPosition]] = [
        positions([(0, 1)]), positions([(5, 1), (90, 1), (0, 1), (17, 1)]), positions([(0, 70)]),
        positions([(3, 9), (0, 1), (200, 33)]), positions([(0, 2), (0, 0), (1, 1)]),
    ]

    @Test("are each computed once, row by row, in parts of about as much work", arguments: calls, [1, 2, 3, 7])
    func parts(positions: [DecoderPosition], threads: Int) {
        let heads = 5
        let share = DecoderShare(positions: positions, headCount: heads)
        let seen = Mutex<[[Int]: Int]>([:])
        let costs = Mutex<[Int: Int]>([:])
        let pool = WorkPool(threads: threads)
        func keyCount(_ place: DecoderPosition) -> Int { place.position + 1 }
        share.run(on: pool, keys: keyCount) { row, head, tokens, scratch in
            seen.withLock { seen in
                for token in tokens { seen[[row, head, token], default: 0] += 1 }
            }
            let cost = tokens.reduce(0) { $0 + positions[$1].position + 17 }
            costs.withLock { $0[Int(bitPattern: scratch), default: 0] += cost }
        }
        let expected = positions.indices.flatMap { token in
            (0..<heads).map { ([positions[token].row, $0, token], 1) }
        }
        #expect(seen.withLock { $0 } == Dictionary(uniqueKeysWithValues: expected))
        // A part ends with the query in which its share of the work ends.
        let largest = positions.reduce(0) { max($0, $1.position + 17) }
        let total = positions.reduce(0) { $0 + heads * ($1.position + 17) }
        let most = costs.withLock { $0.values.max() ?? 0 }
        #expect(costs.withLock { $0.count } <= pool.threadCount)
        #expect(most <= total / pool.threadCount + 1 + largest)
    }

    @Test("are a step's where each row has one")
    func steps() {
        let isStep = Self.calls.map { DecoderShare(positions: $0, headCount: 1).hasOneTokenPerRow }
        #expect(isStep == [true, true, false, false, false])
    }
}
