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

    private let flags: ConfigReader
    private let environment: ConfigReader
    private let file: ConfigReader?
    private let filePath: String?
    private let known: Set<String>

    /// Reads the layers.
    ///
    /// - Parameters:
    ///   - known: Every key that may stand in the file, such as `listen`.
    ///   - flags: Values that were given on the command line, by key; lists joined by semicolons.
    ///   - environment: The process environment; only `SWITCHYARD_*` is looked at.
    ///   - file: Path of a JSON file, or nil for none.
    /// - Throws: ``Failure`` for a file that cannot be read or has an unknown key.
    public init(
        known: some Sequence<String>,
        flags: [String: String],
        environment: [String: String],
        file: String?
    ) async throws {
        self.known = Set(known)
        let flagVariables = Dictionary(uniqueKeysWithValues: flags.map { (Self.variable($0.key), $0.value) })
        self.flags = Self.reader(EnvironmentVariablesProvider(environmentVariables: flagVariables, arraySeparator: ";"))
        self.environment = Self.reader(
            EnvironmentVariablesProvider(environmentVariables: environment, arraySeparator: ";")
        )
        self.filePath = file
        guard let file else {
            self.file = nil
            return
        }
        try Self.refuseUnknownKeys(in: file, known: self.known)
        do {
            self.file = ConfigReader(provider: try await FileProvider<JSONSnapshot>(filePath: FilePath(file)))
        } catch {
            throw Failure("\(file): not a readable JSON configuration file: \(error)")
        }
    }

    /// A text, or nil where no layer sets it.
    ///
    /// - Parameter key: The setting's key.
    /// - Returns: The value of the first layer that has one.
    /// - Throws: ``Failure`` for a value of another type.
    public func string(_ key: String) throws -> String? {
        try self.value(key, type: "a text") { reader, key in try reader.requiredString(forKey: key) }
    }

    /// Texts, or nil where no layer sets them.
    ///
    /// - Parameter key: The setting's key.
    /// - Returns: The values of the first layer that has some.
    /// - Throws: ``Failure`` for a value of another type.
    public func strings(_ key: String) throws -> [String]? {
        try self.value(key, type: "a list of texts") { reader, key in
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
        try self.value(key, type: "true or false") { reader, key in try reader.requiredBool(forKey: key) } ?? false
    }

    /// The name of a key's environment variable: `listen` is `SWITCHYARD_LISTEN`.
    ///
    /// - Parameter key: The setting's key.
    /// - Returns: The variable's name.
    public static func variable(_ key: String) -> String {
        "SWITCHYARD_" + key.uppercased().replacingOccurrences(of: "-", with: "_")
    }

    private static func reader(_ provider: EnvironmentVariablesProvider) -> ConfigReader {
        ConfigReader(provider: provider)
    }

    /// Asks the layers in order; a layer that has the key decides, also where its value is wrong.
    private func value<Value>(
        _ key: String,
        type: String,
        _ read: (ConfigReader, ConfigKey) throws -> Value
    ) throws -> Value? {
        precondition(self.known.contains(key), "the setting \(key) is read but not declared")
        let variable = ConfigKey(["switchyard"] + key.split(separator: "-").map(String.init))
        var layers: [(name: String, reader: ConfigReader, key: ConfigKey)] = [
            ("the flag --\(key)", self.flags, variable),
            ("the environment variable \(Self.variable(key))", self.environment, variable),
        ]
        if let file = self.file {
            layers.append(("\"\(key)\" in \(self.filePath ?? "the file")", file, ConfigKey([key])))
        }
        for layer in layers {
            do {
                return try read(layer.reader, layer.key)
            } catch {
                // A key that is absent is no error; the same key as a text tells the two apart.
                let isPresent =
                    layer.reader.string(forKey: layer.key) != nil || (layer.reader.int(forKey: layer.key) != nil)
                    || layer.reader.bool(forKey: layer.key) != nil
                    || layer.reader.stringArray(forKey: layer.key) != nil
                    || layer.reader.double(forKey: layer.key) != nil
                guard isPresent else { continue }
                let given = layer.reader.string(forKey: layer.key).map { " and not \"\($0)\"" } ?? ""
                throw Failure("\(layer.name) must be \(type)\(given)")
            }
        }
        return nil
    }

    private static func refuseUnknownKeys(in file: String, known: Set<String>) throws {
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
            )
        }
    }
}
