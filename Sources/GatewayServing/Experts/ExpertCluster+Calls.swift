// SPDX-License-Identifier: Apache-2.0

internal import Checkpoints
internal import ExpertPooling
internal import Logging
internal import NIOCore
internal import RPCCore
internal import RPCTransport
internal import SwitchModel
internal import SwitchyardProtos
internal import SwitchyardTypes
internal import Synchronization
internal import Telemetry

/// The load that a replica last reported, and the bytes sent to it and received from it.
struct ReplicaLoad: Sendable {
    var latest: HostLoad?
    let traffic = TrafficCounts()
}

// MARK: - Forward calls

extension ExpertCluster.State {
    /// Records the load that a replica reported with a good answer, and whether it is draining.
    mutating func answered(_ id: ReplicaID, load: HostLoad?, now: ContinuousClock.Instant) -> [PoolAction] {
        // Copied out and back: to change it through the optional takes allocations.
        if var known = self.loads[id] {
            known.latest = load
            self.loads[id] = known
        }
        return load?.draining == true ? self.pools.draining(id, now: now) : []
    }
}

extension ExpertCluster {
    /// The actions that a step of a layer's machine requests.
    struct LayerStep: Sendable {
        /// When it was made.
        let time: ContinuousClock.Instant
        let actions: [LayerAction]
        /// The channel to the replica of each `send`, in their order; nil for a replica that has left its pool.
        let channels: ShortList<RPCChannel?>
    }

    /// Splits a layer's rows into calls.
    ///
    /// - Returns: One assignment for each call, the rows of experts that no pool holds, and the layer's deadline.
    func assignments(
        of groups: [SwitchModel.ExpertRows],
        in layer: SparseLayer
    ) -> (calls: [PoolAssignment], unplaced: [Range<Int>], deadline: ContinuousClock.Instant) {
        self.state.withLock { state in
            let now = ContinuousClock.now
            state.groups.removeAll(keepingCapacity: true)
            for group in groups {
                state.groups.append((group.expert, group.rows))
                state.expertLoad.add(group.rows, of: group.expert, in: layer, now: now)
            }
            let (calls, unplaced) = state.pools.assignments(of: state.groups, in: layer, now: now)
            return (calls, unplaced, state.pools.layerDeadline(of: layer, calls, now: now))
        }
    }

    /// One step of a layer's machine, which changes the pools; call ``follow(_:)`` with the actions that they
    /// request.
    func step(_ body: (inout State, ContinuousClock.Instant) -> [LayerAction]) -> LayerStep {
        self.state.withLock { state in
            let now = ContinuousClock.now
            let actions = body(&state, now)
            var channels = ShortList<RPCChannel?>()
            for case .send(_, to: let id) in actions { channels.append(state.channels[id]) }
            return LayerStep(time: now, actions: actions, channels: channels)
        }
    }

    /// The cluster's current state, for reports.
    var view: View {
        self.state.withLock { state in
            View(
                placement: state.pools.placement,
                reports: state.pools.reports,
                counts: state.pools.counts,
                spare: state.pools.spareExperts(),
                rowsPerSecond: state.rowsPerSecond(now: .now),
                loads: state.loads,
                disputed: state.pools.disputedPools,
                troubles: state.channels.compactMapValues(\.trouble),
                isComplete: state.pools.isComplete(layers: self.layers, expertCount: self.expertCount)
            )
        }
    }

    /// The cluster's state at one moment.
    struct View: Sendable {
        let placement: PlacementTable
        let reports: [ReplicaReport]
        let counts: [String: PoolCounts]
        /// Experts of other pools that every ready replica of a pool holds, by pool.
        let spare: [String: [SparseLayer: Set<Int>]]
        /// Moving averages by expert.
        let rowsPerSecond: [SparseLayer: [Double]]
        let loads: [ReplicaID: ReplicaLoad]
        /// Pools whose replicas differ without a third opinion.
        let disputed: Set<String>
        /// Why replicas have no connection.
        let troubles: [ReplicaID: String]
        let isComplete: Bool
    }
}

// MARK: - Describe calls

extension ExpertCluster {
    /// Asks a replica what it holds and passes the answer to the machine.
    func describe(_ id: ReplicaID) async {
        guard let channel = self.state.withLock({ $0.channels[id] }) else {
            return
        }
        do {
            let description = try await self.description(of: id, over: channel)
            var described = ReplicaDescription(description)
            if self.configuration.needsGradients { described.trouble = try await self.troubleWithGradients(channel) }
            let known = described
            self.transition { state in
                state.loads[id, default: ReplicaLoad()].latest = description.load
                return state.pools.described(id, known, now: .now)
            }
        } catch {
            self.logger.debug(
                "an expert host did not describe itself",
                metadata: ["replica": "\(id)", "error": "\(error)"]
            )
            self.transition { state in
                state.pools.describeFailed(id, "\(error)", now: .now)
                return []
            }
        }
    }
}

extension ExpertCluster {
    /// Asks a host for no gradients, which it refuses if it knows the method.
    ///
    /// - Parameter channel: The connection to the host.
    /// - Returns: Why it computes none; nil if it does.
    /// - Throws: `RPCError` where the call tells nothing of that.
    private func troubleWithGradients(_ channel: RPCChannel) async throws -> String? {
        do {
            _ = try await channel.unary(
                .backward,
                Payload(bytes: []),
                options: CallOptions(deadline: .now.advanced(by: self.configuration.describeTimeout))
            )
        } catch let error as RPCError {
            switch error.code {
            case .unimplemented:
                return "it computes no gradients (no method Backward): start it with a version that has it"
            // Nothing is asked for, of no model.
            case .failedPrecondition, .invalidArgument: return nil
            default: throw error
            }
        }
        return nil
    }
}

extension ExpertPooling.ReplicaDescription {
    /// A host's instance id: nil if it gives none, or one that is longer than any that is made.
    private static func readInstance(_ text: String) -> String? { (1...64).contains(text.utf8.count) ? text : nil }

    /// The parts of a host's description that the pools need.
    init(_ description: HostDescription) {
        var experts: [SparseLayer: Set<Int>] = [:]
        for held in description.held {
            guard let stack = held.stack.stack else { continue }
            let layer = SparseLayer(stack: stack, block: Int(held.layer))
            experts[layer, default: []].formUnion(held.experts.map { Int($0) })
        }
        self.init(
            fingerprint: description.modelFingerprint,
            experts: experts,
            modelWidth: Int(description.modelWidth),
            weightType: description.weightDType.type,
            rowTypes: Set(description.acceptedDTypes.compactMap(\.type)),
            zone: description.zone.isEmpty ? nil : description.zone,
            instance: Self.readInstance(description.instanceID)
        )
    }
}
