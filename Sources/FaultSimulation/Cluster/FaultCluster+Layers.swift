// SPDX-License-Identifier: Apache-2.0

internal import BatchScheduling
internal import ExpertPooling
internal import RPCCore
internal import SwitchyardTypes

// A layer's calls: what the gateway's runner does around `LayerCalls`.
extension FaultCluster {
    func perform(_ actions: [LayerAction], of index: Int, _ lane: Int) {
        var sends: [(OutgoingCall, SimulatedChannel?)] = []
        var cancelled: [OutgoingCall] = []
        var pooled: [PoolAction] = []
        for action in actions {
            self.log("gateway \(index): \(action)")
            switch action {
            case .send(let attempt, to: let replica):
                if let send = self.makeAttempt(attempt, replica, of: index, lane) { sends.append(send) }
            case .cancel(let attempt):
                if let call = self.gateways[index].lanes[lane].layer?.out.removeValue(forKey: attempt) {
                    self.noteLoser(attempt, of: index, lane)
                    cancelled.append(call)
                } else {
                    self.violated("attempt \(attempt) was cancelled, but is not in flight")
                }
            case .drop(let call, let cause): self.drop(call, cause, of: index, lane)
            case .pool(let action): pooled.append(action)
            case .recompute, .accept, .caught, .dispute, .prove: self.performAudit(action, of: index, lane)
            }
        }
        for call in cancelled { self.cancel(call) }
        for (call, channel) in sends {
            if let channel { self.start(call, on: channel) } else { self.neverSent(call, "the replica has left") }
        }
        self.follow(pooled, of: index)
    }

    private func makeAttempt(
        _ attempt: AttemptID,
        _ replica: ReplicaID,
        of index: Int,
        _ lane: Int
    ) -> (OutgoingCall, SimulatedChannel?)? {
        guard let layer = self.gateways[index].lanes[lane].layer else {
            self.violated("attempt \(attempt) was sent without a layer")
            return nil
        }
        let channel = self.gateways[index].channels[replica]
        let process = self.process(ofGateway: index)
        self.report.calls += 1
        if layer.ended[attempt.call] { self.violated("call \(attempt.call) was sent after its end") }
        if layer.out[attempt] != nil { self.violated("attempt \(attempt) was sent twice") }
        let others = layer.out.keys.filter { $0.call == attempt.call }
        if !others.isEmpty, layer.calls.isAudited(attempt.call) {
            self.note(.audited)
            if others.contains(where: { layer.replicas[$0] == replica }) {
                self.violated("call \(attempt.call) has two opinions of one replica")
            }
        } else if !others.isEmpty {
            self.note(.hedged)
            self.gateways[index].lanes[lane].layer?.hedges.insert(attempt)
            if others.contains(where: { layer.replicas[$0] == replica }) {
                self.violated("call \(attempt.call) was hedged on the replica that it waits for")
            }
        } else if attempt.number > 0 {
            self.note(.retried)
        }
        let groups = layer.assignments[attempt.call].groups
            .map { group in
                ForwardMessage.Group(expert: group.expert, rows: group.rows.map { layer.rows[$0].value })
            }
        let message = ForwardMessage(layer: layer.layer, groups: groups).bytes(rowBytes: self.scenario.rowBytes)
        let call = self.call(
            .forward(gateway: index, lane: lane, layer: layer.serial, attempt: attempt, replica: replica),
            Self.forward,
            message,
            on: channel ?? self.makeChannel(owner: process, port: replica.port),
            deadline: self.nanoseconds(layer.calls.deadline),
            waitsForReady: false
        )
        self.gateways[index].lanes[lane].layer?.out[attempt] = call
        self.gateways[index].lanes[lane].layer?.replicas[attempt] = replica
        return (call, channel)
    }

    private func noteLoser(_ attempt: AttemptID, of index: Int, _ lane: Int) {
        guard let layer = self.gateways[index].lanes[lane].layer, let replica = layer.replicas[attempt] else { return }
        guard let host = self.addresses[replica.port] else { return }
        if self.processes[self.process(ofHost: host)].hungUntil > self.now { self.note(.overtookHungHost) }
        if self.hosts[host].admission.isLeaving { self.note(.hedgeLostWhileDraining) }
        if layer.hedges.contains(attempt) { self.note(.hedgeLost) }
    }

