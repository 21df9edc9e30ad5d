// SPDX-License-Identifier: Apache-2.0

internal import SwitchyardTypes

/// An adapter that was merged into a model.
public struct MergedAdapter: Sendable, Hashable {
    /// The adapter's folder.
    public var directory: String
    /// Lines for people: what was merged, and what is worth knowing about it.
    public var notes: [String]
}

extension Adapter {
    /// Changes a model's tensors as peft's `merge_and_unload` would.
    ///
    /// A tensor that the configuration ties to others changes with all of them, as it does in peft, which adds to the one
    /// parameter that they are. Nothing is computed yet: see `AdapterUpdate`.
    ///
    /// - Parameters:
    ///   - tensors: The model's tensors by name.
    ///   - configuration: The model's configuration.
    /// - Returns: The tensors, changed where the adapter says so.
    /// - Throws: `CheckpointError` that names the tensor of the adapter that does not fit, and its shape.
    func merge(
        into tensors: [String: StoredTensor],
        _ configuration: ModelConfiguration
    ) throws(CheckpointError) -> (tensors: [String: StoredTensor], adapter: MergedAdapter) {
        var merged = tensors
        var changes: [String: [(module: Module, order: Int)]] = [:]
        var tied: [String] = []
        for module in self.modules {
            let target = try self.target(of: module, tensors, configuration)
            changes[target.name, default: []].append((module, target.order))
            if target.isTied { tied.append(module.name) }
        }
        for (name, entries) in changes.sorted(by: { $0.key < $1.key }) {
            let modules = entries.sorted { $0.order < $1.order }.map(\.module)
            let names = self.copies(of: name, tensors, configuration)
            let change = try self.change(of: name, modules, tensors)
            // Every copy gets the same update, so that they compare as one.
            for copy in names {
                var tensor = tensors[copy] ?? change.base.renamed(copy)
                tensor.update = change.update
                merged[copy] = tensor
            }
        }
        return (merged, MergedAdapter(directory: self.directory, notes: self.notes(tied: tied)))
    }

    private func notes(tied: [String]) -> [String] {
        let ranks = Set(self.modules.compactMap { $0.first?.shape.first }).sorted()
        let rank = ranks.isEmpty ? "" : " of rank \(ranks.map(String.init).joined(separator: ", "))"
        var notes = [
            "\(self.directory): merged an adapter\(rank) into \(self.modules.count) modules, \(self.madeFor)"
        ]
        if !tied.isEmpty {
            notes.append(
                "\(self.directory): \(tied.joined(separator: ", ")) is one tensor with the embeddings and the output projection, so "
                    + "all of them change, as in peft's merge_and_unload; peft answers otherwise while the adapter is not merged"
            )
        }
        return notes
    }

    /// Which tensor a module's change belongs to.
    private func target(
        of module: Module,
        _ tensors: [String: StoredTensor],
        _ configuration: ModelConfiguration
    ) throws(CheckpointError) -> (name: String, order: Int, isTied: Bool) {
        let name = module.name + ".weight"
        let names = self.alike(name, configuration)
        guard let order = names.firstIndex(of: name) else {
            guard tensors[name] != nil else { throw self.unplaced(module) }
            return (name, 0, false)
        }
        if configuration.tiedEmbeddings {
            guard module.weight == nil || !self.configuration.isSaved(module.name) else {
                throw CheckpointError(
                    code: .unsupported,
                    message:
                        "modules_to_save has \(module.name), which the configuration ties to the embedding, and which the adapter makes "
                        + "a tensor of its own; for an output projection, override tie_word_embeddings=false and "
                        + "scale_decoder_outputs=true",
                    file: self.configuration.file
                )
            }
            guard let used = names.first(where: { tensors[$0] != nil }) else { throw self.unplaced(module) }
            return (used, order, true)
        }
        if tensors[name] != nil { return (name, order, false) }
        // The output projection has two names. A model may lack its own, and the adapter bring it.
        if TensorRole.headNames.contains(name) {
            if let other = names.first(where: { tensors[$0] != nil }) { return (other, order, false) }
            if module.weight != nil { return (name, order, false) }
        }
        throw self.unplaced(module)
    }

    /// The names that may stand for the tensor of a name; empty for a name that has no others.
    private func alike(_ name: String, _ configuration: ModelConfiguration) -> [String] {
        if TensorRole.headNames.contains(name) {
            return configuration.names(of: .lmHead)
        }
        guard TensorRole.embeddingNames.contains(name) else { return [] }
        return configuration.names(of: .sharedEmbedding)
    }

    /// The tensors of the files that are one with a tensor; at least its own name.
    private func copies(
        of name: String,
        _ tensors: [String: StoredTensor],
        _ configuration: ModelConfiguration
    ) -> [String] {
        // Untied, each stack has an embedding of its own in transformers; a model here needs them to be equal.
        let isAlone = !configuration.tiedEmbeddings && !TensorRole.headNames.contains(name)
        let names = isAlone ? [] : self.alike(name, configuration).filter { tensors[$0] != nil }
        return names.isEmpty ? [name] : names
    }

