// SPDX-License-Identifier: Apache-2.0

internal import HTTP2Session
internal import NIOCore
internal import PoolSimulation
internal import RPCCore

// Bytes on their way, and connections that begin and end.
extension FaultCluster {
    /// Silence after which a dead connection is noticed, nanoseconds.
    static let keepalive: Int64 = 600_000_000
    /// How long an attempt to connect may take, nanoseconds.
    private static let connectTimeout: Int64 = 300_000_000

    /// One way through the network.
    func delay(from: Int, to: Int) -> Int64 {
        var time: Int64 = 150_000 + Int64(self.chance.index(below: 100_000))
        if min(from, to) < self.scenario.clients { time += self.scenario.clientDistance }
        for process in [from, to] where self.processes[process].delayUntil > self.now {
            time += self.processes[process].extraDelay
        }
        if self.reorderUntil > self.now { time += Int64(self.chance.index(below: Int(self.reorderTime))) }
        return time
    }

    /// Until when nothing gets from one process to another; nil where it does.
    private func cutEnd(from: Int, to: Int) -> Int64? {
        guard let until = self.cuts[from * self.processes.count + to], until > self.now else { return nil }
        return until
    }

    // MARK: - Connecting

    func makeChannel(owner: Int, port: Int) -> SimulatedChannel {
        self.nextChannel += 1
        let generation = self.processes[owner].generation
        return SimulatedChannel(id: self.nextChannel, owner: owner, generation: generation, port: port)
    }

    /// The process that listens at a port: a gateway at a negative one, a host where it is known.
    func listener(at port: Int) -> Int? {
        guard port >= 0 else { return self.process(ofGateway: -1 - port) }
        return self.addresses[port].map { self.process(ofHost: $0) }
    }

    func connect(_ channel: SimulatedChannel) {
        guard channel.phase != .stopped else { return }
        channel.phase = .connecting
        channel.attempt += 1
        self.log("\(self.processes[channel.owner].target) connects to \(channel.port)")
        let attempt = channel.attempt
        let owner = channel.owner
        self.after(Self.connectTimeout, owner, .connectFailed(channel, attempt: attempt))
        guard let target = self.listener(at: channel.port) else { return }
        let isReachable =
            self.cutEnd(from: owner, to: target) == nil && self.cutEnd(from: target, to: owner) == nil
        guard isReachable else { return }
        let time = self.delay(from: owner, to: target) + self.delay(from: target, to: owner)
        if self.processes[target].isAlive, self.acceptsConnections(target) {
            self.after(time, owner, .connected(channel, attempt: attempt))
        } else {
            self.after(time, owner, .connectFailed(channel, attempt: attempt))
        }
    }

    func connected(_ channel: SimulatedChannel, _ attempt: Int) {
        guard channel.phase == .connecting, channel.attempt == attempt, channel.link == nil,
            let target = self.listener(at: channel.port), self.processes[target].isAlive
        else { return }
        self.nextLink += 1
        let streams = channel.port < 0 ? 64 : self.scenario.hostStreams
        let configurations = [
            HTTP2CodecConfiguration(
                maxConcurrentStreams: 100,
                streamWindowBytes: self.scenario.windowBytes,
                connectionWindowBytes: 65_535
            ),
            HTTP2CodecConfiguration(
                maxConcurrentStreams: streams,
                streamWindowBytes: self.scenario.windowBytes,
                connectionWindowBytes: 65_535
            ),
        ]
        do throws(HTTP2CodecError) {
            let client = try HTTP2Codec(role: .client, configuration: configurations[0], now: self.time(channel.owner))
            let server = try HTTP2Codec(role: .server, configuration: configurations[1], now: self.time(target))
            let link = WireLink(
                id: self.nextLink,
                channel: channel,
                processes: [channel.owner, target],
                codecs: [client, server],
                budgetBytes: self.scenario.budgetBytes
            )
            self.links[link.id] = link
            channel.link = link
            self.flush(link, .client)
            if self.processes[target].hungUntil <= self.now { self.flush(link, .server) }
        } catch {
            self.violated("a codec could not be made: \(error)")
        }
    }

    func connectFailed(_ channel: SimulatedChannel, _ attempt: Int) {
        guard channel.phase == .connecting, channel.attempt == attempt else { return }
        self.note(.connectFailed)
        let link = channel.link
        channel.link = nil
        if let link { self.close(link, .client, reason: "the server did not answer in time") }
        self.retryConnection(channel)
    }

