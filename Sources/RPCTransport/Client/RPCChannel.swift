// SPDX-License-Identifier: Apache-2.0

internal import HTTP2Session
public import Logging
internal import NIOCore
internal import NIOPosix
public import RPCCore
internal import SwitchyardTypes
internal import Synchronization

/// A client's channel to one server: keeps connections and makes calls on them.
///
/// The channel lives in ``run()``: it connects when that is called, reconnects with growing waits, and returns after
/// ``shutdown()`` when the last connection has closed. A call is made on a ready connection, on the caller's own event
/// loop if there is one, and otherwise in turn.
public final class RPCChannel: Sendable {
    /// Whether calls can be made.
    public enum State: Sendable, Hashable {
        /// The channel is not running yet.
        case idle
        /// No connection is ready; one is being made.
        case connecting
        /// At least one connection is ready.
        case ready
        /// No connection is ready; the channel is waiting before the next attempt, or for the server to allow calls.
        case transientFailure
        /// The channel was shut down.
        case shutdown
    }

    private struct Slot {
        var eventLoop: any EventLoop
        var slot: NIOLoopBoundBox<ConnectionSlot>

        /// Runs on the slot's event loop: at once when the caller is there already.
        func run(_ body: @escaping @Sendable (ConnectionSlot) -> Void) {
            if self.eventLoop.inEventLoop {
                body(self.slot.value)
            } else {
                self.eventLoop.execute { body(self.slot.value) }
            }
        }
    }

    private struct Shared {
        var phases: [SlotMachine.Phase]
        /// Why a connection is not ready, the last one that was not.
        var trouble: String?
        var next = 0
        var reported = State.idle
        var isRunning = false
        var isShutDown = false
        var stoppedSlots = 0
        var waiter: CheckedContinuation<Void, Never>?

        var state: State {
            if self.isShutDown { return .shutdown }
            if self.phases.contains(.ready) { return .ready }
            if self.phases.contains(.connecting) { return .connecting }
            if self.phases.contains(.waiting) || self.phases.contains(.blocked) { return .transientFailure }
            return self.phases.allSatisfy { $0 == .stopped } ? .shutdown : .idle
        }
    }

    /// What servers on Unix sockets are called in requests and certificates, as in other gRPC clients.
    static let nameOfUnixServers = "localhost"

    private let host: String
    private let configuration: RPCChannelConfiguration
    private let callConfiguration: ClientCallConfiguration
    private let onStateChange: (@Sendable (State) -> Void)?
    private let shared: Mutex<Shared>
    private let slots: Mutex<[Slot]>

    /// Creates a channel; ``run()`` connects it.
    ///
    /// - Parameters:
    ///   - target: The server's host and port; for a Unix socket `UnixAddress.host` and 0.
    ///   - configuration: How to connect and what connections may hold.
    ///   - logger: Gets debug messages about connections.
    ///   - onStateChange: Called from event loops whenever ``state`` has changed; must not block.
    public init(
        target: (host: String, port: Int),
        configuration: RPCChannelConfiguration = .defaults,
        logger: Logger,
        onStateChange: (@Sendable (State) -> Void)? = nil
    ) {
        self.host = target.host
        self.configuration = configuration
        self.callConfiguration = ClientCallConfiguration(
            limits: configuration.limits,
            compressionLog: configuration.compressionLog,
            retry: SharedRetryBudget(policy: configuration.retry),
            stages: configuration.stages
        )
        self.onStateChange = onStateChange
        let count = max(1, configuration.connections)
        self.shared = Mutex(Shared(phases: Array(repeating: .idle, count: count)))
        self.slots = Mutex([])
        let group = configuration.eventLoopGroup ?? MultiThreadedEventLoopGroup.singleton
        var slots: [Slot] = []
        for index in 0..<count {
            let eventLoop = group.next()
            let slot = ConnectionSlot(
                eventLoop: eventLoop,
                target: target,
                configuration: configuration,
                logger: logger,
                onPhase: { [weak self] in self?.slotChanged(index, $0, $1) },
                onStopped: { [weak self] in self?.slotStopped() }
            )
            slots.append(Slot(eventLoop: eventLoop, slot: .makeBoxSendingValue(slot, eventLoop: eventLoop)))
        }
        let made = slots
        self.slots.withLock { $0 = made }
    }

    /// Whether calls can be made.
    public var state: State { self.shared.withLock { $0.state } }

    /// Why no connection is ready, for people; nil while one is.
    public var trouble: String? { self.shared.withLock { $0.phases.contains(.ready) ? nil : $0.trouble } }

