// SPDX-License-Identifier: Apache-2.0

/// A setting: its key, range, default and purpose, written down once.
///
/// Its flag, its environment variable, its key in a configuration file, what `switchyard config` prints and its row in
/// `docs/operations.md` are all made from it.
public struct Setting<Value: Sendable>: Sendable {
    /// Its description for people.
    public let definition: SettingDefinition
    /// The value if it is not set.
    public let defaultValue: Value
    /// Makes a value from the input; throws ``SettingProblem`` if it is not allowed.
    let parse: @Sendable (SettingInput) throws -> Value
    /// Whether a value chosen by a program is one that people may set.
    var isAllowed: @Sendable (Value) -> Bool = { _ in true }

    /// Defines a setting.
    ///
    /// - Parameters:
    ///   - definition: Its description for people.
    ///   - defaultValue: The value if it is not set.
    ///   - parse: Makes a value from the input; throws if it is not allowed.
    init(
        _ definition: SettingDefinition,
        defaultValue: Value,
        parse: @escaping @Sendable (SettingInput) throws -> Value
    ) {
        self.definition = definition
        self.defaultValue = defaultValue
        self.parse = parse
    }

    /// The key, such as `queue-limit`.
    public var key: String { self.definition.key }

    /// What is wrong with a value that a program set directly.
    ///
    /// - Parameter value: The value.
    /// - Returns: A sentence with the key, the value and what is allowed; nil if the value may be used.
    public func problem(with value: Value) -> String? {
        self.isAllowed(value) ? nil : "\(self.key) is \(value); it must be \(self.definition.allowed)"
    }
}

/// A value as given by a flag, an environment variable or a file.
public enum SettingInput: Sendable, Hashable {
    /// A text.
    case text(String)
    /// Several texts.
    case list([String])
    /// A whole number.
    case whole(Int)
    /// A number.
    case number(Double)
    /// On or off.
    case toggle(Bool)
}

/// Why a value is not allowed.
struct SettingProblem: Error {
    /// The reason; nil if ``SettingDefinition/allowed`` says enough.
    var reason: String?

    /// The value is not allowed.
    static let notAllowed = SettingProblem(reason: nil)
}

/// A setting's description for people.
public struct SettingDefinition: Sendable, Hashable {
    /// How a value is written.
    public enum Kind: Sendable, Hashable {
        /// As a text.
        case text
        /// As a list: an array in a file, separated by semicolons elsewhere, see ``Settings/parts(of:)``.
        case list
        /// As a whole number.
        case whole
        /// As a number.
        case number
        /// As `true` or `false`; a flag without a value.
        case toggle
    }

    /// The key, such as `queue-limit`.
    public let key: String
    /// How a value is written.
    public let kind: Kind
    /// What a value must be, as the end of a sentence: "a whole number from 1 to 4096".
    public let allowed: String
    /// The same for tables: "1 to 4096"; empty where any text will do.
    public let range: String
    /// The default as people would write it, in parts; empty if there is none.
    public let defaults: [String]
    /// The default in words, where it depends on the machine or the service.
    public let defaultInWords: String?
    /// What it does: short sentences.
    public let help: String
    /// The value's placeholder in a flag's help, such as `file`.
    public let placeholder: String?
    /// The heading in `docs/operations.md` with details.
    public let see: String?
    /// Whether no message may show the value.
    public let isSecret: Bool

    init(
        _ key: String,
        _ kind: Kind,
        allowed: String,
        range: String = "",
        defaults: [String] = [],
        defaultInWords: String? = nil,
        placeholder: String? = nil,
        see: String? = nil,
        isSecret: Bool = false,
        help: String
    ) {
        self.key = key
        self.kind = kind
        self.allowed = allowed
        self.range = range
        self.defaults = defaults
        self.defaultInWords = defaultInWords
        self.placeholder = placeholder
        self.see = see
        self.isSecret = isSecret
        self.help = help
    }

    /// Its environment variable: `SWITCHYARD_QUEUE_LIMIT` for `queue-limit`.
    public var variable: String { Settings.variable(self.key) }

    /// The default as people would write it, or in words; nil if there is none.
    public var shownDefault: String? {
        if let words = self.defaultInWords { return words }
        if self.kind == .toggle { return "off" }
        return self.defaults.isEmpty ? nil : self.defaults.joined(separator: "; ")
    }

    /// The help of its flag: purpose, range and default.
    ///
    /// - Parameter namesVariable: Whether to mention the environment variable.
    /// - Returns: One paragraph.
    public func flagHelp(namesVariable: Bool = false) -> String {
        var facts: [String] = []
        if !self.range.isEmpty, self.kind != .toggle { facts.append(self.range) }
        if let value = self.shownDefault, self.kind != .toggle { facts.append("default: \(value)") }
        if namesVariable { facts.append("or \(self.variable)\(self.kind == .toggle ? "=true" : "")") }
        return facts.isEmpty ? self.help : "\(self.help) (\(facts.joined(separator: "; ")))"
    }

    /// The setting as a row of a Markdown table: key, default, range and purpose.
    public var markdownRow: [String] {
        let isWords = self.defaultInWords != nil || self.kind == .toggle || self.kind == .whole
        let value = self.shownDefault.map { isWords ? $0 : "`\($0)`" } ?? ""
        let more = self.see.map { see in
            let anchor = see.lowercased().filter { $0.isLetter || $0 == " " || $0 == "-" }
            return " See [\(see.lowercased())](#\(anchor.split(separator: " ").joined(separator: "-")))."
        }
        return ["`\(self.key)`", value, self.kind == .toggle ? "" : self.range, self.help + (more ?? "")]
    }
}
