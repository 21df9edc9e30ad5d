// SPDX-License-Identifier: Apache-2.0

internal import JSONValues

/// `adapter_config.json` of a LoRA adapter, as peft writes it (0.21.2, `tuners/lora/config.py`).
///
/// A key that changes the merged weights is understood or refused; so is a key of another release, unless its value is
/// null, false, zero or empty.
struct AdapterConfiguration: Sendable {
    /// The file's name, by which peft and transformers recognise an adapter.
    static let fileName = "adapter_config.json"
    private static let maxFileBytes = 67_108_864
    private static let maxRank = 65_536
    /// Patterns times modules that are compared at most.
    private static let maxComparisons = 16_777_216

    /// Keys that concern training, or other layers than a model here has.
    ///
    /// `fan_in_fan_out` is among them: peft sets it aside for linear layers. Which modules were trained the tensors say.
    private static let unusedKeys: Set<String> = [
        "task_type", "inference_mode", "revision", "auto_mapping", "peft_version", "lora_dropout", "megatron_core",
        "qalora_group_size", "runtime_config", "eva_config", "corda_config", "loftq_config", "lora_ga_config",
        "fan_in_fan_out", "exclude_modules", "layers_to_transform", "layers_pattern", "_custom_modules",
    ]
    private static let readKeys: Set<String> = [
        "peft_type", "base_model_name_or_path", "r", "lora_alpha", "rank_pattern", "alpha_pattern", "use_rslora",
        "bias",
        "target_modules", "modules_to_save", "init_lora_weights",
    ]
    /// Ways to draw the first values that leave the model's own weights as they are.
    private static let harmlessInitializations: Set<String> = ["gaussian", "eva", "orthogonal"]

    /// The file, for messages.
    let file: String
    /// The model that the adapter was trained for, if the file says.
    let base: String?
    /// The modules that were trained in full, by the ends of their names.
    let savedModules: [String]
    let targets: [String]?
    /// The same, empty for an expression: a list may name each of many modules in full.
    private let targetNames: Set<String>
    let rank: Int
    let alpha: Double
    let isRankStabilized: Bool
    let ranks: [(name: String, pattern: ModulePattern, value: Double)]
    let alphas: [(name: String, pattern: ModulePattern, value: Double)]

    /// Reads an adapter's configuration.
    ///
    /// - Parameter directory: The adapter's folder.
    /// - Returns: The configuration.
    /// - Throws: `CheckpointError` that names the file, the key and its value.
    static func load(directory: String) throws(CheckpointError) -> AdapterConfiguration {
        let path = "\(directory)/\(self.fileName)"
        guard FileSystem.exists(path) else {
            throw CheckpointError(
                code: .notFound,
                message: "has no \(self.fileName); name an adapter's folder, as peft's save_pretrained writes it",
                file: directory
            )
        }
        let values = try JSONValue.object(contentsOf: path, maxBytes: self.maxFileBytes)
        return try AdapterConfiguration(Fields(values: values, file: path))
    }

    /// The model that an adapter names, if its configuration can be read.
    ///
    /// - Parameter directory: The adapter's folder.
    /// - Returns: `base_model_name_or_path`.
    static func base(of directory: String) -> String? {
        let path = "\(directory)/\(self.fileName)"
        guard let values = try? JSONValue.object(contentsOf: path, maxBytes: self.maxFileBytes),
            case .string(let name)? = values["base_model_name_or_path"], !name.isEmpty
        else { return nil }
        return String(name.prefix(200))
    }

    private init(_ fields: Fields) throws(CheckpointError) {
        self.file = fields.file
        try fields.refuseOthers(read: Self.readKeys, unused: Self.unusedKeys)
        guard case .string(let type)? = fields["peft_type"], type == "LORA" else {
            throw fields.failure("peft_type", "only \"LORA\" can be merged")
        }
        switch fields["bias"] {
        case nil, .string("none"): break
        default: throw fields.failure("bias", "only \"none\" can be merged: the model's linear layers have no biases")
        }
        switch fields["init_lora_weights"] {
        case nil, .bool: break
        case .string(let name) where Self.harmlessInitializations.contains(name): break
        default:
            throw fields.failure(
                "init_lora_weights",
                "peft changes the model's own weights for it; convert the adapter with save_pretrained's "
                    + "path_initial_model_for_weight_conversion, or merge it with peft"
            )
        }
        if case .string(let name)? = fields["base_model_name_or_path"], !name.isEmpty {
            self.base = String(name.prefix(200))
        } else {
            self.base = nil
        }
        let rank = try fields.number("r") ?? 8
        guard let whole = Int(exactly: rank), (1...Self.maxRank).contains(whole) else {
            throw fields.failure("r", "it must be an integer from 1 to \(Self.maxRank)")
        }
        self.rank = whole
        self.alpha = try fields.number("lora_alpha") ?? 8
        switch fields["use_rslora"] {
        case nil: self.isRankStabilized = false
        case .bool(let value): self.isRankStabilized = value
        default: throw fields.failure("use_rslora", "it must be true or false")
        }
        self.ranks = try fields.patterns("rank_pattern")
        self.alphas = try fields.patterns("alpha_pattern")
        // A word is a regular expression of modules, or all-linear.
        if case .string? = fields["target_modules"] {
            self.targets = nil
        } else {
            self.targets = try fields.words("target_modules")
        }
        self.targetNames = Set(self.targets ?? [])
        self.savedModules = try fields.words("modules_to_save") ?? []
    }

    /// Whether `target_modules` names a module; true where it is an expression.
    ///
    /// - Parameter module: The module's name in the model.
    /// - Returns: False if peft would not change the module, even where the file has tensors for it.
    func isTarget(_ module: String) -> Bool {
        guard let targets = self.targets, !self.targetNames.contains(module) else { return true }
        return targets.contains { module.hasSuffix("." + $0) }
    }

