// SPDX-License-Identifier: Apache-2.0

public import SwitchyardProtos
internal import Synchronization

/// Records which services of this process take calls; the health service reports it.
///
/// A service takes no calls until it is set to. The empty name stands for the process as a whole.
public final class HealthRegistry: Sendable {
    /// Whether a service takes calls.
    public typealias Status = HealthCheckResponse.ServingStatus

    private struct State {
        var table: HealthTable
        var streams: [UInt64: AsyncStream<Status>.Continuation] = [:]
    }

    private let state: Mutex<State>

    /// Creates a registry whose services take no calls yet.
    ///
    /// - Parameter services: Full names, such as `switchyard.v1.Gateway`; the empty name is always known.
    public init(services: [String]) {
        self.state = Mutex(State(table: HealthTable(services: services)))
    }

    /// The status of every service.
    public var statuses: [String: Status] { self.state.withLock { $0.table.statuses } }

    /// The status of a service, or nil for one that this process does not have.
    ///
    /// - Parameter service: Its full name, or the empty name for the process as a whole.
    /// - Returns: Whether it takes calls.
    public func status(of service: String) -> Status? {
        self.state.withLock { $0.table.statuses[service] }
    }

    /// Changes the status of a service and notifies its watchers; after ``beginDraining()`` nothing changes.
    ///
    /// - Parameters:
    ///   - status: Whether it takes calls.
    ///   - service: Its full name, or the empty name for the process as a whole.
    public func set(_ status: Status, for service: String) {
        // A stream only stores its elements, so yielding under the lock is safe and keeps updates in order.
        self.state.withLock { state in
            for news in state.table.set(status, for: service) { state.streams[news.watcher]?.yield(news.status) }
        }
    }

    /// Changes the status of every service that the registry was created with, including the empty name.
    ///
    /// - Parameter status: Whether they take calls.
    public func setAll(_ status: Status) {
        for service in self.statuses.keys.sorted() { self.set(status, for: service) }
    }

    /// Sets every service to `notServing` for good, notifies watchers, and ends their streams, so that they do not
    /// hold up a draining server.
    public func beginDraining() {
        let ended = self.state.withLock { state -> [AsyncStream<Status>.Continuation] in
            for news in state.table.beginDraining() { state.streams[news.watcher]?.yield(news.status) }
            defer { state.streams = [:] }
            return Array(state.streams.values)
        }
        for stream in ended { stream.finish() }
    }

    /// The status of a service now and after every change; only the last of several quick changes is kept.
    ///
    /// - Parameter service: The service's full name; one that this process does not have is `serviceUnknown`.
    /// - Returns: A stream that ends when the process drains.
    public func watch(_ service: String) -> AsyncStream<Status> {
        let (stream, continuation) = AsyncStream.makeStream(of: Status.self, bufferingPolicy: .bufferingNewest(1))
        let watcher = self.state.withLock { state -> UInt64? in
            let news = state.table.watch(service)
            continuation.yield(news.status)
            guard !state.table.isDraining else { return nil }
            state.streams[news.watcher] = continuation
            return news.watcher
        }
        guard let watcher else {
            continuation.finish()
            return stream
        }
        continuation.onTermination = { [weak self] _ in self?.unwatched(watcher) }
        return stream
    }

    /// Open watch streams.
    var watcherCount: Int { self.state.withLock { $0.streams.count } }

    private func unwatched(_ watcher: UInt64) {
        let continuation = self.state.withLock { state in
            state.table.unwatched(watcher)
            return state.streams.removeValue(forKey: watcher)
        }
        // Released outside the lock.
        _ = continuation
    }
}
