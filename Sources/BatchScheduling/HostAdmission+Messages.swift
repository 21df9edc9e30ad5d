// SPDX-License-Identifier: Apache-2.0

package import SwitchyardTypes

// What goes into a host's admission and what comes out of it.
extension HostAdmission {
    /// Limits of the queue.
    package struct Limits: Sendable, Equatable {
        /// Calls that may wait, not counting calls being computed; at least 1.
        package var calls: Int
        /// Token rows of the waiting calls; at least as many as one call may have.
        package var rows: Int

        /// Creates limits.
        package init(calls: Int, rows: Int) {
            self.calls = calls
            self.rows = rows
        }
    }

    /// How calls are batched.
    package struct Batching: Sendable, Equatable {
        /// Token rows up to which a pass takes more calls; 1 computes every call alone.
        ///
        /// A single larger call is still computed.
        package var rows = 1024

        /// How long the host may wait for companions of a call while there is nothing else to compute.
        ///
        /// It waits only for gateways expected to call for the same layer within that time (``CallForecast``), so
        /// never if there is just one gateway; no longer than half an average pass; and seldom after fruitless waits
        /// (``CompanionPatience``).
        package var window = Duration.zero

        /// Creates settings: how many rows a pass takes, and how long a call waits for companions.
        package init(rows: Int = 1024, window: Duration = .zero) {
            self.rows = rows
            self.window = window
        }
    }

    /// One call, until the host has answered it.
    package struct CallID: Hashable, Sendable {
        package let rawValue: UInt64
    }

    /// What a call is for.
    package enum Kind: String, Sendable, CaseIterable {
        /// Outputs for a gateway: somebody waits for them.
        case serving
        /// Outputs for a trainer.
        case training
        /// Gradients, which only trainers ask for.
        case gradients
    }

    /// What the machine knows about a call.
    package struct Call: Sendable, Equatable {
        /// The connection that it arrived on: one gateway, as far as a host can tell.
        package var source: String
        /// The sparse layer whose experts it names.
        package var layer: SparseLayer
        /// Its token rows, at least 1.
        package var rows: Int
        /// The experts it names.
        package var experts: Int
        /// When the caller stops waiting.
        package var deadline: ContinuousClock.Instant?
        /// What it is for.
        package var kind: Kind
        /// The fingerprint of the checkpoint that it names: experts of two have different weights.
        package var checkpoint: UInt64

        /// Describes a call.
        package init(
            source: String,
            layer: SparseLayer,
            rows: Int,
            experts: Int,
            deadline: ContinuousClock.Instant? = nil,
            kind: Kind = .serving,
            checkpoint: UInt64 = 0
        ) {
            self.source = source
            self.layer = layer
            self.rows = rows
            self.experts = experts
            self.deadline = deadline
            self.kind = kind
            self.checkpoint = checkpoint
        }
    }

    /// What to do with a call that arrived.
    package enum OnArrival: Sendable, Equatable {
        /// Keep the call's work until ``HostAdmission/next(now:)`` names it; wake the compute thread.
        case queue(CallID)
        /// Answer `RESOURCE_EXHAUSTED` and say when to retry.
        case refuse(Refusal, retryAfter: Duration)
        /// Answer `UNAVAILABLE`: the host has drained.
        case refuseDraining
        /// Answer `DEADLINE_EXCEEDED`: the caller no longer waits for the answer.
        case refuseExpired
    }

    /// Why a call has no room.
    package enum Refusal: Sendable, Equatable {
        /// The most calls are already waiting.
        case calls(limit: Int)
        /// With this call, too many rows would wait.
        case rows(waiting: Int, limit: Int)
        /// Other gateways call too, and this one holds more of the queue than is left.
        case share(calls: Int, rows: Int)
    }

    /// Calls computed together.
    package struct Pass: Sendable, Equatable {
        /// The calls, at least one; the first is the one whose turn it was.
        package var calls: [CallID]
        /// Token rows of all of them.
        package var rows: Int
    }

    /// What the compute thread does next.
    package struct Next: Sendable, Equatable {
        package enum Step: Sendable, Equatable {
            /// Compute these calls, then report ``HostAdmission/finished(expertReads:now:)``.
            case compute(Pass)
            /// Wait for the next arrival, at most until the given time.
            case wait(until: ContinuousClock.Instant?)
            /// End: the host has drained.
            case leave
        }

        /// Calls whose deadline passed while they waited: answer `DEADLINE_EXCEEDED`, compute nothing.
        package var expired: [CallID] = []
        package var step: Step
    }

    /// What the compute thread does in a pause of a pass for a trainer.
    package struct Beside: Sendable, Equatable {
        /// Calls whose deadline passed while they waited: answer `DEADLINE_EXCEEDED`, compute nothing.
        package var expired: [CallID] = []
        /// Compute these calls, then report ``HostAdmission/finished(expertReads:now:)``; nil goes on with training.
        package var pass: Pass?
    }

    /// Work computed since the host started.
    package struct Totals: Sendable, Equatable {
        package var passes: UInt64 = 0
        package var calls: UInt64 = 0
        package var rows: UInt64 = 0
        /// Experts that the calls named, each call by itself.
        package var namedExperts: UInt64 = 0
        /// Experts whose weights were read: each once per pass.
        package var expertReads: UInt64 = 0
    }
}
