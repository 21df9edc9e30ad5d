// SPDX-License-Identifier: Apache-2.0

internal import Synchronization

/// Time stamps of the stages of calls, whichever threads they happen on: where the time of a call goes, for benchmarks.
///
/// It is given to both ends' configurations, which must be in one process. One call at a time is told apart by the order of
/// its stages alone.
package final class CallStages: Sendable {
    /// What happens to a call, in its order.
    package enum Stage: Int, CaseIterable, Sendable {
        /// The caller's thread hands the call over.
        case called
        /// The client's event loop opens a stream for it.
        case opened
        /// The client's socket is about to take its bytes.
        case sent
        /// The server's event loop has read them.
        case arrived
        /// The request is checked and waits for a thread that computes.
        case queued
        /// That thread begins.
        case begun
        /// It has the result.
        case computed
        /// The server's event loop answers.
        case answered
        /// The server's socket is about to take the answer's bytes.
        case replied
        /// The client's event loop has read them.
        case read
        /// The answer is there for the caller's thread.
        case recorded
        /// That thread has noticed.
        case woken
    }

    /// One stage of one call.
    package struct Stamp: Sendable, Equatable {
        /// What happened.
        package var stage: Stage
        /// When.
        package var time: ContinuousClock.Instant

        /// Creates a stamp.
        package init(stage: Stage, time: ContinuousClock.Instant) {
            self.stage = stage
            self.time = time
        }
    }

    private static let room = 1 << 12
    private let stamps = Mutex<[Stamp]>([])

    /// Creates an empty list.
    package init() {
        self.stamps.withLock { $0.reserveCapacity(Self.room) }
    }

    /// Notes that something happens now; nothing is noted while the list is full.
    ///
    /// - Parameter stage: What happens.
    package func mark(_ stage: Stage) {
        let stamp = Stamp(stage: stage, time: .now)
        self.stamps.withLock { stamps in
            if stamps.count < Self.room { stamps.append(stamp) }
        }
    }

    /// Takes what was noted.
    ///
    /// - Returns: The stamps in their order; the list is empty after that.
    package func take() -> [Stamp] {
        self.stamps.withLock { stamps in
            defer { stamps.removeAll(keepingCapacity: true) }
            return stamps
        }
    }

    /// How long each stage of a call came after the one before it.
    ///
    /// - Parameter stamps: The stamps of one call; more of one stage than one, as of an answer that was read in two pieces,
    ///   count from the first that is no earlier than the stage before.
    /// - Returns: The times from each stage to the next one; nil where a stage is missing.
    package static func times(_ stamps: [Stamp]) -> [(stage: Stage, time: Duration)]? {
        var last = stamps.first { $0.stage == .called }?.time
        var times: [(stage: Stage, time: Duration)] = []
        for stage in Stage.allCases.dropFirst() {
            guard let previous = last,
                let stamp = stamps.first(where: { $0.stage == stage && $0.time >= previous })
            else { return nil }
            times.append((stage, previous.duration(to: stamp.time)))
            last = stamp.time
        }
        return times
    }
}
