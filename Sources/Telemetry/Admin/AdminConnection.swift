// SPDX-License-Identifier: Apache-2.0

/// One connection of the admin port as a state machine: which request to answer next, and when to close the
/// connection.
///
/// Requests are answered one after another. Bytes are counted before they are parsed, so that an endless request costs
/// no more than its limit.
struct AdminConnection: Sendable {
    /// Limits of a connection.
    struct Limits: Sendable, Hashable {
        /// Bytes per request.
        var requestBytes = 16 * 1024
        /// Requests that may wait after the one being answered.
        var pipelined = 8
        /// How long a request may take to arrive, and an answer to be read.
        var exchange = Duration.seconds(10)
        /// How long the connection may be idle.
        var idle = Duration.seconds(75)
        /// How long a client may keep sending after a refusal, so that it can read why.
        var linger = Duration.seconds(1)
    }

    /// What the runner does next.
    enum Action: Sendable, Hashable {
        case none
        /// Answer, and call ``AdminConnection/answered(now:)`` once the answer is sent.
        case answer(AdminRequest)
        /// Close the sending side, and let the client read to the end.
        case closeOutput
        /// Close at once.
        case close
    }

    private enum State {
        /// Idle since this time. Can transition to `receiving` and `closed`.
        case idle(since: ContinuousClock.Instant)
        /// A request started arriving at this time, or the connection began. Can transition to `answering` and `closed`.
        case receiving(since: ContinuousClock.Instant)
        /// A request has been in progress since this time. Can transition to every state.
        case answering(AdminRequest, since: ContinuousClock.Instant)
        /// A refusal was sent at this time, and further input is discarded. Can transition to `closed`.
        case lingering(since: ContinuousClock.Instant)
        /// Closed. Final.
        case closed
    }

    private let limits: Limits
    private var state: State
    private var head: AdminRequest?
    private var waiting: [AdminRequest] = []
    private var receivedBytes = 0
    private var isDraining = false

    init(limits: Limits, now: ContinuousClock.Instant) {
        self.limits = limits
        // Who connects has something to ask: silence before the first request is no pause between two.
        self.state = .receiving(since: now)
    }

    /// Whether the connection is closed.
    var isClosed: Bool { if case .closed = self.state { true } else { false } }

    /// Whether a request is being answered.
    var isAnswering: Bool { if case .answering = self.state { true } else { false } }

    /// Whether to parse input.
    var isParsing: Bool {
        switch self.state {
        case .idle, .receiving: true
        case .answering(let request, _): !request.isRefused
        case .lingering, .closed: false
        }
    }

    /// When to ask ``timePassed(now:)`` next; nil when the connection is closed.
    var nextDue: ContinuousClock.Instant? {
        switch self.state {
        case .idle(let since): since.advanced(by: self.limits.idle)
        case .receiving(let since), .answering(_, let since): since.advanced(by: self.limits.exchange)
        case .lingering(let since): since.advanced(by: self.limits.linger)
        case .closed: nil
        }
    }

    // MARK: - The client's events

    /// Counts bytes that arrived; call it before parsing them, which happens only if no action is returned.
    mutating func bytesArrived(_ count: Int, now: ContinuousClock.Instant) -> Action {
        guard self.isParsing else { return self.isClosed ? .close : .none }
        self.receivedBytes += count
        switch self.state {
        case .closed, .lingering:
            break
        case .idle:
            self.state = .receiving(since: now)
        case .receiving, .answering:
            break
        }
        return self.receivedBytes > self.limits.requestBytes ? self.refuse(.tooLarge, now: now) : .none
    }

    /// A request's head was read.
    mutating func headArrived(_ request: AdminRequest) { self.head = request }

    /// A request was read to its end.
    mutating func requestEnded(now: ContinuousClock.Instant) -> Action {
        self.receivedBytes = 0
        guard let request = self.head else { return .none }
        self.head = nil
        switch self.state {
        case .closed, .lingering:
            return .none
        case .idle, .receiving:
            self.state = .answering(request, since: now)
            return .answer(request)
        case .answering:
            guard self.waiting.count < self.limits.pipelined else { return self.close() }
            self.waiting.append(request)
            return .none
        }
    }

    /// The input cannot be parsed, for the reason in `route`.
    mutating func refused(_ route: AdminRequest.Route, now: ContinuousClock.Instant) -> Action {
        self.refuse(route, now: now)
    }

    // MARK: - The runner's events

    /// Whether the answer to a request is the last one on this connection.
    func endsWith(_ request: AdminRequest) -> Bool { !request.keepsAlive || self.isDraining }

    /// The answer was sent.
    mutating func answered(now: ContinuousClock.Instant) -> Action {
        guard case .answering(let request, _) = self.state else { return .none }
        if request.isRefused {
            self.state = .lingering(since: now)
            return .closeOutput
        }
        if self.endsWith(request) { return self.close() }
        if !self.waiting.isEmpty {
            let next = self.waiting.removeFirst()
            self.state = .answering(next, since: now)
            return .answer(next)
        }
        self.state = self.receivedBytes > 0 ? .receiving(since: now) : .idle(since: now)
        return .none
    }

    /// Stops: finishes the current answer, nothing else.
    mutating func beginDraining() -> Action {
        self.isDraining = true
        if case .answering = self.state { return .none }
        return self.close()
    }

    /// Handles the timer.
    mutating func timePassed(now: ContinuousClock.Instant) -> Action {
        guard let due = self.nextDue, due <= now else { return .none }
        return self.close()
    }

    // MARK: - Private

    private mutating func refuse(_ route: AdminRequest.Route, now: ContinuousClock.Instant) -> Action {
        switch self.state {
        case .closed, .lingering, .answering:
            // An answer in progress may be half written: no other can follow it.
            return self.close()
        case .idle, .receiving:
            let request = AdminRequest(refused: route)
            self.head = nil
            self.state = .answering(request, since: now)
            return .answer(request)
        }
    }

    private mutating func close() -> Action {
        self.state = .closed
        self.head = nil
        self.waiting = []
        return .close
    }
}