    /// Waits before the next attempt, and fails the calls that do not wait.
    private func retryConnection(_ channel: SimulatedChannel) {
        channel.phase = .waiting
        channel.failures += 1
        var wait: Int64 = 30_000_000
        for _ in 1..<min(channel.failures, 6) { wait = wait * 8 / 5 }
        self.after(wait, channel.owner, .connect(channel))
        let calls = channel.waiting.filter { !$0.waitsForReady }
        channel.waiting.removeAll { !$0.waitsForReady }
        for call in calls { self.neverSent(call, "there is no connection") }
    }

    /// The channel's connection takes no more calls.
    func connectionGone(_ channel: SimulatedChannel, _ link: WireLink) {
        guard channel.link === link else { return }
        channel.link = nil
        guard channel.phase != .stopped else { return }
        let wasReady = channel.phase == .ready
        if wasReady {
            self.channelLost(channel)
            channel.phase = .waiting
            self.after(Int64(1_000_000 + self.chance.index(below: 10_000_000)), channel.owner, .connect(channel))
        } else {
            self.retryConnection(channel)
        }
    }

    /// The channel takes no more calls and makes no more connections; open calls go on.
    func stop(_ channel: SimulatedChannel) {
        guard channel.phase != .stopped else { return }
        channel.phase = .stopped
        let waiting = channel.waiting
        channel.waiting = []
        for call in waiting { self.neverSent(call, "the channel was shut down") }
        guard let link = channel.link else { return }
        channel.link = nil
        link.isLeaving = true
        link.codec(.client).goAway()
        self.flush(link, .client)
    }

    // MARK: - Bytes

    func segmentArrived(_ link: WireLink, _ side: LinkSide) {
        guard link.isOpen(side) else { return }
        let (from, to) = (link.process(side.other), link.process(side))
        if let until = self.cutEnd(from: from, to: to) {
            self.queue.add(.segment(link, side), at: until + 1_000_000)
            guard !link.pipes[side.other.rawValue].isHeldBack else { return }
            link.pipes[side.other.rawValue].isHeldBack = true
            if until - self.now > Self.keepalive {
                self.note(.keepaliveEndedConnection)
                for end in [LinkSide.client, .server] {
                    self.queue.add(.lost(link, end, "the peer is silent"), at: self.now + Self.keepalive)
                }
            }
            return
        }
        if link.pipes[side.other.rawValue].isHeldBack {
            link.pipes[side.other.rawValue].isHeldBack = false
            self.note(.heldBytesArrived)
        }
        guard let bytes = link.pipes[side.other.rawValue].next() else { return }
        self.report.bytes += bytes.readableBytes
        self.touched.insert(to)
        do throws(HTTP2CodecError) {
            try link.codec(side).receive(bytes, now: self.time(to))
        } catch {
            self.violated("a codec refused what another codec sent: \(error)")
        }
        self.handleEvents(link, side)
        self.flush(link, side)
        if link.isOpen(side.other), self.processes[from].hungUntil <= self.now { self.flush(link, side.other) }
    }

    private func handleEvents(_ link: WireLink, _ side: LinkSide) {
        for event in link.codec(side).takeEvents() {
            if side == .client { self.clientEvent(event, link) } else { self.serverEvent(event, link) }
        }
    }

    /// Sends what an end has to send, as far as its socket takes it.
    func flush(_ link: WireLink, _ side: LinkSide) {
        guard link.isOpen(side), !link.isFlushing[side.rawValue] else { return }
        link.isFlushing[side.rawValue] = true
        let codec = link.codec(side)
        self.touchedLinks.append(link)
        while link.isOpen(side) {
            let room = WireLink.socketBytes - link.pipes[side.rawValue].inFlightBytes
            var pieces: [ByteBuffer] = []
            if room > 0 {
                pieces = codec.takeOutput(limitBytes: room)
                self.transmit(pieces, link, side)
            } else if codec.queuedBytes > 0 {
                self.note(.socketFull)
            }
            if codec.hasEvents {
                self.handleEvents(link, side)
            } else if pieces.isEmpty {
                break
            }
        }
        link.isFlushing[side.rawValue] = false
        if link.isOpen(side), side == .client { self.pump(link.channel) }
        if link.isOpen(side), codec.isFinished {
            self.close(link, side, reason: "the connection has ended")
        }
    }

