// SPDX-License-Identifier: Apache-2.0

internal import BatchScheduling
internal import ExpertPooling
internal import PoolSimulation
internal import RPCCore

// Expert hosts: what the host's runner does around `HostAdmission`.
extension FaultCluster {
    /// What a pass takes besides its rows, and what each row takes, nanoseconds.
    private static let passTime: Int64 = 2_000_000
    private static let rowTime: Int64 = 100_000

    func makeHosts() {
        for index in 0..<self.scenario.hosts {
            let pool = self.scenario.pool(of: index)
            self.hosts.append(SimulatedHost(index: index, pool: pool, admission: self.makeAdmission()))
            self.nextPort += 1
            self.addresses[self.nextPort] = index
            self.names[pool].append(self.nextPort)
        }
    }

    private func makeAdmission() -> HostAdmission {
        HostAdmission(
            limits: .init(calls: self.scenario.hostCalls, rows: self.scenario.hostRows),
            batching: .init(rows: 64, window: .nanoseconds(self.scenario.companionWindow))
        )
    }

    /// A new process at the host's addresses.
    func startHost(_ index: Int) {
        self.hosts[index].admission = self.makeAdmission()
        self.hosts[index].jobs = [:]
        self.hosts[index].computing = []
        self.hosts[index].turn += 1
        self.hosts[index].wakeAt = .max
        self.hosts[index].instance += 1
        self.hosts[index].leavesWhenIdle = false
    }

    /// Whether a process takes new connections.
    func acceptsConnections(_ process: Int) -> Bool {
        switch self.processes[process].target {
        case .client: false
        case .gateway(let index): !self.gateways[index].isDraining
        case .host(let index): !self.hosts[index].admission.isDraining
        }
    }

    // MARK: - Calls

    func describeReceived(_ index: Int, _ call: IncomingCall) {
        guard self.hosts[index].notReadyUntil <= self.now else {
            self.end(call, RPCError(.unavailable, "the host is not ready"))
            return
        }
        var writer = WireWriter()
        writer.add(UInt16(self.hosts[index].pool))
        writer.add(UInt32(index))
        writer.add(UInt32(self.hosts[index].instance))
        writer.add(UInt8(self.hosts[index].hasWrongModel ? 1 : 0))
        writer.add(UInt8(self.hosts[index].hasOtherWeights ? 1 : 0))
        writer.add(UInt8(self.hosts[index].admission.isLeaving ? 1 : 0))
        self.send(call, writer.bytes)
        self.finish(call, .ok)
    }

    func forwardReceived(_ index: Int, _ call: IncomingCall, _ bytes: [UInt8]) {
        guard let message = ForwardMessage(bytes, rowBytes: self.scenario.rowBytes) else {
            self.violated("host \(index) got a call that it cannot read")
            return
        }
        guard self.hosts[index].refusingUntil <= self.now else {
            let code: Status.Code = self.hosts[index].isBroken ? .internal : .resourceExhausted
            self.end(call, RPCError(code, "the host takes no calls"))
            return
        }
        let process = self.process(ofHost: index)
        let client = call.link.process(.client)
        let arrival = HostAdmission.Call(
            source: "c\(call.link.id)",
            layer: message.layer,
            rows: message.rowCount,
            experts: message.groups.count,
            deadline: call.deadline
        )
        switch self.hosts[index].admission.arrived(arrival, now: self.time(process)) {
        case .queue(let id):
            if self.hosts[index].leavesWhenIdle { self.violated("host \(index) took a call while it drained") }
            call.work = id.rawValue
            self.hosts[index].jobs[id] = HostJob(id: id, call: call, message: message, gateway: self.gateway(client))
            self.hostWake(index)
        case .refuse(let refusal, let retryAfter):
            switch refusal {
            case .calls: self.note(.hostFullOfCalls)
            case .rows: self.note(.hostFullOfRows)
            case .share: break
            }
            var error = RPCError(.resourceExhausted, "the host is full")
            error.askToRetry(after: retryAfter)
            self.end(call, error)
        case .refuseDraining:
            self.note(.hostRefusedDraining)
            self.end(call, RPCError(.unavailable, "the host is draining"))
        case .refuseExpired:
            self.note(.expiredAtHost)
            self.end(call, RPCError(.deadlineExceeded, "the deadline had passed when the call arrived"))
        }
    }

    func forwardCancelled(_ index: Int, _ call: IncomingCall) {
        guard let work = call.work else { return }
        call.work = nil
        let process = self.process(ofHost: index)
        if let job = self.hosts[index].jobs.first(where: { $0.key.rawValue == work }) {
            if self.hosts[index].admission.cancelled(job.key, now: self.time(process)) {
                self.note(.cancelledInHostQueue)
                self.hosts[index].jobs[job.key] = nil
            } else {
                self.violated("host \(index) keeps call \(work), which does not wait")
            }
        } else if let place = self.hosts[index].computing.firstIndex(where: { $0.id.rawValue == work }) {
            self.note(.cancelledWhileComputed)
            self.hosts[index].computing[place].isCancelled = true
        }
        self.leaveIfIdle(index)
    }

