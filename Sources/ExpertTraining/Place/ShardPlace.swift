// SPDX-License-Identifier: Apache-2.0

/// Where a shard's state machine is: steps that it has applied, and what it has taken of the next one.
///
/// A state is a function of the state that it began with and of the calls since, so calls must come in one order, and each must
/// count once. This decides which do; what they compute is not its matter.
struct ShardPlace: Sendable, Hashable {
    /// Steps that are applied; calls are for this step.
    private(set) var step: Int
    /// Which attempt at the step it is.
    private(set) var attempt = 0
    /// `Backward` calls of the attempt that were taken.
    private(set) var records = 0

    /// A place between two steps.
    ///
    /// - Parameter step: Steps that are applied.
    init(step: Int) {
        self.step = step
    }

    /// What becomes of a call.
    enum Verdict: Sendable, Hashable {
        /// It counts; `forgets` says whether gradients of an earlier attempt are forgotten first.
        case taken(forgets: Bool)
        /// It has been taken before: it is answered again, and does not count.
        case known
        /// It is for another place.
        case refused(String)
    }

    /// Decides on rows whose outputs are wanted.
    ///
    /// - Parameter step: The step that the call is for.
    /// - Returns: ``Verdict/known``, since nothing changes, or a refusal.
    func forward(step: Int) -> Verdict {
        step == self.step ? .known : .refused("the call is for step \(step), but \(self.words)")
    }

    /// Decides on rows whose gradients are to be added up.
    ///
    /// - Parameters:
    ///   - step: The step that the call is for.
    ///   - attempt: The attempt at it.
    ///   - record: Which call of the attempt it is, from 0.
    /// - Returns: What becomes of it.
    mutating func backward(step: Int, attempt: Int, record: Int) -> Verdict {
        guard step == self.step, attempt >= self.attempt, record >= 0 else {
            return .refused("the call is for step \(step), attempt \(attempt), but \(self.words)")
        }
        if attempt > self.attempt {
            guard record == 0 else {
                return .refused("the call is number \(record) of attempt \(attempt), but \(self.words)")
            }
            self.attempt = attempt
            self.records = 1
            return .taken(forgets: true)
        }
        if record < self.records { return .known }
        guard record == self.records else { return .refused("the call is number \(record), but \(self.words)") }
        self.records += 1
        return .taken(forgets: record == 0)
    }

    /// Decides on the end of a backward pass.
    ///
    /// - Parameters:
    ///   - step: The step.
    ///   - attempt: The attempt at it.
    ///   - records: `Backward` calls of the attempt.
    /// - Returns: What becomes of it.
    mutating func prepare(step: Int, attempt: Int, records: Int) -> Verdict {
        guard step == self.step, attempt >= self.attempt else {
            return .refused("the call is for step \(step), attempt \(attempt), but \(self.words)")
        }
        if attempt > self.attempt, records == 0 {
            // No token of the attempt came here.
            self.attempt = attempt
            self.records = 0
            return .taken(forgets: true)
        }
        guard attempt == self.attempt, records == self.records else {
            return .refused("the call is for attempt \(attempt) with \(records) calls, but \(self.words)")
        }
        return .taken(forgets: records == 0)
    }

    /// Decides on new weights.
    ///
    /// - Parameters:
    ///   - step: The step.
    ///   - attempt: The attempt at it.
    ///   - records: `Backward` calls of the attempt.
    /// - Returns: What becomes of it.
    mutating func apply(step: Int, attempt: Int, records: Int) -> Verdict {
        if step == self.step - 1 { return .known }
        let verdict = self.prepare(step: step, attempt: attempt, records: records)
        guard case .taken = verdict else { return verdict }
        self.step += 1
        self.attempt = 0
        self.records = 0
        return verdict
    }

    /// Decides on a copy of the state between two steps.
    ///
    /// - Parameter step: Steps that the copy shall have applied.
    /// - Returns: ``Verdict/known``, since nothing changes, or a refusal.
    func snapshot(step: Int) -> Verdict {
        step == self.step
            ? .known : .refused("the copy is of the state after \(step) steps, but \(self.words)")
    }

    /// The place, for people.
    var words: String {
        "the host is at step \(self.step), attempt \(self.attempt), and has taken \(self.records) calls of it"
    }

    /// What cannot be.
    ///
    /// - Returns: The fault; nil where there is none.
    func checkInvariants() -> String? {
        if self.step < 0 || self.attempt < 0 || self.records < 0 { return "a negative number: \(self.words)" }
        return nil
    }
}
