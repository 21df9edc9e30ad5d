// SPDX-License-Identifier: Apache-2.0

internal import HTTP2Session
internal import Logging
internal import NIOCore
internal import RPCCore

/// One of a channel's connections over its life: connects, reconnects, and queues waiting calls.
///
/// Belongs to one event loop, which all its connections share.
final class ConnectionSlot {
    let eventLoop: any EventLoop
    private let connector: Connector
    private let configuration: RPCChannelConfiguration
    private let logger: Logger
    /// Gets the phase, and why there is no ready connection.
    private let onPhase: @Sendable (SlotMachine.Phase, String) -> Void
    private let onStopped: @Sendable () -> Void
    private var machine: SlotMachine
    /// The connection that takes new calls, or is about to.
    private var current: ClientConnection?
    /// Connections that only finish their calls.
    private var leaving: [ClientConnection] = []
    private var isAttempting = false
    /// TLS handshakes of the attempt's sockets, and the socket whose handshake is awaited.
    private var handshakes: [ObjectIdentifier: EventLoopFuture<Void>] = [:]
    private var securing: (any Channel)?
    /// The last logged TLS failure; the same one is not logged again.
    private var loggedFailure: String?
    private var waiting = WaitingCalls()
    private var waitTimer: Scheduled<Void>?
    /// Ends a connection on which the server allows no call for too long.
    private var blockTimer: Scheduled<Void>?
    private var lastFailure = "it has not been tried yet"
    private var reportedStopped = false
    /// The factor by which keepalive pings were slowed down because a server found them too frequent.
    private var keepaliveFactor = 1

    init(
        eventLoop: any EventLoop,
        target: (host: String, port: Int),
        configuration: RPCChannelConfiguration,
        logger: Logger,
        onPhase: @escaping @Sendable (SlotMachine.Phase, String) -> Void,
        onStopped: @escaping @Sendable () -> Void
    ) {
        self.eventLoop = eventLoop
        self.connector = Connector(
            eventLoop: eventLoop,
            target: target,
            timeout: configuration.reconnect.connectTimeout.timeAmount,
            reads: configuration.limits.readAllocator
        )
        self.configuration = configuration
        self.logger = logger
        self.onPhase = onPhase
        self.onStopped = onStopped
        self.machine = SlotMachine(policy: configuration.reconnect)
    }

    // MARK: - The channel's events

    func start() {
        self.perform(self.machine.started(now: .now))
    }

    /// Stops taking calls; calls in flight finish when `graceful`.
    func stop(graceful: Bool) {
        let wasStopped = self.machine.phase == .stopped
        self.machine.stopped()
        self.waitTimer?.cancel()
        self.waitTimer = nil
        self.unblock()
        self.failWaiting { _ in true }
        self.securing?.close(promise: nil)
        for connection in self.leaving + (self.current.map { [$0] } ?? []) {
            if graceful { connection.beginDrain() } else { connection.close(reason: "the channel was shut down") }
        }
        if !wasStopped { self.report() }
        self.reportIfStopped()
    }

    /// Starts a call, lets it wait or fails it.
    func submit(_ call: ClientCall) {
        guard !call.isEnded else { return }
        if let connection = self.current, connection.acceptsCalls, self.machine.phase != .blocked {
            if self.waiting.isEmpty && connection.availableStreams > 0 {
                call.start(on: connection)
            } else {
                self.letWait(call)
            }
            return
        }
        switch self.machine.phase {
        case .stopped:
            call.fail(.notSent(.unavailable, "the channel to \(self.name) was shut down"))
        case .idle, .connecting, .waiting, .ready, .blocked:
            // Even a call without `waitForReady` waits for the outcome of an attempt in flight.
            let mayWait = self.machine.phase != .waiting && self.configuration.waitsWhileConnecting
            guard call.options.waitForReady || mayWait else {
                call.fail(.notSent(.unavailable, "no connection to \(self.name): \(self.lastFailure)"))
                return
            }
            self.letWait(call)
        }
    }

    // MARK: - The connection's events

    /// The server ended the connection because of its pings; from now on they are half as frequent.
    func pingedTooOften() {
        self.keepaliveFactor = min(self.keepaliveFactor * 2, 1 << 16)
        self.logger.warning(
            "the server reports too many keepalive pings; they are now sent half as often",
            metadata: ["target": "\(self.name)"]
        )
    }

    /// A socket is connected.
    ///
    /// Of several addresses of a host more than one can answer; the first is kept.
    func connectionBegan(_ connection: ClientConnection) {
        if self.current == nil && self.machine.phase == .connecting {
            self.current = connection
        } else {
            self.leaving.append(connection)
            connection.close(reason: "the connection is not needed")
        }
    }