    // MARK: - Computing

    func hostWake(_ index: Int) {
        self.hosts[index].wakeAt = .max
        guard self.hosts[index].computing.isEmpty else { return }
        let process = self.process(ofHost: index)
        self.touched.insert(process)
        let next = self.hosts[index].admission.next(now: self.time(process))
        for id in next.expired {
            self.note(.expiredAtHost)
            guard let job = self.hosts[index].jobs.removeValue(forKey: id) else {
                self.violated("host \(index) ended call \(id.rawValue), which it does not know")
                continue
            }
            job.call.work = nil
            self.end(job.call, RPCError(.deadlineExceeded, "the deadline passed in the queue"))
        }
        switch next.step {
        case .compute(let pass):
            self.compute(index, pass)
        case .wait(let until):
            guard let until else { break }
            self.note(.waitedForCompanions)
            self.hosts[index].wakeAt = self.nanoseconds(until)
            self.at(self.nanoseconds(until), process, .hostWake)
        case .leave:
            break
        }
        self.leaveIfIdle(index)
    }

    private func compute(_ index: Int, _ pass: HostAdmission.Pass) {
        let process = self.process(ofHost: index)
        var rows = 0
        for id in pass.calls {
            guard let job = self.hosts[index].jobs.removeValue(forKey: id) else {
                self.violated("host \(index) computes call \(id.rawValue), which it does not know")
                continue
            }
            if let deadline = job.call.deadline, deadline <= self.time(process) {
                self.violated("host \(index) computes a call whose deadline has passed")
            }
            rows += job.message.rowCount
            self.hosts[index].computing.append(job)
        }
        if rows != pass.rows { self.violated("a pass of host \(index) has \(rows) rows, not \(pass.rows)") }
        if Set(self.hosts[index].computing.map(\.gateway)).count > 1 { self.note(.passOfTwoGateways) }
        if Set(self.hosts[index].computing.map(\.message.layer)).count > 1 {
            self.violated("a pass of host \(index) is for two layers")
        }
        var time = Self.passTime + Self.rowTime * Int64(rows)
        time = time * Int64(80 + self.chance.index(below: 60)) / 100
        if self.hosts[index].slowUntil > self.now { time *= self.hosts[index].slowness }
        self.hosts[index].turn += 1
        self.after(time, process, .computed(turn: self.hosts[index].turn))
    }

    func computed(_ index: Int, _ turn: Int) {
        guard self.hosts[index].turn == turn, !self.hosts[index].computing.isEmpty else { return }
        let process = self.process(ofHost: index)
        let jobs = self.hosts[index].computing
        self.hosts[index].computing = []
        let experts = Set(jobs.flatMap { $0.message.groups.map(\.expert) }).count
        self.hosts[index].admission.finished(expertReads: experts, now: self.time(process))
        if jobs.allSatisfy(\.isCancelled) { self.note(.passAfterCallersLeft) }
        for job in jobs where !job.isCancelled {
            job.call.work = nil
            if job.call.link.outgoing[job.call.streamID]?.state.isEnded ?? true { self.note(.answeredAfterEnd) }
            self.send(job.call, self.reply(of: index, to: job.message).bytes(rowBytes: self.scenario.rowBytes))
            self.finish(job.call, .ok)
        }
        self.hostWake(index)
    }

    /// What a host answers: hashes, or something else where it is told to lie.
    private func reply(of index: Int, to message: ForwardMessage) -> ForwardReply {
        var rows: [UInt64] = []
        for group in message.groups {
            for row in group.rows { rows.append(HashModel.output(of: group.expert, in: message.layer, for: row)) }
        }
        if self.hosts[index].wrongUntil > self.now {
            switch self.hosts[index].wrong {
            case .notFinite:
                for place in rows.indices where place % 2 == 0 { rows[place] = ForwardReply.notFinite }
            case .short:
                rows.removeLast()
            case .plausible:
                for place in rows.indices where self.chance.index(below: 3) == 0 {
                    // Hosts of a pool flip different bits: two equal lies look like the truth.
                    rows[place] ^= 1 << UInt64(self.chance.index(below: 6) * 8 + index % 8)
                    self.falsified.insert(rows[place])
                    self.hosts[index].hasLied = true
                }
            }
        }
        return ForwardReply(isLeaving: self.hosts[index].admission.isLeaving, rows: rows)
    }

    // MARK: - Leaving

    func leaveIfIdle(_ index: Int) {
        guard self.hosts[index].leavesWhenIdle, self.hosts[index].computing.isEmpty,
            self.hosts[index].jobs.isEmpty, self.hosts[index].admission.isDraining
        else { return }
        let process = self.process(ofHost: index)
        guard !self.links.values.contains(where: { $0.process(.server) == process && $0.isOpen(.server) }) else {
            return
        }
        self.note(.drainedWithoutLoss)
        self.stop(process)
    }
}
