// SPDX-License-Identifier: Apache-2.0

internal import BatchScheduling
internal import ExpertPooling
internal import RPCCore
internal import SwitchyardTypes

// Gateways: what the engine does around `BatchScheduler`, step by step and layer by layer.
extension FaultCluster {
    /// The gateway's own part of a layer, nanoseconds.
    private static let layerTime: Int64 = 300_000

    func makeGateway(_ index: Int) -> SimulatedGateway {
        var configuration = SchedulerConfiguration(
            batchSlots: self.scenario.batchSlots,
            queueLimit: self.scenario.queueLimit,
            encodeTokensPerStep: 16
        )
        configuration.guestSlots = 1
        return SimulatedGateway(
            scheduler: BatchScheduler(configuration: configuration),
            pools: self.makePools(index)
        )
    }

    /// A new process: it looks its pools up.
    func startGateway(_ index: Int) {
        self.gateways[index] = self.makeGateway(index)
        let process = self.process(ofGateway: index)
        for pool in 0..<self.scenario.pools { self.after(1_000_000, process, .names(pool: pool)) }
    }

    // MARK: - Requests

    func generateReceived(_ index: Int, _ call: IncomingCall, _ message: [UInt8]) {
        guard let request = SimulatedRequest(message) else {
            self.violated("gateway \(index) got a request that it cannot read")
            return
        }
        let process = self.process(ofGateway: index)
        let caller = "client \(call.link.process(.client))"
        let now = self.time(process)
        if case .rejected(let reason, _)? = self.gateways[index].scheduler.rejection(from: caller, now: now) {
            self.reject(call, reason)
            return
        }
        self.gateways[index].nextSequence += 1
        let id = SequenceID(self.gateways[index].nextSequence)
        let needs = SequenceNeeds(
            slots: request.slots,
            inputTokens: request.inputTokens,
            work: request.inputTokens + request.slots * request.outputTokens,
            caller: caller,
            priority: [.high, .normal, .low][min(request.priority, 2)],
            deadline: call.deadline,
            queueTimeout: request.queueTimeout > 0 ? .milliseconds(request.queueTimeout) : nil
        )
        switch self.gateways[index].scheduler.enqueue(id, needs, now: now) {
        case .queued:
            if self.gateways[index].isDraining { self.violated("gateway \(index) took a request while it drained") }
            call.work = id.value
            self.gateways[index].sequences[id] = GatewaySequence(id: id, request: request, call: call)
            if self.scenario.sendsHeadsEarly { self.sendHead(call) }
            self.wakeEngine(index)
        case .rejected(let reason, _):
            self.reject(call, reason)
        }
    }

    private func reject(_ call: IncomingCall, _ reason: RejectionReason) {
        switch reason {
        case .queueFull, .noRoom: self.note(.queueFull)
        case .displaced: self.note(.displacedFromQueue)
        case .waitedTooLong: self.note(.waitedTooLong)
        case .draining: self.note(.gatewayRefusedDraining)
        case .tooWide: self.violated("a request was too wide")
        }
        let code: Status.Code = reason == .draining ? .unavailable : .resourceExhausted
        self.end(call, RPCError(code, reason.description))
    }

    /// The client has left, or the call's deadline has passed.
    func generateCancelled(_ index: Int, _ call: IncomingCall) {
        guard let work = call.work else { return }
        call.work = nil
        let id = SequenceID(work)
        guard let sequence = self.gateways[index].sequences.removeValue(forKey: id) else { return }
        sequence.isGone = true
        self.gateways[index].scheduler.evicted(id)
        self.abandonIfNoClientWaits(index)
        self.leaveIfDrained(index)
    }

    private func abandonIfNoClientWaits(_ index: Int) {
        for lane in self.gateways[index].lanes.indices {
            let isWaitedFor = self.gateways[index].lanes[lane].decodes
                .contains { self.gateways[index].sequences[$0] != nil }
            guard var layer = self.gateways[index].lanes[lane].layer, !isWaitedFor else { continue }
            self.note(.layerAbandoned)
            let process = self.process(ofGateway: index)
            let actions = layer.calls.abandoned(pools: &self.gateways[index].pools, now: self.time(process))
            self.gateways[index].lanes[lane].layer = layer
            self.perform(actions, of: index, lane)
            if self.gateways[index].lanes[lane].layer?.out.isEmpty == false {
                self.violated("an abandoned layer has attempts in flight")
            }
            self.gateways[index].lanes[lane].layer = nil
            self.gateways[index].lanes[lane].layers = []
            self.wakeEngine(index)
        }
    }

