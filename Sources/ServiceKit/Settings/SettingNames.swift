// SPDX-License-Identifier: Apache-2.0

/// The names of settings: finds unknown ones and suggests known ones.
enum SettingNames {
    private static let prefix = "SWITCHYARD_"

    /// Variables that are no settings: those of compose files, tests and development tools, and what forces kernels.
    private static let ofTheProject: Set<String> = [
        "AGREEMENT_POSITIONS", "ATTACK_REPORT", "BINARY", "CERTS", "FAULTS_INSIDE", "FULL_SHAPE", "FUZZ_TARGET",
        "IMAGE", "KERNELS",
        "LIBFUZZER_ARGUMENTS", "MODEL_FOLDER", "TEST_CONVERTER", "TEST_PYTHON",
    ]

    /// Variables with this prefix belong to the user and are never read.
    private static let free = "X_"

    /// Refuses variables that no command has as a setting: a misspelt one would have no effect.
    ///
    /// - Parameters:
    ///   - environment: The process's environment.
    ///   - keys: Keys of all commands.
    /// - Throws: ``Settings/Failure`` that names them all, each with the nearest name.
    static func check(_ environment: [String: String], keys: Set<String>) throws(Settings.Failure) {
        let variables = Set(keys.map { Settings.variable($0) })
        let unknown =
            environment.filter { name, value in
                guard name.hasPrefix(self.prefix), !value.isEmpty, !variables.contains(name) else { return false }
                let rest = String(name.dropFirst(self.prefix.count))
                return !self.ofTheProject.contains(rest) && !rest.hasPrefix(self.free)
                    && !self.isServiceLink(rest, value)
            }
            .keys.sorted()
        guard !unknown.isEmpty else { return }
        let named = unknown.map { "\($0)\(self.suggestion($0, among: variables))" }
        throw Settings.Failure(
            "unknown environment variable\(unknown.count > 1 ? "s" : "") \(named.joined(separator: ", ")): "
                + "no command has such a setting. Correct or unset \(unknown.count > 1 ? "them" : "it"); variables that "
                + "begin with \(self.prefix)\(self.free) are yours and never read"
        )
    }

    /// A suggestion, to follow the name in a message.
    ///
    /// - Parameters:
    ///   - word: An unknown name.
    ///   - names: The known names.
    /// - Returns: ` (did you mean NAME?)`; nothing if no name is near.
    static func suggestion(_ word: String, among names: Set<String>) -> String {
        self.nearest(word, among: names.sorted()).map { " (did you mean \($0)?)" } ?? ""
    }

    /// The name with the fewest edits, if those are no more than a third of it.
    private static func nearest(_ word: String, among names: [String]) -> String? {
        var best: (name: String, edits: Int)?
        // The prefix that all variables share does not count.
        let stem = word.hasPrefix(self.prefix) ? word.count - self.prefix.count : word.count
        for name in names {
            let edits = self.edits(Array(word.utf8.prefix(200)), Array(name.utf8))
            if edits < best?.edits ?? Int.max { best = (name, edits) }
        }
        guard let best, best.edits <= (stem < 4 ? 1 : max(2, stem / 3)) else { return nil }
        return best.name
    }

    /// The insertions, removals and replacements from one word to the other (Levenshtein distance, row by row).
    private static func edits(_ one: [UInt8], _ other: [UInt8]) -> Int {
        var row = Array(0...other.count)
        for (index, byte) in one.enumerated() {
            var diagonal = row[0]
            row[0] = index + 1
            for column in other.indices {
                let above = row[column + 1]
                row[column + 1] = min(
                    diagonal + (byte == other[column] ? 0 : 1),
                    min(above, row[column]) + 1
                )
                diagonal = above
            }
        }
        return row[other.count]
    }

    /// Whether Kubernetes made a variable: every pod has some for each service, such as one named `switchyard` or
    /// `switchyard-gateway`.
    ///
    /// https://kubernetes.io/docs/concepts/services-networking/service/#environment-variables
    private static func isServiceLink(_ rest: String, _ value: String) -> Bool {
        // A service named `switchyard` gives SERVICE_HOST, PORT and so on, with nothing before them.
        let padded = "_" + rest
        if padded.hasSuffix("_SERVICE_HOST") || padded.contains("_SERVICE_PORT") { return true }
        guard let port = padded.range(of: "_PORT") else { return false }
        let end = padded[port.upperBound...]
        return end.isEmpty ? value.contains("://") : end.hasPrefix("_") && end.dropFirst().first?.isNumber == true
    }
}

extension String {
    /// The first position of a text in this one.
    fileprivate func range(of text: String) -> Range<String.Index>? {
        for index in self.indices where self[index...].hasPrefix(text) {
            return index..<self.index(index, offsetBy: text.count)
        }
        return nil
    }
}