    private func drop(_ call: Int, _ cause: DropCause, of index: Int, _ lane: Int) {
        guard let layer = self.gateways[index].lanes[lane].layer else { return }
        if layer.ended[call] { self.violated("call \(call) of layer \(layer.serial) ended twice") }
        self.gateways[index].lanes[lane].layer?.ended[call] = true
        switch cause {
        case .timeout: self.note(.droppedForTime)
        case .unavailable: self.note(.droppedAsUnavailable)
        case .overloaded: self.note(.droppedAsOverloaded)
        case .badReply: self.note(.droppedForBadReply)
        }
        let rows = layer.assignments[call].groups.flatMap(\.rows).filter { layer.outputs[$0] == nil }
        if rows.isEmpty { self.violated("call \(call) was dropped, but has all of its rows") }
        self.gateways[index].lanes[lane].layer?.dropped.formUnion(rows)
    }

    // MARK: - Ends of attempts

    func forwardEnded(
        _ index: Int,
        _ lane: Int,
        _ serial: Int,
        _ attempt: AttemptID,
        _ replica: ReplicaID,
        _ call: OutgoingCall,
        _ end: ClientCallState.End
    ) {
        guard self.gateways[index].lanes.indices.contains(lane),
            self.gateways[index].lanes[lane].layer?.serial == serial,
            self.gateways[index].lanes[lane].layer?.out.removeValue(forKey: attempt) != nil
        else { return }
        self.touched.insert(call.process)
        let now = self.time(call.process)
        guard end.status.isOK, let message = call.response else {
            var pushback: Duration?
            if case .wait(let time) = RetryPushback(end.metadata) { pushback = time }
            self.step(index, lane) { layer, pools in
                layer.calls.failed(attempt, CallFailure(end.status.code), pushback: pushback, pools: &pools, now: now)
            }
            return
        }
        guard let reply = ForwardReply(message, rowBytes: self.scenario.rowBytes),
            reply.rows.count == self.gateways[index].lanes[lane].layer?.assignments[attempt.call].rowCount
        else {
            self.note(.badReply)
            self.step(index, lane) { layer, pools in
                layer.calls.failed(attempt, .badReply, pools: &pools, now: now)
            }
            return
        }
        self.answered(index, lane, attempt, reply, now)
        if reply.isLeaving { self.follow(self.gateways[index].pools.draining(replica, now: now), of: index) }
    }

    private func answered(
        _ index: Int,
        _ lane: Int,
        _ attempt: AttemptID,
        _ reply: ForwardReply,
        _ now: ContinuousClock.Instant
    ) {
        guard let layer = self.gateways[index].lanes[lane].layer else { return }
        let places = layer.assignments[attempt.call].groups.flatMap(\.rows)
        let call = attempt.call
        if attempt.number > 0 { self.note(.retryAnswered) }
        guard reply.rows.contains(ForwardReply.notFinite) else {
            self.step(index, lane) { layer, pools in
                if layer.calls.isAudited(call) {
                    var opinions = layer.opinions[call] ?? CallOpinions()
                    let number = opinions.add(reply.rows, weight: 1)
                    layer.opinions[call] = opinions
                    let conflicting = opinions.conflicting.count
                    return layer.calls
                        .heard(attempt, opinion: number, conflicting: conflicting, pools: &pools, now: now)
                }
                let actions = layer.calls.answered(attempt, pools: &pools, now: now)
                // A host that has been caught since it was asked is not believed.
                guard !layer.calls.isOpen(call) else { return actions }
                if places.contains(where: { layer.outputs[$0] != nil }) { self.note(.rowsFromTwoReplicas) }
                self.take(reply.rows, places, of: call, in: &layer, isChecked: false)
                return actions
            }
            return
        }
        self.step(index, lane) { layer, pools in
            for (place, output) in zip(places, reply.rows) where output != ForwardReply.notFinite {
                self.check(output, of: layer.rows[place], in: layer.layer, isChecked: false)
                layer.outputs[place] = output
            }
            let missing = places.count { layer.outputs[$0] == nil }
            if missing == 0 {
                self.note(.rowsFromTwoReplicas)
                layer.ended[call] = true
            } else {
                self.note(.answeredInPart)
            }
            return layer.calls.answeredInPart(attempt, missing: missing, pools: &pools, now: now)
        }
    }

