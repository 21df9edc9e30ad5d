// SPDX-License-Identifier: Apache-2.0

/// The names of settings: finds those that are nobody's, and what was meant.
enum SettingNames {
    private static let prefix = "SWITCHYARD_"

    /// Variables that no command reads: those of compose files, of tests and of the tools around them.
    private static let ofTheProject: Set<String> = [
        "AGREEMENT_POSITIONS", "ATTACK_REPORT", "BINARY", "CERTS", "FAULTS_INSIDE", "FULL_SHAPE", "FUZZ_TARGET",
        "IMAGE",
        "LIBFUZZER_ARGUMENTS", "MODEL_FOLDER", "TEST_PYTHON",
    ]

    /// Variables below this are whoever sets them's own.
    private static let free = "X_"

    /// Refuses variables that are set and that no command reads: a misspelt one would be a setting without effect.
    ///
    /// - Parameters:
    ///   - environment: The process's environment.
    ///   - known: Keys of the command.
    ///   - elsewhere: Keys of other commands.
    /// - Throws: ``Settings/Failure`` that names them all, and for each the nearest name.
    static func check(
        _ environment: [String: String],
        known: Set<String>,
        elsewhere: Set<String>
    ) throws(Settings.Failure) {
        let keys = known.union(elsewhere)
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
        throw Settings.Failure(
            "the environment sets \(unknown.joined(separator: ", ")), which \(unknown.count == 1 ? "is" : "are") no "
                + "setting\(unknown.count == 1 ? "" : "s") of any command; correct or unset "
                + "\(unknown.count == 1 ? "it" : "them"). SWITCHYARD_\(self.free)... is never looked at"
                + self.suggestions(unknown, among: keys) { Settings.variable($0) }
        )
    }

    /// What was probably meant, as the end of a message.
    ///
    /// - Parameters:
    ///   - unknown: Names that are nobody's.
    ///   - keys: Keys that there are.
    ///   - name: How a key is called there.
    /// - Returns: Nothing where no name is near.
    static func suggestions(_ unknown: [String], among keys: Set<String>, name: (String) -> String) -> String {
        let names = keys.map { name($0) }.sorted()
        let near = unknown.compactMap { word in self.nearest(word, among: names).map { "\($0) for \(word)" } }
        return near.isEmpty ? "" : ". Meant was perhaps \(near.joined(separator: ", "))"
    }

    /// The name with the fewest edits, if those are no more than a third of it.
    private static func nearest(_ word: String, among names: [String]) -> String? {
        var best: (name: String, edits: Int)?
        // What all variables begin with says nothing.
        let stem = word.hasPrefix(self.prefix) ? word.count - self.prefix.count : word.count
        for name in names {
            let edits = self.edits(Array(word.utf8.prefix(200)), Array(name.utf8))
            if edits < best?.edits ?? Int.max { best = (name, edits) }
        }
        guard let best, best.edits <= (stem < 4 ? 1 : max(2, stem / 3)) else { return nil }
        return best.name
    }

    /// Insertions, removals and replacements that make one word the other (Levenshtein's distance, row by row).
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

    /// Whether Kubernetes made a variable: it tells every pod of all services, also of one named `switchyard` or
    /// `switchyard-gateway`.
    ///
    /// https://kubernetes.io/docs/concepts/services-networking/service/#environment-variables
    private static func isServiceLink(_ rest: String, _ value: String) -> Bool {
        // A service named `switchyard` gives SERVICE_HOST, PORT and so on without anything before them.
        let padded = "_" + rest
        if padded.hasSuffix("_SERVICE_HOST") || padded.contains("_SERVICE_PORT") { return true }
        guard let port = padded.range(of: "_PORT") else { return false }
        let end = padded[port.upperBound...]
        return end.isEmpty ? value.contains("://") : end.hasPrefix("_") && end.dropFirst().first?.isNumber == true
    }
}

extension String {
    /// Where a text first stands in this one.
    fileprivate func range(of text: String) -> Range<String.Index>? {
        for index in self.indices where self[index...].hasPrefix(text) {
            return index..<self.index(index, offsetBy: text.count)
        }
        return nil
    }
}
