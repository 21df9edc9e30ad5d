// SPDX-License-Identifier: Apache-2.0

public import RPCCore
internal import Synchronization

/// What a server has done since it was created; each call costs three atomic additions.
public final class ServerCounts: Sendable {
    /// How the calls of one method ended.
    final class MethodCounts: Sendable {
        private final class Count: Sendable {
            let value = Atomic<UInt64>(0)
        }

        private let codes = Status.Code.allCases.map { _ in Count() }

        func add(_ code: Status.Code) {
            self.codes[Int(code.rawValue)].value.wrappingAdd(1, ordering: .relaxed)
        }

        func count(_ code: Status.Code) -> UInt64 { self.codes[Int(code.rawValue)].value.load(ordering: .relaxed) }
    }

    /// How often calls of a method ended with a code.
    public struct Calls: Sendable, Hashable {
        /// The method; nil for calls of methods that the server does not have.
        public let method: Method?
        /// The status.
        public let code: Status.Code
        /// How often.
        public let count: UInt64
    }

    /// Bytes of all connections.
    public let traffic = TrafficCounts()

    private let methods: [(method: Method, counts: MethodCounts)]
    private let byMethod: [Method: MethodCounts]
    private let unknown = MethodCounts()
    private let open = Atomic<Int>(0)
    private let opened = Atomic<UInt64>(0)
    private let refused = Atomic<UInt64>(0)
    private let held = Atomic<Int>(0)
    private let endedForBudget = Atomic<UInt64>(0)
    private let displaced = Atomic<UInt64>(0)

    init(methods: [Method]) {
        self.methods = methods.sorted { $0.path < $1.path }.map { ($0, MethodCounts()) }
        self.byMethod = Dictionary(self.methods) { first, _ in first }
    }

    /// Calls that have ended, by method and code: each method with `OK`, and with every other code that it had.
    public var calls: [Calls] {
        let named = self.methods.map { (Method?.some($0.method), $0.counts) } + [(nil, self.unknown)]
        return named.flatMap { method, counts in
            Status.Code.allCases.map { Calls(method: method, code: $0, count: counts.count($0)) }
                .filter { $0.count > 0 || ($0.code == .ok && method != nil) }
        }
    }

    /// Calls that have no status yet.
    public var openCalls: Int { max(0, self.open.load(ordering: .relaxed)) }

    /// Connections that were opened.
    public var openedConnections: UInt64 { self.opened.load(ordering: .relaxed) }

    /// Refused connections: too many, a failed handshake, or another protocol.
    public var refusedConnections: UInt64 { self.refused.load(ordering: .relaxed) }

    /// Bytes of requests that no handler has taken yet, give or take a little on each connection.
    public var heldBytes: Int { self.held.load(ordering: .relaxed) }

    /// Calls that ended because such bytes were over the budget of their connection or of the server.
    public var callsEndedForBudget: UInt64 { self.endedForBudget.load(ordering: .relaxed) }

    /// Idle connections that left for others.
    public var displacedConnections: UInt64 { self.displaced.load(ordering: .relaxed) }

    /// Counts a method's calls.
    func counts(of method: Method?) -> MethodCounts { method.flatMap { self.byMethod[$0] } ?? self.unknown }

    func connectionOpened() { self.opened.wrappingAdd(1, ordering: .relaxed) }

    func connectionRefused() { self.refused.wrappingAdd(1, ordering: .relaxed) }

    func connectionDisplaced() { self.displaced.wrappingAdd(1, ordering: .relaxed) }

    func callBegan() { self.open.wrappingAdd(1, ordering: .relaxed) }

    func held(_ bytes: Int) { self.held.store(bytes, ordering: .relaxed) }

    func callEndedForBudget() { self.endedForBudget.wrappingAdd(1, ordering: .relaxed) }

    func callEnded() { self.open.wrappingSubtract(1, ordering: .relaxed) }
}
