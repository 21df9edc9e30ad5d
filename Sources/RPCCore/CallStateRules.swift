// SPDX-License-Identifier: Apache-2.0

// What must hold of the two call states after every event.
extension ClientCallState {
    /// What must hold after every event.
    ///
    /// - Returns: The first rule that does not hold; nil if all do.
    package func checkInvariants() -> String? {
        guard case .receiving(_, let messages) = self.phase else { return nil }
        if messages < 0 { return "\(messages) messages came" }
        if self.shape.hasSingleResponse, messages > 1 {
            return "\(messages) messages came from a method that sends one"
        }
        return nil
    }
}

extension ServerCallState {
    /// What must hold after every event.
    ///
    /// - Returns: The first rule that does not hold; nil if all do.
    package func checkInvariants() -> String? {
        guard case .open(_, let received, let sent) = self.phase, let shape = self.shape else { return nil }
        if received < 0 || sent < 0 { return "\(received) messages came and \(sent) went" }
        if shape.hasSingleRequest, received > 1 { return "\(received) messages came to a method that takes one" }
        if shape.hasSingleResponse, sent > 1 { return "\(sent) messages went from a method that sends one" }
        return nil
    }
}