    private func transmit(_ pieces: [ByteBuffer], _ link: WireLink, _ side: LinkSide) {
        guard !pieces.isEmpty else { return }
        var rest = ByteBuffer()
        for piece in pieces { rest.writeImmutableBuffer(piece) }
        let (from, to) = (link.process(side), link.process(side.other))
        let isTorn = self.processes[to].tornUntil > self.now
        var cuts = isTorn ? 12 : self.chance.index(below: 8) == 0 ? 1 : 0
        while rest.readableBytes > 0 {
            var count = rest.readableBytes
            if cuts > 0, count > 1 {
                count = 1 + self.chance.index(below: isTorn ? min(40, count) : count - 1)
                cuts -= 1
            }
            guard let segment = rest.readSlice(length: count) else { return }
            var time = self.now + self.delay(from: from, to: to)
            if self.processes[to].slowReaderUntil > self.now {
                time = max(time, link.pipes[side.rawValue].lastArrival) + Int64(count) * 30_000 + 2_000_000
            }
            time = max(time, link.pipes[side.rawValue].lastArrival + 1)
            link.pipes[side.rawValue].lastArrival = time
            link.pipes[side.rawValue].add(segment)
            self.queue.add(.segment(link, side.other), at: time)
        }
    }

    // MARK: - Ending

    /// An end gives its connection up, or learns that it is gone.
    func close(_ link: WireLink, _ side: LinkSide, reason: String) {
        guard link.isOpen(side) else { return }
        link.isOpen[side.rawValue] = false
        self.log("\(self.processes[link.process(side)].target) loses connection \(link.id): \(reason)")
        link.pipes[side.other.rawValue].clear()
        self.touched.insert(link.process(side))
        if link.isOpen(side.other) {
            let delay = self.delay(from: link.process(side), to: link.process(side.other))
            var time = max(link.pipes[side.rawValue].lastArrival, self.now + delay) + 1
            if let until = self.cutEnd(from: link.process(side), to: link.process(side.other)) {
                time = max(time, min(until + 2_000_000, self.now + Self.keepalive))
            }
            self.queue.add(.lost(link, side.other, "the peer closed the connection"), at: time)
        } else {
            self.links[link.id] = nil
        }
        if side == .client {
            self.connectionGone(link.channel, link)
            let calls = link.outgoing.sorted { $0.key < $1.key }.map(\.value)
            link.outgoing = [:]
            for call in calls { self.connectionLost(call, reason) }
        } else {
            let calls = link.incoming.sorted { $0.key < $1.key }.map(\.value)
            link.incoming = [:]
            for call in calls { self.peerLeft(call) }
        }
    }

    /// Cuts a connection inside whatever is on its way in both directions.
    func cut(_ link: WireLink) {
        for side in [LinkSide.client, .server] where link.isOpen(side.other) {
            let isInside = link.pipes[side.rawValue].cut { 1 + self.chance.index(below: $0 - 1) }
            if isInside { self.note(.cutInsideFrame) }
            let time = max(link.pipes[side.rawValue].lastArrival, self.now + 100_000) + 1
            self.queue.add(.lost(link, side.other, "the connection was reset"), at: time)
        }
    }

    /// The process is gone: its ends close silently, and the others learn it sooner or later.
    func abandonLinks(of process: Int, isSilent: Bool) {
        for id in self.links.keys.sorted() {
            guard let link = self.links[id] else { continue }
            for side in [LinkSide.client, .server] where link.process(side) == process && link.isOpen(side) {
                if !isSilent { self.cut(link) }
                link.isOpen[side.rawValue] = false
                link.pipes[side.other.rawValue].clear()
                if side == .client {
                    for call in link.outgoing.values { self.openCalls[call.serial] = nil }
                    link.outgoing = [:]
                    link.channel.link = nil
                } else {
                    link.incoming = [:]
                }
                if !link.isOpen(side.other) {
                    self.links[id] = nil
                } else if isSilent {
                    link.pipes[side.rawValue].clear()
                    self.queue.add(.lost(link, side.other, "the peer is silent"), at: self.now + Self.keepalive)
                }
            }
        }
        for (serial, call) in self.openCalls where call.process == process { self.openCalls[serial] = nil }
    }
}
