// SPDX-License-Identifier: Apache-2.0

#if canImport(Glibc)
internal import Glibc
#elseif canImport(Musl)
internal import Musl
#endif

/// Whether threads have to wait for a processor, as they do beside other programs that compute: a pure machine.
///
/// It judges by what the system counts for a thread: of the time in which the thread wanted a processor, the share in which it had
/// none. That says more than whether the thread was pushed aside: one that sleeps often rarely is, and yet finds its processor
/// taken each time it is woken. What it waits while a sleeping processor wakes, which a virtual machine makes slow, does not count: no
/// other thread had the processor. Nor does the time for which it gave its processor away and got it back soon.
package struct ProcessorPressure: Sendable {
    /// What the system has counted for a thread since its start.
    package struct Count: Sendable, Hashable {
        /// Which thread's it is.
        package var thread: UInt
        /// How long it ran.
        package var ran: Duration
        /// How long it could have run, but did not.
        package var waited: Duration
        /// How often it got a processor.
        package var turns: Int

        /// Describes a count.
        package init(thread: UInt, ran: Duration, waited: Duration, turns: Int) {
            self.thread = thread
            self.ran = ran
            self.waited = waited
            self.turns = turns
        }
    }

    /// What a thread gave away of its own accord.
    package struct Given: Sendable, Hashable {
        private(set) var time = Duration.zero
        private(set) var turns = 0

        /// Nothing.
        package init() {}

        /// The thread let others run once.
        ///
        /// - Parameter time: How long.
        package mutating func add(_ time: Duration) {
            self.time += time
            self.turns += 1
        }

        fileprivate mutating func add(_ other: Given) {
            self.time += other.time
            self.turns += other.turns
        }
    }

    /// How often a count is worth taking.
    private static let interval = Duration.milliseconds(10)
    /// How much time in which the thread wanted a processor is judged at once: the system counts by ticks of up to 4 ms.
    private static let window = Duration.milliseconds(10)
    /// From which share on the pressure is high, and below which it is not any more.
    private static let limits = (high: 0.25, low: 0.1)
    /// What a thread may wait each time it gets a processor before that counts: a sleeping processor of a virtual machine takes 35 to
    /// 80 us to wake, and a thread that computes gives way after one to three milliseconds.
    private static let wakeUp = Duration.microseconds(100)
    /// After which time without a count of the thread that is judged another one is judged in its place.
    private static let patience = Duration.seconds(1)

    private var last: (count: Count, time: ContinuousClock.Instant)?
    private var nextCount: ContinuousClock.Instant?
    /// What has been given away since the last count.
    private var given = Given()
    /// The share of the time in which the thread wanted a processor and had none, lately; from 0 to 1.
    package private(set) var share = 0.0
    /// Whether the pressure is high.
    package private(set) var isHigh = false

    /// Knows of no pressure yet.
    package init() {}

    /// Whether a count is due; if so, the next one is due later.
    ///
    /// - Parameter now: The time.
    /// - Returns: Whether it is.
    package mutating func isDue(now: ContinuousClock.Instant) -> Bool {
        if let nextCount, now < nextCount { return false }
        self.nextCount = now + Self.interval
        return true
    }

    /// The thread let others run, which the next count contains.
    ///
    /// - Parameter given: What it gave away.
    package mutating func gaveWay(_ given: Given) { self.given.add(given) }

    /// Takes a count into account.
    ///
    /// - Parameters:
    ///   - count: The count.
    ///   - now: The time.
    package mutating func counted(_ count: Count, now: ContinuousClock.Instant) {
        guard let (before, time) = self.last else {
            self.begin(count, now)
            return
        }
        guard before.thread == count.thread else {
            // One thread is judged at a time, as long as it goes on.
            if time.duration(to: now) > Self.patience { self.begin(count, now) }
            return
        }
        let (ran, turns) = (count.ran - before.ran, count.turns - before.turns)
        guard ran >= .zero, count.waited >= before.waited, turns >= 0 else {
            // Another thread with the name of one that has ended.
            self.begin(count, now)
            return
        }
        let unasked = max(0, turns - self.given.turns)
        let waited = max(.zero, count.waited - before.waited - self.given.time - Self.wakeUp * unasked)
        guard ran + waited >= Self.window else {
            self.last?.time = now
            return
        }
        self.begin(count, now)
        self.share += (waited / (ran + waited) - self.share) / 8
        if self.share >= Self.limits.high { self.isHigh = true }
        if self.share <= Self.limits.low { self.isHigh = false }
    }

    private mutating func begin(_ count: Count, _ now: ContinuousClock.Instant) {
        self.last = (count, now)
        self.given = Given()
    }

    /// Checks what must hold between any two calls.
    ///
    /// - Returns: What does not hold; nil if all does.
    package func checkInvariants() -> String? {
        if !(0...1).contains(self.share) { return "a share of \(self.share)" }
        if self.isHigh && self.share <= Self.limits.low { return "a high pressure at a share of \(self.share)" }
        if !self.isHigh && self.share >= Self.limits.high { return "no high pressure at a share of \(self.share)" }
        return nil
    }
}

extension ProcessorPressure.Count {
    /// What the system has counted for the calling thread; nil where it does not tell.
    package static func ofThisThread() -> Self? {
        let file = open("/proc/thread-self/schedstat", O_RDONLY | O_CLOEXEC)
        guard file >= 0 else { return nil }
        defer { close(file) }
        return withUnsafeTemporaryAllocation(byteCount: 96, alignment: 1) { bytes -> Self? in
            let count = read(file, bytes.baseAddress, bytes.count)
            guard count > 0 else { return nil }
            return Self(schedstat: bytes.prefix(count), thread: UInt(pthread_self()))
        }
    }

    /// Reads the line of `/proc/PID/schedstat` (Linux, Documentation/scheduler/sched-stats.rst): nanoseconds run, nanoseconds
    /// waited, and how often the thread got a processor.
    ///
    /// It is nil if the line is something else, or if the system does not count, which it shows by zeros.
    ///
    /// - Parameters:
    ///   - line: The bytes.
    ///   - thread: Which thread's they are.
    package init?(schedstat line: some Sequence<UInt8>, thread: UInt) {
        // A waiting thread reads it again and again, so without lists or text.
        var numbers = SIMD4<Int64>.zero
        var count = 0
        var isInside = false
        for byte in line {
            guard byte != UInt8(ascii: " "), byte != UInt8(ascii: "\n") else {
                isInside = false
                continue
            }
            guard (UInt8(ascii: "0")...UInt8(ascii: "9")).contains(byte) else { return nil }
            if !isInside { count += 1 }
            isInside = true
            guard count <= 3 else { return nil }
            let (product, isTooLarge) = numbers[count - 1].multipliedReportingOverflow(by: 10)
            let (sum, isSumTooLarge) = product.addingReportingOverflow(Int64(byte - UInt8(ascii: "0")))
            guard !isTooLarge, !isSumTooLarge else { return nil }
            numbers[count - 1] = sum
        }
        guard count == 3, numbers[2] > 0 else { return nil }
        let (ran, waited) = (Duration.nanoseconds(numbers[0]), Duration.nanoseconds(numbers[1]))
        self.init(thread: thread, ran: ran, waited: waited, turns: Int(numbers[2]))
    }
}
