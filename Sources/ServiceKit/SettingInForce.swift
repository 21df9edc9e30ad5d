// SPDX-License-Identifier: Apache-2.0

internal import Synchronization

/// A setting as it is in force: its value, and where that comes from.
public struct SettingInForce: Sendable, Hashable {
    /// The setting's key.
    public var key: String
    /// Its value, in parts where it is a list; none where it has none.
    public var values: [String]
    /// Where the value comes from.
    public var source: Settings.Source

    /// Describes a setting.
    ///
    /// - Parameters:
    ///   - key: The setting's key.
    ///   - values: Its value, in parts where it is a list; none where it has none.
    ///   - source: Where the value comes from.
    public init(key: String, values: [String], source: Settings.Source) {
        self.key = key
        self.values = values
        self.source = source
    }
}

/// The defaults that were named where values were read.
final class SettingDefaults: Sendable {
    private struct State {
        var values: [String: [String]] = [:]
        var lists: Set<String> = []
    }

    private let state = Mutex(State())

    /// A key was read that has this value where no layer sets it; one that is read for two things may have two.
    func note(_ key: String, _ value: String) {
        self.state.withLock { state in
            if state.values[key]?.contains(value) != true { state.values[key, default: []].append(value) }
        }
    }

    /// A key was read as a list.
    func noteList(_ key: String) {
        self.state.withLock { _ = $0.lists.insert(key) }
    }

    func values(_ key: String) -> [String] { self.state.withLock { $0.values[key] ?? [] } }

    func isList(_ key: String) -> Bool { self.state.withLock { $0.lists.contains(key) } }
}
