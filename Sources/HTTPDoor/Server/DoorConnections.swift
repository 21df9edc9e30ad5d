// SPDX-License-Identifier: Apache-2.0

internal import NIOCore
internal import RPCTransport
internal import SwitchyardTypes
internal import Synchronization

/// A client's connection.
final class DoorConnection: Sendable {
    private struct State {
        var identity: PeerIdentity?
        var isClosed = false
        var next = 0
        var watchers: [Int: AsyncStream<Never>.Continuation] = [:]
        var running = 0
    }

    let channel: any Channel
    /// The client's address, or the network that stands for it.
    let host: String
    /// Since when no request runs.
    let activity = ConnectionActivity(now: NIODeadline.now().uptimeNanoseconds)
    private let state = Mutex(State())

    init(_ channel: any Channel) {
        self.channel = channel
        self.host = ConnectionPlaces.peer(of: channel.remoteAddress?.ipAddress ?? "local")
    }

    /// Who the client is by its certificate.
    var identity: PeerIdentity? {
        get { self.state.withLock { $0.identity } }
        set { self.state.withLock { $0.identity = newValue } }
    }

    /// Who calls, as far as the connection tells; named as over gRPC.
    var callerName: String { self.identity.map { "certificate \($0)" } ?? "host \(self.host)" }

    /// A request begins.
    func began() {
        self.state.withLock { $0.running += 1 }
        self.activity.becameBusy()
    }

    /// A request has ended.
    func ended() {
        let isIdle = self.state.withLock { state in
            state.running -= 1
            return state.running == 0
        }
        if isIdle { self.activity.becameIdle(now: NIODeadline.now().uptimeNanoseconds) }
    }

    /// The connection has closed.
    func closed() {
        let watchers = self.state.withLock { state in
            state.isClosed = true
            defer { state.watchers = [:] }
            return Array(state.watchers.values)
        }
        for watcher in watchers { watcher.finish() }
    }

    /// Waits until the connection has closed, or the task is cancelled.
    func waitUntilClosed() async {
        let (stream, source) = AsyncStream.makeStream(of: Never.self)
        let id = self.state.withLock { state -> Int? in
            guard !state.isClosed else { return nil }
            state.next += 1
            state.watchers[state.next] = source
            return state.next
        }
        guard let id else { return }
        for await _ in stream {}
        self.state.withLock { _ = $0.watchers.removeValue(forKey: id) }
    }
}

/// All connections of the door: who has a place, and whose channel is whose.
final class DoorConnections: Sendable {
    private struct State {
        var places: ConnectionPlaces
        var next = 0
        var connections: [Int: DoorConnection] = [:]
        var numbers: [ObjectIdentifier: Int] = [:]
    }

    private let limit: Int
    private let counts: DoorCounts
    private let state: Mutex<State>

    init(_ configuration: DoorConfiguration, counts: DoorCounts) {
        self.counts = counts
        let total = configuration.maxConnections
        let share = max(1, Int(Double(total) * configuration.connectionShare))
        self.limit = total
        self.state = Mutex(State(places: ConnectionPlaces(limits: .init(total: total, share: share, probes: 0))))
    }

    /// Connections that are open.
    var count: Int { self.state.withLock { $0.connections.count } }

    /// Finds a place for a new connection; the idlest one may leave for it.
    ///
    /// - Parameter channel: Its channel.
    /// - Returns: The connection; nil if all are busy.
    func arrived(_ channel: any Channel) -> DoorConnection? {
        let connection = DoorConnection(channel)
        let (id, leaving) = self.state.withLock { state -> (Int?, DoorConnection?) in
            // Those that leave take a moment, and must not become many.
            guard state.connections.count < 2 * self.limit else { return (nil, nil) }
            state.next += 1
            let id = state.next
            let (place, leaves) = state.places.arrived(id, from: connection.host) { [connections = state.connections] in
                connections[$0]?.activity.idleSince
            }
            guard place == .regular else { return (nil, nil) }
            state.connections[id] = connection
            state.numbers[ObjectIdentifier(channel)] = id
            return (id, leaves.flatMap { state.connections[$0] })
        }
        leaving?.channel.close(promise: nil)
        guard let id else {
            self.counts.refused()
            return nil
        }
        self.counts.opened(displacing: leaving != nil)
        channel.closeFuture.whenComplete { _ in
            self.state.withLock { state in
                state.connections[id] = nil
                state.numbers[ObjectIdentifier(channel)] = nil
                state.places.left(id)
            }
            connection.closed()
        }
        return connection
    }

    /// The connection of a request's channel, which may be one of its streams.
    func connection(of channel: any Channel) -> DoorConnection? {
        self.state.withLock { state in
            let id =
                state.numbers[ObjectIdentifier(channel)]
                ?? channel.parent.flatMap { state.numbers[ObjectIdentifier($0)] }
            return id.flatMap { state.connections[$0] }
        }
    }

    /// Closes all connections at once.
    func closeAll() {
        for connection in self.state.withLock({ Array($0.connections.values) }) {
            connection.channel.close(promise: nil)
        }
    }
}
