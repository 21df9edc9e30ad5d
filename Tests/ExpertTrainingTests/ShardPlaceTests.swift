// SPDX-License-Identifier: Apache-2.0

import Testing

@testable import ExpertTraining

@Suite("Where a training host is")
struct ShardPlaceTests {
    private func refuses(_ verdict: ShardPlace.Verdict, _ words: String) -> Bool {
        if case .refused(let reason) = verdict { return reason.contains(words) }
        return false
    }

    @Test("Calls of a step count in their order, once each")
    func order() {
        var place = ShardPlace(step: 7)
        #expect(place.forward(step: 7) == .known)
        #expect(place.backward(step: 7, attempt: 0, record: 0) == .taken(forgets: true))
        #expect(self.refuses(place.backward(step: 7, attempt: 0, record: 2), "number 2"))
        #expect(place.backward(step: 7, attempt: 0, record: 1) == .taken(forgets: false))
        #expect(place.backward(step: 7, attempt: 0, record: 0) == .known)
        #expect(self.refuses(place.prepare(step: 7, attempt: 0, records: 3), "3 calls"))
        #expect(place.prepare(step: 7, attempt: 0, records: 2) == .taken(forgets: false))
        #expect(place.apply(step: 7, attempt: 0, records: 2) == .taken(forgets: false))
        #expect(place.step == 8)
        #expect(place.apply(step: 7, attempt: 0, records: 2) == .known)
        #expect(place.checkInvariants() == nil)
    }

    @Test("Calls for another step are refused, and change nothing")
    func otherSteps() {
        var place = ShardPlace(step: 7)
        let before = place
        for step in [0, 6, 8] {
            #expect(self.refuses(place.forward(step: step), "step \(step)"))
            #expect(self.refuses(place.backward(step: step, attempt: 0, record: 0), "step \(step)"))
            #expect(self.refuses(place.prepare(step: step, attempt: 0, records: 0), "step \(step)"))
            #expect(self.refuses(place.snapshot(step: step), "after \(step) steps"))
            if step != 6 { #expect(self.refuses(place.apply(step: step, attempt: 0, records: 0), "step \(step)")) }
        }
        #expect(place == before)
    }

    @Test("Another attempt forgets what the last one added, and an older one is refused")
    func attempts() {
        var place = ShardPlace(step: 0)
        #expect(place.backward(step: 0, attempt: 0, record: 0) == .taken(forgets: true))
        #expect(self.refuses(place.backward(step: 0, attempt: 2, record: 1), "attempt 2"))
        #expect(place.backward(step: 0, attempt: 2, record: 0) == .taken(forgets: true))
        #expect(self.refuses(place.backward(step: 0, attempt: 1, record: 0), "attempt 1"))
        // An attempt of which no row came here.
        #expect(place.prepare(step: 0, attempt: 3, records: 0) == .taken(forgets: true))
        #expect(place.apply(step: 0, attempt: 3, records: 0) == .taken(forgets: true))
        #expect(place.step == 1 && place.attempt == 0)
    }
}