    // MARK: - Steps

    func wakeEngine(_ index: Int) {
        guard !self.gateways[index].isWoken else { return }
        self.gateways[index].isWoken = true
        self.after(Self.layerTime, self.process(ofGateway: index), .engine)
    }

    /// Goes on with every part of the step that waits for nothing, and begins the next step where all have ended.
    func engine(_ index: Int) {
        self.gateways[index].isWoken = false
        if self.gateways[index].lanes.isEmpty { self.beginStep(index) }
        for lane in self.gateways[index].lanes.indices where self.gateways[index].lanes[lane].layer == nil {
            while let next = self.gateways[index].lanes[lane].layers.popLast() {
                if self.begin(next, of: index, lane) { break }
            }
        }
        guard self.gateways[index].lanes.allSatisfy({ $0.layer == nil && $0.layers.isEmpty }) else { return }
        if !self.gateways[index].lanes.isEmpty { self.endStep(index) }
        if !self.gateways[index].scheduler.isIdle { self.wakeEngine(index) }
        self.leaveIfDrained(index)
    }

    private func beginStep(_ index: Int) {
        let process = self.process(ofGateway: index)
        let plan = self.gateways[index].scheduler.nextStep(now: self.time(process))
        if Set(plan.decodes).count != plan.decodes.count { self.violated("a step decodes a sequence twice") }
        if !Set(plan.encodes).isSubset(of: plan.decodes) { self.violated("a step encodes what it does not decode") }
        for id in plan.expired {
            self.note(.sequenceExpired)
            self.endSequence(index, id, RPCError(.deadlineExceeded, "the deadline has passed"))
        }
        for rejection in plan.rejected {
            guard let sequence = self.gateways[index].sequences.removeValue(forKey: rejection.id) else {
                self.violated("a sequence that is not known was rejected")
                continue
            }
            sequence.isGone = true
            sequence.call.work = nil
            self.reject(sequence.call, rejection.reason)
        }
        guard !plan.decodes.isEmpty else { return }
        if self.gateways[index].scheduler.guestSlots > 0 { self.note(.guestJoined) }
        // Two parts of a step run beside each other, as the engine's micro-batches do.
        let count = min(self.scenario.microBatches, plan.decodes.count)
        for lane in 0..<count {
            let decodes = plan.decodes.enumerated().filter { $0.offset % count == lane }.map(\.element)
            let encodes = plan.encodes.filter { decodes.contains($0) }
            var layers = Array(self.scenario.model.decoder.reversed())
            if !encodes.isEmpty { layers += self.scenario.model.encoder.reversed() }
            self.gateways[index].lanes.append(GatewayLane(encodes: encodes, decodes: decodes, layers: layers))
        }
    }

    /// The rows that a layer of a part of the step has.
    private func rows(of layer: SparseLayer, _ index: Int, _ lane: Int) -> [GatewayLayer.Row] {
        let gateway = self.gateways[index]
        let ids = layer.stack == .encoder ? gateway.lanes[lane].encodes : gateway.lanes[lane].decodes
        var rows: [GatewayLayer.Row] = []
        for id in ids {
            guard let sequence = gateway.sequences[id], !sequence.isGone else { continue }
            if layer.stack == .decoder, layer.block == 0 {
                let digest = sequence.digest ?? HashModel.digest(sequence.rows)
                sequence.digest = digest
                sequence.decoding = HashModel.decoderRows(
                    digest: digest,
                    tokens: sequence.tokens,
                    slots: sequence.request.slots
                )
            }
            let values = layer.stack == .encoder ? sequence.rows : sequence.decoding
            for (place, value) in values.enumerated() {
                let expert = self.scenario.model.expert(of: value, in: layer)
                rows.append(.init(sequence: sequence, index: place, value: value, expert: expert))
            }
        }
        return rows.enumerated().sorted { ($0.element.expert, $0.offset) < ($1.element.expert, $1.offset) }
            .map(\.element)
    }

