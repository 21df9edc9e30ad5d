// SPDX-License-Identifier: Apache-2.0

import SwitchyardTypes
import Testing

@testable import ExpertPooling

/// How a host treats a gateway.
struct Manners: Sendable {
    /// What becomes of a call.
    enum Answer: Sendable {
        case good(after: Duration)
        case failure(CallFailure)
        case none
    }

    /// How long it takes to describe itself; nil if it never does.
    var describes: Duration? = .milliseconds(1)
    var answers = Answer.good(after: .milliseconds(2))
    /// How long its connections last; nil for ever.
    var connection: Duration?
    /// Whether calls end with their connection; otherwise they stay open, as after a GOAWAY.
    var failsCallsWithConnection = true
    /// Whether each connection leads to another process.
    var restarts = false
    /// Whether its name leaves the pool with each connection, and comes back.
    var leaves = false

    static let healthy = Manners()
}

/// One gateway's pool of hosts in virtual time: layers follow each other without pause, as when one client decodes.
struct HostileRun {
    private enum Event {
        case connects
        case loses(Int)
        case describes(Int)
        case answers(AttemptID, layer: Int, CallFailure?)
        /// The gateway's next layer.
        case layer
    }

    private struct Entry {
        let time: ContinuousClock.Instant
        let host: ReplicaID
        let event: Event
    }

    /// A cluster of one pool; hedges would hide what ejection does.
    static let configuration: ExpertPoolsConfiguration = {
        var configuration = ExpertPoolsConfiguration.unaudited
        configuration.hedgeFraction = 0
        return configuration
    }()

    var manners: [ReplicaID: Manners]
    var pools: ExpertPools
    private(set) var now = start
    private var events: [Entry] = []
    private var calls: LayerCalls?
    private var layer = 0
    private var out: [AttemptID: (host: ReplicaID, connection: Int)] = [:]
    private var connections: [ReplicaID: Int] = [:]
    private var isUp: [ReplicaID: Bool] = [:]
    /// When each layer ended that waited for its whole deadline.
    private(set) var misses: [ContinuousClock.Instant] = []
    private(set) var dropped = 0
    private(set) var answered = 0
    /// Answers of each host, with their times.
    private(set) var served: [ReplicaID: [ContinuousClock.Instant]] = [:]
    /// The first rule that was broken.
    private(set) var broken: String?

    init(_ manners: [ReplicaID: Manners]) {
        self.manners = manners
        self.pools = machine(ports: [], configuration: Self.configuration)
        for id in manners.keys.sorted() {
            self.pools.added(id)
            self.add(.zero, id, .connects)
        }
        self.add(.milliseconds(10), replica(0), .layer)
    }

    /// Runs for a time.
    mutating func run(for time: Duration) {
        let end = self.now.advanced(by: time)
        while let next = self.nextTime, next < end {
            self.now = max(next, self.now)
            if let index = self.events.indices.min(by: { self.events[$0].time < self.events[$1].time }),
                self.events[index].time <= self.now
            {
                self.handle(self.events.remove(at: index))
            } else {
                self.timerFired()
            }
            if self.broken == nil { self.broken = self.pools.checkInvariants() }
        }
        self.now = end
    }

    /// When something happens next.
    private var nextTime: ContinuousClock.Instant? {
        [self.events.map(\.time).min(), self.pools.nextTimer, self.calls?.nextTimer].compactMap { $0 }.min()
    }

    private mutating func timerFired() {
        self.follow(self.pools.timerFired(now: self.now))
        guard let calls = self.calls, let due = calls.nextTimer, due <= self.now else { return }
        if calls.deadline <= self.now { self.misses.append(self.now) }
        let actions = self.calls?.timerFired(pools: &self.pools, now: self.now) ?? []
        self.apply(actions)
    }

    private mutating func add(_ wait: Duration, _ host: ReplicaID, _ event: Event) {
        self.events.append(Entry(time: self.now.advanced(by: wait), host: host, event: event))
    }

