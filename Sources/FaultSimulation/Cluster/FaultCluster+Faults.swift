// SPDX-License-Identifier: Apache-2.0

internal import BatchScheduling
internal import ExpertPooling
internal import PoolSimulation
internal import RPCCore

// What goes wrong, and how it ends.
extension FaultCluster {
    func begin(_ fault: SimulatedFault, _ index: Int) {
        if self.scenario.faults.contains(where: { $0 != fault && $0.time <= self.now && $0.end > self.now }) {
            self.note(.twoFaultsAtOnce)
        }
        self.queue.add(.faultOver(index), at: fault.end)
        self.log("fault: \(fault)")
        switch fault.kind {
        case .kill(let target, let isSilent): self.kill(target, isSilent: isSilent)
        case .wrongModel(let host):
            self.kill(.host(host), isSilent: false)
            self.hosts[host].hasWrongModel = true
            self.startAgain(.host(host))
        case .otherWeights(let host):
            self.kill(.host(host), isSilent: false)
            self.hosts[host].hasOtherWeights = true
            self.startAgain(.host(host))
        case .notReady(let host):
            self.kill(.host(host), isSilent: false)
            self.hosts[host].notReadyUntil = fault.end
            self.startAgain(.host(host))
        case .refusing(let host, let isBroken):
            self.hosts[host].refusingUntil = fault.end
            self.hosts[host].isBroken = isBroken
        case .hang(let target):
            let process = self.process(of: target)
            self.processes[process].hungUntil = max(self.processes[process].hungUntil, fault.end)
        case .partition(let from, let to):
            let key = self.process(of: from) * self.processes.count + self.process(of: to)
            self.cuts[key] = max(self.cuts[key] ?? 0, fault.end)
        case .delay(let target, let time):
            self.processes[self.process(of: target)].delayUntil = fault.end
            self.processes[self.process(of: target)].extraDelay = time
        case .reorder(let time):
            self.reorderUntil = fault.end
            self.reorderTime = time
        case .duplicate(let target): self.processes[self.process(of: target)].duplicateUntil = fault.end
        case .torn(let target): self.processes[self.process(of: target)].tornUntil = fault.end
        case .cut(let target):
            let process = self.process(of: target)
            for id in self.links.keys.sorted() {
                if let link = self.links[id], link.processes.contains(process) { self.cut(link) }
            }
        case .slowReader(let target): self.processes[self.process(of: target)].slowReaderUntil = fault.end
        case .clockJump(let target, let time): self.jump(self.process(of: target), by: time)
        case .wrongBits(let host, let answer):
            self.hosts[host].wrong = answer
            self.hosts[host].wrongUntil = fault.end
        case .names(let host, let change): self.change(host, change)
        case .drain(let target): self.drain(target)
        case .slow(let host, let factor):
            self.hosts[host].slowUntil = fault.end
            self.hosts[host].slowness = factor
        }
    }

    /// Faults that end by themselves compare their time; the others are ended here.
    func end(_ fault: SimulatedFault) {
        switch fault.kind {
        case .kill(let target, _), .drain(let target): self.startAgain(target)
        case .wrongModel(let host):
            self.kill(.host(host), isSilent: false)
            self.hosts[host].hasWrongModel = false
            self.startAgain(.host(host))
        case .otherWeights(let host):
            self.kill(.host(host), isSilent: false)
            self.hosts[host].hasOtherWeights = false
            self.startAgain(.host(host))
        case .hang(let target): self.resumed(self.process(of: target))
        case .names(let host, let change): self.restore(host, change)
        case .partition, .delay, .reorder, .duplicate, .torn, .cut, .slowReader, .clockJump, .wrongBits, .slow,
            .notReady,
            .refusing:
            break
        }
    }

    // MARK: - Deaths

    private func kill(_ target: SimulatedFault.Target, isSilent: Bool) {
        let process = self.process(of: target)
        guard self.processes[process].isAlive else { return }
        switch target {
        case .gateway(let index):
            if self.gateways[index].lanes.contains(where: { $0.layer != nil }) { self.note(.gatewayDiedInLayer) }
        case .host(let index):
            if !self.hosts[index].computing.isEmpty { self.note(.hostDiedComputing) }
        case .client: return
        }
        self.die(process, isSilent: isSilent)
    }

    private func die(_ process: Int, isSilent: Bool) {
        self.log("\(self.processes[process].target) ends")
        self.processes[process].isAlive = false
        self.processes[process].generation += 1
        self.processes[process].hungUntil = 0
        self.abandonLinks(of: process, isSilent: isSilent)
        if case .gateway(let index) = self.processes[process].target { self.gateways[index] = self.makeGateway(index) }
        if case .host(let index) = self.processes[process].target { self.startHost(index) }
    }

    /// The process ends by itself, and what it still has open is reset.
    func stop(_ process: Int) {
        guard self.processes[process].isAlive else { return }
        self.die(process, isSilent: false)
    }

