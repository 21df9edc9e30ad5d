// SPDX-License-Identifier: Apache-2.0

internal import SwitchyardProtos

/// Which services take calls and who watches them: a pure value.
struct HealthTable {
    typealias Status = HealthCheckResponse.ServingStatus

    /// News for one watcher.
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

    /// Changes the status of a service; while draining nothing changes any more.
    ///
    /// - Returns: News for those who watch it; none where the status is what it was.
    mutating func set(_ status: Status, for service: String) -> [News] {
        guard !self.isDraining, self.statuses[service] != status else { return [] }
        self.statuses[service] = status
        return self.watchers.filter { $0.value == service }.keys.sorted().map { News(watcher: $0, status: status) }
    }

    /// Turns every service to `notServing` for good.
    ///
    /// - Returns: The last news of all who watch, who are forgotten.
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

    /// Someone watches a service, known or not.
    ///
    /// - Returns: The watcher, and the first news.
    mutating func watch(_ service: String) -> News {
        self.lastWatcher += 1
        if !self.isDraining { self.watchers[self.lastWatcher] = service }
        return News(watcher: self.lastWatcher, status: self.current(service))
    }

    /// A watcher has left.
    mutating func unwatched(_ watcher: UInt64) {
        self.watchers[watcher] = nil
    }

    private func current(_ service: String) -> Status {
        self.statuses[service] ?? .serviceUnknown
    }
}
