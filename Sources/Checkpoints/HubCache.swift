// SPDX-License-Identifier: Apache-2.0

/// Finds models that `switchyard pull` or Hugging Face's own tools have fetched to this machine.
///
/// Nothing is fetched here.
public enum HubCache {
    /// The folder of a model.
    ///
    /// Looked for, in this order: the argument as a folder; then `org/name`, optionally with `@revision`, in the caches
    /// that the environment names: `HF_HUB_CACHE`, `HUGGINGFACE_HUB_CACHE`, `HF_HOME/hub`,
    /// `XDG_CACHE_HOME/huggingface/hub`, `HOME/.cache/huggingface/hub`. A revision is a branch, a tag, a commit or
    /// `refs/pr/N`; `main` if absent.
    ///
    /// - Parameters:
    ///   - modelNameOrPath: A folder, or a model's name on the hub.
    ///   - environment: The process's environment.
    /// - Returns: A folder that exists.
    /// - Throws: `notFound` that names every place searched.
    public static func resolve(
        _ modelNameOrPath: String,
        environment: [String: String]
    ) throws(CheckpointError) -> String {
        if !modelNameOrPath.isEmpty, FileSystem.isDirectory(modelNameOrPath) { return modelNameOrPath }
        var places = ["the folder \(modelNameOrPath)"]
        let pieces = modelNameOrPath.split(separator: "@", maxSplits: 1, omittingEmptySubsequences: false)
        let name = pieces.first.map(String.init) ?? ""
        let revision = pieces.count == 2 ? String(pieces[1]) : "main"
        if self.isModelName(name), self.isRevision(revision) {
            for cache in self.caches(environment) {
                let model = "\(cache)/models--" + name.split(separator: "/").joined(separator: "--")
                if let snapshot = self.snapshot(model, revision) { return snapshot }
                places.append("\(model) (revision \(revision))")
            }
        }
        throw CheckpointError(
            code: .notFound,
            message:
                "there is no model \"\(modelNameOrPath)\"; looked in \(places.joined(separator: ", ")). Name a checkpoint's "
                + "folder, or fetch the model first: switchyard pull \(self.isModelName(name) ? name : "ORG/NAME")"
        )
    }

    /// A model's name for people: `org/name@revision` for a folder in a hub cache, else the folder's own name.
    ///
    /// - Parameter directory: A checkpoint's folder.
    /// - Returns: A short name without the path before it.
    public static func displayName(of directory: String) -> String {
        let pieces = FileSystem.resolved(directory).split(separator: "/")
        if pieces.count >= 3, pieces[pieces.count - 2] == "snapshots", pieces[pieces.count - 3].hasPrefix("models--") {
            let name = pieces[pieces.count - 3].dropFirst("models--".count)
            return "\(self.joined(name))@\(pieces[pieces.count - 1])"
        }
        return pieces.last.map(String.init) ?? "/"
    }

    /// `org--name` as `org/name`: only the first pair of dashes is the slash.
    private static func joined(_ name: Substring) -> String {
        for index in name.indices where name[index...].hasPrefix("--") {
            return "\(name[..<index])/\(name[index...].dropFirst(2))"
        }
        return String(name)
    }

    private static func caches(_ environment: [String: String]) -> [String] {
        func value(_ key: String, _ suffix: String = "") -> String? {
            environment[key].flatMap { $0.isEmpty ? nil : $0 + suffix }
        }
        let candidates = [
            value("HF_HUB_CACHE"), value("HUGGINGFACE_HUB_CACHE"), value("HF_HOME", "/hub"),
            value("XDG_CACHE_HOME", "/huggingface/hub"), value("HOME", "/.cache/huggingface/hub"),
        ]
        var result: [String] = []
        for candidate in candidates.compactMap({ $0 }) {
            let path = candidate.hasPrefix("~/") ? (environment["HOME"] ?? "~") + candidate.dropFirst() : candidate
            if !result.contains(path) { result.append(path) }
        }
        return result
    }

    private static func snapshot(_ model: String, _ revision: String) -> String? {
        var commit = revision
        if let reference = try? MappedFile(path: "\(model)/refs/\(revision)"), reference.bytes.count <= 256 {
            let text = String(decoding: reference.bytes, as: UTF8.self)
            commit = String(text.drop { $0.isWhitespace }.prefix { !$0.isWhitespace })
        }
        guard !commit.isEmpty, !commit.contains("/"), !commit.hasPrefix(".") else { return nil }
        let path = "\(model)/snapshots/\(commit)"
        return FileSystem.isDirectory(path) ? path : nil
    }

    /// `name` or `org/name`, of the characters that the hub allows.
    private static func isModelName(_ name: String) -> Bool {
        let pieces = name.split(separator: "/", omittingEmptySubsequences: false)
        return (1...2).contains(pieces.count) && pieces.allSatisfy(self.isPlain)
    }

    private static func isRevision(_ revision: String) -> Bool {
        revision.split(separator: "/", omittingEmptySubsequences: false).allSatisfy(self.isPlain)
    }

    private static func isPlain(_ piece: Substring) -> Bool {
        !piece.isEmpty && !piece.hasPrefix(".")
            && piece.allSatisfy { $0.isASCII && ($0.isLetter || $0.isNumber || "._-".contains($0)) }
    }
}
