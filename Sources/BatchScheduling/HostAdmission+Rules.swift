// SPDX-License-Identifier: Apache-2.0

extension HostAdmission {
    /// What must hold after every event.
    ///
    /// - Returns: The first rule that does not hold; nil if all do.
    package func checkInvariants() -> String? {
        let rows = self.queue.reduce(0) { $0 + $1.call.rows }
        if rows != self.waitingRows { return "\(rows) rows wait, but \(self.waitingRows) are counted" }
        if rows > self.limits.rows { return "\(rows) rows wait, more than the limit of \(self.limits.rows)" }
        if self.queue.count > self.limits.calls { return "\(self.queue.count) calls wait" }
        if Set(self.queue.map(\.id)).count != self.queue.count { return "a call waits twice" }
        for computing in [self.computing, self.beside].compactMap({ $0 }) {
            if computing.pass.calls.isEmpty { return "a pass has no calls" }
            if let call = self.queue.first(where: { computing.pass.calls.contains($0.id) }) {
                return "call \(call.id.rawValue) waits and is computed"
            }
            if computing.pass.calls.count > 1, computing.pass.rows > self.batching.rows {
                return "a pass of several calls has \(computing.pass.rows) rows"
            }
        }
        if let beside = self.beside, self.computing?.isTraining != true || beside.isTraining {
            return "a pass is computed beside one that does not pause for it"
        }
        let computed = (self.computing?.calls ?? []) + (self.beside?.calls ?? [])
        for source in Set(self.queue.map(\.call.source) + computed.map(\.source)) {
            let waiting = self.queue.filter { $0.call.source == source }
            let held = self.turns.held(by: source)
            let heldRows = waiting.reduce(0) { $0 + $1.call.rows }
            if held.calls != waiting.count || held.rows != heldRows {
                return "\(waiting.count) calls with \(heldRows) rows of \(source) wait, but \(held) is counted"
            }
            let computing = computed.filter { $0.source == source }
            let open = (waiting.map(\.call) + computing).count { !$0.isTraining }
            if let counted = self.forecast.unanswered(by: source), counted != open {
                return "\(open) calls of \(source) are open, but \(counted) are counted"
            }
        }
        return self.turns.checkInvariants()
    }
}
