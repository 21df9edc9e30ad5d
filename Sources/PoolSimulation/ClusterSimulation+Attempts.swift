// SPDX-License-Identifier: Apache-2.0

import BatchScheduling
import ExpertPooling
import SwitchyardTypes

// An attempt's path: to the host, through its queue, and back.
extension ClusterSimulation {
    mutating func send(_ attempt: AttemptID, to host: Int, of gateway: Int) {
        let call = attempt.call
        if self.gateways[gateway].outcomes[call] != .none {
            self.report.violations.append("call \(call) was sent after it had ended")
        }
        if attempt.number > 0 {
            if self.gateways[gateway].attemptsOut[call] > 0 {
                self.report.hedges += 1
            } else {
                self.report.retries += 1
            }
        }
        self.gateways[gateway].attemptsOut[call] += 1
        let assignment = self.gateways[gateway].assignments[call]
        let bytes = assignment.rowCount * self.configuration.model.width * 4
        let flight = Flight(
            gateway: gateway,
            layer: self.gateways[gateway].layerSerial,
            attempt: attempt,
            host: host,
            connection: self.gateways[gateway].connections[host].number,
            bytes: bytes,
            sparseLayer: self.gateways[gateway].layer,
            groups: assignment.groups
        )
        let index: Int
        if let free = self.freeFlights.popLast() {
            index = free
            self.flights[free] = flight
        } else {
            index = self.flights.count
            self.flights.append(flight)
        }
        let time = self.now + self.delay(bytes: bytes)
        self.queue.add(.arrived(flight: index), at: self.through(host, time))
    }

    /// When a message that would arrive then does arrive; a cut network delivers it some time after it heals.
    mutating func through(_ host: Int, _ time: Int64) -> Int64 {
        let cut = self.hosts[host].cutUntil
        return self.now < cut ? max(time, cut) + 200_000_000 : time
    }

    mutating func cancel(_ attempt: AttemptID, of gateway: Int) {
        self.gateways[gateway].attemptsOut[attempt.call] -= 1
        let layer = self.gateways[gateway].layerSerial
        // There are at most a few hundred flights.
        for index in self.flights.indices
        where !self.flights[index].isSettled && self.flights[index].attempt == attempt
            && self.flights[index].layer == layer && self.flights[index].gateway == gateway
        {
            self.flights[index].isSettled = true
            self.flights[index].cancelledAt = self.now + Int64(self.configuration.machines.latency * 1e9)
            self.releaseIfDone(index)
        }
    }

    mutating func drop(_ call: Int, _ cause: DropCause, of gateway: Int) {
        if self.gateways[gateway].outcomes[call] != .none {
            self.report.violations.append("call \(call) was dropped after it had ended")
        }
        self.gateways[gateway].outcomes[call] = .dropped
        let rows = self.gateways[gateway].assignments[call].rowCount
        let key = SimulationReport.Drop(stack: self.gateways[gateway].layer.stack, cause: cause)
        self.report.dropped[key, default: 0] += rows
        self.gateways[gateway].stepDrops += rows
    }

    mutating func releaseIfDone(_ flight: Int) {
        guard self.flights[flight].isSettled, self.flights[flight].isStranded else { return }
        self.flights[flight].layer = -1
        self.freeFlights.append(flight)
    }

    /// No event advances the flight any more; its gateway may still have to learn that.
    mutating func strand(_ flight: Int) {
        self.flights[flight].isStranded = true
        self.releaseIfDone(flight)
    }

    mutating func replied(_ index: Int, _ failure: CallFailure?) {
        let flight = self.flights[index]
        let gateway = flight.gateway
        let isConnected = self.gateways[gateway].connections[flight.host].number == flight.connection
        guard !flight.isSettled, isConnected, flight.layer == self.gateways[gateway].layerSerial else {
            self.flights[index].isSettled = true
            self.strand(index)
            return
        }
        self.flights[index].isSettled = true
        self.strand(index)
        if let failure {
            self.fail(flight.attempt, failure, of: gateway)
            return
        }
        let call = flight.attempt.call
        self.gateways[gateway].attemptsOut[call] -= 1
        if self.gateways[gateway].outcomes[call] != .none {
            self.report.violations.append("call \(call) was answered after it had ended")
        }
        self.gateways[gateway].outcomes[call] = .answered
        self.report.answered += self.gateways[gateway].assignments[call].rowCount
        let actions = self.gateways[gateway].answered(flight.attempt, now: self.instant)
        self.perform(actions, of: gateway)
        self.endLayerIfComplete(gateway)
    }

    mutating func fail(_ attempt: AttemptID, _ failure: CallFailure, of gateway: Int) {
        self.gateways[gateway].attemptsOut[attempt.call] -= 1
        let actions = self.gateways[gateway].failed(attempt, failure, now: self.instant)
        self.perform(actions, of: gateway)
        self.planLayerTimer(of: gateway)
        self.endLayerIfComplete(gateway)
    }

