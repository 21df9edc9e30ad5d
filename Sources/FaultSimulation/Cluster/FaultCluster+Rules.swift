// SPDX-License-Identifier: Apache-2.0

internal import BatchScheduling
internal import ExpertPooling
internal import HTTP2Session
internal import RPCCore

// What must hold after every event, and at the end.
extension FaultCluster {
    /// Checks the machines of the processes and connections that the last event touched.
    func checkTouched() {
        let touched = self.touched.sorted()
        let links = self.touchedLinks
        self.touched.removeAll(keepingCapacity: true)
        self.touchedLinks.removeAll(keepingCapacity: true)
        for process in touched { self.check(process) }
        for link in links where link.isOpen(.client) || link.isOpen(.server) { self.check(link) }
    }

    private func require(_ broken: String?, _ whose: String) {
        if let broken { self.violated("\(whose): \(broken)") }
    }

    private func check(_ process: Int) {
        switch self.processes[process].target {
        case .client: break
        case .gateway(let index):
            let gateway = self.gateways[index]
            self.require(gateway.scheduler.checkInvariants(), "the scheduler of gateway \(index)")
            self.require(gateway.pools.checkInvariants(), "the pools of gateway \(index)")
            for lane in gateway.lanes {
                self.require(lane.layer?.calls.checkInvariants(), "the layer of gateway \(index)")
            }
            self.checkAttempts(gateway, index)
            for (pool, counts) in gateway.pools.counts {
                let decided = counts.audits[.agreed] + counts.audits[.caught]
                guard decided > gateway.vouched[pool] ?? 0 else { continue }
                self.violated("\(decided) audits of \(pool) were decided, but fewer had two opinions")
            }
            let known = gateway.scheduler.queuedCount + gateway.scheduler.runningCount
            if gateway.sequences.count < known {
                self.violated("gateway \(index) schedules \(known) sequences, but has \(gateway.sequences.count)")
            }
        case .host(let index):
            let host = self.hosts[index]
            self.require(host.admission.checkInvariants(), "the admission of host \(index)")
            if host.jobs.count != host.admission.waitingCalls {
                self.violated(
                    "\(host.admission.waitingCalls) calls wait at host \(index), but it keeps \(host.jobs.count)"
                )
            }
            if host.computing.count != host.admission.computingCalls {
                self.violated(
                    "host \(index) computes \(host.computing.count) calls, not \(host.admission.computingCalls)"
                )
            }
            if host.computing.isEmpty, host.wakeAt == .max, !host.jobs.isEmpty,
                self.processes[process].hungUntil <= self.now
            {
                self.violated("calls wait at host \(index), which does nothing")
            }
        }
    }

    /// What the pools count as in flight must be what is in flight.
    private func checkAttempts(_ gateway: SimulatedGateway, _ index: Int) {
        let counted = gateway.pools.openAttempts
        let layers = gateway.lanes.compactMap(\.layer)
        let open = layers.reduce(0) { $0 + $1.calls.openAttempts }
        if counted != open { self.violated("gateway \(index) counts \(counted) attempts in flight, but \(open) are") }
        for layer in layers {
            for attempt in layer.out.keys where !layer.calls.isOut(attempt) {
                self.violated("attempt \(attempt) goes on, but its layer has ended it")
            }
        }
    }

    private func check(_ link: WireLink) {
        self.require(link.codec(.client).checkInvariants(), "the client's codec of connection \(link.id)")
        self.require(link.codec(.server).checkInvariants(), "the server's codec of connection \(link.id)")
        self.require(link.budget.checkInvariants(), "the budget of connection \(link.id)")
        self.checkEnds(of: link)
        for call in link.outgoing.values { self.require(call.state.checkInvariants(), "call \(call.serial)") }
        for call in link.incoming.values { self.require(call.state.checkInvariants(), "stream \(call.streamID)") }
        if link.isOpen(.server) {
            let held = link.incoming.values.reduce(0) { $0 + $1.heldBytes }
            if held != link.budget.heldBytes {
                self.violated(
                    "calls of connection \(link.id) hold \(held) bytes, but \(link.budget.heldBytes) are counted"
                )
            }
        }
    }