    /// Uses a whole answer to a call; where an audit vouches for it, no row may be wrong.
    func take(_ rows: [UInt64], _ places: [Int], of call: Int, in layer: inout GatewayLayer, isChecked: Bool) {
        if layer.ended[call] { self.violated("call \(call) of layer \(layer.serial) ended twice") }
        layer.ended[call] = true
        layer.taken[call] = rows
        for (place, output) in zip(places, rows) {
            self.check(output, of: layer.rows[place], in: layer.layer, isChecked: isChecked)
            layer.outputs[place] = output
        }
    }

    /// Compares an expert's output with the truth.
    func check(_ output: UInt64, of row: GatewayLayer.Row, in layer: SparseLayer, isChecked: Bool) {
        guard output != HashModel.output(of: row.expert, in: layer, for: row.value) else { return }
        guard self.falsified.contains(output) else {
            self.violated("a row of request \(row.sequence.request.id) in \(layer) is wrong")
            return
        }
        if isChecked { self.violated("an audit let a wrong row of request \(row.sequence.request.id) through") }
        self.note(.plausibleLie)
        self.report.taintedRows += 1
        if let index = self.requestIndices[row.sequence.request.id] { self.requests[index].isTainted = true }
    }

    // MARK: - The machine's steps

    func step(
        _ index: Int,
        _ lane: Int,
        _ body: (inout GatewayLayer, inout ExpertPools) -> [LayerAction]
    ) {
        guard var layer = self.gateways[index].lanes[lane].layer else { return }
        let actions = body(&layer, &self.gateways[index].pools)
        self.gateways[index].lanes[lane].layer = layer
        self.perform(actions, of: index, lane)
        self.planLayerTimer(index, lane)
        self.endLayerIfComplete(index, lane)
    }

    func planLayerTimer(_ index: Int, _ lane: Int) {
        guard let layer = self.gateways[index].lanes[lane].layer, let next = layer.calls.nextTimer else { return }
        let process = self.process(ofGateway: index)
        let time = max(self.nanoseconds(next), self.clock(process))
        guard time < layer.timerAt else { return }
        self.gateways[index].lanes[lane].layer?.timerAt = time
        self.at(time, process, .layerTimer(lane: lane, layer.serial))
    }

    func layerTimer(_ index: Int, _ lane: Int, _ serial: Int) {
        guard self.gateways[index].lanes.indices.contains(lane), let layer = self.gateways[index].lanes[lane].layer,
            layer.serial == serial
        else { return }
        let process = self.process(ofGateway: index)
        if self.clock(process) >= layer.timerAt { self.gateways[index].lanes[lane].layer?.timerAt = .max }
        let now = self.time(process)
        self.step(index, lane) { layer, pools in layer.calls.timerFired(pools: &pools, now: now) }
    }

    func endLayerIfComplete(_ index: Int, _ lane: Int) {
        guard let layer = self.gateways[index].lanes[lane].layer, layer.calls.isComplete else { return }
        self.gateways[index].lanes[lane].layer = nil
        let process = self.process(ofGateway: index)
        if let call = layer.ended.firstIndex(of: false) {
            self.violated("call \(call) of layer \(layer.serial) was neither answered nor dropped")
        }
        if !layer.out.isEmpty {
            self.violated("layer \(layer.serial) ended with \(layer.out.count) attempts in flight")
        }
        let late = self.clock(process) - self.nanoseconds(layer.calls.deadline)
        if late > 0, self.processes[process].lastStall < layer.startedAt {
            self.violated("layer \(layer.serial) ended \(milliseconds(late)) after its deadline")
        } else if late > 0 {
            self.note(.layerLateAfterStall)
        }
        for (place, row) in layer.rows.enumerated() {
            let output = layer.outputs[place]
            if output == nil, !layer.dropped.contains(place) {
                self.violated("a row of request \(row.sequence.request.id) was lost in \(layer.layer)")
            }
            if output == nil {
                row.sequence.drops += 1
                self.report.dropped += 1
            }
            let combined = HashModel.combine(row.value, output)
            if layer.layer.stack == .encoder {
                row.sequence.rows[row.index] = combined
            } else {
                row.sequence.decoding[row.index] = combined
            }
        }
        self.wakeEngine(index)
    }
}
