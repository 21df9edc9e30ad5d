// SPDX-License-Identifier: Apache-2.0

/// A setting in force: its value, and where it comes from.
public struct SettingInForce: Sendable, Hashable {
    /// The setting.
    public var definition: SettingDefinition
    /// Its value, in parts if it is a list; none if it has none.
    public var values: [String]
    /// Where the value comes from.
    public var source: Settings.Source

    /// The setting's key.
    public var key: String { self.definition.key }
}
