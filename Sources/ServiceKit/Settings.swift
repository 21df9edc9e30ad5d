// SPDX-License-Identifier: Apache-2.0

import Configuration
import Foundation
import SystemPackage

/// What is set for a process, from four layers: flags over environment over file over defaults.
///
/// A key is written `layer-deadline-ms` as a flag (`--layer-deadline-ms`), `SWITCHYARD_LAYER_DEADLINE_MS` in the
/// environment and `"layer-deadline-ms"` in a JSON file. A list is separated by semicolons in the environment and is an
/// array in the file. Defaults are named where a value is read.
public struct Settings: Sendable {
    /// A setting that cannot be used, with its key, its value and what is allowed.
    public struct Failure: Error, CustomStringConvertible {
        /// The whole message.
        public var description: String

        /// Creates a failure.
        ///
        /// - Parameter description: The whole message.
        public init(_ description: String) {
            self.description = description
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
        /// Nowhere: no layer sets it.
        case standard
    }

    /// One layer: where values come from, and how they are named there.
    private struct Layer: Sendable {
        var reader: ConfigReader
        /// Where a key's value comes from, if it is this layer's.
        var source: @Sendable (_ key: String) -> Source
        /// What the layer sets: the keys, with their values as people wrote them.
        var values: [String: String]
        /// What a key is called in messages.
        var name: @Sendable (_ key: String) -> String
        /// What a key is called in the reader.
        var configKey: @Sendable (_ key: String) -> ConfigKey
    }

    /// Keys whose values no message shows.
    private static let secretKeys: Set<String> = ["token"]

    private let layers: [Layer]
    private let known: Set<String>
    private let defaults = SettingDefaults()

