// SPDX-License-Identifier: Apache-2.0

internal import NIOCore
internal import Synchronization
public import Telemetry

/// What the door counts.
final class DoorCounts: Sendable {
    private struct Answer: Hashable {
        var route: String
        var dialect: Dialect
        var status: Int
    }

    private struct State {
        var answers: [Answer: UInt64] = [:]
        var open = 0
        var opened: UInt64 = 0
        var refused: UInt64 = 0
        var displaced: UInt64 = 0
    }

    private let state = Mutex(State())
    private let received = Atomic<UInt64>(0)
    private let sent = Atomic<UInt64>(0)

    /// A request has come.
    func began() { self.state.withLock { $0.open += 1 } }

    /// A request has its whole answer, or its client has left.
    func ended() { self.state.withLock { $0.open -= 1 } }

    /// A request gets an answer.
    ///
    /// - Parameters:
    ///   - route: The address in the table of addresses; nil for none of them, so that clients cannot make series.
    ///   - dialect: The dialect of the answer.
    ///   - status: Its status.
    func answered(_ route: DoorRoute?, _ dialect: Dialect, status: Int) {
        let answer = Answer(route: route?.template ?? "unknown", dialect: dialect, status: status)
        self.state.withLock { $0.answers[answer, default: 0] += 1 }
    }

    /// A connection has found a place, and an idle one may have left for it.
    func opened(displacing: Bool) {
        self.state.withLock { state in
            state.opened += 1
            if displacing { state.displaced += 1 }
        }
    }

    /// A connection has found no place, or its client may not be here.
    func refused() { self.state.withLock { $0.refused += 1 } }

    /// Bytes have come.
    func received(_ count: Int) { self.received.wrappingAdd(UInt64(count), ordering: .relaxed) }

    /// Bytes were sent.
    func sent(_ count: Int) { self.sent.wrappingAdd(UInt64(count), ordering: .relaxed) }

    /// Adds the counts to a snapshot.
    ///
    /// - Parameter snapshot: Where the values go.
    func collect(into snapshot: inout MetricSnapshot) {
        let table = MetricCatalog.http
        let state = self.state.withLock { $0 }
        let answers = state.answers.map { ([$0.key.route, $0.key.dialect.label, "\($0.key.status)"], $0.value) }
        for (labels, count) in answers.sorted(by: { $0.0.lexicographicallyPrecedes($1.0) }) {
            snapshot.set(table.httpRequestsTotal, labels, count)
        }
        snapshot.set(table.httpOpenRequests, state.open)
        snapshot.set(table.httpConnectionsOpenedTotal, state.opened)
        snapshot.set(table.httpConnectionsRefusedTotal, state.refused)
        snapshot.set(table.httpConnectionsDisplacedTotal, state.displaced)
        snapshot.set(table.httpReceivedBytesTotal, self.received.load(ordering: .relaxed))
        snapshot.set(table.httpSentBytesTotal, self.sent.load(ordering: .relaxed))
    }
}

extension Dialect {
    /// The dialect as a label value.
    var label: String {
        switch self {
        case .openAI: "openai"
        case .textGeneration: "tgi"
        case .openInference: "oip"
        case .own: "own"
        }
    }
}

extension HTTPDoor {
    /// Adds the door's counts and current state.
    ///
    /// - Parameter snapshot: Where the values go.
    public func collect(into snapshot: inout MetricSnapshot) {
        self.responder.counts.collect(into: &snapshot)
        snapshot.set(MetricCatalog.http.httpConnections, self.connections.count)
        snapshot.set(MetricCatalog.http.httpHeldBytes, self.responder.budget.bytes)
    }
}

/// Counts the bytes of a connection; it stands behind TLS.
final class TrafficHandler: ChannelDuplexHandler {
    typealias InboundIn = ByteBuffer
    typealias OutboundIn = IOData
    typealias OutboundOut = IOData

    private let counts: DoorCounts

    init(counts: DoorCounts) { self.counts = counts }

    func channelRead(context: ChannelHandlerContext, data: NIOAny) {
        self.counts.received(self.unwrapInboundIn(data).readableBytes)
        context.fireChannelRead(data)
    }

    func write(context: ChannelHandlerContext, data: NIOAny, promise: EventLoopPromise<Void>?) {
        self.counts.sent(self.unwrapOutboundIn(data).readableBytes)
        context.write(data, promise: promise)
    }
}

// The handler belongs to its channel's event loop.
@available(*, unavailable)
extension TrafficHandler: Sendable {}
