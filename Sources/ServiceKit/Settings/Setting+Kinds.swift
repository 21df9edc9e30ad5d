// SPDX-License-Identifier: Apache-2.0

// MARK: - Texts

extension Setting where Value == String? {
    /// A text, with or without a default.
    ///
    /// - Parameters:
    ///   - key: The key.
    ///   - defaultValue: The value if it is not set.
    ///   - defaultInWords: The default in words, where it depends on the machine.
    ///   - placeholder: The value's placeholder in a flag's help.
    ///   - see: The heading in `docs/operations.md` with details.
    ///   - isSecret: Whether no message may show the value.
    ///   - help: What it does.
    /// - Returns: The setting.
    public static func text(
        _ key: String,
        default defaultValue: String? = nil,
        defaultInWords: String? = nil,
        placeholder: String? = nil,
        see: String? = nil,
        isSecret: Bool = false,
        _ help: String
    ) -> Setting {
        let definition = SettingDefinition(
            key,
            .text,
            allowed: "a text",
            defaults: defaultValue.map { [$0] } ?? [],
            defaultInWords: defaultInWords,
            placeholder: placeholder,
            see: see,
            isSecret: isSecret,
            help: help
        )
        return Setting(definition, defaultValue: defaultValue) { try $0.text }
    }
}

extension Setting {
    /// A text in a format of its own, such as an address.
    ///
    /// - Parameters:
    ///   - key: The key.
    ///   - defaultValue: The value if it is not set.
    ///   - written: The default as people would write it; nil if there is none.
    ///   - defaultInWords: The default in words, where it depends on the service.
    ///   - allowed: What a value must be, as the end of a sentence.
    ///   - range: The same for tables.
    ///   - placeholder: The value's placeholder in a flag's help.
    ///   - see: The heading in `docs/operations.md` with details.
    ///   - help: What it does.
    ///   - parse: Reads a text; nil or an error if it does not have this format.
    /// - Returns: The setting.
    public static func parsed(
        _ key: String,
        default defaultValue: Value,
        written: String?,
        defaultInWords: String? = nil,
        allowed: String,
        range: String,
        placeholder: String? = nil,
        see: String? = nil,
        _ help: String,
        parse: @escaping @Sendable (String) throws -> Value?
    ) -> Setting {
        let definition = SettingDefinition(
            key,
            .text,
            allowed: allowed,
            range: range,
            defaults: written.map { [$0] } ?? [],
            defaultInWords: defaultInWords,
            placeholder: placeholder,
            see: see,
            help: help
        )
        return Setting(definition, defaultValue: defaultValue) { try Self.checked(try $0.text, parse) }
    }

    /// One of several words.
    ///
    /// - Parameters:
    ///   - key: The key.
    ///   - values: What it may be.
    ///   - defaultValue: The value if it is not set.
    ///   - name: A value's word.
    ///   - placeholder: The value's placeholder in a flag's help.
    ///   - see: The heading in `docs/operations.md` with details.
    ///   - help: What it does.
    /// - Returns: The setting.
    public static func choice(
        _ key: String,
        of values: [Value],
        default defaultValue: Value,
        name: (Value) -> String,
        placeholder: String? = nil,
        see: String? = nil,
        _ help: String
    ) -> Setting {
        let names = values.map { name($0) }
        let range =
            names.count > 1 ? "\(names.dropLast().joined(separator: ", ")) or \(names.last ?? "")" : names.joined()
        return .parsed(
            key,
            default: defaultValue,
            written: name(defaultValue),
            allowed: range,
            range: range,
            placeholder: placeholder,
            see: see,
            help
        ) { text in names.firstIndex(of: text).map { values[$0] } }
    }

    /// Reads a text, and turns its error into a problem of the setting.
    private static func checked<Result>(_ text: String, _ parse: (String) throws -> Result?) throws -> Result {
        let result: Result?
        do { result = try parse(text) } catch { throw SettingProblem(reason: "\(error)") }
        guard let result else { throw SettingProblem.notAllowed }
        return result
    }

