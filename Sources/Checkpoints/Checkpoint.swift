// SPDX-License-Identifier: Apache-2.0

public import SwitchyardTypes

/// A checkpoint folder, or one part of a cut checkpoint: its configuration, and its tensors in mapped files.
///
/// Opening reads configuration and headers and samples the tensors for the fingerprint; weights are read when they are
/// used. Hugging Face layouts are read as they are: `model.safetensors` or `pytorch_model.bin`, each also in several
/// files with an index.
public final class Checkpoint: Sendable {
    /// The model's shape and constants.
    public let configuration: ModelConfiguration
    /// The folder.
    public let directory: String
    /// Which part of the checkpoint this folder holds, if `CheckpointSharder` cut it.
    public let manifest: ShardManifest?
    /// Identifies the whole checkpoint, even in a part of it: see `Fingerprint`.
    public let fingerprint: UInt64
    /// The experts whose tensors are in this folder, ascending; layers without any are absent.
    public let heldExperts: [SparseLayer: [Int]]

    /// The adapter that is merged into the tensors, if there is one.
    public let adapter: MergedAdapter?

    let tensors: [String: StoredTensor]

    /// Opens a folder.
    ///
    /// - Parameters:
    ///   - directory: A checkpoint's folder, or that of a part.
    ///   - overrides: Hugging Face configuration keys and the values that replace the file's.
    ///   - adapter: The folder of a LoRA adapter to merge into a whole checkpoint; it may be the checkpoint's own.
    ///   - progress: Called after every weight file.
    /// - Returns: The open checkpoint. `validate()` says whether it is complete.
    /// - Throws: `CheckpointError` that names the file and what is wrong with it.
    public static func open(
        _ directory: String,
        overrides: [String: String] = [:],
        adapter: String? = nil,
        progress: (@Sendable (WorkProgress) -> Void)? = nil
    ) throws(CheckpointError) -> Checkpoint {
        guard FileSystem.isDirectory(directory) else {
            throw CheckpointError(
                code: .notFound,
                message: "is not a folder; name a checkpoint's folder",
                file: directory
            )
        }
        let manifest = try ShardManifest.load(directory: directory)
        try self.checkAdapter(adapter, beside: directory, isPart: manifest != nil)
        var configuration = try ModelConfiguration.load(
            directory: directory,
            overrides: (manifest?.overrides ?? [:]).merging(overrides) { $1 }
        )
        try manifest?.check(against: configuration, directory: directory)
        var tensors = try WeightFiles.read(directory, progress: progress)
        self.settle(&configuration, tensors)
        var merged: MergedAdapter?
        if let adapter {
            (tensors, merged) = try Adapter.open(adapter).merge(into: tensors, configuration)
            try merged?.noteTokenizer(besides: directory)
            // The adapter may bring an output projection.
            self.settle(&configuration, tensors)
        }
        return try Checkpoint(directory, configuration, manifest, tensors, merged)
    }

    /// Adapts a configuration to what the files hold.
    private static func settle(_ configuration: inout ModelConfiguration, _ tensors: [String: StoredTensor]) {
        configuration.family.reader.settle(&configuration, tensors: tensors)
        if configuration.isEncoderClass, self.hasNoDecoder(tensors) { configuration = configuration.encoderAlone }
    }

    private init(
        _ directory: String,
        _ configuration: ModelConfiguration,
        _ manifest: ShardManifest?,
        _ tensors: [String: StoredTensor],
        _ adapter: MergedAdapter?
    ) throws(CheckpointError) {
        self.directory = directory
        self.configuration = configuration
        self.manifest = manifest
        self.tensors = tensors
        self.adapter = adapter
        self.heldExperts = Self.findExperts(tensors, configuration)
        let own = Fingerprint.of(tensors, configuration: configuration)
        self.fingerprint = manifest?.fingerprintValue ?? own
        if let manifest, manifest.partFingerprintValue != own,
            !Self.isReconfigured(manifest, configuration, tensors, directory)
        {
            try Self.findDamage(tensors, manifest, directory)
            throw CheckpointError(
                code: .fingerprintMismatch,
                message:
                    "holds tensors or a configuration with fingerprint \(Fingerprint.text(own)), but its \(ShardManifest.fileName) "
                    + "describes \(manifest.partFingerprint); cut the checkpoint again, or copy the whole part",
                file: directory
            )
        }
    }