    /// The server's settings have come, for the first time or again.
    func settingsReceived(on connection: ClientConnection, allowsCalls: Bool) {
        guard connection === self.current else { return }
        if allowsCalls {
            guard self.machine.phase != .ready else { return }
            self.unblock()
            self.machine.connectionReady()
            self.report()
            self.startWaitingCalls(on: connection)
        } else if self.machine.connectionBlocked() {
            self.blocked(connection)
        }
    }

    /// The server allows no call on the connection: it is replaced unless the server changes that in time.
    private func blocked(_ connection: ClientConnection) {
        let time = self.configuration.reconnect.connectTimeout
        self.lastFailure = "the server allows no calls (its SETTINGS_MAX_CONCURRENT_STREAMS is 0)"
        self.logFailure()
        self.report()
        if !self.configuration.waitsWhileConnecting { self.failWaiting { !$0.options.waitForReady } }
        let bound = NIOLoopBound((slot: self, connection: connection), eventLoop: self.eventLoop)
        self.blockTimer = self.eventLoop.scheduleTask(in: time.timeAmount) {
            let (slot, connection) = bound.value
            guard connection === slot.current, slot.machine.phase == .blocked else { return }
            slot.current = nil
            slot.leaving.append(connection)
            connection.beginDrain()
            slot.currentLost()
        }
    }

    private func unblock() {
        self.blockTimer?.cancel()
        self.blockTimer = nil
    }

    private func report() { self.onPhase(self.machine.phase, self.lastFailure) }

    /// The connection takes no new calls, but finishes those it has.
    func connectionGoesAway(_ connection: ClientConnection) {
        guard connection === self.current else { return }
        self.current = nil
        self.leaving.append(connection)
        self.lastFailure = "the server is going away"
        self.currentLost()
    }

    /// The server refuses this client: retrying at once would end the same way.
    func connectionRefused(_ connection: ClientConnection, reason: String) {
        guard connection === self.current else { return }
        self.current = nil
        self.leaving.append(connection)
        self.lastFailure = "the server refused this client: \(reason)"
        self.logFailure()
        let action = self.machine.connectionRefused(chance: .random(in: 0...1))
        if action != .none { self.report() }
        self.failWaiting { !$0.options.waitForReady }
        self.perform(action)
    }

    func connectionEnded(_ connection: ClientConnection, reason: String) {
        if connection === self.current {
            self.current = nil
            self.lastFailure = reason
            if self.machine.phase == .ready {
                self.loggedFailure = nil
            } else if reason.hasPrefix(TLSFailure.prefix) {
                self.logFailure()
            }
            self.currentLost()
        } else {
            self.leaving.removeAll { $0 === connection }
        }
        self.reportIfStopped()
    }

    /// Starts calls that waited, as far as the peer takes them.
    func startWaitingCalls(on connection: ClientConnection) {
        guard connection === self.current else { return }
        while connection.availableStreams > 0, let call = self.waiting.popFirst() { call.start(on: connection) }
    }

    // MARK: - Private

    private var name: String { self.connector.name }

    private func letWait(_ call: ClientCall) {
        guard self.waiting.count < self.configuration.maxWaitingCalls else {
            call.fail(
                .notSent(
                    .resourceExhausted,
                    "\(self.configuration.maxWaitingCalls) calls already wait for \(self.name); send fewer at once"
                )
            )
            return
        }
        self.waiting.append(call)
        guard let due = call.options.dueTime else { return }
        let bound = NIOLoopBound(call, eventLoop: self.eventLoop)
        call.waitTimer = self.eventLoop.scheduleTask(deadline: due) { bound.value.deadlineExpired() }
    }

    private func failWaiting(_ isDue: (ClientCall) -> Bool) {
        let message = "no connection to \(self.name): \(self.lastFailure)"
        for call in self.waiting.remove(where: isDue) { call.fail(.notSent(.unavailable, message)) }
    }

    private func currentLost() {
        self.unblock()
        let chance = Double.random(in: 0...1)
        let action =
            self.machine.phase == .ready
            ? self.machine.connectionLost(now: .now, chance: chance) : self.machine.attemptFailed(chance: chance)
        if action != .none { self.report() }
        self.failWaiting { !$0.options.waitForReady }
        self.perform(action)
    }

