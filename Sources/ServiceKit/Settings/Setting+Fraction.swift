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
