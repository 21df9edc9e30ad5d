// SPDX-License-Identifier: Apache-2.0

import CommandKit
import Foundation
import ServiceKit
import Synchronization
import UnixSignals

/// Runs the work of a command that starts child processes, and stops it gracefully on Ctrl-C, SIGTERM or
/// SIGHUP.
enum StopSignals {
    /// How the work ended.
    enum Ending: Sendable, Hashable {
        /// By itself.
        case finished
        /// On a signal, after requests in flight finished.
        case stopped
        /// On several signals, with requests in flight cut off.
        case hastened
    }

    private final class Count: Sendable {
        private let count = Mutex(0)

        var value: Int { self.count.withLock { $0 } }

        func next() -> Int {
            self.count.withLock { count in
                count += 1
                return count
            }
        }
    }

    /// Runs work until it ends or a signal stops it; signals count from the very start.
    ///
    /// The first signal cancels the work, which then stops its children in order; the second tells all children to
    /// cut off requests in flight, and a third kills them. A closed terminal sends SIGHUP, often twice, so only the first
    /// signal counts if it is one; under `nohup` none does.
    ///
    /// - Parameters:
    ///   - children: The children that a second signal reaches.
    ///   - onSignal: Called for every signal, with the number so far.
    ///   - work: What to run.
    /// - Returns: How it ended.
    /// - Throws: What the work throws, unless a signal ended it.
    static func run(
        children: ChildSignals,
        onSignal: @escaping @Sendable (Int) -> Void,
        work: @escaping @Sendable () async throws -> Void
    ) async throws -> Ending {
        let signals = await UnixSignalsSequence(
            trapping: [.sigint, .sigterm] + (HangupSignal.isIgnored ? [] : [.sighup])
        )
        let received = Count()
        let task = Task { try await work() }
        return try await withThrowingTaskGroup(of: Void.self) { group in
            group.addTask {
                for await signal in signals {
                    if signal == .sighup, received.value > 0 { continue }
                    let count = received.next()
                    onSignal(count)
                    switch count {
                    case 1: task.cancel()
                    case 2: children.sendToAll(SIGTERM)
                    default: children.sendToAll(SIGKILL)
                    }
                }
            }
            let result = await withTaskCancellationHandler {
                await task.result
            } onCancel: {
                task.cancel()
            }
            group.cancelAll()
            switch received.value {
            case 0:
                try result.get()
                return .finished
            case 1:
                // An error of a cancelled body only says that it was stopped.
                if case .failure(let error as ChildProcessError) = result { throw error }
                return .stopped
            default:
                return .hastened
            }
        }
    }

    /// Runs work that blocks and cannot be cancelled on its own thread; a cancelled caller no longer waits for it.
    ///
    /// - Parameter work: What to run.
    /// - Returns: What it returns.
    /// - Throws: What it throws, or `CancellationError`.
    static func interruptible<Result: Sendable>(_ work: @escaping @Sendable () throws -> Result) async throws -> Result
    {
        let (results, source) = AsyncThrowingStream.makeStream(of: Result.self)
        Thread.detachNewThread {
            do {
                source.yield(try work())
                source.finish()
            } catch {
                source.finish(throwing: error)
            }
        }
        for try await result in results { return result }
        throw CancellationError()
    }
}