    // MARK: - Hosts at work

    mutating func arrived(_ index: Int) {
        let flight = self.flights[index]
        let host = flight.host
        let isConnected = self.gateways[flight.gateway].connections[host].number == flight.connection
        guard self.hosts[host].state != .down, isConnected else {
            self.strand(index)
            return
        }
        let call = HostAdmission.Call(
            source: self.sourceNames[flight.gateway],
            layer: flight.sparseLayer,
            rows: flight.groups.reduce(0) { $0 + $1.rows.count },
            experts: flight.groups.count
        )
        guard case .queue(let id) = self.hosts[host].admission.arrived(call, now: self.instant) else {
            let time = self.now + self.delay()
            self.queue.add(.replied(flight: index, .overloaded), at: self.through(host, time))
            return
        }
        self.hosts[host].waiting[id] = index
        self.work(host)
    }

    /// Begins the next pass, if there is one and the host is idle.
    mutating func work(_ host: Int) {
        guard self.hosts[host].current.isEmpty, self.hosts[host].state == .up || self.hosts[host].state == .draining
        else { return }
        self.forgetCancelled(host)
        let next = self.hosts[host].admission.next(now: self.instant)
        switch next.step {
        case .compute(let pass):
            self.begin(pass, at: host)
        case .wait(let until):
            // For another gateway's call for the same layer.
            if let until { self.queue.add(.hostWakes(host: host), at: max(self.time(of: until), self.now)) }
        case .leave:
            break
        }
    }

    private mutating func forgetCancelled(_ host: Int) {
        let cancelled = self.hosts[host].waiting.filter { self.flights[$0.value].cancelledAt <= self.now }
        for (id, index) in cancelled.sorted(by: { $0.key.rawValue < $1.key.rawValue }) {
            _ = self.hosts[host].admission.cancelled(id, now: self.instant)
            self.hosts[host].waiting[id] = nil
            self.strand(index)
        }
    }

    private mutating func begin(_ pass: HostAdmission.Pass, at host: Int) {
        let flights = pass.calls.compactMap { self.hosts[host].waiting.removeValue(forKey: $0) }
        let machines = self.configuration.machines
        var (time, reads) = self.work(of: flights)
        time *= self.timeChance.lognormal(machines.spread)
        time *= self.hosts[host].slowness
        if self.now < self.hosts[host].coldUntil { time *= machines.coldFactor }
        if self.configuration.scenario == .stragglers, self.timeChance.uniform() < 0.002 {
            time *= min(4 * self.timeChance.pareto(1.1), 200)
        }
        self.hosts[host].current = flights
        self.hosts[host].reads = reads
        self.hosts[host].turn += 1
        self.hosts[host].currentEnd = self.now + Int64(time)
        self.queue.add(.computed(host: host, turn: self.hosts[host].turn), at: self.hosts[host].currentEnd)
    }

    /// The time that a host needs for a pass, in nanoseconds, and how many experts' weights it reads.
    ///
    /// For each expert its weights are read, or the rows of all calls multiplied, whichever takes longer.
    private func work(of flights: [Int]) -> (time: Double, reads: Int) {
        let model = self.configuration.model
        let machines = self.configuration.machines
        let weights = 2 * Double(model.width) * Double(model.innerWidth)
        let reading = weights * Double(model.weightBytes) / machines.weightBytesPerSecond
        var rows: [(expert: Int, rows: Int)] = []
        for index in flights { rows += self.flights[index].groups.map { ($0.expert, $0.rows.count) } }
        if flights.count > 1 { rows.sort { $0.expert < $1.expert } }
        var seconds = machines.callSeconds * Double(flights.count)
        var reads = 0
        var start = 0
        while start < rows.count {
            var end = start
            var count = 0
            while end < rows.count, rows[end].expert == rows[start].expert {
                count += rows[end].rows
                end += 1
            }
            seconds += max(reading, 2 * weights * Double(count) / machines.operationsPerSecond)
            reads += 1
            start = end
        }
        return (seconds * 1e9, reads)
    }

    mutating func computed(_ host: Int, _ turn: Int) {
        guard self.hosts[host].turn == turn, !self.hosts[host].current.isEmpty else { return }
        let flights = self.hosts[host].current
        self.hosts[host].current = []
        self.hosts[host].admission.finished(expertReads: self.hosts[host].reads, now: self.instant)
        self.report.expertReads += self.hosts[host].reads
        for index in flights {
            let time = self.now + self.delay(bytes: self.flights[index].bytes)
            self.queue.add(.replied(flight: index, nil), at: self.through(host, time))
        }
        self.work(host)
    }
}
