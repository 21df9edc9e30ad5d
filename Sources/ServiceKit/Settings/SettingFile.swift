// SPDX-License-Identifier: Apache-2.0

import Foundation

/// A configuration file: its keys, their values and lines.
package struct SettingFile {
    /// The values as written, by key.
    package let values: [String: String]
    /// Lines by key.
    package let lines: [String: Int]

    /// Reads a file and checks its keys.
    ///
    /// - Parameters:
    ///   - path: Where it is.
    ///   - known: Keys that the command has.
    ///   - elsewhere: Keys that other commands have.
    /// - Throws: ``Settings/Failure`` naming the file, the line and what is wrong.
    package init(_ path: String, known: Set<String>, elsewhere: Set<String>) throws(Settings.Failure) {
        let data: Data
        do {
            data = try Data(contentsOf: URL(fileURLWithPath: path))
        } catch {
            throw Settings.Failure("\(path): cannot read the configuration file: \(error.localizedDescription)")
        }
        guard let object = try? JSONSerialization.jsonObject(with: data) as? [String: Any] else {
            throw Settings.Failure(
                "\(path): the configuration file must be one JSON object, such as {\"listen\": \"0.0.0.0:7400\"}"
            )
        }
        var lines: [String: Int] = [:]
        for (key, line) in JSONKeys.find(in: data) {
            if let first = lines.updateValue(line, forKey: key) {
                throw Settings.Failure("\(path): \"\(key)\" is set twice, in lines \(first) and \(line); remove one")
            }
        }
        self.lines = lines
        let unknown = object.keys.filter { !known.contains($0) }.sorted { (lines[$0] ?? 0, $0) < (lines[$1] ?? 0, $1) }
        guard unknown.isEmpty else {
            let named = unknown.map { key in
                let place = lines[key].map { " in line \($0)" } ?? ""
                guard !elsewhere.contains(key) else { return "\(key)\(place) (a setting of another command)" }
                return "\(key)\(place)\(SettingNames.suggestion(key, among: known))"
            }
            throw Settings.Failure(
                "\(path): unknown setting\(unknown.count > 1 ? "s" : "") \(named.joined(separator: ", ")); "
                    + "this command's settings are \(known.sorted().joined(separator: ", "))"
            )
        }
        for (key, value) in object.sorted(by: { $0.key < $1.key }) where value is NSNull || value is [String: Any] {
            throw Settings.Failure(
                "\(path)\(lines[key].map { ", line \($0)" } ?? ""): \"\(key)\" must be a string, a number, true, false "
                    + "or a list; leave the key out to use its default"
            )
        }
        self.values = object.mapValues { $0 is String ? "\"\($0)\"" : "\($0)" }
    }
}
