// SPDX-License-Identifier: Apache-2.0

internal import BatchScheduling

/// Which sequence has which inputs in one call of the model, and which sequences are still in it: a pure machine.
///
/// An input is what the model counts as a sequence: an encoder input, or one decoder row. A request with beams or with
/// several returned sequences has several.
struct StepBook: Sendable {
    /// One sequence's part of a call.
    struct Member: Sendable, Equatable {
        let id: SequenceID
        /// Number of its inputs, which follow the previous member's; at least 1.
        let inputs: Int
    }

    /// What happens when a sequence leaves in the middle of a call.
    enum OnLeave: Sendable, Equatable {
        /// Others need the call: it continues.
        case goOn
        /// No sequence needs the call any more: stop it.
        case abandon
        /// The sequence was not in the call, or had already left it.
        case ignore
    }

    /// The members in the order of their inputs.
    let members: [Member]

    /// For each member the index after its last input, ascending.
    private let ends: [Int]

    /// Sequences that left in the middle of the call.
    private(set) var left: Set<SequenceID> = []

    /// Creates the book of a call.
    ///
    /// - Parameter members: The members in the order of their inputs.
    init(members: [Member]) {
        self.members = members
        var end = 0
        self.ends = members.map {
            end += $0.inputs
            return end
        }
    }

    /// Inputs of all members.
    var inputCount: Int { self.ends.last ?? 0 }

    /// Whether no sequence needs the call any more.
    var isAbandoned: Bool { !self.members.isEmpty && self.left.count == self.members.count }

    /// The sequence that an input belongs to.
    ///
    /// - Parameter input: The index of an input of the call.
    /// - Returns: Nil if the call has no such input.
    func owner(ofInput input: Int) -> SequenceID? {
        guard input >= 0, input < self.inputCount else {
            return nil
        }
        var low = 0
        var high = self.ends.count - 1
        while low < high {
            let middle = (low + high) / 2
            if self.ends[middle] > input {
                high = middle
            } else {
                low = middle + 1
            }
        }
        return self.members[low].id
    }

    /// Removes a sequence: its client is gone, or it failed.
    ///
    /// - Parameter id: The sequence.
    /// - Returns: What to do with the call.
    mutating func leave(_ id: SequenceID) -> OnLeave {
        guard self.members.contains(where: { $0.id == id }), self.left.insert(id).inserted else {
            return .ignore
        }
        return self.isAbandoned ? .abandon : .goOn
    }
}
