// SPDX-License-Identifier: Apache-2.0

import SwitchyardProtos
import Synchronization
import Testing

@testable import GatewayServing

/// Long texts are cut into tokens one at a time, in the order in which they came; short ones do not wait.
@Suite("Turns of long texts")
struct TextTurnsTests {
    private final class Count: Sendable {
        private let count = Mutex(0)

        var value: Int { self.count.withLock { $0 } }

        @discardableResult
        func add(_ change: Int) -> Int {
            self.count.withLock { count in
                count += change
                return count
            }
        }
    }

    @Test("never two long texts at once, and none is forgotten")
    func oneAtATime() async {
        let turns = TextTurns()
        let (inside, done) = (Count(), Count())
        await withTaskGroup(of: Void.self) { group in
            for _ in 0..<500 {
                group.addTask {
                    await turns.take(TextTurns.longTextBytes) {
                        #expect(inside.add(1) == 1)
                        inside.add(-1)
                        done.add(1)
                    }
                }
            }
        }
        #expect(done.value == 500)
    }

    @Test("a short text does not wait for a long one, and a failed one gives its turn back")
    func short() async {
        struct Fault: Error {}
        let turns = TextTurns()
        await #expect(throws: Fault.self) { try await turns.take(1 << 20) { throw Fault() } }
        await turns.enter()
        let count = Count()
        await turns.take(TextTurns.longTextBytes - 1) { _ = count.add(1) }
        #expect(count.value == 1)
        turns.leave()
        await turns.take(1 << 20) { _ = count.add(1) }
        #expect(count.value == 2)
    }

    @Test("all texts of a request count")
    func bytes() {
        var request = GenerateRequest(input: .text("abc"))
        request.decoderPrefix = .text("de")
        #expect(request.textBytes == 5)
        #expect(GenerateRequest(input: .tokenIDs([1, 2])).textBytes == 0)
        var score = ScoreRequest()
        score.inputs = [
            .init(input: .text("ab"), target: .text("c")), .init(input: .text("d"), target: .tokenIDs([1])),
        ]
        #expect(score.textBytes == 4)
    }
}