    /// Several texts in a format of their own.
    ///
    /// - Parameters:
    ///   - key: The key.
    ///   - allowed: What each must be, as the end of a sentence.
    ///   - range: The same for tables.
    ///   - placeholder: A value's placeholder in a flag's help.
    ///   - see: The heading in `docs/operations.md` with details.
    ///   - help: What they do.
    ///   - parse: Reads one; nil or an error if it does not have this format.
    /// - Returns: The setting; it has no elements if it is not set.
    public static func list<Element: Sendable>(
        _ key: String,
        allowed: String,
        range: String = "",
        placeholder: String? = nil,
        see: String? = nil,
        _ help: String,
        parse: @escaping @Sendable (String) throws -> Element?
    ) -> Setting where Value == [Element] {
        let definition = SettingDefinition(
            key,
            .list,
            allowed: allowed,
            range: range,
            placeholder: placeholder,
            see: see,
            help: help
        )
        return Setting(definition, defaultValue: []) { input in
            guard case .list(let texts) = input else { throw SettingProblem.notAllowed }
            return try texts.map { try Self.checked($0, parse) }
        }
    }
}

extension Setting where Value == [String] {
    /// Several texts.
    ///
    /// - Parameters:
    ///   - key: The key.
    ///   - placeholder: A value's placeholder in a flag's help.
    ///   - see: The heading in `docs/operations.md` with details.
    ///   - help: What they do.
    /// - Returns: The setting; it has no elements if it is not set.
    public static func texts(
        _ key: String,
        placeholder: String? = nil,
        see: String? = nil,
        _ help: String
    ) -> Setting {
        .list(key, allowed: "a list of strings", placeholder: placeholder, see: see, help) { $0 }
    }
}

// MARK: - Numbers and switches

extension Setting where Value == Int {
    /// A whole number.
    ///
    /// - Parameters:
    ///   - key: The key.
    ///   - range: What it may be.
    ///   - defaultValue: The value if it is not set.
    ///   - defaultInWords: The default in words, where it depends on the machine.
    ///   - placeholder: The value's placeholder in a flag's help.
    ///   - see: The heading in `docs/operations.md` with details.
    ///   - help: What it does.
    /// - Returns: The setting.
    public static func whole(
        _ key: String,
        in range: ClosedRange<Int>,
        default defaultValue: Int,
        defaultInWords: String? = nil,
        placeholder: String? = nil,
        see: String? = nil,
        _ help: String
    ) -> Setting {
        let definition = SettingDefinition(
            key,
            .whole,
            allowed: "a whole number from \(range.lowerBound) to \(range.upperBound)",
            range: "\(range.lowerBound) to \(range.upperBound)",
            defaults: ["\(defaultValue)"],
            defaultInWords: defaultInWords,
            placeholder: placeholder,
            see: see,
            help: help
        )
        var setting = Setting(definition, defaultValue: defaultValue) { try $0.whole(in: range) }
        setting.isAllowed = { range.contains($0) }
        return setting
    }
}

extension Setting where Value == Int? {
    /// A whole number whose default depends on where it is used.
    ///
    /// - Parameters:
    ///   - key: The key.
    ///   - range: What it may be.
    ///   - defaultInWords: The defaults.
    ///   - help: What it does.
    /// - Returns: The setting; it is nil if it is not set.
    public static func whole(
        _ key: String,
        in range: ClosedRange<Int>,
        defaultInWords: String,
        _ help: String
    ) -> Setting {
        let definition = SettingDefinition(
            key,
            .whole,
            allowed: "a whole number from \(range.lowerBound) to \(range.upperBound)",
            range: "\(range.lowerBound) to \(range.upperBound)",
            defaultInWords: defaultInWords,
            help: help
        )
        return Setting(definition, defaultValue: nil) { try $0.whole(in: range) }
    }
}