    /// Connects and keeps connected until ``shutdown()``.
    ///
    /// Cancelling the task ends all calls at once.
    ///
    /// - Throws: An error when a limit is out of range, a certificate or a Unix socket's path cannot be used, or the channel has
    ///   already run.
    public func run() async throws {
        try self.configuration.limits.codecConfiguration.validate()
        if UnixAddress.isMeant(by: self.host) { _ = try UnixAddress(parsing: self.host) }
        guard case .tls(let tls) = self.configuration.security else { return try await self.connectUntilShutdown() }
        try tls.load()
        try tls.files.begin()
        defer { tls.files.end() }
        try await self.connectUntilShutdown()
    }

    private func connectUntilShutdown() async throws {
        let mayRun = self.shared.withLock { shared in
            defer { shared.isRunning = true }
            return !shared.isRunning
        }
        guard mayRun else { throw RPCError(.failedPrecondition, "the channel has already run; create another") }
        for slot in self.slots.withLock({ $0 }) {
            slot.eventLoop.execute { slot.slot.value.start() }
        }
        await withTaskCancellationHandler {
            await withCheckedContinuation { continuation in
                let isDone = self.shared.withLock { shared in
                    if shared.stoppedSlots < shared.phases.count { shared.waiter = continuation }
                    return shared.stoppedSlots == shared.phases.count
                }
                if isDone { continuation.resume() }
            }
        } onCancel: {
            self.stop(graceful: false)
        }
    }

    /// Takes no new calls and closes each connection when its calls have ended; ``run()`` returns after that.
    public func shutdown() { self.stop(graceful: true) }

    // MARK: - Calls

    /// Makes a call with one message each way; without a change of thread when called on an event loop of the channel.
    ///
    /// - Parameters:
    ///   - method: The method.
    ///   - payload: The request.
    ///   - options: Deadline, metadata and whether to wait for a connection.
    ///   - completion: Called exactly once, on the connection's event loop, which it must not block.
    /// - Returns: A way to give up on the call.
    @discardableResult
    public func unary(
        _ method: Method,
        _ payload: Payload,
        options: CallOptions = CallOptions(),
        completion: @escaping @Sendable (Result<UnaryReply, RPCError>) -> Void
    ) -> CallHandle {
        let slot = self.pickSlot()
        let token = CallToken(eventLoop: slot.eventLoop)
        let configuration = self.callConfiguration
        // One closure, where a body for ``Slot/run(_:)`` would be two.
        if slot.eventLoop.inEventLoop {
            Self.beginUnary(method, payload, options, configuration, token, on: slot.slot.value, completion)
        } else {
            slot.eventLoop.execute {
                Self.beginUnary(method, payload, options, configuration, token, on: slot.slot.value, completion)
            }
        }
        return CallHandle(token: token)
    }

    /// Makes a call with one message each way.
    ///
    /// Cancelling the task cancels the call.
    ///
    /// - Parameters:
    ///   - method: The method.
    ///   - payload: The request.
    ///   - options: Deadline, metadata and whether to wait for a connection.
    /// - Returns: The response and its metadata.
    /// - Throws: ``RPCError`` when the call did not end with `OK`.
    public func unary(
        _ method: Method,
        _ payload: Payload,
        options: CallOptions = CallOptions()
    ) async throws -> UnaryReply {
        let handle = Mutex<(handle: CallHandle?, isCancelled: Bool)>((nil, false))
        return try await withTaskCancellationHandler {
            try await withCheckedThrowingContinuation { continuation in
                let made = self.unary(method, payload, options: options) { continuation.resume(with: $0) }
                let isCancelled = handle.withLock { state in
                    state.handle = made
                    return state.isCancelled
                }
                if isCancelled { made.cancel() }
            }
        } onCancel: {
            let made = handle.withLock { state in
                state.isCancelled = true
                return state.handle
            }
            made?.cancel()
        }
    }

    /// Makes a call with one request and any number of responses.
    ///
    /// - Parameters:
    ///   - method: The method.
    ///   - payload: The request.
    ///   - options: Deadline, metadata and whether to wait for a connection.
    /// - Returns: The responses; reading them throws ``RPCError`` at the end unless the status is `OK`.
    public func serverStreaming(
        _ method: Method,
        _ payload: Payload,
        options: CallOptions = CallOptions()
    ) -> ResponseStream {
        self.stream(method, .serverStreaming, payload, options).responses
    }

