// SPDX-License-Identifier: Apache-2.0

internal import SwitchyardTypes

/// A LoRA adapter in peft's layout: `adapter_config.json` beside `adapter_model.safetensors` or `adapter_model.bin`.
struct Adapter: Sendable {
    /// What the adapter has for one module of the model.
    struct Module: Sendable {
        /// The module's name in the model: its tensor's name without `.weight`.
        var name: String
        /// `lora_A` or `lora_embedding_A`.
        var first: StoredTensor?
        /// `lora_B` or `lora_embedding_B`.
        var second: StoredTensor?
        var isEmbedding = false
        /// The module's weight in full: one of `modules_to_save`, or the weight below an adapter that trains embeddings.
        var weight: StoredTensor?
    }

    private static let weightFiles:
        [(name: String, read: @Sendable (String) throws(CheckpointError) -> [StoredTensor])] =
            [
                ("adapter_model.safetensors", SafetensorsReader.read), ("adapter_model.bin", TorchReader.read),
            ]
    /// What peft writes before every name.
    static let prefix = "base_model.model."

    /// The adapter's folder.
    let directory: String
    let configuration: AdapterConfiguration
    /// The weight file.
    let file: String
    /// The modules that the adapter changes, by name.
    let modules: [Module]

    /// Opens an adapter and checks it as far as that needs no model.
    ///
    /// - Parameter directory: The adapter's folder.
    /// - Returns: The adapter; its tensors are finite.
    /// - Throws: `CheckpointError` that names the file and the key or tensor.
    static func open(_ directory: String) throws(CheckpointError) -> Adapter {
        guard FileSystem.isDirectory(directory) else {
            throw CheckpointError(
                code: .notFound,
                message: "is not a folder; name an adapter's folder",
                file: directory
            )
        }
        let configuration = try AdapterConfiguration.load(directory: directory)
        for layout in self.weightFiles where FileSystem.exists("\(directory)/\(layout.name)") {
            let path = "\(directory)/\(layout.name)"
            return try Adapter(directory, configuration, path, layout.read(path))
        }
        throw CheckpointError(
            code: .notFound,
            message:
                "has neither \(self.weightFiles.map(\.name).joined(separator: " nor ")); fetch the adapter's files again",
            file: directory
        )
    }

    private init(
        _ directory: String,
        _ configuration: AdapterConfiguration,
        _ file: String,
        _ tensors: [StoredTensor]
    ) throws(CheckpointError) {
        self.directory = directory
        self.configuration = configuration
        self.file = file
        var modules: [String: Module] = [:]
        for tensor in tensors {
            guard tensor.dtype.isWeight || tensor.dtype == .float64 else {
                throw tensor.failure(
                    .wrongDType,
                    "has \(tensor.dtype.safetensorsName) elements; an adapter's must be F64, F32, BF16 or F16"
                )
            }
            try tensor.view().requireFinite(in: file)
            try Self.place(tensor, in: &modules)
        }
        self.modules = modules.values.sorted { $0.name < $1.name }
        guard !self.modules.isEmpty else {
            throw CheckpointError(code: .malformed, message: "has no tensors; fetch the file again", file: file)
        }
        try configuration.checkPatterns(modules: self.modules.count)
        try self.checkSelection()
    }

