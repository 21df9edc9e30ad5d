// SPDX-License-Identifier: Apache-2.0

internal import SwitchyardProtos

/// Which services take calls, and their watchers: a pure value.
struct HealthTable {
    typealias Status = HealthCheckResponse.ServingStatus

    /// An update for one watcher.
    struct News: Equatable {
        let watcher: UInt64
        let status: Status
    }

    private(set) var statuses: [String: Status]
    private(set) var isDraining = false
    private var watchers: [UInt64: String] = [:]
    private var lastWatcher: UInt64 = 0

    /// Creates a table whose services take no calls yet.
    init(services: [String]) {
        // The empty name stands for the server as a whole.
        self.statuses = Dictionary((services + [""]).map { ($0, Status.notServing) }) { first, _ in first }
    }

    /// Changes the status of a service; nothing changes while draining.
    ///
    /// - Returns: Updates for its watchers; none if the status is unchanged.
    mutating func set(_ status: Status, for service: String) -> [News] {
        guard !self.isDraining, self.statuses[service] != status else { return [] }
        self.statuses[service] = status
        return self.watchers.filter { $0.value == service }.keys.sorted().map { News(watcher: $0, status: status) }
    }

    /// Sets every service to `notServing` for good.
    ///
    /// - Returns: The last update of every watcher; all watchers are then removed.
    mutating func beginDraining() -> [News] {
        guard !self.isDraining else { return [] }
        self.isDraining = true
        self.statuses = self.statuses.mapValues { _ in .notServing }
        let news = self.watchers.keys.sorted()
            .map { watcher in
                News(watcher: watcher, status: self.current(self.watchers[watcher] ?? ""))
            }
        self.watchers = [:]
        return news
    }

    /// Adds a watcher of a service, known or not.
    ///
    /// - Returns: The watcher, and its first update.
    mutating func watch(_ service: String) -> News {
        self.lastWatcher += 1
        if !self.isDraining { self.watchers[self.lastWatcher] = service }
        return News(watcher: self.lastWatcher, status: self.current(service))
    }

    /// Removes a watcher.
    mutating func unwatched(_ watcher: UInt64) {
        self.watchers[watcher] = nil
    }

    private func current(_ service: String) -> Status {
        self.statuses[service] ?? .serviceUnknown
    }
}
