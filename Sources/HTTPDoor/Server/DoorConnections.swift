// SPDX-License-Identifier: Apache-2.0

internal import NIOCore
internal import RPCTransport
internal import SwitchyardTypes
internal import Synchronization

/// A client's connection.
final class DoorConnection: Sendable {
    private struct State {
        var identity: PeerIdentity?
        var running = 0
    }

    let channel: any Channel
    /// The client's address, or the network that stands for it.
    let host: String
    /// Since when no request runs.
    let activity = ConnectionActivity(now: NIODeadline.now().uptimeNanoseconds)
    private let state = Mutex(State())
    private let life: AsyncStream<Never>
    private let lifeEnd: AsyncStream<Never>.Continuation

    init(_ channel: any Channel) {
        self.channel = channel
        (self.life, self.lifeEnd) = AsyncStream.makeStream(of: Never.self)
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
    func closed() { self.lifeEnd.finish() }

    /// Waits until the connection has closed, or the task is cancelled; only one task may wait.
    func waitUntilClosed() async { for await _ in self.life {} }
}

/// All connections of the door: who has a place, and whose channel is whose.
final class DoorConnections: Sendable {
    private struct State {
        var places: ConnectionPlaces
        var next = 0
        var connections: [Int: DoorConnection] = [:]
        var numbers: [ObjectIdentifier: Int] = [:]
        var streams: [ObjectIdentifier: DoorStream] = [:]
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

    /// A stream has been opened.
    ///
    /// - Parameters:
    ///   - stream: The stream.
    ///   - name: Its channel's.
    func opened(_ stream: DoorStream, _ name: ObjectIdentifier) { self.state.withLock { $0.streams[name] = stream } }

    /// A stream has closed.
    func closed(_ name: ObjectIdentifier) { self.state.withLock { $0.streams[name] = nil } }

    /// Where a request comes from.
    ///
    /// - Parameter channel: The request's channel.
    /// - Returns: Its connection, and its stream of HTTP/2; nil if the client has left.
    func origin(of channel: any Channel) -> (connection: DoorConnection, stream: DoorStream?)? {
        self.state.withLock { state in
            let name = ObjectIdentifier(channel)
            let stream = state.streams[name]
            let parent = stream == nil ? name : channel.parent.map { ObjectIdentifier($0) }
            guard let number = parent.flatMap({ state.numbers[$0] }), let connection = state.connections[number] else {
                return nil
            }
            return (connection: connection, stream: stream)
        }
    }

    /// Closes all connections at once.
    func closeAll() {
        for connection in self.state.withLock({ Array($0.connections.values) }) {
            connection.channel.close(promise: nil)
        }
    }
}