    /// A call that has ended keeps no stream, and no byte waits for credit that its owner has given.
    private func checkEnds(of link: WireLink) {
        for side in [LinkSide.client, .server] where link.isOpen(side) {
            let bytes = link.codec(side).uncreditedBytes
            if bytes > 0 { self.violated("\(bytes) bytes of connection \(link.id) were given back and still count") }
        }
        let isStuck = self.processes[link.process(.client)].hungUntil > self.now || link.isSocketFull(.client)
        // What the server has left behind is no longer sent.
        guard link.isOpen(.client), link.isOpen(.server), !isStuck else { return }
        for call in link.outgoing.values where call.wasGivenUp {
            self.violated("call \(call.serial) has ended, but keeps its stream")
        }
    }

    // MARK: - The end

    /// Everything has healed and no client waits: nothing may be left, and everything must serve.
    func checkEnd() {
        for request in self.requests where request.status == nil {
            self.violated("request \(request.request.id) never ended")
        }
        if let call = self.openCalls.values.min(by: { $0.serial < $1.serial }) {
            self.violated("call \(call.serial) never ended: \(call.purpose)")
        }
        for id in self.links.keys.sorted() { if let link = self.links[id] { self.checkEnd(of: link) } }
        for index in self.gateways.indices { self.checkEnd(ofGateway: index) }
        for host in self.hosts {
            if host.admission.waitingCalls > 0 || host.admission.computingCalls > 0 {
                self.violated("calls are left at host \(host.index)")
            }
        }
        let channels = self.clientChannels.compactMap { $0 } + self.gateways.flatMap { $0.channels.values }
        for channel in channels where channel.phase != .ready || channel.link == nil {
            self.violated("a channel of \(self.processes[channel.owner].target) is \(channel.phase) at the end")
        }
        if self.links.count != channels.count {
            self.violated("\(self.links.count) connections are left, but there are \(channels.count) channels")
        }
    }

    private func checkEnd(of link: WireLink) {
        if !link.outgoing.isEmpty || !link.incoming.isEmpty { self.violated("connection \(link.id) still has calls") }
        for side in [LinkSide.client, .server] {
            let codec = link.codec(side)
            if codec.openStreamCount > 0 {
                self.violated("\(codec.openStreamCount) streams are left on connection \(link.id)")
            }
            if codec.queuedBytes > 0 { self.violated("\(codec.queuedBytes) bytes are left on connection \(link.id)") }
            if codec.uncreditedBytes > 0 {
                self.violated("\(codec.uncreditedBytes) bytes were not given back on connection \(link.id)")
            }
        }
        if link.budget.heldBytes > 0 {
            self.violated("\(link.budget.heldBytes) bytes are held on connection \(link.id)")
        }
        if link.pipes.contains(where: { $0.inFlightBytes > 0 }) {
            self.violated("bytes are left on connection \(link.id)")
        }
    }

    private func checkEnd(ofGateway index: Int) {
        let gateway = self.gateways[index]
        if !gateway.scheduler.isIdle || !gateway.sequences.isEmpty {
            self.violated("sequences are left at gateway \(index)")
        }
        if gateway.scheduler.freeSlots != self.scenario.batchSlots || gateway.scheduler.guestSlots != 0 {
            self.violated("slots are left in use at gateway \(index)")
        }
        if !gateway.lanes.isEmpty { self.violated("a step is left at gateway \(index)") }
        let reports = gateway.pools.reports
        for report in reports where report.outstanding > 0 || report.outstandingRows > 0 {
            self.violated(
                "\(report.id) has \(report.outstanding) attempts with \(report.outstandingRows) rows at the end"
            )
        }
        for host in self.hosts {
            let own = reports.filter { self.addresses[$0.id.port] == host.index }
            if own.count != 1 { self.violated("gateway \(index) knows \(own.count) addresses of host \(host.index)") }
            guard let report = own.first else { continue }
            // A replica that was caught proves itself with calls, of which there may be too few.
            if report.state == .quarantined, host.hasLied { continue }
            if report.state != .ready {
                self.violated("\(report.id) is \(report.state) at the end: \(report.trouble ?? "")")
            }
        }
    }
}