    /// Whether a module lies in one of `modules_to_save`.
    ///
    /// - Parameter module: The module's name in the model.
    /// - Returns: True if the module was trained in full, as a copy of its own.
    func isSaved(_ module: String) -> Bool {
        self.savedModules.contains { ".\(module).".contains(".\($0).") }
    }

    /// Refuses more patterns than can be compared with the modules.
    ///
    /// - Parameter modules: How many modules the adapter changes.
    /// - Throws: `limitExceeded`.
    func checkPatterns(modules: Int) throws(CheckpointError) {
        let patterns = self.ranks.count + self.alphas.count
        guard patterns == 0 || modules <= Self.maxComparisons / patterns else {
            throw CheckpointError(
                code: .limitExceeded,
                message:
                    "rank_pattern and alpha_pattern have \(patterns) patterns for \(modules) modules; the limit of their "
                    + "product is \(Self.maxComparisons), so merge the adapter with peft",
                file: self.file
            )
        }
    }

    /// What the product of a module's two matrices is multiplied by.
    ///
    /// - Parameters:
    ///   - module: The module's name in the model.
    ///   - found: The rank of the module's matrices.
    /// - Returns: `alpha / rank`, or `alpha / sqrt(rank)` for rank-stabilised adapters.
    /// - Throws: `wrongShape` if the file says another rank; `unsupported` if it is not clear which pattern holds.
    func scale(of module: String, rank found: Int) throws(CheckpointError) -> Double {
        let rank = try self.value(self.ranks, module, "rank_pattern") ?? Double(self.rank)
        guard rank == Double(found) else {
            throw CheckpointError(
                code: .wrongShape,
                message:
                    "gives the module \(module.prefix(200)) the rank \(Int(exactly: rank).map { "\($0)" } ?? "\(rank)"), but its tensors have \(found); "
                    + "fetch both files of the adapter again",
                file: self.file
            )
        }
        let alpha = try self.value(self.alphas, module, "alpha_pattern") ?? self.alpha
        return self.isRankStabilized ? alpha / rank.squareRoot() : alpha / rank
    }

    private func value(
        _ patterns: [(name: String, pattern: ModulePattern, value: Double)],
        _ module: String,
        _ key: String
    ) throws(CheckpointError) -> Double? {
        let matches = patterns.filter { $0.pattern.matches(module) }
        guard let first = matches.first else { return nil }
        // The first in the file's order holds, which a JSON object does not keep.
        guard let other = matches.first(where: { $0.value != first.value }) else { return first.value }
        throw CheckpointError(
            code: .unsupported,
            message:
                "\(key) has both \"\(first.name.prefix(120))\" and \"\(other.name.prefix(120))\" for the module \(module.prefix(200)), "
                + "with different values; make the patterns exclude each other",
            file: self.file
        )
    }
}

/// The keys of one `adapter_config.json`.
private struct Fields {
    private let values: [String: JSONValue]
    let file: String

    init(values: [String: JSONValue], file: String) {
        self.values = values
        self.file = file
    }

    subscript(key: String) -> JSONValue? {
        guard let value = self.values[key], value != .null else { return nil }
        return value
    }

    func refuseOthers(read: Set<String>, unused: Set<String>) throws(CheckpointError) {
        for key in self.values.keys.sorted() where !read.contains(key) && !unused.contains(key) {
            guard let value = self[key], !value.isFalse else { continue }
            throw self.failure(String(key.prefix(80)), "it changes what the adapter does, and cannot be merged here")
        }
    }

    func failure(_ key: String, _ complaint: String) -> CheckpointError {
        CheckpointError(
            code: .unsupported,
            message: "\(key) is \(self.values[key]?.brief ?? "missing"); \(complaint)",
            file: self.file
        )
    }

    func number(_ key: String) throws(CheckpointError) -> Double? {
        guard let value = self[key] else { return nil }
        guard let number = value.double, number.isFinite else { throw self.failure(key, "it must be a finite number") }
        return number
    }

    func words(_ key: String) throws(CheckpointError) -> [String]? {
        guard let value = self[key] else { return nil }
        guard case .array(let elements) = value else { throw self.failure(key, "it must list names of modules") }
        var words: [String] = []
        for element in elements {
            guard case .string(let word) = element, !word.isEmpty else {
                throw self.failure(key, "it must list names of modules")
            }
            words.append(word)
        }
        return words
    }

    func patterns(
        _ key: String
    ) throws(CheckpointError) -> [(name: String, pattern: ModulePattern, value: Double)] {
        guard let value = self[key] else { return [] }
        guard case .object(let entries) = value else {
            throw self.failure(key, "it must map patterns of module names to numbers")
        }
        var result: [(name: String, pattern: ModulePattern, value: Double)] = []
        for (name, entry) in entries.sorted(by: { $0.key < $1.key }) {
            guard let number = entry.double, number.isFinite else {
                throw CheckpointError(
                    code: .unsupported,
                    message: "\(key) gives \"\(name.prefix(120))\" \(entry.brief); it must be a finite number",
                    file: self.file
                )
            }
            guard let pattern = ModulePattern(name) else {
                throw CheckpointError(
                    code: .unsupported,
                    message:
                        "\(key) has the pattern \"\(name.prefix(120))\", which is not understood; write the modules' names, or use "
                        + "only . [] () | * + ? ^ $ \\d and \\w, in at most \(ModulePattern.maxBytes) bytes",
                    file: self.file
                )
            }
            result.append((name, pattern, number))
        }
        return result
    }
}
