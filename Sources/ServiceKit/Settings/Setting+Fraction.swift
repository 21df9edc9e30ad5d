// SPDX-License-Identifier: Apache-2.0

extension Setting where Value == Float {
    /// A fraction, from 0 to 1.
    ///
    /// - Parameters:
    ///   - key: The key.
    ///   - defaultValue: The value if it is not set.
    ///   - help: What it does.
    /// - Returns: The setting.
    public static func fraction(_ key: String, default defaultValue: Float, _ help: String) -> Setting {
        let definition = SettingDefinition(
            key,
            .number,
            allowed: "a number from 0 to 1",
            range: "0 to 1",
            defaults: ["\(defaultValue)"],
            placeholder: "fraction",
            help: help
        )
        var setting = Setting(definition, defaultValue: defaultValue) { input in
            guard case .number(let number) = input, (0...1).contains(number) else { throw SettingProblem.notAllowed }
            return Float(number)
        }
        setting.isAllowed = { (0...1).contains($0) }
        return setting
    }
}

extension Setting where Value == Double {
    /// A number.
    ///
    /// - Parameters:
    ///   - key: The key.
    ///   - range: What it may be.
    ///   - defaultValue: The value if it is not set.
    ///   - see: The heading in `docs/operations.md` with details.
    ///   - help: What it does.
    /// - Returns: The setting.
    public static func number(
        _ key: String,
        in range: ClosedRange<Double>,
        default defaultValue: Double,
        see: String? = nil,
        _ help: String
    ) -> Setting {
        let (low, high) = (NumberText.short(range.lowerBound), NumberText.short(range.upperBound))
        let definition = SettingDefinition(
            key,
            .number,
            allowed: "a number from \(low) to \(high)",
            range: "\(low) to \(high)",
            defaults: [NumberText.short(defaultValue)],
            placeholder: "number",
            see: see,
            help: help
        )
        var setting = Setting(definition, defaultValue: defaultValue) { try $0.number(in: range) }
        setting.isAllowed = { range.contains($0) }
        return setting
    }
}

extension Setting where Value == Double? {
    /// A number whose default depends on where it is used.
    ///
    /// - Parameters:
    ///   - key: The key.
    ///   - range: What it may be.
    ///   - defaultInWords: The defaults.
    ///   - placeholder: The value's placeholder in a flag's help.
    ///   - help: What it does.
    /// - Returns: The setting; it is nil if it is not set.
    public static func number(
        _ key: String,
        in range: ClosedRange<Double>,
        defaultInWords: String?,
        placeholder: String = "number",
        _ help: String
    ) -> Setting {
        let (low, high) = (NumberText.short(range.lowerBound), NumberText.short(range.upperBound))
        let definition = SettingDefinition(
            key,
            .number,
            allowed: "a number from \(low) to \(high)",
            range: "\(low) to \(high)",
            defaultInWords: defaultInWords,
            placeholder: placeholder,
            help: help
        )
        return Setting(definition, defaultValue: nil) { try $0.number(in: range) }
    }
}

extension SettingInput {
    fileprivate func number(in range: ClosedRange<Double>) throws(SettingProblem) -> Double {
        guard case .number(let number) = self, range.contains(number) else { throw SettingProblem.notAllowed }
        return number
    }
}

/// Numbers as people write them.
private enum NumberText {
    /// A number without a fraction that is zero.
    static func short(_ number: Double) -> String {
        number == number.rounded() && abs(number) < 1e15 ? "\(Int(number))" : "\(number)"
    }
}