    private mutating func handle(_ entry: Entry) {
        let id = entry.host
        switch entry.event {
        case .connects:
            self.connections[id, default: 0] += 1
            self.isUp[id] = true
            self.pools.added(id)
            self.follow(self.pools.connected(id))
            if let time = self.manners[id]?.connection { self.add(time, id, .loses(self.connections[id] ?? 0)) }
        case .loses(let connection):
            guard self.connections[id] == connection else { return }
            self.lose(id)
        case .describes(let connection):
            guard self.connections[id] == connection, self.isUp[id] == true else { return }
            self.describe(id)
        case .layer:
            self.beginLayer()
        case .answers(let attempt, let layer, let failure):
            guard layer == self.layer, let flight = self.out[attempt] else { return }
            guard flight.connection == self.connections[id] || self.manners[id]?.failsCallsWithConnection == false
            else { return }
            self.finish(attempt, failure, of: id)
        }
    }

    private mutating func lose(_ id: ReplicaID) {
        self.isUp[id] = false
        let manners = self.manners[id] ?? .healthy
        if manners.leaves { self.pools.removed(id, now: self.now) } else { self.pools.disconnected(id, now: self.now) }
        if manners.failsCallsWithConnection {
            for (attempt, flight) in self.out where flight.host == id { self.finish(attempt, .unavailable, of: id) }
        }
        self.add(.milliseconds(100), id, .connects)
    }

    private mutating func describe(_ id: ReplicaID) {
        guard let manners = self.manners[id] else { return }
        guard let time = manners.describes, time < .seconds(1) else {
            self.pools.describeFailed(id, now: self.now)
            return
        }
        var text = description()
        text.instance = manners.restarts ? "\(id.port)-\(self.connections[id] ?? 0)" : "\(id.port)"
        self.follow(self.pools.described(id, text, now: self.now))
    }

    private mutating func follow(_ actions: [PoolAction]) {
        for case .describe(let id) in actions {
            let time = min(self.manners[id]?.describes ?? .seconds(1), .seconds(1))
            self.add(time, id, .describes(self.connections[id] ?? 0))
        }
    }

    private mutating func beginLayer() {
        self.layer += 1
        self.out = [:]
        let assignment = PoolAssignment(pool: "a", groups: [.init(expert: 0, rows: 0..<1)])
        let deadline = self.now.advanced(by: .seconds(2))
        var calls = LayerCalls(layer: decoderLayer, deadline: deadline, policy: Self.configuration.decoder)
        let actions = calls.begin([assignment], pools: &self.pools, now: self.now)
        self.calls = calls
        self.apply(actions)
    }

    private mutating func finish(_ attempt: AttemptID, _ failure: CallFailure?, of id: ReplicaID) {
        self.out[attempt] = nil
        let actions: [LayerAction]
        if let failure {
            actions = self.calls?.failed(attempt, failure, pools: &self.pools, now: self.now) ?? []
        } else {
            self.answered += 1
            self.served[id, default: []].append(self.now)
            actions = self.calls?.answered(attempt, pools: &self.pools, now: self.now) ?? []
        }
        self.apply(actions)
    }

    private mutating func apply(_ actions: [LayerAction]) {
        for action in actions {
            switch action {
            case .send(let attempt, to: let id):
                self.out[attempt] = (id, self.connections[id] ?? 0)
                switch self.manners[id]?.answers ?? .none {
                case .good(let time): self.add(time, id, .answers(attempt, layer: self.layer, nil))
                case .failure(let failure):
                    self.add(.milliseconds(1), id, .answers(attempt, layer: self.layer, failure))
                case .none: break
                }
            case .cancel(let attempt): self.out[attempt] = nil
            case .drop: self.dropped += 1
            case .recompute, .accept, .caught, .dispute, .prove: Issue.record("nothing is audited here: \(action)")
            case .pool(let action): self.follow([action])
            }
        }
        // The gateway's own part of a layer takes a while.
        if self.calls?.isComplete == true {
            self.calls = nil
            self.add(.milliseconds(10), replica(0), .layer)
        }
    }
}
