// SPDX-License-Identifier: Apache-2.0

import Configuration
import Foundation
import SwitchyardTypes
import SystemPackage

/// A process's settings, from four layers: flags over environment over file over defaults.
///
/// A key is written `queue-limit` as a flag (`--queue-limit`), `SWITCHYARD_QUEUE_LIMIT` in the environment and
/// `"queue-limit"` in a JSON file. A list is separated by semicolons in the environment, where `\;` is a semicolon within
/// a value, and is an array in the file.
public struct Settings: Sendable {
    /// A setting that cannot be used, with its key, its value and what is allowed.
    public struct Failure: Error, CustomStringConvertible {
        /// The whole message.
        public var description: String

        /// Creates a failure.
        ///
        /// - Parameter description: The whole message.
        public init(_ description: String) {
            // It can quote a file of settings.
            self.description = ErrorText.shown(description)
        }
    }

    /// Where a value comes from.
    public enum Source: Sendable, Hashable {
        /// The command line.
        case flag
        /// The environment variable of this name.
        case environment(String)
        /// The configuration file at this path.
        case file(String)
        /// It is not set.
        case `default`
    }

    /// One layer: its values and their names.
    private struct Layer: Sendable {
        var reader: ConfigReader
        /// The source of a key's value, if it comes from this layer.
        var source: @Sendable (_ key: String) -> Source
        /// The layer's values as written, by key.
        var values: [String: String]
        /// A key's name in messages.
        var name: @Sendable (_ key: String) -> String
        /// The values of a list, if the layer writes lists as texts.
        var parts: (@Sendable (_ key: String) -> [String]?)?
        /// A key's name in the reader.
        var configKey: @Sendable (_ key: String) -> ConfigKey
    }

    private let layers: [Layer]
    private let known: [String: SettingDefinition]

    /// Reads the layers.
    ///
    /// - Parameters:
    ///   - known: Every setting of the command.
    ///   - elsewhere: Settings of other commands, whose variables may be in the environment too.
    ///   - flags: Values that were given on the command line, by key; lists joined by ``join(_:)``.
    ///   - environment: The process environment; only `SWITCHYARD_*` is read. An empty variable counts as not set, so
    ///     that a compose file may pass on unset ones.
    ///   - file: Path of a JSON file, or nil for none.
    /// - Throws: ``Failure`` for a file that cannot be read, has an unknown key, a key twice, or a value that is not
    ///   a string, number, switch or list of one of these kinds, and for a variable that is not a setting of any
    ///   command.
    public init(
        known: some Sequence<SettingDefinition>,
        elsewhere: some Sequence<SettingDefinition> = [],
        flags: [String: String],
        environment: [String: String],
        file: String?
    ) async throws {
        let known = Dictionary(known.map { ($0.key, $0) }) { first, _ in first }
        let others = Set(elsewhere.map(\.key)).subtracting(known.keys)
        try SettingNames.check(environment, keys: others.union(known.keys))
        var variables: [String: String] = [:]
        for key in known.keys {
            guard let value = environment[Self.variable(key)], !value.isEmpty else { continue }
            try Self.refuseQuotes(in: value, of: Self.variable(key))
            variables[key] = value
        }
        self.known = known
        var layers = [
            Self.variableLayer(flags, source: { _ in .flag }, name: { "the flag --\($0)" }),
            Self.variableLayer(
                variables,
                source: { .environment(Self.variable($0)) },
                name: { "the environment variable \(Self.variable($0))" }
            ),
        ]
        if let file { layers.append(try await Self.fileLayer(file, known: Set(known.keys), elsewhere: others)) }
        self.layers = layers
    }

    /// The value of a setting: the first layer's that has one, otherwise the default.
    ///
    /// - Parameter setting: The setting.
    /// - Returns: The value.
    /// - Throws: ``Failure`` for a value that is not allowed, which names it, what is allowed, and where it was given; no
    ///   lower layer takes its place.
    public func value<Value>(_ setting: Setting<Value>) throws -> Value {
        precondition(self.known[setting.key] != nil, "the setting \(setting.key) is read but not declared")
        guard let (layer, given) = self.layer(of: setting.key) else { return setting.defaultValue }
        let definition = setting.definition
        let shown = definition.isSecret ? "a value that is not shown" : given
        let reason: String?
        do {
            return try setting.parse(try Self.input(definition, layer))
        } catch let problem as SettingProblem {
            reason = problem.reason
        } catch {
            reason = nil
        }
        let name = layer.name(setting.key)
        throw Failure("\(name) is \(shown)\(reason.map { ": \($0)" } ?? "; it must be \(definition.allowed)")")
    }