    /// What becomes of a tensor.
    private func change(
        of name: String,
        _ modules: [Module],
        _ tensors: [String: StoredTensor]
    ) throws(CheckpointError) -> (base: StoredTensor, update: AdapterUpdate) {
        let weights = modules.compactMap(\.weight)
        if let first = weights.first, let other = weights.dropFirst().first(where: { !$0.hasValues(of: first) }) {
            throw other.failure(.conflictingTensors, "differs from \(first.name), and both are for \(name)")
        }
        guard let base = tensors[name] ?? weights.first else {
            throw CheckpointError(code: .missingTensor, message: "is missing", file: self.file, tensor: name)
        }
        if let weight = weights.first, weight.shape != base.shape {
            throw weight.failure(
                .wrongShape,
                "has the shape \(weight.shape), but \(name) in \(base.file) has \(base.shape): the adapter is \(self.madeFor), "
                    + "perhaps with more tokens; name that model, or resize the model first"
            )
        }
        guard base.dtype.isWeight || base.dtype == .float64 else {
            throw base.failure(
                .wrongDType,
                "has \(base.dtype.safetensorsName) elements; an adapter can be merged into F64, F32, BF16 or F16"
            )
        }
        var products: [AdapterUpdate.Product] = []
        for module in modules {
            if let product = try self.product(module, for: base) { products.append(product) }
        }
        return (base, AdapterUpdate(file: self.file, replacement: weights.first, products: products))
    }

    private func unplaced(_ module: Module) -> CheckpointError {
        let tensor = module.first ?? module.second ?? module.weight
        return CheckpointError(
            code: .unknownTensor,
            message:
                "changes the module \(module.name.prefix(200)), which the model does not have: the adapter is \(self.madeFor), so name "
                + "that model",
            file: self.file,
            tensor: tensor?.name
        )
    }
}

extension MergedAdapter {
    /// Checks an adapter as far as that needs no model.
    ///
    /// - Parameter directory: The adapter's folder.
    /// - Returns: The model that it was made for, if it says.
    /// - Throws: `CheckpointError` that names the file and the key or tensor.
    public static func check(_ directory: String) throws(CheckpointError) -> String? {
        try Adapter.open(directory).configuration.base
    }

    /// The files that make a tokenizer's ids.
    private static let tokenizerFiles = ["spiece.model", "tokenizer.json", "added_tokens.json"]

    /// Adds a line where trainers have left a tokenizer beside the adapter that is not the model's, byte for byte.
    ///
    /// - Parameter model: The model's folder, whose tokenizer is used.
    /// - Throws: `CheckpointError` for a file that cannot be read.
    mutating func noteTokenizer(besides model: String) throws(CheckpointError) {
        for name in Self.tokenizerFiles where FileSystem.isFile("\(self.directory)/\(name)") {
            let own = try MappedFile(path: "\(self.directory)/\(name)")
            if FileSystem.isFile("\(model)/\(name)") {
                let other = try MappedFile(path: "\(model)/\(name)")
                let isSame = withExtendedLifetime((own, other)) { own.bytes.elementsEqual(other.bytes) }
                if isSame { continue }
            }
            self.notes.append(
                "\(self.directory): \(name) is not the same as the model's; the model's tokenizer is used"
            )
        }
    }
}

extension Checkpoint {
    /// Where the weights come from, for messages: the folder, with the adapter's if one is merged.
    public var origin: String {
        self.adapter.map { "\(self.directory) with the adapter \($0.directory)" } ?? self.directory
    }

    /// Refuses an adapter without a request to merge it, and one that cannot be merged into what the folder holds.
    ///
    /// - Parameters:
    ///   - adapter: The adapter that is to be merged.
    ///   - directory: The folder of the model.
    ///   - isPart: Whether the folder is a part of a cut checkpoint.
    /// - Throws: `CheckpointError` that says what to do.
    static func checkAdapter(
        _ adapter: String?,
        beside directory: String,
        isPart: Bool
    ) throws(CheckpointError) {
        if let adapter, isPart {
            throw CheckpointError(
                code: .invalidArgument,
                message: "is a part of a cut checkpoint; merge the adapter \(adapter) when the whole one is cut",
                file: directory
            )
        }
        try self.refuseAdapterAlone(directory)
        let path = "\(directory)/\(AdapterConfiguration.fileName)"
        guard FileSystem.exists(path) else { return }
        if let adapter, FileSystem.resolved(adapter) == FileSystem.resolved(directory) { return }
        throw CheckpointError(
            code: .unsupported,
            message:
                "is the configuration of an adapter, which changes the model beside it; merge it with --merge-adapter "
                + "\(directory) (shard, up, generate --local), or move it elsewhere to serve the model alone",
            file: path
        )
    }

    /// Refuses a folder that holds an adapter in a model's place.
    ///
    /// - Parameter directory: A folder.
    /// - Throws: `unsupported` with the base model and the command that merges the adapter.
    static func refuseAdapterAlone(_ directory: String) throws(CheckpointError) {
        guard FileSystem.exists("\(directory)/\(AdapterConfiguration.fileName)"),
            !FileSystem.exists("\(directory)/\(ModelConfiguration.configurationFile)")
        else { return }
        let base = AdapterConfiguration.base(of: directory)
        throw CheckpointError(
            code: .unsupported,
            message:
                "holds an adapter and no model; name its base model\(base.map { ", \($0)," } ?? "") and merge the adapter into it: "
                + "switchyard up \(base ?? "MODEL") --merge-adapter \(directory), or the same with switchyard shard",
            file: directory
        )
    }
}
