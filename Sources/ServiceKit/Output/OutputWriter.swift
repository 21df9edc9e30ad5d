// SPDX-License-Identifier: Apache-2.0

#if canImport(Glibc)
internal import Glibc
#elseif canImport(Musl)
internal import Musl
#elseif canImport(Darwin)
internal import Darwin
#endif

/// Writes what others put in its queue, on a thread of its own: that thread alone waits for a slow reader.
final class OutputWriter: Sendable {
    private struct State {
        var queue: OutputQueue
        var isWriting = false
        var isEnding = false
    }

    private let monitor: Monitor<State>
    private let write: @Sendable (String) -> Int32?
    private let note: @Sendable (Int) -> String
    private let onFailure: @Sendable (Int32) -> Void

    /// Starts the thread; nil if the system refuses one.
    ///
    /// - Parameters:
    ///   - limits: How much may wait.
    ///   - note: The line that stands for dropped texts, by their number.
    ///   - onFailure: Called on the thread with the system's error number where a write failed; what it held is lost and
    ///     counted.
    ///   - write: Writes a text and waits as long as that takes; returns the system's error number where it cannot.
    init?(
        limits: OutputQueue.Limits = OutputQueue.Limits(),
        note: @escaping @Sendable (Int) -> String,
        onFailure: @escaping @Sendable (Int32) -> Void = { _ in },
        write: @escaping @Sendable (String) -> Int32?
    ) {
        self.monitor = Monitor(State(queue: OutputQueue(limits: limits)))
        self.write = write
        self.note = note
        self.onFailure = onFailure
        guard OutputThread.start({ self.run() }) else { return nil }
    }

    /// Adds a text; never waits.
    func append(_ text: String) {
        self.monitor.notify { $0.queue.append(text) }
    }

    /// Texts that were dropped or could not be written so far.
    var droppedCount: UInt64 { self.monitor.withLock { $0.queue.droppedCount } }

    /// Waits until everything is written, but not longer than a while.
    ///
    /// - Parameter limit: How long to wait at most.
    /// - Returns: Whether everything is written.
    @discardableResult
    func flush(within limit: Duration) -> Bool {
        self.monitor.wait(until: .now.advanced(by: limit)) { state in
            state.queue.isEmpty && !state.isWriting ? true : nil
        } ?? false
    }

    /// Ends the thread once everything is written.
    func end() {
        self.monitor.notify { $0.isEnding = true }
    }

    private func run() {
        while let batch = self.next() {
            let code = self.write(batch.text)
            if let code { self.onFailure(code) }
            self.monitor.notify { state in
                state.isWriting = false
                if code != nil { state.queue.lost(batch.count) }
            }
        }
    }

    /// Waits for texts; nil once the writer ends.
    private func next() -> OutputQueue.Batch? {
        let batch: OutputQueue.Batch?? = self.monitor.wait { state in
            if let batch = state.queue.next(note: self.note) {
                state.isWriting = true
                return .some(batch)
            }
            return state.isEnding ? .some(nil) : nil
        }
        return batch ?? nil
    }
}

/// A thread that takes no signals, so that a handler never runs on one that waits for a reader.
private enum OutputThread {
    private final class Start {
        let body: @Sendable () -> Void

        init(_ body: @escaping @Sendable () -> Void) { self.body = body }
    }

    /// Starts a thread that is never joined.
    ///
    /// - Returns: Whether the system gave one.
    static func start(_ body: @escaping @Sendable () -> Void) -> Bool {
        let start = Unmanaged.passRetained(Start(body))
        var attributes = pthread_attr_t()
        pthread_attr_init(&attributes)
        pthread_attr_setdetachstate(&attributes, Int32(PTHREAD_CREATE_DETACHED))
        defer { pthread_attr_destroy(&attributes) }
        // A new thread begins with its creator's mask.
        var all = sigset_t()
        var before = sigset_t()
        sigfillset(&all)
        for number in [SIGBUS, SIGSEGV, SIGILL, SIGFPE, SIGABRT, SIGTRAP] { sigdelset(&all, number) }
        pthread_sigmask(SIG_SETMASK, &all, &before)
        defer { pthread_sigmask(SIG_SETMASK, &before, nil) }
        var thread = pthread_t()
        let code = pthread_create(
            &thread,
            &attributes,
            { argument in
                guard let argument else { return nil }
                Unmanaged<Start>.fromOpaque(argument).takeRetainedValue().body()
                return nil
            },
            start.toOpaque()
        )
        if code != 0 { start.release() }
        return code == 0
    }
}