    /// Whether a layer sets a key, which overrides the default.
    ///
    /// - Parameter setting: The setting.
    /// - Returns: Whether it is set.
    public func isSet<Value>(_ setting: Setting<Value>) -> Bool { self.isSet(key: setting.key) }

    /// Whether any layer sets a setting.
    ///
    /// - Parameter key: The setting's key.
    /// - Returns: Whether it is set.
    public func isSet(key: String) -> Bool { self.layer(of: key) != nil }

    /// The name of a key's environment variable: `listen` is `SWITCHYARD_LISTEN`.
    ///
    /// - Parameter key: The setting's key.
    /// - Returns: The variable's name.
    public static func variable(_ key: String) -> String {
        "SWITCHYARD_" + key.uppercased().replacingOccurrences(of: "-", with: "_")
    }

    /// Every setting in force, by key; secrets are left out.
    public var inForce: [SettingInForce] {
        self.known.values.sorted { $0.key < $1.key }
            .map { definition in
                guard let (layer, given) = self.layer(of: definition.key) else {
                    return SettingInForce(definition: definition, values: definition.defaults, source: .default)
                }
                let source = layer.source(definition.key)
                guard !definition.isSecret else {
                    return SettingInForce(definition: definition, values: ["***"], source: source)
                }
                let text = given.hasPrefix("\"") ? String(given.dropFirst().dropLast()) : given
                if definition.kind == .list,
                    case .list(let parts) = try? Self.input(definition, layer)
                {
                    return SettingInForce(definition: definition, values: parts, source: source)
                }
                return SettingInForce(definition: definition, values: [text], source: source)
            }
    }

    // MARK: - Private

    /// The first layer that sets a key, with the value as written; it wins even if the value is wrong.
    private func layer(of key: String) -> (Layer, given: String)? {
        for layer in self.layers {
            if let given = layer.values[key] { return (layer, given) }
        }
        return nil
    }

    /// Reads a value of a setting's type.
    private static func input(_ definition: SettingDefinition, _ layer: Layer) throws -> SettingInput {
        let (reader, key) = (layer.reader, layer.configKey(definition.key))
        if definition.kind == .list, let parts = layer.parts?(definition.key) { return .list(parts) }
        return switch definition.kind {
        case .text: .text(try reader.requiredString(forKey: key))
        case .whole: .whole(try reader.requiredInt(forKey: key))
        case .number: .number(try reader.requiredDouble(forKey: key))
        case .toggle: .toggle(try reader.requiredBool(forKey: key))
        case .list:
            .list(
                try reader.requiredStringArray(forKey: key).map { $0.trimmingCharacters(in: .whitespaces) }
                    .filter { !$0.isEmpty }
            )
        }
    }

    /// A layer of texts by key, read as environment variables are.
    private static func variableLayer(
        _ values: [String: String],
        source: @escaping @Sendable (String) -> Source,
        name: @escaping @Sendable (String) -> String
    ) -> Layer {
        let variables = Dictionary(
            values.map { (Self.variable($0.key), $0.value) },
            uniquingKeysWith: { first, _ in first }
        )
        return Layer(
            reader: ConfigReader(provider: EnvironmentVariablesProvider(environmentVariables: variables)),
            source: source,
            values: values.mapValues { "\"\($0)\"" },
            name: name,
            parts: { key in values[key].map { Self.parts(of: $0) } },
            configKey: { key in ConfigKey(["switchyard"] + key.split(separator: "-").map(String.init)) }
        )
    }

    private static func fileLayer(_ path: String, known: Set<String>, elsewhere: Set<String>) async throws -> Layer {
        let file = try SettingFile(path, known: known, elsewhere: elsewhere)
        do {
            return Layer(
                reader: ConfigReader(provider: try await FileProvider<JSONSnapshot>(filePath: FilePath(path))),
                source: { _ in .file(path) },
                values: file.values,
                name: { "\"\($0)\" in \(path)\(file.lines[$0].map { ", line \($0)," } ?? "")" },
                configKey: { ConfigKey([$0]) }
            )
        } catch {
            throw Failure("\(path): not a usable JSON configuration file: \(error)")
        }
    }
}