    /// Whether the caller's overrides change the configuration that a part was cut with, so that its digest cannot be
    /// compared.
    private static func isReconfigured(
        _ manifest: ShardManifest,
        _ configuration: ModelConfiguration,
        _ tensors: [String: StoredTensor],
        _ directory: String
    ) -> Bool {
        guard var cut = try? ModelConfiguration.load(directory: directory, overrides: manifest.overrides) else {
            return true
        }
        self.settle(&cut, tensors)
        return cut != configuration
    }

    /// Whether the files hold nothing of a decoder; a copy of the embedding belongs to it in name only.
    private static func hasNoDecoder(_ tensors: [String: StoredTensor]) -> Bool {
        !tensors.keys.contains { name in
            TensorRole.headNames.contains(name)
                || name.hasPrefix("decoder.") && !TensorRole.embeddingNames.contains(name)
        }
    }

    private static func findExperts(
        _ tensors: [String: StoredTensor],
        _ configuration: ModelConfiguration
    ) -> [SparseLayer: [Int]] {
        var held: [SparseLayer: [Int]] = [:]
        for name in tensors.keys {
            // Every expert has this matrix, whatever others it has.
            guard
                case .expert(let layer, let expert, .wo)? = configuration.family.reader.role(named: name)
                    ?? TensorRole(packedName: name),
                configuration.has(.expert(layer, expert: expert, .wo))
            else { continue }
            let isWhole = configuration.expertRoles(layer, expert: expert)
                .allSatisfy { tensors[configuration.name(of: $0)] != nil || tensors[$0.packedName] != nil }
            if isWhole { held[layer, default: []].append(expert) }
        }
        return held.mapValues { $0.sorted() }
    }

    /// A tensor by its role, under whatever name the files have it.
    ///
    /// - Parameter role: What the tensor is for. `lmHead` is the shared embedding where the embeddings are tied.
    /// - Returns: A view of the mapped file; a copy if the file does not hold the tensor row by row.
    /// - Throws: `missingTensor`, `wrongShape` or `wrongDType`, with file and tensor.
    public func tensor(_ role: TensorRole) throws(CheckpointError) -> TensorView {
        let stored = try self.stored(role)
        return stored.view()
    }

    /// A tensor's checked description.
    func stored(_ role: TensorRole) throws(CheckpointError) -> StoredTensor {
        let names = self.configuration.names(of: role)
        guard let stored = names.lazy.compactMap({ self.tensors[$0] }).first else {
            throw CheckpointError(
                code: .missingTensor,
                message: "is missing; " + self.hint(forMissing: role),
                file: self.directory,
                tensor: self.name(of: role)
            )
        }
        let shape = self.configuration.shape(of: role)
        guard stored.shape == shape else {
            let keys = self.configuration.family.reader.shapeKeys(of: role)
            throw stored.failure(
                .wrongShape,
                "has the shape \(stored.shape), but the configuration requires \(shape) (\(keys)); correct config.json or "
                    + "override the fields that are wrong"
            )
        }
        let weights = stored.narrowed
        guard weights.dtype.isWeight else {
            throw stored.failure(
                .wrongDType,
                "has \(stored.dtype.safetensorsName) elements; weights must be F64, F32, BF16 or F16, so convert the checkpoint"
            )
        }
        return weights
    }

    /// The tensor's name as the checkpoint's family writes it.
    func name(of role: TensorRole) -> String { self.configuration.family.reader.name(of: role) }

    private func hint(forMissing role: TensorRole) -> String {
        let wanted = self.name(of: role)
        if let name = self.tensors.keys.filter({ $0.hasSuffix("." + wanted) }).min() {
            let prefix = name.dropLast(wanted.count)
            return "the file has \(name): remove \"\(prefix)\" from the names of its tensors, and save it again"
        }
        if role.isExpert, !role.isBias, self.packing != nil {
            return "this part's experts are packed, cut the checkpoint without packing"
        }
        if role.isExpert, self.manifest != nil {
            return "this part does not hold this expert, choose the one that does"
        }
        if role == .lmHead { return "if the model's embeddings are tied, override tie_word_embeddings=true" }
        return "complete the checkpoint, or override the configuration if it describes another model"
    }
}