extension Setting where Value == Double {
    /// A number, or 0 for off.
    ///
    /// - Parameters:
    ///   - key: The key.
    ///   - range: What it may be besides 0.
    ///   - placeholder: The value's placeholder in a flag's help.
    ///   - help: What it does.
    /// - Returns: The setting; it is 0 if it is not set.
    public static func zeroOrNumber(
        _ key: String,
        in range: ClosedRange<Int>,
        placeholder: String? = nil,
        _ help: String
    ) -> Setting {
        let definition = SettingDefinition(
            key,
            .number,
            allowed: "0, or a number from \(range.lowerBound) to \(range.upperBound)",
            range: "0, or \(range.lowerBound) to \(range.upperBound)",
            defaults: ["0"],
            placeholder: placeholder,
            help: help
        )
        return Setting(definition, defaultValue: 0) { input in
            let bounds = Double(range.lowerBound)...Double(range.upperBound)
            guard case .number(let number) = input, number == 0 || bounds.contains(number) else {
                throw SettingProblem.notAllowed
            }
            return number
        }
    }
}

extension Setting where Value == Bool {
    /// A switch that is off by default.
    ///
    /// - Parameters:
    ///   - key: The key.
    ///   - see: The heading in `docs/operations.md` with details.
    ///   - help: What it does when it is on.
    /// - Returns: The setting.
    public static func toggle(_ key: String, see: String? = nil, _ help: String) -> Setting {
        let definition = SettingDefinition(
            key,
            .toggle,
            allowed: "true or false",
            range: "true or false",
            defaults: ["false"],
            see: see,
            help: help
        )
        return Setting(definition, defaultValue: false) { input in
            guard case .toggle(let isOn) = input else { throw SettingProblem.notAllowed }
            return isOn
        }
    }
}

// MARK: - Times

/// The unit of a time, named in the setting's key.
public enum SettingUnit: String, Sendable, CaseIterable {
    /// A millionth of a second.
    case microseconds = "us"
    /// A thousandth of a second.
    case milliseconds = "ms"
    /// A second.
    case seconds

    /// A number of them.
    func duration(_ count: Int) -> Duration {
        switch self {
        case .microseconds: .microseconds(count)
        case .milliseconds: .milliseconds(count)
        case .seconds: .seconds(count)
        }
    }
}

extension Setting where Value == Duration {
    /// A time in whole units.
    ///
    /// - Parameters:
    ///   - key: The key, which names the unit.
    ///   - unit: The unit.
    ///   - range: The allowed numbers.
    ///   - defaultValue: The number if it is not set.
    ///   - help: What it does.
    /// - Returns: The setting.
    public static func time(
        _ key: String,
        _ unit: SettingUnit,
        in range: ClosedRange<Int>,
        default defaultValue: Int,
        _ help: String
    ) -> Setting {
        let definition = SettingDefinition(
            key,
            .whole,
            allowed: "a whole number of \(unit) from \(range.lowerBound) to \(range.upperBound)",
            range: "\(range.lowerBound) to \(range.upperBound) \(unit.rawValue)",
            defaults: ["\(defaultValue)"],
            placeholder: unit.rawValue,
            help: help
        )
        var setting = Setting(definition, defaultValue: unit.duration(defaultValue)) {
            unit.duration(try $0.whole(in: range))
        }
        setting.isAllowed = { (unit.duration(range.lowerBound)...unit.duration(range.upperBound)).contains($0) }
        return setting
    }
}

extension SettingInput {
    fileprivate var text: String {
        get throws(SettingProblem) {
            guard case .text(let text) = self else { throw SettingProblem.notAllowed }
            return text
        }
    }

    fileprivate func whole(in range: ClosedRange<Int>) throws(SettingProblem) -> Int {
        guard case .whole(let number) = self, range.contains(number) else { throw SettingProblem.notAllowed }
        return number
    }
}
