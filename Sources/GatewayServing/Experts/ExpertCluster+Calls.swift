// SPDX-License-Identifier: Apache-2.0

internal import Checkpoints
internal import ExpertPooling
internal import Logging
internal import NIOCore
internal import RPCCore
internal import RPCTransport
internal import SwitchModel
internal import SwitchyardProtos
internal import Synchronization

/// What a replica said about its work, and how long its recent calls took.
struct ReplicaLoad: Sendable {
    var latest: HostLoad?
    var latencies = LatencyWindow()
    /// Token rows that have no answer yet.
    var outstandingRows = 0
}

// MARK: - Forward calls

extension ExpertCluster {
    /// Splits a layer's rows by pool.
    ///
    /// - Returns: One assignment for each pool, and the rows of experts that no pool holds.
    func assignments(
        of groups: [SwitchModel.ExpertRows],
        in layer: SparseLayer
    ) -> (calls: [PoolAssignment], unplaced: [Range<Int>]) {
        let table = self.state.withLock { $0.pools.placement }
        return table.assignments(of: groups.map { (expert: $0.expert, rows: $0.rows) }, in: ExpertLayer(layer))
    }

    /// Decides where a call is sent first.
    func start(_ call: inout PoolCall, rows: Int) -> CallDecision {
        self.state.withLock { state in
            let decision = state.pools.start(&call, now: .now, using: &state.generator)
            state.note(decision, rows: rows)
            return decision
        }
    }

    /// The way to a replica, as long as it is named.
    func channel(to id: ReplicaID) -> RPCChannel? {
        self.state.withLock { $0.channels[id] }
    }

    /// A call was answered, and the answer is good.
    func callSucceeded(_ id: ReplicaID, rows: Int, time: Duration, load: HostLoad?) {
        self.state.withLock { state in
            state.pools.callSucceeded(id, rows: rows, time: time)
            state.loads[id]?.latest = load
            state.loads[id]?.latencies.add(time)
            state.loads[id]?.outstandingRows -= rows
        }
    }

    /// An attempt failed: decides whether the call is tried on another replica.
    func attemptFailed(
        of call: inout PoolCall,
        on id: ReplicaID,
        _ failure: CallFailure,
        rows: Int,
        layer: SparseLayer,
        detail: String
    ) -> CallDecision {
        self.logger.debug(
            "a call to an expert host failed",
            metadata: ["replica": "\(id)", "layer": "\(layer.words)", "failure": "\(failure)", "detail": "\(detail)"]
        )
        var decision = CallDecision.drop(.unavailable)
        self.transition { state in
            let outcome = state.pools.attemptFailed(of: &call, on: id, failure, now: .now, using: &state.generator)
            decision = outcome.decision
            state.loads[id]?.outstandingRows -= rows
            state.note(decision, rows: rows)
            return outcome.actions
        }
        return decision
    }

    /// A call was given up for a reason that says nothing about the replica.
    func callCancelled(_ id: ReplicaID, rows: Int) {
        self.state.withLock { state in
            state.pools.callCancelled(id)
            state.loads[id]?.outstandingRows -= rows
        }
    }

    /// What people want to know.
    var view: View {
        self.state.withLock { state in
            View(
                placement: state.pools.placement,
                reports: state.pools.reports,
                loads: state.loads,
                isComplete: state.pools.isComplete(layers: self.layers, expertCount: self.expertCount)
            )
        }
    }

    /// The cluster at one moment.
    struct View: Sendable {
        let placement: PlacementTable
        let reports: [ReplicaReport]
        let loads: [ReplicaID: ReplicaLoad]
        let isComplete: Bool
    }
}

extension ExpertCluster.State {
    /// Counts the rows of a call that goes out.
    fileprivate mutating func note(_ decision: CallDecision, rows: Int) {
        if case .send(to: let id) = decision {
            self.loads[id, default: ReplicaLoad()].outstandingRows += rows
        }
    }
}

// MARK: - Describe calls

extension ExpertCluster {
    /// Asks a replica what it holds and tells the machine.
    func describe(_ id: ReplicaID) async {
        guard let channel = self.state.withLock({ $0.channels[id] }) else {
            return
        }
        do {
            let reply = try await channel.unary(
                .describe,
                Payload(bytes: DescribeHostRequest().serialized()),
                options: CallOptions(deadline: .now.advanced(by: self.configuration.describeTimeout))
            )
            let description = try HostDescription(reading: reply.message)
            self.transition { state in
                state.loads[id, default: ReplicaLoad()].latest = description.load
                return state.pools.described(id, ReplicaDescription(description))
            }
        } catch {
            self.logger.debug(
                "an expert host did not describe itself",
                metadata: ["replica": "\(id)", "error": "\(error)"]
            )
            self.transition { state in
                state.pools.describeFailed(id, now: .now)
                return []
            }
        }
    }
}

extension ExpertPooling.ReplicaDescription {
    /// What the pools need to know of a host's description.
    init(_ description: HostDescription) {
        var experts: [ExpertLayer: Set<Int>] = [:]
        for held in description.held where held.stack != .unspecified {
            let layer = ExpertLayer(isDecoder: held.stack == .decoder, block: Int(held.layer))
            experts[layer, default: []].formUnion(held.experts.map { Int($0) })
        }
        self.init(
            fingerprint: description.modelFingerprint,
            experts: experts,
            modelWidth: Int(description.modelWidth)
        )
    }
}