    /// Makes a call with any number of requests and one response.
    ///
    /// - Parameters:
    ///   - method: The method.
    ///   - options: Deadline, metadata and whether to wait for a connection.
    /// - Returns: The call.
    public func clientStreaming(_ method: Method, options: CallOptions = CallOptions()) -> ClientStreamingCall {
        let call = self.stream(method, .clientStreaming, nil, options)
        return ClientStreamingCall(requests: call.requests, responses: call.responses)
    }

    /// Makes a call with any number of messages both ways.
    ///
    /// - Parameters:
    ///   - method: The method.
    ///   - options: Deadline, metadata and whether to wait for a connection.
    /// - Returns: The call.
    public func bidirectional(_ method: Method, options: CallOptions = CallOptions()) -> BidirectionalCall {
        let call = self.stream(method, .bidirectional, nil, options)
        return BidirectionalCall(requests: call.requests, responses: call.responses)
    }

    // MARK: - Private

    private func stream(
        _ method: Method,
        _ shape: CallShape,
        _ payload: Payload?,
        _ options: CallOptions
    ) -> (requests: RequestWriter, responses: ResponseStream) {
        let slot = self.pickSlot()
        let token = CallToken(eventLoop: slot.eventLoop)
        let configuration = self.callConfiguration
        let inbox = MessageInbox { token.onLoop { $0.creditIfEmptied() } }
        let details = ResponseDetails()
        let gate = WriteGate(eventLoop: slot.eventLoop, limitBytes: configuration.limits.writeBufferBytes) { payload in
            token.onLoopNow { $0.send(payload) }
        }
        slot.run { slot in
            let call = ClientCall(
                method: method,
                shape: shape,
                payload: payload,
                options: options,
                configuration: configuration,
                token: token,
                gate: gate,
                sink: .stream(inbox, details)
            )
            RPCChannel.begin(call, token, on: slot)
        }
        return (
            RequestWriter(gate: gate, token: token),
            ResponseStream(inbox: inbox, details: details, lease: CallLease(token: token))
        )
    }

    private static func beginUnary(
        _ method: Method,
        _ payload: Payload,
        _ options: CallOptions,
        _ configuration: ClientCallConfiguration,
        _ token: CallToken,
        on slot: ConnectionSlot,
        _ completion: @escaping @Sendable (Result<UnaryReply, RPCError>) -> Void
    ) {
        let call = ClientCall(
            method: method,
            shape: .unary,
            payload: payload,
            options: options,
            configuration: configuration,
            token: token,
            gate: nil,
            sink: .unary(completion)
        )
        self.begin(call, token, on: slot)
    }

    private static func begin(_ call: ClientCall, _ token: CallToken, on slot: ConnectionSlot) {
        call.slot = slot
        if token.attach(call) {
            slot.submit(call)
        } else {
            call.cancel()
        }
    }

    /// A slot on the caller's event loop if it is ready, else the next ready one, else the next one.
    private func pickSlot() -> Slot {
        let slots = self.slots.withLock { $0 }
        let index = self.shared.withLock { shared -> Int in
            let count = slots.count
            if count == 1 { return 0 }
            shared.next = (shared.next + 1) % count
            var firstReady: Int?
            for offset in 0..<count {
                let index = (shared.next + offset) % count
                guard shared.phases[index] == .ready else { continue }
                if slots[index].eventLoop.inEventLoop { return index }
                if firstReady == nil { firstReady = index }
            }
            return firstReady ?? shared.next
        }
        return slots[index]
    }

    private func stop(graceful: Bool) {
        self.changeState { $0.isShutDown = true }
        for slot in self.slots.withLock({ $0 }) {
            slot.eventLoop.execute { slot.slot.value.stop(graceful: graceful) }
        }
    }

    private func slotChanged(_ index: Int, _ phase: SlotMachine.Phase, _ trouble: String) {
        self.changeState { shared in
            shared.phases[index] = phase
            if phase != .ready { shared.trouble = trouble }
        }
    }

    private func changeState(_ change: (inout Shared) -> Void) {
        let changed = self.shared.withLock { shared -> State? in
            change(&shared)
            let state = shared.state
            guard state != shared.reported else { return nil }
            shared.reported = state
            return state
        }
        if let changed { self.onStateChange?(changed) }
    }

    private func slotStopped() {
        let waiter = self.shared.withLock { shared -> CheckedContinuation<Void, Never>? in
            shared.stoppedSlots += 1
            guard shared.stoppedSlots == shared.phases.count else { return nil }
            let waiter = shared.waiter
            shared.waiter = nil
            return waiter
        }
        waiter?.resume()
    }
}
