// SPDX-License-Identifier: Apache-2.0

internal import ExpertPooling
internal import RPCCore

// Clients: they send requests, give some of them up, and keep what they get.
extension FaultCluster {
    func openClientChannel(_ client: Int) {
        let gateway = client % self.scenario.gateways
        let channel = self.makeChannel(owner: client, port: -1 - gateway)
        self.clientChannels[client] = channel
        self.connect(channel)
    }

    func sendRequest(_ index: Int) {
        let request = self.requests[index].request
        guard let channel = self.clientChannels[request.client] else { return }
        self.requests[index].sentAt = self.now
        let deadline = request.timeout.map { self.clock(request.client) + $0 }
        let call = self.call(
            .generate(request: index),
            Self.generate,
            request.bytes,
            on: channel,
            deadline: deadline,
            waitsForReady: request.id % 2 == 0 || request.isEpilogue
        )
        self.requests[index].call = call
        if let cancelAfter = request.cancelAfter { self.after(cancelAfter, request.client, .cancel(request: index)) }
        self.start(call, on: channel)
    }

    func cancelRequest(_ index: Int) {
        guard let call = self.requests[index].call else { return }
        if !call.state.isEnded { self.requests[index].isCancelled = true }
        if case .receiving(_, let messages) = call.state.phase, messages > 0 { self.note(.cancelledBetweenTokens) }
        self.cancel(call)
    }

    func tokenReceived(_ index: Int, _ message: [UInt8]) {
        guard let token = TokenMessage(message, rowBytes: self.scenario.rowBytes) else {
            self.violated("request \(index) got a message that is no token")
            return
        }
        if self.requests[index].status != nil { self.violated("request \(index) got a token after its end") }
        self.requests[index].tokens.append(token)
    }

    func requestEnded(_ index: Int, _ call: OutgoingCall, _ end: ClientCallState.End) {
        if self.requests[index].status != nil { self.violated("request \(index) ended twice") }
        self.log("request \(self.requests[index].request.id) ends: \(end.status)")
        self.requests[index].status = end.status.code.rawValue
        self.requests[index].message = end.status.message
        self.requests[index].endedAt = self.now
    }

    // MARK: - What connections do to the processes at their ends

    /// A channel has a connection that takes calls.
    func channelReady(_ channel: SimulatedChannel) {
        guard case .gateway(let index) = self.processes[channel.owner].target else { return }
        guard let replica = self.replica(of: channel, in: index) else { return }
        self.log("gateway \(index) is connected to \(replica)")
        self.follow(self.gateways[index].pools.connected(replica), of: index)
    }

    /// A channel has lost the connection that took calls.
    func channelLost(_ channel: SimulatedChannel) {
        guard case .gateway(let index) = self.processes[channel.owner].target else { return }
        guard let replica = self.replica(of: channel, in: index) else { return }
        self.log("gateway \(index) is disconnected from \(replica)")
        self.gateways[index].pools.disconnected(replica, now: self.time(channel.owner))
        if self.processes[channel.owner].duplicateUntil > self.now {
            self.gateways[index].pools.disconnected(replica, now: self.time(channel.owner))
        }
        self.planPoolTimer(index)
    }

    private func replica(of channel: SimulatedChannel, in gateway: Int) -> ReplicaID? {
        guard let known = self.gateways[gateway].channels.first(where: { $0.value === channel }) else { return nil }
        return known.key
    }
}
