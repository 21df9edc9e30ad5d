// SPDX-License-Identifier: Apache-2.0

/// Settings that are the stored properties of a type, so that none can be forgotten in a list.
public protocol SettingTable: Sendable {}

extension SettingTable {
    /// The settings in the order in which they are declared; a nested table's settings come in its place.
    public var definitions: [SettingDefinition] {
        Mirror(reflecting: self).children
            .flatMap { child in
                switch child.value {
                case let setting as any DefinedSetting: [setting.definition]
                case let table as any SettingTable: table.definitions
                default: [] as [SettingDefinition]
                }
            }
    }
}

/// A setting of any type.
protocol DefinedSetting {
    var definition: SettingDefinition { get }
}

extension Setting: DefinedSetting {}
