// SPDX-License-Identifier: Apache-2.0

internal import NIOCore
internal import Synchronization

/// The bodies that are on their way, and when each must have come.
struct BodyDeadlines<Waiting> {
    private var next = 0
    private var expected: [Int: (deadline: ContinuousClock.Instant, waiting: Waiting)] = [:]

    /// A body is being read.
    ///
    /// - Parameters:
    ///   - waiting: What waits for it.
    ///   - deadline: When it must have come.
    /// - Returns: The body's number.
    mutating func began(_ waiting: Waiting, until deadline: ContinuousClock.Instant) -> Int {
        self.next += 1
        self.expected[self.next] = (deadline, waiting)
        return self.next
    }

    /// A body has come, or is not waited for any more.
    mutating func ended(_ number: Int) { self.expected[number] = nil }

    /// Gives up on the bodies that should have come.
    ///
    /// - Parameter now: The current time.
    /// - Returns: What waited for them.
    mutating func overdue(_ now: ContinuousClock.Instant) -> [Waiting] {
        let late = self.expected.filter { $0.value.deadline <= now }
        for number in late.keys { self.expected[number] = nil }
        return late.values.map(\.waiting)
    }
}

extension BodyDeadlines: Sendable where Waiting: Sendable {}

/// Closes the channels of clients that take too long to send a body.
///
/// It looks at all of them at once, every second. A timer of NIO for each body would belong to an event loop, and a task on another
/// thread would wake that loop twice for each request.
final class BodyWatch: Sendable {
    private static let interval = Duration.seconds(1)

    private let patience: Duration
    private let state = Mutex(BodyDeadlines<any Channel>())

    /// Creates a watch.
    ///
    /// - Parameter patience: From a request's head to the end of its body.
    init(patience: Duration) { self.patience = patience }

    /// A body is being read.
    ///
    /// - Parameter channel: The channel to close if it does not come in time.
    /// - Returns: The body's number, for ``ended(_:)``.
    func began(_ channel: any Channel) -> Int {
        let deadline = ContinuousClock.now.advanced(by: self.patience)
        return self.state.withLock { $0.began(channel, until: deadline) }
    }

    /// A body has come, or its request is over.
    func ended(_ number: Int) { self.state.withLock { $0.ended(number) } }

    /// Watches until the task is cancelled.
    func run() async {
        while !Task.isCancelled {
            try? await Task.sleep(for: min(self.patience, Self.interval))
            for channel in self.state.withLock({ $0.overdue(.now) }) { channel.close(promise: nil) }
        }
    }
}