    /// Makes a layer's calls.
    ///
    /// - Returns: Whether there is something to wait for.
    private func begin(_ layer: SparseLayer, of index: Int, _ lane: Int) -> Bool {
        let rows = self.rows(of: layer, index, lane)
        guard !rows.isEmpty else { return false }
        let process = self.process(ofGateway: index)
        var groups: [(expert: Int, rows: Int)] = []
        for row in rows {
            if groups.last?.expert == row.expert {
                groups[groups.count - 1].rows += 1
            } else {
                groups.append((row.expert, 1))
            }
        }
        let now = self.time(process)
        let (assignments, unplaced) = self.gateways[index].pools.assignments(of: groups, in: layer, now: now)
        let deadline = self.gateways[index].pools.layerDeadline(of: layer, assignments, now: now)
        var calls = LayerCalls(
            layer: layer,
            deadline: deadline,
            policy: self.gateways[index].pools.configuration.policy(of: layer),
            recomputes: [.never, .inConflicts, .always][self.scenario.recomputes]
        )
        let actions = calls.begin(assignments, pools: &self.gateways[index].pools, now: now)
        self.gateways[index].nextLayer += 1
        var state = GatewayLayer(
            calls: calls,
            layer: layer,
            serial: self.gateways[index].nextLayer,
            startedAt: self.now,
            rows: rows,
            assignments: assignments,
            outputs: Array(repeating: nil, count: rows.count),
            ended: Array(repeating: false, count: assignments.count)
        )
        for range in unplaced { state.dropped.formUnion(range) }
        if !unplaced.isEmpty { self.note(.rowsUnplaced) }
        self.gateways[index].lanes[lane].layer = state
        if self.gateways[index].lanes.count(where: { $0.layer != nil }) > 1 { self.note(.twoLayersAtOnce) }
        self.perform(actions, of: index, lane)
        self.planLayerTimer(index, lane)
        self.endLayerIfComplete(index, lane)
        return true
    }

    private func endStep(_ index: Int) {
        let ids = self.gateways[index].lanes.flatMap(\.decodes).sorted()
        self.gateways[index].lanes = []
        let process = self.process(ofGateway: index)
        for id in ids {
            guard let sequence = self.gateways[index].sequences[id], !sequence.isGone else { continue }
            let token = HashModel.token(sequence.decoding)
            sequence.tokens.append(token)
            self.send(
                sequence.call,
                TokenMessage(token: token, drops: UInt32(sequence.drops)).bytes(rowBytes: self.scenario.rowBytes)
            )
            if sequence.tokens.count == sequence.request.outputTokens, !sequence.call.state.isEnded {
                self.gateways[index].sequences[id] = nil
                sequence.call.work = nil
                let work = sequence.request.inputTokens + sequence.request.slots * sequence.tokens.count
                self.gateways[index].scheduler.retired(id, work: work, now: self.time(process))
                self.finish(sequence.call, .ok)
            } else {
                self.flush(sequence.call.link, .server)
            }
        }
    }

    private func endSequence(_ index: Int, _ id: SequenceID, _ error: RPCError) {
        guard let sequence = self.gateways[index].sequences.removeValue(forKey: id) else {
            self.violated("a sequence that is not known has ended")
            return
        }
        sequence.isGone = true
        sequence.call.work = nil
        self.end(sequence.call, error)
    }

    // MARK: - Draining

    func drainGateway(_ index: Int) {
        self.gateways[index].isDraining = true
        self.gateways[index].scheduler.beginDraining()
        if self.gateways[index].scheduler.queuedCount > 0 { self.note(.drainedWithQueue) }
        let process = self.process(ofGateway: index)
        for id in self.links.keys.sorted() {
            guard let link = self.links[id], link.process(.server) == process else { continue }
            self.beginDrain(link)
        }
        self.leaveIfDrained(index)
    }

    private func leaveIfDrained(_ index: Int) {
        guard self.gateways[index].isDraining, self.gateways[index].scheduler.isIdle,
            self.gateways[index].sequences.isEmpty, self.gateways[index].lanes.allSatisfy({ $0.layer == nil })
        else { return }
        self.after(100_000_000, self.process(ofGateway: index), .leave)
    }
}
