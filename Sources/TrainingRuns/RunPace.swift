// SPDX-License-Identifier: Apache-2.0

/// When a run reports, evaluates, saves and ends: a value that is told of steps and time.
public struct RunPace: Sendable, Hashable {
    /// What to do after a step, in this order.
    public enum Action: Sendable, Hashable {
        /// Say how the last steps went.
        case report
        /// Evaluate.
        case evaluate
        /// Save.
        case save
        /// End the run.
        case finish
    }

    /// Steps that were taken.
    public private(set) var step: Int
    private let steps: Int?
    private let seconds: Double?
    private let perReport: Int
    private let perEvaluation: Int?
    private let perSave: Int?
    /// The step of the last save; nil where there is none.
    public private(set) var savedStep: Int?
    /// Whether the last save that was due could not be written.
    private var owesSave = false
    private var isFinished = false

    /// Begins or resumes a run.
    ///
    /// - Parameters:
    ///   - plan: The run.
    ///   - step: Steps that were taken and saved; 0 for a new run.
    public init(_ plan: RunPlan, resumingAfter step: Int = 0) {
        self.step = step
        self.steps = plan.steps
        self.seconds = plan.minutes.map { $0 * 60 }
        self.perReport = plan.stepsPerReport
        self.perEvaluation = plan.stepsPerEvaluation
        self.perSave = plan.stepsPerSave
        self.savedStep = step > 0 ? step : nil
    }

    /// Whether there is nothing to do: a resumed run that has its steps, or its time.
    ///
    /// - Parameter seconds: Seconds of the whole run so far.
    /// - Returns: Whether no step is to be taken.
    public func isOver(after seconds: Double) -> Bool {
        self.isFinished || self.steps.map { self.step >= $0 } ?? false || self.seconds.map { seconds >= $0 } ?? false
    }

    /// Counts a step.
    ///
    /// - Parameters:
    ///   - seconds: Seconds of the whole run so far.
    ///   - isStopping: Whether the run was asked to end.
    ///   - hasData: Whether there is another batch.
    /// - Returns: What to do now, in order.
    public mutating func stepped(after seconds: Double, isStopping: Bool, hasData: Bool = true) -> [Action] {
        self.step += 1
        let ends = isStopping || !hasData || self.isOver(after: seconds)
        var actions: [Action] = []
        if ends || self.step % self.perReport == 0 { actions.append(.report) }
        let evaluates = self.perEvaluation.map { self.step % $0 == 0 } ?? false
        // Who stops a run wants it to end soon.
        if evaluates || (ends && !isStopping) { actions.append(.evaluate) }
        if ends || self.owesSave || self.perSave.map({ self.step % $0 == 0 }) ?? false { actions.append(.save) }
        if ends {
            actions.append(.finish)
            self.isFinished = true
        }
        return actions
    }

    /// Ends a run that is asked to end after its step's actions.
    ///
    /// - Returns: What to do now, in order; nothing where the run has ended.
    public mutating func stopped() -> [Action] {
        guard !self.isFinished else { return [] }
        self.isFinished = true
        return (self.savedStep == self.step ? [] : [.save]) + [.finish]
    }

    /// Notes how a save went; one that failed is tried again after the next step.
    ///
    /// - Parameter succeeded: Whether it was written.
    public mutating func saved(_ succeeded: Bool) {
        self.owesSave = !succeeded
        if succeeded { self.savedStep = self.step }
    }

    /// Seconds until the end; nil where they are unknown.
    ///
    /// - Parameters:
    ///   - seconds: Seconds of the whole run so far.
    ///   - stepTime: Seconds that a step takes.
    /// - Returns: The lesser of what steps and minutes leave.
    public func secondsLeft(after seconds: Double, stepTime: Double) -> Double? {
        [self.steps.map { Double($0 - self.step) * stepTime }, self.seconds.map { $0 - seconds }]
            .compactMap { $0.map { max(0, $0) } }.min()
    }

    /// Checks what always holds.
    ///
    /// - Returns: What does not; nil where all is well.
    public func checkInvariants() -> String? {
        if let savedStep, savedStep > self.step {
            return "saved after step \(savedStep), but only \(self.step) were taken"
        }
        if let steps, self.step > steps, !self.isFinished { return "step \(self.step) of \(steps) was taken" }
        return nil
    }
}
