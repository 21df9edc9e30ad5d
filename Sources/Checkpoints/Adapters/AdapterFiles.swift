// SPDX-License-Identifier: Apache-2.0

internal import Foundation
internal import SwitchyardTypes

/// A plain LoRA adapter's two files, as those who train adapters write and read them: `adapter_config.json` and
/// `adapter_model.safetensors`, in peft's layout (0.21.2, `tuners/lora/config.py` and `utils/save_and_load.py`).
///
/// Plain is an adapter whose matrices all have one rank and one scale, and which trains nothing in full.
public struct AdapterFiles: Sendable, Hashable {
    /// The name of the file of matrices.
    public static let weightsName = "adapter_model.safetensors"

    /// The rank of every product (`r`).
    public var rank: Int
    /// The scale before it is divided by the rank (`lora_alpha`).
    public var alpha: Double
    /// Whether the scale is divided by the rank's square root instead (`use_rslora`).
    public var isRankStabilized: Bool
    /// Names of the modules, whole or their ends (`target_modules`); empty where the file has an expression.
    public var targets: [String]
    /// The model that the adapter changes (`base_model_name_or_path`); empty where the file names none.
    public var base: String

    /// Describes an adapter.
    ///
    /// - Parameters:
    ///   - rank: The rank of every product.
    ///   - alpha: The scale before it is divided by the rank.
    ///   - isRankStabilized: Whether the scale is divided by the rank's square root instead.
    ///   - targets: Names of the modules, whole or their ends.
    ///   - base: The model that the adapter changes.
    public init(rank: Int, alpha: Double, isRankStabilized: Bool, targets: [String], base: String) {
        self.rank = rank
        self.alpha = alpha
        self.isRankStabilized = isRankStabilized
        self.targets = targets
        self.base = base
    }

    /// What products are multiplied by: `alpha / rank`, or `alpha / sqrt(rank)`.
    public var scale: Double {
        self.isRankStabilized ? self.alpha / Double(self.rank).squareRoot() : self.alpha / Double(self.rank)
    }

    /// The name that peft gives a module's first matrix, `[rank, inputs]`.
    ///
    /// - Parameter module: The module's name in the model: its tensor's without `.weight`.
    /// - Returns: The tensor's name.
    public static func firstName(of module: String) -> String { "\(Adapter.prefix)\(module).lora_A.weight" }

    /// The name that peft gives a module's second matrix, `[outputs, rank]`.
    ///
    /// - Parameter module: The module's name in the model: its tensor's without `.weight`.
    /// - Returns: The tensor's name.
    public static func secondName(of module: String) -> String { "\(Adapter.prefix)\(module).lora_B.weight" }

    /// Writes both files and flushes them to disk.
    ///
    /// - Parameters:
    ///   - tensors: The matrices, under ``firstName(of:)`` and ``secondName(of:)``.
    ///   - directory: A folder that exists and has neither file.
    /// - Throws: `writeFailed`.
    public func write(_ tensors: [TensorView], to directory: String) throws(CheckpointError) {
        let path = "\(directory)/\(AdapterConfiguration.fileName)"
        let text: Data
        do {
            let encoder = JSONEncoder()
            encoder.outputFormatting = [.prettyPrinted, .sortedKeys, .withoutEscapingSlashes]
            text = try encoder.encode(ConfigurationFile(self))
        } catch {
            throw CheckpointError(code: .writeFailed, message: "would hold what JSON cannot: \(error)", file: path)
        }
        let file = try OutputFile(path: path)
        try file.write(Array(text) + [UInt8(ascii: "\n")])
        try file.finish()
        try SafetensorsWriter.write(tensors, to: "\(directory)/\(Self.weightsName)", metadata: ["format": "pt"])
    }

    /// Reads and checks both files.
    ///
    /// - Parameter directory: The adapter's folder, as this program or peft wrote it.
    /// - Returns: What the configuration says, and the matrices, which are finite, by their names.
    /// - Throws: `CheckpointError` that names the file and the key or tensor; `unsupported` for an adapter that is not plain.
    public static func read(
        _ directory: String
    ) throws(CheckpointError) -> (files: AdapterFiles, tensors: [String: TensorView]) {
        let adapter = try Adapter.open(directory)
        let configuration = adapter.configuration
        guard configuration.ranks.isEmpty, configuration.alphas.isEmpty, configuration.savedModules.isEmpty else {
            throw CheckpointError(
                code: .unsupported,
                message:
                    "has a rank_pattern, an alpha_pattern or modules_to_save; only an adapter with one rank and one scale, and "
                    + "with nothing trained in full, can be trained further, so merge it into the model and begin a new one",
                file: configuration.file
            )
        }
        var tensors: [String: TensorView] = [:]
        for module in adapter.modules {
            guard !module.isEmbedding, module.weight == nil, let first = module.first, let second = module.second else {
                throw CheckpointError(
                    code: .unsupported,
                    message: "changes \(module.name.prefix(200)) by more than the product of lora_B and lora_A",
                    file: adapter.file
                )
            }
            tensors[Self.firstName(of: module.name)] = first.view()
            tensors[Self.secondName(of: module.name)] = second.view()
        }
        let files = AdapterFiles(
            rank: configuration.rank,
            alpha: configuration.alpha,
            isRankStabilized: configuration.isRankStabilized,
            targets: configuration.targets ?? [],
            base: configuration.base ?? ""
        )
        return (files, tensors)
    }
}

/// The keys of `adapter_config.json` that peft needs, or whose defaults it might change.
private struct ConfigurationFile: Encodable {
    private enum Key: String, CodingKey {
        case base = "base_model_name_or_path"
        case bias
        case fanInFanOut = "fan_in_fan_out"
        case inferenceMode = "inference_mode"
        case initialisation = "init_lora_weights"
        case alpha = "lora_alpha"
        case dropout = "lora_dropout"
        case type = "peft_type"
        case rank = "r"
        case targets = "target_modules"
        case task = "task_type"
        case isRankStabilized = "use_rslora"
    }

    private let files: AdapterFiles

    init(_ files: AdapterFiles) { self.files = files }

    func encode(to encoder: any Encoder) throws {
        var container = encoder.container(keyedBy: Key.self)
        try container.encode(self.files.base, forKey: .base)
        try container.encode("none", forKey: .bias)
        try container.encode(false, forKey: .fanInFanOut)
        try container.encode(true, forKey: .inferenceMode)
        try container.encode(true, forKey: .initialisation)
        try container.encode(self.files.alpha, forKey: .alpha)
        try container.encode(0, forKey: .dropout)
        try container.encode("LORA", forKey: .type)
        try container.encode(self.files.rank, forKey: .rank)
        try container.encode(self.files.targets, forKey: .targets)
        try container.encode("SEQ_2_SEQ_LM", forKey: .task)
        try container.encode(self.files.isRankStabilized, forKey: .isRankStabilized)
    }
}
