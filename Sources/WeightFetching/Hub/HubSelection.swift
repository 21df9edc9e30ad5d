// SPDX-License-Identifier: Apache-2.0

/// Which of a model's files are fetched: what serving needs, plus and minus what patterns add and remove.
public struct HubSelection: Sendable, Hashable {
    /// Files beside the weights.
    private static let companions: Set<String> = [
        "config.json", "generation_config.json", "spiece.model", "tokenizer.json", "tokenizer_config.json",
        "special_tokens_map.json", "added_tokens.json",
    ]

    /// An adapter's settings and weights, in order of preference.
    private static let adapterSettings = "adapter_config.json"
    private static let adapterWeights = ["adapter_model.safetensors", "adapter_model.bin"]

    /// A layout that weights may have.
    private struct Layout: Sendable {
        var single: String
        var index: String
        var first: String
        var last: String
    }

    /// In order of preference, as checkpoints are opened: safetensors before torch, one file before several.
    private static let layouts = [
        Layout(
            single: "model.safetensors",
            index: "model.safetensors.index.json",
            first: "model-",
            last: ".safetensors"
        ),
        Layout(
            single: "pytorch_model.bin",
            index: "pytorch_model.bin.index.json",
            first: "pytorch_model-",
            last: ".bin"
        ),
    ]

    /// Patterns of files to fetch in addition.
    public var include: [String]
    /// Patterns of files that are not fetched.
    public var exclude: [String]

    /// Describes a choice.
    ///
    /// - Parameters:
    ///   - include: Patterns of files to fetch in addition to what serving needs; `*` matches any characters.
    ///   - exclude: Patterns of files that are not fetched, whatever else selects them.
    public init(include: [String] = [], exclude: [String] = []) {
        self.include = include
        self.exclude = exclude
    }

    /// Chooses among a model's files.
    ///
    /// - Parameters:
    ///   - files: All files of the model.
    ///   - model: The model's name, for messages.
    /// - Returns: The files to fetch, by path.
    /// - Throws: ``FetchError`` where no weights are among them, and for a pattern that matches nothing.
    func chosen(from files: [HubListing.File], of model: String) throws(FetchError) -> [HubListing.File] {
        let names = Set(files.map(\.path))
        var wanted = names.intersection(Self.companions)
        for layout in Self.layouts {
            if names.contains(layout.single) {
                wanted.insert(layout.single)
                break
            }
            if names.contains(layout.index) {
                wanted.formUnion(names.filter { $0.hasPrefix(layout.first) && $0.hasSuffix(layout.last) })
                wanted.insert(layout.index)
                break
            }
        }
        // An adapter changes the model beside it, so it comes along; it may also be all that there is.
        let adapter = names.contains(Self.adapterSettings) ? Self.adapterWeights.first(where: names.contains) : nil
        if let adapter { wanted.formUnion([Self.adapterSettings, adapter]) }
        for pattern in self.include {
            let matches = names.filter { Self.matches($0, pattern) }
            guard !matches.isEmpty else {
                throw FetchError(
                    .invalidArgument,
                    "no file of \(model) matches --include \(pattern); it has \(Self.list(names))"
                )
            }
            wanted.formUnion(matches)
        }
        let hasWeights = wanted.contains { $0.hasSuffix(".safetensors") || $0.hasSuffix(".bin") }
        guard hasWeights, wanted.contains("config.json") || adapter != nil else {
            throw FetchError(
                .notFound,
                "\(model) lacks \(hasWeights ? "config.json" : "weights in safetensors or torch files"); it has "
                    + "\(Self.list(names)). Choose a model in Hugging Face layout"
            )
        }
        for pattern in self.exclude { wanted = wanted.filter { !Self.matches($0, pattern) } }
        guard !wanted.isEmpty else {
            throw FetchError(.invalidArgument, "--exclude leaves no file of \(model); give a narrower pattern")
        }
        return files.filter { wanted.contains($0.path) }.sorted { $0.path < $1.path }
    }

    private static func list(_ names: Set<String>) -> String {
        let shown = names.sorted().prefix(20).joined(separator: ", ")
        return shown.isEmpty ? "no files" : shown + (names.count > 20 ? " and \(names.count - 20) more" : "")
    }

    /// Whether a path matches a pattern in which `*` matches any characters, slashes included.
    static func matches(_ path: String, _ pattern: String) -> Bool {
        let text = Array(path.unicodeScalars)
        let pattern = Array(pattern.unicodeScalars)
        var position = 0
        var place = 0
        // The last star and what it matches so far; on a mismatch it takes one more character.
        var star: (place: Int, position: Int)?
        while position < text.count {
            if place < pattern.count, pattern[place] == "*" {
                star = (place, position)
                place += 1
            } else if place < pattern.count, pattern[place] == text[position] {
                place += 1
                position += 1
            } else if let last = star {
                star = (last.place, last.position + 1)
                place = last.place + 1
                position = last.position + 1
            } else {
                return false
            }
        }
        return pattern[place...].allSatisfy { $0 == "*" }
    }
}
