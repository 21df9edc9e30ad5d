// SPDX-License-Identifier: Apache-2.0

import ExpertPooling
import SwitchyardTypes

// What goes wrong with hosts, and what gateways notice of it.
extension ClusterSimulation {
    private static let second: Int64 = 1_000_000_000

    private var faultsGoOn: Bool {
        self.configuration.faultsEnd.map { Double(self.now) * 1e-9 < $0 } ?? true
    }

    mutating func beginFaults() {
        switch self.configuration.scenario {
        case .calm, .hot, .gateways: break
        case .stragglers:
            for _ in 0..<max(1, self.hosts.count / 64) {
                let host = self.faultChance.index(below: self.hosts.count)
                self.hosts[host].slowness = 8
                self.report.faults += 1
            }
        case .crash, .hang, .partition: self.queue.add(.fault, at: Self.second)
        case .rolling:
            // As many at a time as it takes to restart all of them in some twenty seconds.
            for place in 0..<max(1, self.hosts.count / 16) {
                self.queue.add(.fault, at: Self.second / 2 + Int64(place) * Self.second / 20)
            }
        }
    }

    mutating func nextFault() {
        guard self.faultsGoOn else { return }
        switch self.configuration.scenario {
        case .calm, .hot, .gateways, .stragglers: break
        case .crash:
            if let host = self.anyHost() { self.crash(host, for: 3 * Self.second) }
            self.queue.add(.fault, at: self.now + Self.second)
        case .hang:
            if let host = self.anyHost() { self.hang(host, for: Self.second) }
            self.queue.add(.fault, at: self.now + 2 * Self.second)
        case .partition:
            // A rack: neighbours, which are in different pools as long as there are enough pools.
            let first = self.faultChance.index(below: self.hosts.count)
            for place in 0..<max(1, self.hosts.count / 32) {
                self.cut((first + place) % self.hosts.count, for: 3 * Self.second / 2)
            }
            self.queue.add(.fault, at: self.now + 3 * Self.second)
        case .rolling:
            let host = self.nextInTurn % self.hosts.count
            self.nextInTurn += 1
            self.drain(host)
        }
    }

    private mutating func anyHost() -> Int? {
        let host = self.faultChance.index(below: self.hosts.count)
        return self.hosts[host].state == .up ? host : nil
    }

    // MARK: - What happens to a host

    private mutating func crash(_ host: Int, for time: Int64) {
        self.report.faults += 1
        self.hosts[host].state = .down
        for flight in self.hosts[host].abandon(self.configuration.machines) { self.strand(flight) }
        for gateway in self.gateways.indices { self.breakConnection(gateway, host, at: self.now + self.delay()) }
        self.queue.add(.hostStarts(host: host, start: self.hosts[host].start), at: self.now + time)
    }

    private mutating func hang(_ host: Int, for time: Int64) {
        self.report.faults += 1
        self.hosts[host].state = .hung
        self.hosts[host].hungUntil = self.now + time
        self.hosts[host].wellSince = nil
        // The end of its computation is rescheduled when it continues.
        self.hosts[host].turn += 1
        self.hosts[host].currentEnd -= self.now
        self.queue.add(.hostResumes(host: host), at: self.now + time)
    }

    mutating func resume(_ host: Int) {
        guard self.hosts[host].state == .hung else { return }
        self.hosts[host].state = .up
        self.hosts[host].wellSince = self.now
        if !self.hosts[host].current.isEmpty {
            self.hosts[host].currentEnd = self.now + max(0, self.hosts[host].currentEnd)
            self.queue.add(.computed(host: host, turn: self.hosts[host].turn), at: self.hosts[host].currentEnd)
        }
        self.work(host)
    }

    private mutating func cut(_ host: Int, for time: Int64) {
        guard self.hosts[host].state == .up else { return }
        self.report.faults += 1
        self.hosts[host].cutUntil = self.now + time
        self.hosts[host].wellSince = nil
        for gateway in self.gateways.indices {
            let noticed = self.now + Int64(self.configuration.machines.keepalive * 1e9)
            if noticed < self.hosts[host].cutUntil { self.breakConnection(gateway, host, at: noticed) }
        }
        self.queue.add(.healed(host: host), at: self.hosts[host].cutUntil)
    }

    mutating func healed(_ host: Int) { self.hosts[host].wellSince = self.now }

    private mutating func drain(_ host: Int) {
        guard self.hosts[host].state == .up else { return }
        self.report.faults += 1
        self.hosts[host].state = .draining
        for gateway in self.gateways.indices {
            self.queue.add(.drainSeen(gateway: gateway, host: host), at: self.now + self.delay())
        }
        self.queue.add(.hostStops(host: host, start: self.hosts[host].start), at: self.now + 3 * Self.second / 10)
    }

