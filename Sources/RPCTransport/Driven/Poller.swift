// SPDX-License-Identifier: Apache-2.0

internal import CEpoll
internal import NIOCore

#if canImport(Glibc)
internal import Glibc
#elseif canImport(Musl)
internal import Musl
#endif

/// The system's part of a ``DrivenEventLoop``: which sockets are ready, a bell, a timer, and the waking of the keeper.
///
/// The keeper does not watch the sockets but the watcher of the sockets, and is told once: while another thread drives, what
/// arrives wakes that thread alone. Taking the watch away and giving it back are system calls that wake no thread.
final class Poller: @unchecked Sendable {
    // Safety: the event buffer is touched by the thread that drives alone; everything else is descriptors, which the system guards.

    /// What is ready.
    enum Ready {
        case bell
        case timer
        case socket(UInt64, Readiness)
    }

    /// What a socket is ready for, or is asked about.
    struct Readiness: OptionSet, Sendable {
        let rawValue: UInt32

        static let reading = Readiness(rawValue: UInt32(SWITCHYARD_READING))
        static let writing = Readiness(rawValue: UInt32(SWITCHYARD_WRITING))
        /// Reported unasked: the connection failed, or the peer is gone.
        static let ended = Readiness(rawValue: UInt32(SWITCHYARD_ENDED))
        /// As a request: report once, then nothing until asked again.
        static let once = Readiness(rawValue: UInt32(SWITCHYARD_ONCE))

        /// Whether any of these is set.
        func has(any others: Readiness) -> Bool { self.rawValue & others.rawValue != 0 }
    }

    private static let room = 64
    private static let watched: Readiness = [.reading, .once]
    private static let bellID = UInt64.max
    private static let timerID = UInt64.max - 1
    private static let keeperBellID: UInt64 = 1

    private let sockets: Descriptor
    private let bell: Descriptor
    private let timer: Descriptor
    private let watch: Descriptor
    private let keeperBell: Descriptor
    private let events: UnsafeMutablePointer<switchyard_ready>

    /// Creates one that watches nothing.
    ///
    /// - Throws: `IOError` where the process has no descriptor left.
    init() throws {
        self.sockets = try Descriptor(switchyard_epoll(), "epoll_create1")
        self.bell = try Descriptor(switchyard_counter(), "eventfd")
        self.timer = try Descriptor(switchyard_timer(), "timerfd_create")
        self.watch = try Descriptor(switchyard_epoll(), "epoll_create1")
        self.keeperBell = try Descriptor(switchyard_counter(), "eventfd")
        self.events = .allocate(capacity: Self.room)
        self.events.initialize(repeating: switchyard_ready(), count: Self.room)
        try self.add(self.bell.number, id: Self.bellID, .reading)
        try self.add(self.timer.number, id: Self.timerID, .reading)
        let added = [
            switchyard_epoll_add(
                self.watch.number,
                self.keeperBell.number,
                Self.keeperBellID,
                Readiness.reading.rawValue
            ),
            switchyard_epoll_add(self.watch.number, self.sockets.number, 0, Self.watched.rawValue),
        ]
        guard added == [0, 0] else { throw IOError(errnoCode: errno, reason: "epoll_ctl") }
    }

    deinit {
        self.events.deinitialize(count: Self.room)
        self.events.deallocate()
    }

    // MARK: - For the thread that drives

    /// Waits until something is ready, and reports it.
    ///
    /// - Parameters:
    ///   - nanoseconds: How long; nil for ever, 0 not at all.
    ///   - body: Gets what is ready.
    /// - Returns: Whether anything was.
    func wait(nanoseconds: Int64?, _ body: (Ready) -> Void) -> Bool {
        let count = switchyard_epoll_wait(self.sockets.number, self.events, Int32(Self.room), nanoseconds ?? -1)
        // Interrupted by a signal: as if nothing had happened.
        guard count > 0 else { return false }
        for index in 0..<Int(count) {
            let event = self.events[index]
            switch event.id {
            case Self.bellID:
                self.bell.empty()
                body(.bell)
            case Self.timerID:
                self.timer.empty()
                body(.timer)
            case let id:
                body(.socket(id, Readiness(rawValue: event.readiness)))
            }
        }
        return true
    }

    /// Watches a socket.
    ///
    /// - Parameters:
    ///   - socket: The socket.
    ///   - id: What names it in reports.
    ///   - readiness: What is reported.
    /// - Throws: `IOError` if the system cannot watch it.
    func add(_ socket: CInt, id: UInt64, _ readiness: Readiness) throws {
        let code = switchyard_epoll_add(self.sockets.number, socket, id, readiness.rawValue)
        guard code == 0 else { throw IOError(errnoCode: errno, reason: "epoll_ctl") }
    }

    /// Reports something else of a socket.
    ///
    /// - Throws: `IOError` if the system cannot.
    func change(_ socket: CInt, id: UInt64, _ readiness: Readiness) throws {
        let code = switchyard_epoll_change(self.sockets.number, socket, id, readiness.rawValue)
        guard code == 0 else { throw IOError(errnoCode: errno, reason: "epoll_ctl") }
    }

    /// Stops watching a socket that is about to be closed.
    func remove(_ socket: CInt) {
        // Closing it would do the same, unless another process holds it too.
        _ = switchyard_epoll_remove(self.sockets.number, socket)
    }

    /// Sets the timer, in place of what it was set to.
    func setTimer(after nanoseconds: Int64) {
        _ = switchyard_timer_set(self.timer.number, max(1, nanoseconds))
    }

    // MARK: - For any thread

    /// Ends the driver's wait, or wakes the keeper if there is no driver.
    func ring() { self.bell.add() }

    /// Has the keeper woken, once, when something is ready; at once if something is.
    func watchForKeeper() {
        _ = switchyard_epoll_change(self.watch.number, self.sockets.number, 0, Self.watched.rawValue)
    }

    /// Does not have it woken any more.
    func unwatchForKeeper() {
        _ = switchyard_epoll_change(self.watch.number, self.sockets.number, 0, Readiness.once.rawValue)
    }

    /// Wakes the keeper, even while another thread drives.
    func callKeeper() { self.keeperBell.add() }

    // MARK: - For the keeper

    /// Sleeps until something is ready while it is the keeper's to see, or until the keeper is called.
    ///
    /// - Parameter nanoseconds: How long at most; nil for ever.
    func sleepAsKeeper(nanoseconds: Int64?) {
        var event = switchyard_ready()
        let count = switchyard_epoll_wait(self.watch.number, &event, 1, nanoseconds ?? -1)
        if count > 0, event.id == Self.keeperBellID { self.keeperBell.empty() }
    }
}

/// A file descriptor that is closed with its last reference.
final class Descriptor: Sendable {
    let number: CInt

    /// Takes a descriptor over.
    ///
    /// - Parameters:
    ///   - number: What the system call returned; -1 for an error.
    ///   - call: The system call, for the error.
    /// - Throws: `IOError` if there is none.
    init(_ number: CInt, _ call: String) throws {
        guard number >= 0 else { throw IOError(errnoCode: errno, reason: call) }
        self.number = number
    }

    deinit { close(self.number) }

    /// Adds one to an event counter.
    func add() {
        var one: UInt64 = 1
        _ = write(self.number, &one, 8)
    }

    /// Empties an event counter or a timer.
    func empty() {
        var count: UInt64 = 0
        _ = read(self.number, &count, 8)
    }
}
