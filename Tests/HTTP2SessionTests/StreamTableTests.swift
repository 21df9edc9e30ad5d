// SPDX-License-Identifier: Apache-2.0

import HTTP2Session
import Testing

@Suite("A table of streams")
struct StreamTableTests {
    /// How identifiers are chosen.
    enum Choice: String, CaseIterable {
        /// As a client opens streams.
        case growing
        /// So that they share places.
        case colliding
        case chance
    }

    @Test("holds what a dictionary holds", arguments: Choice.allCases)
    func agreesWithDictionary(choice: Choice) {
        var generator = SplitMix64(state: 11)
        var table = StreamTable<Int>()
        var expected: [Int32: Int] = [:]
        var next: Int32 = 1
        for step in 0..<6_000 {
            // Phases of growth and of decline.
            let grows = step / 1_000 % 2 == 0
            if Int.random(in: 0..<10, using: &generator) < (grows ? 7 : 3) {
                let id: Int32
                switch choice {
                case .growing:
                    id = next
                    next += 2
                case .colliding: id = 1 + 2_048 * Int32.random(in: 0..<1_000, using: &generator)
                case .chance: id = Int32.random(in: 1...Int32.max, using: &generator) | 1
                }
                table[id] = step
                expected[id] = step
            } else if let id = expected.keys.sorted().randomElement(using: &generator) {
                #expect(table.removeValue(forKey: id) == expected.removeValue(forKey: id))
            }
            #expect(table.count == expected.count)
            #expect(table.isEmpty == expected.isEmpty)
            if step % 97 == 0 {
                #expect(table.checkInvariants() == nil)
                #expect(table.values.sorted() == expected.values.sorted())
                for (id, value) in expected { #expect(table[id] == value) }
            }
            let other = Int32.random(in: 1...Int32.max, using: &generator)
            #expect(table[other] == expected[other])
        }
        for id in expected.keys { table[id] = nil }
        #expect(table.isEmpty)
        #expect(table.checkInvariants() == nil)
    }

    @Test("takes the first and the last identifier, and replaces a value")
    func edges() {
        var table = StreamTable<String>()
        for id in [1, 2, Int32.max, Int32.max - 2] {
            table[id] = "first"
            table[id] = "second"
        }
        #expect(table.count == 4)
        #expect(table[Int32.max] == "second")
        #expect(table[3] == nil)
        #expect(table.removeValue(forKey: 3) == nil)
        #expect(table.removeValue(forKey: 2) == "second")
        #expect(table.count == 3)
        #expect(table.checkInvariants() == nil)
    }
}