    mutating func stop(_ host: Int, _ start: Int) {
        guard self.hosts[host].state == .draining, self.hosts[host].start == start else { return }
        self.hosts[host].state = .down
        for flight in self.hosts[host].abandon(self.configuration.machines) { self.strand(flight) }
        for gateway in self.gateways.indices { self.breakConnection(gateway, host, at: self.now + self.delay()) }
        self.queue.add(.hostStarts(host: host, start: start), at: self.now + Self.second)
        // The next one goes when this one is back.
        self.queue.add(.fault, at: self.now + 3 * Self.second / 2)
    }

    mutating func start(_ host: Int, _ start: Int) {
        guard self.hosts[host].state == .down, self.hosts[host].start == start else { return }
        self.hosts[host].start += 1
        self.hosts[host].state = .up
        self.hosts[host].coldUntil = self.now + Self.second
        self.hosts[host].wellSince = self.now
    }

    // MARK: - What a gateway notices

    private mutating func breakConnection(_ gateway: Int, _ host: Int, at time: Int64) {
        let connection = self.gateways[gateway].connections[host]
        guard connection.isUp else { return }
        self.queue.add(.connectionLost(gateway: gateway, host: host, connection: connection.number), at: time)
    }

    mutating func connectionLost(_ gateway: Int, _ host: Int, _ connection: Int) {
        guard self.gateways[gateway].connections[host].isUp,
            self.gateways[gateway].connections[host].number == connection
        else { return }
        self.gateways[gateway].connections[host].isUp = false
        self.gateways[gateway].connections[host].number += 1
        self.gateways[gateway].connections[host].tries = 0
        self.gateways[gateway].pools.disconnected(self.hosts[host].id, now: self.instant)
        self.planPoolTimer(of: gateway)
        let layer = self.gateways[gateway].layerSerial
        for index in self.flights.indices {
            let flight = self.flights[index]
            guard !flight.isSettled, flight.gateway == gateway, flight.host == host, flight.connection == connection,
                flight.layer == layer
            else { continue }
            self.flights[index].isSettled = true
            self.releaseIfDone(index)
            self.fail(flight.attempt, .unavailable, of: gateway)
        }
        self.tryLater(gateway, host)
    }

    private mutating func tryLater(_ gateway: Int, _ host: Int) {
        let machines = self.configuration.machines
        var wait = machines.firstReconnect
        for _ in 0..<min(self.gateways[gateway].connections[host].tries, 32) where wait < machines.longestReconnect {
            wait *= 1.6
        }
        wait = min(wait, machines.longestReconnect) * (0.8 + 0.4 * self.faultChance.uniform())
        self.gateways[gateway].connections[host].tries += 1
        self.queue.add(.connect(gateway: gateway, host: host), at: self.now + Int64(wait * 1e9))
    }

    mutating func connect(_ gateway: Int, _ host: Int) {
        guard !self.gateways[gateway].connections[host].isUp else { return }
        let isThere = self.hosts[host].state == .up && self.now >= self.hosts[host].cutUntil
        guard isThere else {
            self.tryLater(gateway, host)
            return
        }
        self.gateways[gateway].connections[host].isUp = true
        self.perform(self.gateways[gateway].pools.connected(self.hosts[host].id), of: gateway)
    }

    mutating func describe(_ host: Int, of gateway: Int) {
        let connection = self.gateways[gateway].connections[host].number
        var answer = self.through(host, self.now + 2 * self.delay() + 200_000)
        var isAnswered = true
        switch self.hosts[host].state {
        case .up, .draining: break
        case .hung: answer = max(answer, self.hosts[host].hungUntil)
        case .down: isAnswered = false
        }
        let timeout = self.now + Int64(self.configuration.machines.describeTimeout * 1e9)
        isAnswered = isAnswered && answer <= timeout
        self.queue.add(
            .described(gateway: gateway, host: host, connection: connection, isAnswered: isAnswered),
            at: isAnswered ? answer : timeout
        )
    }

    mutating func described(_ gateway: Int, _ host: Int, _ connection: Int, isAnswered: Bool) {
        guard self.gateways[gateway].connections[host].isUp,
            self.gateways[gateway].connections[host].number == connection
        else { return }
        let id = self.hosts[host].id
        if isAnswered {
            var description = self.descriptions[host % self.descriptions.count]
            description.instance = self.hosts[host].instance
            let actions = self.gateways[gateway].pools.described(id, description, now: self.instant)
            self.perform(actions, of: gateway)
        } else {
            self.gateways[gateway].pools.describeFailed(id, now: self.instant)
            self.planPoolTimer(of: gateway)
        }
        self.checkPools(of: gateway)
    }
}