    private func startAgain(_ target: SimulatedFault.Target) {
        let process = self.process(of: target)
        // Another fault may want it dead for longer; it then ends later.
        let isWanted = self.scenario.faults.contains { fault in
            guard fault.time <= self.now, fault.end > self.now else { return false }
            return switch fault.kind {
            case .kill(target, _), .drain(target): true
            default: false
            }
        }
        guard !isWanted else { return }
        if self.processes[process].isAlive {
            // It did not finish draining in time.
            guard self.isDraining(target) else { return }
            self.note(.drainCutShort)
            self.stop(process)
        }
        self.log("\(target) starts")
        self.processes[process].isAlive = true
        switch target {
        case .gateway(let index): self.startGateway(index)
        case .host: break
        case .client: break
        }
    }

    private func isDraining(_ target: SimulatedFault.Target) -> Bool {
        switch target {
        case .gateway(let index): self.gateways[index].isDraining
        case .host(let index): self.hosts[index].admission.isLeaving
        case .client: false
        }
    }

    private func resumed(_ process: Int) {
        guard self.processes[process].hungUntil <= self.now, self.processes[process].isAlive else { return }
        self.processes[process].lastStall = self.now
        for id in self.links.keys.sorted() {
            guard let link = self.links[id] else { continue }
            for side in [LinkSide.client, .server] where link.process(side) == process { self.flush(link, side) }
        }
    }

    // MARK: - Clocks

    private func jump(_ process: Int, by time: Int64) {
        guard self.processes[process].isAlive else { return }
        self.processes[process].clockOffset += time
        self.processes[process].lastStall = self.now
        self.touched.insert(process)
        for serial in self.openCalls.keys.sorted() {
            guard let call = self.openCalls[serial], call.process == process, let deadline = call.deadline else {
                continue
            }
            self.at(deadline, process, .callDeadline(call))
        }
        for id in self.links.keys.sorted() {
            guard let link = self.links[id], link.process(.server) == process else { continue }
            for call in link.incoming.sorted(by: { $0.key < $1.key }).map(\.value) {
                if let deadline = call.deadline { self.at(self.nanoseconds(deadline), process, .serverDeadline(call)) }
            }
        }
        switch self.processes[process].target {
        case .gateway(let index):
            self.gateways[index].poolTimerAt = .max
            self.planPoolTimer(index)
            for lane in self.gateways[index].lanes.indices where self.gateways[index].lanes[lane].layer != nil {
                self.note(.clockJumpedInLayer)
                self.gateways[index].lanes[lane].layer?.timerAt = .max
                self.planLayerTimer(index, lane)
            }
        case .host: self.after(0, process, .hostWake)
        case .client: break
        }
    }

    // MARK: - Draining

    private func drain(_ target: SimulatedFault.Target) {
        let process = self.process(of: target)
        guard self.processes[process].isAlive else { return }
        switch target {
        case .gateway(let index): self.drainGateway(index)
        case .host(let index):
            self.hosts[index].admission.beginLeaving()
            // It first lets its gateways know, in its answers.
            self.after(30_000_000, process, .leave)
        case .client: break
        }
    }

    func leave(_ process: Int) {
        switch self.processes[process].target {
        case .gateway(let index):
            guard self.gateways[index].isDraining, self.gateways[index].sequences.isEmpty else { return }
            // Clients that have not heard of it yet are told so, for as long as the drain may take.
            if self.links.values.contains(where: { $0.process(.server) == process && $0.isOpen(.server) }) {
                self.after(50_000_000, process, .leave)
            } else {
                self.stop(process)
            }
        case .host(let index):
            guard self.hosts[index].admission.isLeaving, !self.hosts[index].admission.isDraining else { return }
            for id in self.links.keys.sorted() {
                guard let link = self.links[id], link.process(.server) == process else { continue }
                self.beginDrain(link)
            }
            self.hosts[index].admission.beginDraining()
            self.hosts[index].leavesWhenIdle = true
            self.after(1_000_000_000, process, .abandon)
            self.hostWake(index)
        case .client: break
        }
    }

    // MARK: - Names

    private func change(_ host: Int, _ change: SimulatedFault.NameChange) {
        let pool = self.hosts[host].pool
        let ports = self.addresses.filter { $0.value == host }.keys.sorted()
        switch change {
        case .leaves:
            self.names[pool].removeAll { ports.contains($0) }
        case .moves:
            self.names[pool].removeAll { ports.contains($0) }
            self.addAddress(of: host)
        case .doubles:
            self.addAddress(of: host)
        }
        self.announceNames(of: pool)
    }

    private func addAddress(of host: Int) {
        self.nextPort += 1
        self.addresses[self.nextPort] = host
        self.names[self.hosts[host].pool].append(self.nextPort)
    }

    private func restore(_ host: Int, _ change: SimulatedFault.NameChange) {
        let pool = self.hosts[host].pool
        let ports = self.addresses.filter { $0.value == host }.keys.sorted()
        self.names[pool].removeAll { ports.contains($0) }
        // After having two addresses, either may remain.
        if let port = change == .doubles && self.chance.index(below: 2) == 0 ? ports.first : ports.last {
            self.names[pool].append(port)
        }
        self.announceNames(of: pool)
    }
}
