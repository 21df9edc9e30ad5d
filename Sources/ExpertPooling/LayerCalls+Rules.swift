// SPDX-License-Identifier: Apache-2.0

// What must hold of a layer's calls after every event.
extension LayerCalls {
    /// Attempts that the pools count as in flight: those that are, and those that await a verdict.
    package var openAttempts: Int {
        self.calls.reduce(0) { $0 + $1.out.count + $1.suspects.count + ($1.audit?.opinions.count ?? 0) }
    }

    /// What must hold after every event.
    ///
    /// - Returns: The first rule that does not hold; nil if all do.
    package func checkInvariants() -> String? {
        var open = 0
        for (index, call) in self.calls.enumerated() {
            switch call.phase {
            case .out:
                open += 1
                if call.out.isEmpty, call.audit?.own != .asked {
                    return "call \(index) waits for attempts, but none is in flight"
                }
            case .waiting:
                open += 1
                if !call.out.isEmpty {
                    return "call \(index) waits for its next attempt, but \(call.out.count) are in flight"
                }
            case .ended:
                if !call.out.isEmpty || !call.suspects.isEmpty || call.audit != nil {
                    return "call \(index) has ended, but its attempts have not"
                }
            }
            if call.out.count > (call.audit == nil ? 2 : 3) {
                return "call \(index) has \(call.out.count) attempts in flight"
            }
            if Set(call.out.map(\.number)).count != call.out.count { return "call \(index) has an attempt twice" }
            if Set(call.out.map(\.slot)).count != call.out.count {
                return "call \(index) has two attempts in flight at one replica"
            }
            if call.out.count(where: \.isHedge) > 1 { return "call \(index) has two hedges in flight" }
            if call.sent > self.attemptLimit { return "call \(index) was sent \(call.sent) times" }
            if call.made < call.sent || call.tried.count != call.made {
                return
                    "call \(index) was sent \(call.sent) times and tried \(call.tried.count) replicas in \(call.made) attempts"
            }
            if let missing = call.missing, missing > call.rows {
                return "call \(index) lacks \(missing) of \(call.rows) rows"
            }
        }
        return open == self.open ? nil : "\(open) calls are open, but \(self.open) are counted"
    }
}
