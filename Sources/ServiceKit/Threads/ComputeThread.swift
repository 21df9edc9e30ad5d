// SPDX-License-Identifier: Apache-2.0

#if canImport(Glibc)
internal import Glibc
#elseif canImport(Musl)
internal import Musl
#endif

/// A dedicated thread for work that computes or blocks, awaited like any structured child.
public enum ComputeThread {
    /// The system refused to start a thread.
    public struct StartError: Error, Sendable, CustomStringConvertible {
        /// What the thread was for.
        public let name: String
        /// The number that `pthread_create` returned.
        public let code: Int32

        /// Names the thread and the system's reason, and what to look at.
        public var description: String {
            "cannot start the thread \"\(self.name)\": error \(self.code) of pthread_create; "
                + "raise the limit on processes and threads (ulimit -u), or free memory"
        }
    }

    private final class Start {
        let name: String
        let givesWay: Bool
        let body: @Sendable () -> Void
        let continuation: CheckedContinuation<Void, any Error>

        init(
            name: String,
            givesWay: Bool,
            body: @escaping @Sendable () -> Void,
            continuation: CheckedContinuation<Void, any Error>
        ) {
            self.name = name
            self.givesWay = givesWay
            self.body = body
            self.continuation = continuation
        }
    }

    /// Leaves the processor for an instant, so that a thread that waits for it runs at once.
    ///
    /// A thread that computes without end keeps its processor until the system's next tick, for up to four milliseconds, even
    /// where an event loop waits with a call. It sleeps, since `sched_yield` would forfeit the thread's share of the time.
    public static func giveWay() {
        var time = timespec(tv_sec: 0, tv_nsec: 1000)
        nanosleep(&time, nil)
    }

    /// Runs a function on a new thread and suspends until it has returned.
    ///
    /// Cancelling the task does not end the thread: the canceller must stop the function by other means.
    ///
    /// - Parameters:
    ///   - name: The thread's name in lists of threads; the system keeps the first 15 bytes.
    ///   - givesWay: Whether other threads on the same processors go before this one and those that it starts, as with `nice`.
    ///   - body: The function.
    /// - Throws: ``StartError`` if the system refuses a thread.
    public static func run(
        name: String,
        givesWay: Bool = false,
        _ body: @escaping @Sendable () -> Void
    ) async throws {
        try await withCheckedThrowingContinuation { (continuation: CheckedContinuation<Void, any Error>) in
            let start = Unmanaged.passRetained(
                Start(name: name, givesWay: givesWay, body: body, continuation: continuation)
            )
            var attributes = pthread_attr_t()
            pthread_attr_init(&attributes)
            pthread_attr_setdetachstate(&attributes, Int32(PTHREAD_CREATE_DETACHED))
            var thread = pthread_t()
            let code = pthread_create(
                &thread,
                &attributes,
                { argument in
                    guard let argument else {
                        return nil
                    }
                    let start = Unmanaged<Start>.fromOpaque(argument).takeRetainedValue()
                    ComputeThread.setName(start.name)
                    if start.givesWay { ComputeThread.giveWayToOthers() }
                    start.body()
                    start.continuation.resume()
                    return nil
                },
                start.toOpaque()
            )
            pthread_attr_destroy(&attributes)
            if code != 0 {
                start.release()
                continuation.resume(throwing: StartError(name: name, code: code))
            }
        }
    }

    /// Lets other threads on the same processors go first.
    private static func giveWayToOthers() {
        // On Linux this is the calling thread alone (setpriority(2)). Where the system refuses, only times are different.
        let process = __priority_which_t(PRIO_PROCESS.rawValue)
        if getpriority(process, 0) < 10 { _ = setpriority(process, 0, 10) }
    }

    /// Names the calling thread for lists of threads.
    ///
    /// Nothing depends on it, so a refusal is ignored.
    private static func setName(_ name: String) {
        guard let file = fopen("/proc/thread-self/comm", "w") else {
            return
        }
        fputs(String(decoding: name.utf8.prefix(15), as: UTF8.self), file)
        fclose(file)
    }
}
