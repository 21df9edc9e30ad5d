// SPDX-License-Identifier: Apache-2.0

/// The learning rate of each step: a function of the step's number alone, so a resumed run goes on as it would have.
///
/// Constant, linear, cosine and inverse square root are transformers' (`get_scheduler`,
/// https://github.com/huggingface/transformers/blob/v5.23.0/src/transformers/optimization.py), step 0 included: with a
/// warm-up, the first step has the rate 0.
public struct LearningRateSchedule: Sendable, Hashable {
    /// How the rate goes on after the warm-up.
    public enum Shape: Sendable, Hashable {
        /// It stays.
        case constant
        /// It falls to 0 at the last step, in a straight line.
        case linear
        /// It falls to 0 at the last step, along half a cosine.
        case cosine
        /// It falls with the square root of the step.
        ///
        /// The time scale is transformers' `timescale`; nil for the warm-up's length, or 10,000 without one.
        case inverseSquareRoot(timescale: Int?)
        /// T5's: `1 / sqrt(max(step, warm-up))`, so constant during the warm-up.
        ///
        /// As `rsqrt_decay` in T5X (https://github.com/google-research/t5x/blob/main/t5x/utils.py); T5's warm-up is 10,000.
        case t5
        /// The Transformer's: `width^-0.5 * min(n^-0.5, n * warm-up^-1.5)`, where n counts steps from 1.
        ///
        /// From A. Vaswani et al., "Attention Is All You Need" (2017), section 5.3.
        case noam(width: Int)
    }

    /// The rate that the shape is a factor of.
    public let peak: Double

    /// How the rate goes on after the warm-up.
    public let shape: Shape

    /// Steps in which the rate rises from 0 in a straight line.
    public let warmUpSteps: Int

    /// The run's steps, for shapes that end at 0.
    public let totalSteps: Int

    /// Creates a schedule.
    ///
    /// - Parameters:
    ///   - peak: The rate that the shape is a factor of; above 0.
    ///   - shape: How the rate goes on after the warm-up.
    ///   - warmUpSteps: Steps in which the rate rises; 0 for none.
    ///   - totalSteps: The run's steps.
    /// - Throws: `invalidSettings` for a number out of range.
    public init(peak: Double, shape: Shape, warmUpSteps: Int = 0, totalSteps: Int) throws(TrainingError) {
        func check(_ holds: Bool, _ message: String) throws(TrainingError) {
            guard holds else { throw TrainingError(code: .invalidSettings, message: message) }
        }
        try check(peak > 0 && peak.isFinite, "the learning rate is \(peak); it must be above 0")
        try check(warmUpSteps >= 0, "the warm-up has \(warmUpSteps) steps; it must have 0 or more")
        try check(totalSteps >= 1, "the run has \(totalSteps) steps; it must have at least 1")
        switch shape {
        case .inverseSquareRoot(let timescale?):
            try check(timescale >= 1, "the time scale is \(timescale) steps; it must be at least 1")
        case .t5:
            try check(warmUpSteps >= 1, "T5's schedule needs a warm-up of at least 1 step; T5 has 10000")
        case .noam(let width):
            try check(width >= 1, "the model's width is \(width); it must be at least 1")
            try check(warmUpSteps >= 1, "Noam's schedule needs a warm-up of at least 1 step; the paper has 4000")
        case .constant, .linear, .cosine, .inverseSquareRoot(nil): break
        }
        self.peak = peak
        self.shape = shape
        self.warmUpSteps = warmUpSteps
        self.totalSteps = totalSteps
    }

    /// The rate of a step.
    ///
    /// - Parameter step: The step's number, from 0.
    /// - Returns: The rate.
    public func rate(at step: Int) -> Double { self.peak * self.factor(at: step) }

    private func factor(at step: Int) -> Double {
        switch self.shape {
        case .t5:
            return 1 / Double(max(step, self.warmUpSteps)).squareRoot()
        case .noam(let width):
            let number = Double(step) + 1
            let warmUp = Double(self.warmUpSteps)
            return min(1 / number.squareRoot(), number / (warmUp * warmUp.squareRoot())) / Double(width).squareRoot()
        case .constant, .linear, .cosine, .inverseSquareRoot: break
        }
        guard step >= self.warmUpSteps else { return Double(step) / Double(self.warmUpSteps) }
        let span = Double(max(1, self.totalSteps - self.warmUpSteps))
        switch self.shape {
        case .linear:
            return max(0, Double(self.totalSteps - step) / span)
        case .cosine:
            let progress = Double(step - self.warmUpSteps) / span
            // transformers' cosine rises again beyond the last step; here it stays at 0.
            return progress >= 1 ? 0 : 0.5 * (1 + PortableMath.cosine(halfTurns: progress))
        case .inverseSquareRoot(let timescale):
            let scale = Double(timescale ?? (self.warmUpSteps > 0 ? self.warmUpSteps : 10_000))
            return 1 / ((Double(step) + scale - Double(self.warmUpSteps)) / scale).squareRoot()
        case .constant, .t5, .noam:
            return 1
        }
    }
}
