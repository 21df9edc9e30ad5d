// SPDX-License-Identifier: Apache-2.0

package import SwitchyardClient
internal import Synchronization

/// Polls a gateway for its view of its hosts.
package final class ClusterWatch: Sendable {
    private struct State {
        var latest: ClusterDescription?
        var seen: [String: Set<ReplicaState>] = [:]
        var mayAsk = true
    }

    private let state = Mutex(State())

    /// Creates a watch; ``run(_:)`` asks.
    package init() {}

    /// Asks until ``stop()``; an unreachable gateway is polled again.
    ///
    /// - Parameter client: Calls the gateway.
    package func run(_ client: GatewayClient) async {
        while self.state.withLock({ $0.mayAsk }), !Task.isCancelled {
            if let description = try? await client.describeCluster(timeout: .seconds(2)) {
                self.state.withLock { state in
                    state.latest = description
                    for replica in description.pools.flatMap(\.replicas) {
                        state.seen[replica.address, default: []].insert(replica.state)
                    }
                }
            }
            try? await Task.sleep(for: .milliseconds(25))
        }
    }

    /// Asks no more.
    package func stop() { self.state.withLock { $0.mayAsk = false } }

    /// The gateway's last answer.
    package var latest: ClusterDescription? { self.state.withLock { $0.latest } }

    /// The gateway's last answer about one host.
    package func replica(_ address: String) -> ReplicaDescription? {
        self.latest?.pools.flatMap(\.replicas).first { $0.address == address }
    }

    /// Every state that a host was seen in.
    package func states(of address: String) -> Set<ReplicaState> { self.state.withLock { $0.seen[address] ?? [] } }

    /// Waits until the gateway reports a condition of a host.
    ///
    /// - Parameters:
    ///   - address: The host's address.
    ///   - limit: How long to wait.
    ///   - condition: Gets the description; nil where the gateway does not name the host.
    /// - Returns: How long it took.
    /// - Throws: ``FaultError`` where it does not in time.
    @discardableResult
    package func wait(
        for address: String,
        within limit: Duration,
        until condition: (ReplicaDescription?) -> Bool
    ) async throws -> Duration {
        let start = ContinuousClock.now
        // Answers from before this moment may be out of date.
        self.state.withLock { $0.latest = nil }
        while start.duration(to: .now) < limit {
            if self.latest != nil, condition(self.replica(address)) { return start.duration(to: .now) }
            try await Task.sleep(for: .milliseconds(5))
        }
        let state = self.replica(address).map { "\($0.state) (\($0.detail))" } ?? "not named"
        throw FaultError("after \(limit) the gateway still says of \(address): \(state)")
    }
}