    private func perform(_ action: SlotMachine.Action) {
        switch action {
        case .none:
            break
        case .connect:
            self.report()
            self.connect()
        case .wait(let duration):
            self.logger.debug(
                "waiting to reconnect",
                metadata: ["target": "\(self.name)", "wait": "\(duration)", "reason": "\(self.lastFailure)"]
            )
            let bound = NIOLoopBound(self, eventLoop: self.eventLoop)
            self.waitTimer = self.eventLoop.scheduleTask(in: duration.timeAmount) {
                bound.value.waitTimer = nil
                bound.value.perform(bound.value.machine.waitEnded(now: .now))
            }
        }
    }

    private func connect() {
        self.isAttempting = true
        let bound = NIOLoopBound(self, eventLoop: self.eventLoop)
        self.connector.connect(prepare: { try bound.value.setUp($0) })
            .flatMap { bound.value.secured($0) }
            .whenComplete { bound.value.attemptEnded($0) }
    }

    /// Waits for the handshake of a connected socket; without TLS there is none.
    private func secured(_ channel: any Channel) -> EventLoopFuture<any Channel> {
        guard let handshake = self.handshakes[ObjectIdentifier(channel)] else {
            return self.eventLoop.makeSucceededFuture(channel)
        }
        self.securing = channel
        if self.machine.phase == .stopped { channel.close(promise: nil) }
        return handshake.map { channel }
    }

    /// Adds TLS to a connection that is being built.
    private func secure(_ channel: any Channel, _ tls: ClientTLS) throws {
        let handshake = TLSHandshakeHandler(
            timeout: self.configuration.timing.handshakeTimeout,
            expectedName: tls.expectedName(host: self.connector.serverName),
            accept: { [host = self.connector.serverName] outcome throws(TLSFailure) in
                try tls.checkName(outcome.identity, host: host)
                guard outcome.isHTTP2 else {
                    throw TLSFailure("TLS: the server did not agree to HTTP/2 (ALPN h2); connect to a gRPC port")
                }
            },
            onFailure: { _ in }
        )
        try channel.pipeline.syncOperations.addHandler(try tls.makeHandler(host: self.connector.serverName))
        try channel.pipeline.syncOperations.addHandler(handshake)
        self.handshakes[ObjectIdentifier(channel)] = handshake.completion
    }

    /// Logs why the server cannot be used, once per reason.
    private func logFailure() {
        guard self.lastFailure != self.loggedFailure, self.machine.phase != .stopped else { return }
        self.loggedFailure = self.lastFailure
        self.logger.warning(
            "a server cannot be used",
            metadata: ["target": "\(self.name)", "reason": "\(self.lastFailure)"]
        )
    }

    private func setUp(_ channel: any Channel) throws {
        let now = ContinuousClock.now
        let codec = try HTTP2Codec(role: .client, configuration: self.configuration.limits.codecConfiguration, now: now)
        var scheme = "http"
        if case .tls(let tls) = self.configuration.security {
            scheme = "https"
            try self.secure(channel, tls)
        }
        let connection = ClientConnection(
            codec: codec,
            authority: self.connector.socket == nil ? self.name : self.connector.serverName,
            name: self.name,
            scheme: scheme,
            compression: self.configuration.compression,
            slot: self,
            eventLoop: self.eventLoop
        )
        var timing = self.configuration.timing
        timing.keepaliveInterval = timing.keepaliveInterval.map { $0 * self.keepaliveFactor }
        // A server that takes the connection and then says nothing is tried again as soon as one that is slow to take it.
        timing.handshakeTimeout = min(timing.handshakeTimeout, self.configuration.reconnect.connectTimeout * 3)
        let handler = ConnectionHandler(
            codec: codec,
            role: connection,
            timing: timing,
            traffic: self.configuration.traffic,
            eventLoop: self.eventLoop,
            now: now
        )
        handler.stages = self.configuration.stages.map { ($0, .read, .sent) }
        try channel.pipeline.syncOperations.addHandler(handler)
    }

    private func attemptEnded(_ result: Result<any Channel, any Error>) {
        self.isAttempting = false
        self.handshakes = [:]
        self.securing = nil
        switch result {
        case .success(let channel):
            if self.machine.phase == .stopped { channel.close(promise: nil) }
        case .failure(let error):
            guard self.current == nil else { return }
            self.lastFailure = ConnectFailure.words(for: error, isUnix: self.connector.socket != nil)
            if let failure = error as? TLSFailure, failure.isTelling { self.logFailure() }
            self.currentLost()
        }
        self.reportIfStopped()
    }

    private func reportIfStopped() {
        guard self.machine.phase == .stopped, self.current == nil, self.leaving.isEmpty, !self.isAttempting,
            !self.reportedStopped
        else { return }
        self.reportedStopped = true
        self.onStopped()
    }
}

// The slot belongs to its event loop.
@available(*, unavailable)
extension ConnectionSlot: Sendable {}