    /// Files a tensor under its module.
    private static func place(_ tensor: StoredTensor, in modules: inout [String: Module]) throws(CheckpointError) {
        let name = tensor.name.hasPrefix(self.prefix) ? String(tensor.name.dropFirst(self.prefix.count)) : tensor.name
        func module(_ suffix: String) -> String? {
            guard name.hasSuffix(suffix), name.utf8.count > suffix.utf8.count else { return nil }
            return String(name.dropLast(suffix.count))
        }
        func put(_ module: String, _ part: WritableKeyPath<Module, StoredTensor?>, isEmbedding: Bool = false)
            throws(CheckpointError)
        {
            var entry = modules[module] ?? Module(name: module)
            let isFirstPart = entry.first == nil && entry.second == nil
            guard entry[keyPath: part] == nil, part == \.weight || isFirstPart || entry.isEmbedding == isEmbedding
            else {
                throw tensor.failure(
                    .conflictingTensors,
                    "is the second of its kind for \(module); save the adapter again"
                )
            }
            entry[keyPath: part] = tensor
            if part != \.weight { entry.isEmbedding = isEmbedding }
            modules[module] = entry
        }
        if let name = module(".lora_A.weight") { return try put(name, \.first) }
        if let name = module(".lora_B.weight") { return try put(name, \.second) }
        if let name = module(".lora_embedding_A") { return try put(name, \.first, isEmbedding: true) }
        if let name = module(".lora_embedding_B") { return try put(name, \.second, isEmbedding: true) }
        if let name = module(".base_layer.weight") { return try put(name, \.weight) }
        if !name.contains("lora_"), !name.contains("token_adapter"), let name = module(".weight") {
            return try put(name, \.weight)
        }
        throw tensor.failure(
            .unknownTensor,
            "is no part of a plain LoRA adapter (lora_A, lora_B, lora_embedding_A, lora_embedding_B or a whole weight); merge "
                + "the adapter with peft"
        )
    }

    /// Compares the tensors with what the configuration says was trained.
    private func checkSelection() throws(CheckpointError) {
        for module in self.modules {
            guard let tensor = module.first ?? module.second else { continue }
            guard self.configuration.isTarget(module.name) else {
                throw tensor.failure(
                    .unknownTensor,
                    "is for a module that target_modules in \(AdapterConfiguration.fileName) does not name, so that peft leaves it "
                        + "out; correct the one or the other"
                )
            }
            guard module.first != nil, module.second != nil else {
                throw tensor.failure(
                    .missingTensor,
                    "has no counterpart (A and B make one change); fetch the file again"
                )
            }
        }
        let trained = self.modules.filter { $0.weight != nil }.map { ".\($0.name)." }
        for name in self.configuration.savedModules where !trained.contains(where: { $0.contains(".\(name).") }) {
            throw CheckpointError(
                code: .missingTensor,
                message:
                    "modules_to_save names \"\(name.prefix(120))\", of which \(self.file) has no weight; fetch both again",
                file: self.configuration.file
            )
        }
    }

    /// The products that a module adds.
    ///
    /// - Parameters:
    ///   - module: One of ``modules``.
    ///   - target: The tensor that is to be changed.
    /// - Returns: Nil for a module without matrices.
    /// - Throws: `wrongShape` that names tensors and shapes.
    func product(_ module: Module, for target: StoredTensor) throws(CheckpointError) -> AdapterUpdate.Product? {
        guard let first = module.first, let second = module.second else { return nil }
        guard first.shape.count == 2, second.shape.count == 2, first.shape[0] == second.shape[1] else {
            throw first.failure(
                .wrongShape,
                "has the shape \(first.shape) and \(second.name) \(second.shape), which have no product; fetch the file again"
            )
        }
        let rank = first.shape[0]
        let change = module.isEmbedding ? [first.shape[1], second.shape[0]] : [second.shape[0], first.shape[1]]
        guard change == target.shape else {
            throw first.failure(
                .wrongShape,
                "changes a tensor of shape \(change), but \(target.name) in \(target.file) has the shape \(target.shape): the "
                    + "adapter is \(self.madeFor), so name that model"
            )
        }
        let scale = try self.configuration.scale(of: module.name, rank: rank)
        return AdapterUpdate.Product(
            left: module.isEmbedding ? first : second,
            right: module.isEmbedding ? second : first,
            rank: rank,
            scale: scale,
            isEmbedding: module.isEmbedding
        )
    }

    /// `made for NAME`, as far as the adapter says.
    var madeFor: String {
        self.configuration.base.map { "made for \($0)" } ?? "made for another model"
    }
}
