// SPDX-License-Identifier: Apache-2.0

internal import NIOCore

/// One timer for the deadlines of all calls of a connection.
final class DeadlineTimer {
    private let eventLoop: any EventLoop
    private var heap = DeadlineHeap()
    private var timer: (due: NIODeadline, task: Scheduled<Void>)?
    /// Called on the event loop for each call whose deadline passed; calls that have ended must be ignored.
    var onExpiry: ((Int32) -> Void)?
    /// Whether a call is open; it must be by the time that its deadline is added.
    var isOpen: ((Int32) -> Bool)?

    init(eventLoop: any EventLoop) {
        self.eventLoop = eventLoop
    }

    /// Watches a call's deadline.
    func add(_ id: Int32, deadline: NIODeadline) {
        self.heap.insert(id, deadline: deadline)
        if let timer = self.timer {
            guard deadline < timer.due else { return }
            timer.task.cancel()
        }
        self.schedule()
    }

    /// Forgets deadlines of ended calls when there are many of them.
    func sweep(liveCount: Int, isLive: (Int32) -> Bool) {
        self.heap.sweep(liveCount: liveCount, isLive: isLive)
    }

    /// Forgets everything.
    func stop() {
        self.timer?.task.cancel()
        self.timer = nil
        self.heap = DeadlineHeap()
        self.onExpiry = nil
        self.isOpen = nil
    }

    private func schedule() {
        self.timer = nil
        // A timer costs system calls when it is set and when it fires: calls that have ended get none.
        if let isOpen { self.heap.dropEnded(isLive: isOpen) }
        guard let due = self.heap.earliest else { return }
        let bound = NIOLoopBound(self, eventLoop: self.eventLoop)
        let task = self.eventLoop.scheduleTask(deadline: due) { bound.value.fire() }
        self.timer = (due, task)
    }

    private func fire() {
        self.timer = nil
        while let id = self.heap.popExpired(now: .now()) { self.onExpiry?(id) }
        self.schedule()
    }
}

// The timer belongs to its event loop.
@available(*, unavailable)
extension DeadlineTimer: Sendable {}
