// SPDX-License-Identifier: Apache-2.0

extension ShardBook {
    /// What experts are told, in order.
    enum Entry: Sendable, Hashable {
        /// Rows with gradients, to be added up.
        case backward(record: Int)
        /// New weights of the gradients; ends the step.
        case apply
    }

    /// What a host said about itself.
    struct HostState: Sendable {
        /// Step, attempt and calls taken; nil where it holds no state of the run.
        var place: (step: Int, attempt: Int, records: Int)?
        /// Steps of the snapshots on its disk.
        var snapshots: [Int]
    }

    /// What is to be done.
    enum Action: Sendable, Hashable {
        /// Ask a host what it holds.
        case open(replica: Int)
        /// Give a host the state that the trainer keeps, of ``keptStep``.
        case store(replica: Int, step: Int)
        /// Let a host take over a snapshot on its own disk.
        case loadFromDisk(replica: Int, step: Int)
        /// Send an entry; answered by ``acknowledged(_:index:isVoid:)`` or ``failed(_:distrusts:now:)``.
        case send(replica: Int, index: Int)
        /// Write an entry's rows to a file; answered by ``moved(_:)`` or ``couldNotMove(_:now:)``.
        case moveToFile(ShardLog.Move)
        /// Bring a newer state home, from this replica: the one that was asked for would have to repeat too much.
        case bringHome(replica: Int)
    }

    /// What a replica is doing.
    enum Phase: Sendable, Hashable {
        /// It cannot be reached, or something failed; it is asked again then.
        case away(until: ContinuousClock.Instant)
        /// It is asked what it holds.
        case opening
        /// It waits for a newer state to come home.
        case waiting(until: ContinuousClock.Instant)
        /// It takes over the state after a step.
        case loading(step: Int)
        /// It takes entries.
        case live
    }

    /// One replica.
    struct Replica: Sendable, Hashable {
        var phase: Phase
        /// The entry that it takes next.
        var next = 0
        var isSending = false
        /// Whether it repeats steps that it missed.
        var isRepeating = false
        /// Failures since it was last up to date.
        var failures = 0
        /// Whether its state is not trusted: it must take over another one.
        var mustLoad = false
        /// Steps of the snapshots on its disk.
        var opened: [Int] = []
        /// Whether it has ever said what it holds.
        var hasAnswered = false
    }
}
