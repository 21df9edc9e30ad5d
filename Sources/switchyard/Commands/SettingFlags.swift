// SPDX-License-Identifier: Apache-2.0

import ArgumentParser
import ServiceKit

extension Option where Value == String? {
    /// The flag of a setting, whose name and help come from its definition.
    ///
    /// - Parameters:
    ///   - setting: The setting.
    ///   - namesVariable: Whether the help mentions the environment variable.
    init<Result>(_ setting: Setting<Result>, namesVariable: Bool = false) {
        self.init(
            name: .customLong(setting.key),
            help: ArgumentHelp(
                "\(setting.definition.flagHelp(namesVariable: namesVariable))",
                valueName: setting.definition.placeholder
            )
        )
    }
}

extension Option where Value == [String] {
    /// The flag of a setting that may be given several times.
    ///
    /// - Parameters:
    ///   - wrappedValue: No values.
    ///   - setting: The setting.
    init<Result>(wrappedValue: [String], _ setting: Setting<Result>) {
        self.init(
            wrappedValue: wrappedValue,
            name: .customLong(setting.key),
            help: ArgumentHelp("\(setting.definition.flagHelp())", valueName: setting.definition.placeholder)
        )
    }
}

extension Flag where Value == Bool {
    /// The flag of a switch.
    ///
    /// - Parameters:
    ///   - wrappedValue: Off.
    ///   - setting: The setting.
    ///   - namesVariable: Whether the help mentions the environment variable.
    init(wrappedValue: Bool, _ setting: Setting<Bool>, namesVariable: Bool = false) {
        self.init(
            wrappedValue: wrappedValue,
            name: .customLong(setting.key),
            help: "\(setting.definition.flagHelp(namesVariable: namesVariable))"
        )
    }
}

/// The flags of a command that are settings.
enum SettingFlags {
    /// The values from the command line, by key; lists joined by `Settings.join`.
    ///
    /// The property `queueLimit` is the setting `queue-limit`: a test compares the properties of every command with its
    /// settings.
    ///
    /// - Parameter command: A parsed command, including its groups.
    /// - Returns: The values that were given.
    static func given(by command: Any) -> [String: String] {
        self.all(of: command).compactMapValues { $0 }
    }

    /// Every flag that could be a setting's, with its value; nil if it was not given.
    ///
    /// - Parameter command: A command that was parsed.
    /// - Returns: The values by key.
    static func all(of command: Any) -> [String: String?] {
        var flags: [String: String?] = [:]
        for child in Mirror(reflecting: command).children {
            let key = self.key(child.label ?? "")
            switch child.value {
            case let option as Option<String?>: flags.updateValue(option.wrappedValue, forKey: key)
            case let option as Option<[String]>:
                let values = option.wrappedValue
                flags.updateValue(values.isEmpty ? nil : Settings.join(values), forKey: key)
            case let flag as Flag<Bool>: flags.updateValue(flag.wrappedValue ? "true" : nil, forKey: key)
            case let group as any FlagGroup: flags.merge(self.all(of: group.flags)) { own, _ in own }
            default: break
            }
        }
        return flags
    }

    /// The key of a wrapped property: `queue-limit` for `_queueLimit`.
    private static func key(_ label: String) -> String {
        label.drop { $0 == "_" }.map { $0.isUppercase ? "-\($0.lowercased())" : "\($0)" }.joined()
    }
}

/// A group of flags of any type.
private protocol FlagGroup {
    var flags: Any { get }
}

extension OptionGroup: FlagGroup {
    fileprivate var flags: Any { self.wrappedValue }
}