    /// Reads the layers.
    ///
    /// - Parameters:
    ///   - known: Every key that may stand in the file, such as `listen`.
    ///   - elsewhere: Keys of other commands, whose variables may be in the environment too.
    ///   - flags: Values that were given on the command line, by key; lists joined by semicolons.
    ///   - environment: The process environment; only `SWITCHYARD_*` is looked at. A variable that is empty is not set, so
    ///     that a compose file may pass on what nobody set.
    ///   - file: Path of a JSON file, or nil for none.
    /// - Throws: ``Failure`` for a file that cannot be read, has an unknown key, or a value that is no text, number, switch
    ///   or list of one kind of them, and for a variable that is no setting of any command.
    public init(
        known: some Sequence<String>,
        elsewhere: some Sequence<String> = [],
        flags: [String: String],
        environment: [String: String],
        file: String?
    ) async throws {
        let known = Set(known)
        try SettingNames.check(environment, known: known, elsewhere: Set(elsewhere))
        var variables: [String: String] = [:]
        for key in known {
            if let value = environment[Self.variable(key)], !value.isEmpty { variables[key] = value }
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
        if let file { layers.append(try await Self.fileLayer(file, known: known)) }
        self.layers = layers
    }

    /// A text, or nil where no layer sets it.
    ///
    /// - Parameter key: The setting's key.
    /// - Returns: The value of the first layer that has one.
    /// - Throws: ``Failure`` for a value of another type.
    public func string(_ key: String) throws -> String? {
        try self.value(key, type: "a text") { reader, key in try reader.requiredString(forKey: key) }
    }

    /// A text, or the default where no layer sets it.
    ///
    /// - Parameters:
    ///   - key: The setting's key.
    ///   - default: The value where no layer sets it.
    /// - Returns: The text.
    /// - Throws: ``Failure`` for a value of another type.
    public func string(_ key: String, default: String) throws -> String {
        self.defaults.note(key, `default`)
        return try self.string(key) ?? `default`
    }

    /// Texts, or nil where no layer sets them.
    ///
    /// - Parameter key: The setting's key.
    /// - Returns: The values of the first layer that has some.
    /// - Throws: ``Failure`` for a value of another type.
    public func strings(_ key: String) throws -> [String]? {
        self.defaults.noteList(key)
        return try self.value(key, type: "a list of texts") { reader, key in
            try reader.requiredStringArray(forKey: key)
        }?
        .map { $0.trimmingCharacters(in: .whitespaces) }.filter { !$0.isEmpty }
    }

    /// A whole number, or the default where no layer sets it.
    ///
    /// - Parameters:
    ///   - key: The setting's key.
    ///   - range: The numbers that are allowed.
    ///   - default: The value where no layer sets it.
    /// - Returns: The number.
    /// - Throws: ``Failure`` for another type, or a number out of range.
    public func int(_ key: String, in range: ClosedRange<Int>, default: Int) throws -> Int {
        self.defaults.note(key, "\(`default`)")
        let number = try self.value(key, type: "a whole number") { reader, key in try reader.requiredInt(forKey: key) }
        guard let number else { return `default` }
        guard range.contains(number) else {
            throw Failure(
                "\(key) is \(number), but must be from \(range.lowerBound) to \(range.upperBound) "
                    + "(--\(key) or \(Self.variable(key)))"
            )
        }
        return number
    }

    /// A number, or the default where no layer sets it.
    ///
    /// - Parameters:
    ///   - key: The setting's key.
    ///   - range: The numbers that are allowed.
    ///   - default: The value where no layer sets it.
    /// - Returns: The number.
    /// - Throws: ``Failure`` for another type, or a number out of range.
    public func double(_ key: String, in range: ClosedRange<Double>, default: Double) throws -> Double {
        self.defaults.note(key, "\(`default`)")
        let number = try self.value(key, type: "a number") { reader, key in try reader.requiredDouble(forKey: key) }
        guard let number else { return `default` }
        guard range.contains(number) else {
            throw Failure(
                "\(key) is \(number), but must be from \(range.lowerBound) to \(range.upperBound) "
                    + "(--\(key) or \(Self.variable(key)))"
            )
        }
        return number
    }

    /// A switch, off where no layer sets it.
    ///
    /// - Parameter key: The setting's key.
    /// - Returns: Whether it is on.
    /// - Throws: ``Failure`` for a value that is neither true nor false.
    public func bool(_ key: String) throws -> Bool {
        self.defaults.note(key, "false")
        return try self.value(key, type: "true or false") { reader, key in try reader.requiredBool(forKey: key) }
            ?? false
    }

    /// The name of a key's environment variable: `listen` is `SWITCHYARD_LISTEN`.
    ///
    /// - Parameter key: The setting's key.
    /// - Returns: The variable's name.
    public static func variable(_ key: String) -> String {
        "SWITCHYARD_" + key.uppercased().replacingOccurrences(of: "-", with: "_")
    }

    /// What is in force for every key, by key, as far as it has been read; secrets are left out.
    public var inForce: [SettingInForce] {
        self.known.sorted()
            .map { key in
                guard let layer = self.layers.first(where: { $0.values[key] != nil }), let given = layer.values[key]
                else {
                    return SettingInForce(key: key, values: self.defaults.values(key), source: .standard)
                }
                guard !Self.secretKeys.contains(key) else {
                    return SettingInForce(key: key, values: ["***"], source: layer.source(key))
                }
                let text = given.hasPrefix("\"") ? String(given.dropFirst().dropLast()) : given
                let parts = self.defaults.isList(key) ? try? self.strings(key) : nil
                return SettingInForce(key: key, values: parts ?? [text], source: layer.source(key))
            }
    }

    /// Asks the layers in order; the first that sets the key decides, also where its value is wrong.
    private func value<Value>(
        _ key: String,
        type: String,
        _ read: (ConfigReader, ConfigKey) throws -> Value
    ) throws -> Value? {
        precondition(self.known.contains(key), "the setting \(key) is read but not declared")
        guard let layer = self.layers.first(where: { $0.values[key] != nil }), let given = layer.values[key] else {
            return nil
        }
        do {
            return try read(layer.reader, layer.configKey(key))
        } catch {
            let shown = Self.secretKeys.contains(key) ? "what it is" : given
            throw Failure("\(layer.name(key)) must be \(type), and not \(shown)")
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
            reader: ConfigReader(
                provider: EnvironmentVariablesProvider(environmentVariables: variables, arraySeparator: ";")
            ),
            source: source,
            values: values.mapValues { "\"\($0)\"" },
            name: name,
            configKey: { key in ConfigKey(["switchyard"] + key.split(separator: "-").map(String.init)) }
        )
    }

    private static func fileLayer(_ file: String, known: Set<String>) async throws -> Layer {
        let values = try Self.fileValues(file, known: known)
        do {
            return Layer(
                reader: ConfigReader(provider: try await FileProvider<JSONSnapshot>(filePath: FilePath(file))),
                source: { _ in .file(file) },
                values: values,
                name: { "\"\($0)\" in \(file)" },
                configKey: { ConfigKey([$0]) }
            )
        } catch {
            throw Failure("\(file): not a usable JSON configuration file: \(error)")
        }
    }

    /// The keys that a file sets, with their values as text for messages.
    private static func fileValues(_ file: String, known: Set<String>) throws -> [String: String] {
        let data: Data
        do {
            data = try Data(contentsOf: URL(fileURLWithPath: file))
        } catch {
            throw Failure("\(file): cannot read the configuration file: \(error.localizedDescription)")
        }
        guard let object = try? JSONSerialization.jsonObject(with: data) as? [String: Any] else {
            throw Failure(
                "\(file): the configuration file must be one JSON object, such as {\"listen\": \"0.0.0.0:7400\"}"
            )
        }
        let unknown = object.keys.filter { !known.contains($0) }.sorted()
        guard unknown.isEmpty else {
            throw Failure(
                "\(file): unknown key\(unknown.count > 1 ? "s" : "") \(unknown.joined(separator: ", ")); "
                    + "known are \(known.sorted().joined(separator: ", "))"
                    + SettingNames.suggestions(unknown, among: known) { $0 }
            )
        }
        for (key, value) in object.sorted(by: { $0.key < $1.key }) where value is NSNull || value is [String: Any] {
            throw Failure(
                "\(file): \"\(key)\" must be a text, a number, true, false or a list; leave the key out to use its default"
            )
        }
        return object.mapValues { $0 is String ? "\"\($0)\"" : "\($0)" }
    }
}
