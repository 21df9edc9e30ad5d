// SPDX-License-Identifier: Apache-2.0

internal import Logging
internal import NIOCore
internal import SwitchyardTypes
internal import Synchronization

/// What a connection asks its server about its place.
struct PlaceKeeper: Sendable {
    /// Asks for a regular place instead of one for probes.
    let promote: @Sendable () -> Bool
    /// Says who the client is; returns whether it may have this connection too.
    let identify: @Sendable (String) -> Bool
}

extension RPCServer {
    /// Finds a place for a new connection; another one may leave for it.
    ///
    /// - Parameters:
    ///   - id: The connection's number.
    ///   - connection: The connection.
    ///   - role: Its server's end.
    /// - Returns: Whether there is one.
    func takePlace(_ id: Int, _ connection: Connection, _ role: ServerConnection) -> Bool {
        let (place, leaving) = self.state.withLock { state -> (ConnectionPlaces.Place?, Connection?) in
            guard case .running = state.phase else { return (nil, nil) }
            // Those that leave take a moment, and must not become many: descriptors are kept for this many.
            let most = self.maxConnections + self.configuration.limits.probeConnections + Self.leavingConnections
            guard state.connections.count < most else { return (.some(.none), nil) }
            let (place, leaves) = state.places.arrived(id, from: role.caller.host) {
                [connections = state.connections] in
                connections[$0]?.activity.idleSince
            }
            if place != .none { state.connections[id] = connection }
            return (place, leaves.flatMap { state.connections[$0] })
        }
        if let leaving {
            self.logLeaving()
            leaving.perform { $0.leave() }
        }
        switch place {
        case nil: return false
        case .regular?: return true
        case .probe?:
            role.servesProbesOnly = true
            return true
        case .some(.none):
            let limit =
                self.maxConnections < self.configuration.limits.maxConnections
                ? "the limit of open files (LimitNOFILE, ulimit -n)" : "max-connections"
            self.logRefusal(
                "there are \(self.maxConnections) busy connections already; raise \(limit)",
                peer: role.peer
            )
            return false
        }
    }

    /// A connection's client has proved who it is; another connection of it may leave.
    ///
    /// - Parameters:
    ///   - id: The connection's number.
    ///   - name: The client.
    /// - Returns: Whether it may have this connection too.
    func identified(_ id: Int, as name: String) -> Bool {
        let (mayStay, leaving) = self.state.withLock { state -> (Bool, Connection?) in
            let (mayStay, leaves) = state.places.identified(id, as: name) { [connections = state.connections] in
                connections[$0]?.activity.idleSince
            }
            return (mayStay, leaves.flatMap { state.connections[$0] })
        }
        if let leaving {
            self.logLeaving()
            leaving.perform { $0.leave() }
        }
        return mayStay
    }

    /// Says that connections leave for others; a flood of newcomers makes few lines.
    private func logLeaving() {
        self.counts.connectionDisplaced()
        guard let unsaid = self.refusals.withLock({ $0.take(now: .now) }) else { return }
        self.logger.info(
            "an idle connection left for another one",
            metadata: ["connections": "\(self.maxConnections)", "unsaid": "\(unsaid)"]
        )
    }

    /// Connections that may be on their way out beside the others.
    private static let leavingConnections = 64
}
