// SPDX-License-Identifier: Apache-2.0

/// Where the time of a step's gradients went, in seconds.
public struct StepTimes: Sendable, Hashable {
    /// Forward passes of both stacks, those over all parts for the routers' counts included.
    public var forward = 0.0
    /// The output projection and its loss, forward and backward.
    public var head = 0.0
    /// Backward passes of both stacks, with blocks that are computed again.
    public var backward = 0.0
    /// Adding up what is no product, zeroing, and the gradients' norm.
    public var finish = 0.0

    /// No time.
    public init() {}

    /// All of it.
    public var total: Double { self.forward + self.head + self.backward + self.finish }

    /// Adds another step's.
    ///
    /// - Parameter other: The other step's times.
    public mutating func add(_ other: StepTimes) {
        self.forward += other.forward
        self.head += other.head
        self.backward += other.backward
        self.finish += other.finish
    }

    /// Adds the time since `mark` to one of the times, and moves the mark to now.
    mutating func count(_ part: WritableKeyPath<StepTimes, Double>, since mark: inout ContinuousClock.Instant) {
        let now = ContinuousClock.now
        let (seconds, attoseconds) = (now - mark).components
        self[keyPath: part] += Double(seconds) + Double(attoseconds) * 1e-18
        mark = now
    }
}
