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
internal import Telemetry

/// What a replica said about its work, and how long its recent calls took.
struct ReplicaLoad: Sendable {
    var latest: HostLoad?
    var latencies = LatencyWindow()
    /// Token rows that have no answer yet.
    var outstandingRows = 0
    /// Attempts by how they ended, in the order of ``AttemptOutcome/allCases``.
    var attempts = [UInt64](repeating: 0, count: AttemptOutcome.allCases.count)
    /// Times of good answers.
    var times = HistogramCounts(.callSeconds)
    /// Bytes on the way to the replica and back.
    let traffic = TrafficCounts()

    /// An attempt was answered well.
    mutating func answered(time: Duration, load: HostLoad?) {
        self.latest = load
        self.latencies.add(time)
        self.times.add(time)
        self.ended(.ok)
    }

    /// An attempt ended.
    mutating func ended(_ outcome: AttemptOutcome) { self.attempts[outcome.rawValue] += 1 }
}

// MARK: - Forward calls

extension ExpertCluster {
    /// Splits a layer's rows by pool.
    ///
    /// - Returns: One assignment for each pool, the rows of experts that no pool holds, and when the layer gives up.
    func assignments(
        of groups: [SwitchModel.ExpertRows],
        in layer: ExpertLayer
    ) -> (calls: [PoolAssignment], unplaced: [Range<Int>], deadline: ContinuousClock.Instant) {
        self.state.withLock { state in
            let now = ContinuousClock.now
            let groups = groups.map { (expert: $0.expert, rows: $0.rows) }
            for group in groups {
                state.expertLoad.add(group.rows, of: group.expert, in: layer, now: now)
            }
            let (calls, unplaced) = state.pools.assignments(of: groups, in: layer)
            return (calls, unplaced, state.pools.layerDeadline(of: layer, calls, now: now))
        }
    }

    /// One step of a layer's machine, which moves the pools; ``follow(_:)`` is to be called with what they ask for.
    func step(
        _ body: (inout ExpertPools, ContinuousClock.Instant) -> [LayerAction]
    ) -> [LayerAction] {
        self.state.withLock { body(&$0.pools, .now) }
    }

    /// The way to a replica, as long as it is named; rows are counted as out until ``ended(_:rows:outcome:)``.
    func channel(to id: ReplicaID, sending rows: Int) -> RPCChannel? {
        self.state.withLock { state in
            state.loads[id]?.outstandingRows += rows
            return state.channels[id]
        }
    }

    /// Rows that were sent to a replica are answered or given up; `outcome` says how, where that is known already.
    func ended(_ id: ReplicaID, rows: Int, outcome: AttemptOutcome?) {
        self.state.withLock { state in
            state.loads[id]?.outstandingRows -= rows
            if let outcome { state.loads[id]?.ended(outcome) }
        }
    }

    /// A call failed, or its answer cannot be used.
    func failed(_ id: ReplicaID, _ failure: CallFailure) {
        self.state.withLock { $0.loads[id]?.ended(AttemptOutcome(failure)) }
    }

    /// A call was answered, and the answer is good.
    func answered(_ id: ReplicaID, time: Duration, load: HostLoad?) {
        self.state.withLock { state in
            state.loads[id]?.answered(time: time, load: load)
        }
        if load?.draining == true {
            self.transition { $0.pools.draining(id, now: .now) }
        }
    }

    /// What people want to know.
    var view: View {
        self.state.withLock { state in
            View(
                placement: state.pools.placement,
                reports: state.pools.reports,
                counts: state.pools.counts,
                spare: state.pools.spareExperts(),
                rowsPerSecond: state.rowsPerSecond(now: .now),
                loads: state.loads,
                isComplete: state.pools.isComplete(layers: self.layers, expertCount: self.expertCount)
            )
        }
    }

    /// The cluster at one moment.
    struct View: Sendable {
        let placement: PlacementTable
        let reports: [ReplicaReport]
        let counts: [String: PoolCounts]
        /// Experts of other pools that every ready replica of a pool holds, by pool.
        let spare: [String: [ExpertLayer: Set<Int>]]
        /// Moving averages by expert.
        let rowsPerSecond: [ExpertLayer: [Double]]
        let loads: [ReplicaID: ReplicaLoad]
        let isComplete: Bool
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
                return state.pools.described(id, ReplicaDescription(description), now: .now)
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
            modelWidth: Int(description.modelWidth),
            weightType: NumberType(description.weightDType),
            rowTypes: Set(description.acceptedDTypes.compactMap(NumberType.init)),
            zone: description.zone.isEmpty ? nil : description.zone
        )
    }
}

extension NumberType {
    /// The pools' name of a type; nil where none is given, or one that no host stores.
    init?(_ type: DType) {
        switch type {
        case .float32: self = .float32
        case .bfloat16: self = .bfloat16
        case .int8: self = .int8
        case .float16, .unspecified: return nil
        }
    }
}
