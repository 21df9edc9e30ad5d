// SPDX-License-Identifier: Apache-2.0

internal import SwitchyardTypes

/// One cut in progress.
struct ShardRun {
    private let checkpoint: Checkpoint
    var placement: PlacementFile
    private let overrides: [String: String]
    private let packing: (any MatrixPacking)?
    private let progress: (@Sendable (WorkProgress) -> Void)?
    let totalBytes: Int
    private var writtenBytes = 0

    init(
        _ checkpoint: Checkpoint,
        _ placement: PlacementFile,
        _ overrides: [String: String],
        packing: (any MatrixPacking)?,
        progress: (@Sendable (WorkProgress) -> Void)?
    ) {
        self.checkpoint = checkpoint
        self.placement = placement
        self.overrides = overrides
        self.packing = packing
        self.progress = progress
        let configuration = checkpoint.configuration
        let gateway = configuration.gatewayRoles.compactMap { try? checkpoint.stored($0) }
        let roles = configuration.sparseLayers.flatMap { layer in
            (0..<configuration.expertCount).flatMap { configuration.expertRoles(layer, expert: $0) }
        }
        let matrices = roles.filter { !$0.isBias }.compactMap { try? checkpoint.stored($0) }
        let biases = roles.filter(\.isBias).compactMap { try? checkpoint.stored($0) }
        let asTheyAre = gateway + biases + (packing == nil ? matrices : [])
        let packed = packing.map { packing in matrices.map { Self.size(of: $0, packing)?.byteCount ?? 0 } } ?? []
        self.totalBytes = asTheyAre.reduce(packed.reduce(0, +)) {
            $0 + (TensorView.byteCount(shape: $1.shape, dtype: $1.dtype) ?? 0)
        }
    }

    mutating func write(into root: String) throws(CheckpointError) {
        try FileSystem.writeJSON(self.placement, to: "\(root)/\(PlacementFile.fileName)")
        let gateway = "\(root)/\(self.placement.gateway)"
        try self.writePart(
            gateway,
            name: self.placement.gateway,
            kind: .gateway,
            roles: self.checkpoint.configuration.gatewayRoles,
            experts: [],
            companions: CheckpointSharder.companionFiles,
            placement: self.placement
        )
        for pool in self.placement.pools {
            let model = self.checkpoint.configuration
            let layers = model.sparseLayers
            try self.writePart(
                "\(root)/\(pool.directory)",
                name: pool.name,
                kind: .experts,
                roles: layers.flatMap { layer in
                    pool.experts.flatMap { model.expertRoles(layer, expert: $0) }
                },
                experts: layers.map { .init(layer: $0, experts: pool.experts) },
                companions: CheckpointSharder.expertCompanionFiles
            )
        }
        try FileSystem.synchronize(root)
    }

    private mutating func writePart(
        _ directory: String,
        name: String,
        kind: ShardManifest.Kind,
        roles: [TensorRole],
        experts: [ShardManifest.LayerExperts],
        companions: [String],
        placement: PlacementFile? = nil
    ) throws(CheckpointError) {
        try FileSystem.createDirectory(directory)
        var files: [String: WrittenFile] = [:]
        for file in companions where FileSystem.isFile("\(self.checkpoint.directory)/\(file)") {
            files[file] = try FileSystem.copy("\(self.checkpoint.directory)/\(file)", to: "\(directory)/\(file)")
        }
        if let placement {
            files[PlacementFile.fileName] = try FileSystem.writeJSON(
                placement,
                to: "\(directory)/\(PlacementFile.fileName)"
            )
        }
        let packing = kind == .experts ? self.packing : nil
        var stored: [String: StoredTensor] = [:]
        let items = try roles.map { (role) throws(CheckpointError) in
            let name = self.checkpoint.name(of: role)
            let tensor = try self.checkpoint.stored(role).renamed(name)
            stored[name] = tensor
            try tensor.view().requireFinite(in: self.checkpoint.origin)
            guard let packing, !role.isBias else {
                return tensor.update == nil ? SafetensorsWriter.Item(tensor.view()) : Self.merged(tensor)
            }
            return try Self.item(role, tensor, packing)
        }
        let path = "\(directory)/\(CheckpointSharder.weightsFile)"
        let start = self.writtenBytes
        var written = start
        let (bytes, weights) = try SafetensorsWriter.write(items, to: path, metadata: Self.metadata(packing)) { count in
            written += count
            self.progress?(
                WorkProgress(label: "Writing \(name)", completed: written, total: self.totalBytes, unit: .bytes)
            )
        }
        self.writtenBytes = start + bytes
        files[CheckpointSharder.weightsFile] = weights
        let inFile = Dictionary(try SafetensorsReader.read(path).map { ($0.name, $0) }) { first, _ in first }
        // Packed matrices were never in memory together, so the file's own descriptions are used.
        if packing != nil { stored = inFile }
        let checksums = inFile.mapValues { Fingerprint.text(Fingerprint.checksum($0)) }
        let manifest = ShardManifest(
            formatVersion: packing == nil ? ShardManifest.currentVersion : ShardManifest.packedVersion,
            kind: kind,
            name: name,
            fingerprint: self.placement.fingerprint,
            partFingerprint: Fingerprint.text(
                Fingerprint.of(stored, configuration: self.checkpoint.configuration)
            ),
            source: self.placement.source,
            pools: self.placement.pools.count,
            overrides: self.overrides,
            experts: experts,
            tensorCount: items.count,
            byteCount: bytes,
            packing: packing.map { .init(form: $0.form, checksums: checksums) },
            checksums: packing == nil ? checksums : nil,
            files: files.sorted { $0.key < $1.key }
                .map { .init(name: $0.key, byteCount: $0.value.byteCount, sha256: $0.value.sha256) }
        )
        try FileSystem.writeJSON(manifest, to: "\(directory)/\(ShardManifest.fileName)")
        try FileSystem.synchronize(directory)
    }

    /// A tensor that an adapter changes, computed when it is due to be written.
    private static func merged(_ tensor: StoredTensor) -> SafetensorsWriter.Item {
        SafetensorsWriter.Item(
            name: tensor.name,
            dtype: tensor.dtype,
            shape: tensor.shape,
            byteCount: TensorView.byteCount(shape: tensor.shape, dtype: tensor.dtype) ?? 0
        ) { (body) throws(CheckpointError) in
            try SafetensorsWriter.Item(tensor.view()).withBytes(body)
        }
    }

    // MARK: - Packed matrices

    private static func size(
        of tensor: StoredTensor,
        _ packing: any MatrixPacking
    ) -> (dtype: DType, byteCount: Int)? {
        // What is packed is a matrix: `Checkpoint.stored` has compared its shape with the configuration.
        packing.size(of: tensor.dtype, rows: tensor.shape[0], columns: tensor.shape[1])
    }

    /// A matrix that is packed when it is due to be written.
    private static func item(
        _ role: TensorRole,
        _ tensor: StoredTensor,
        _ packing: any MatrixPacking
    ) throws(CheckpointError) -> SafetensorsWriter.Item {
        guard let (dtype, byteCount) = Self.size(of: tensor, packing) else {
            throw tensor.failure(
                .unsupported,
                "has the shape \(tensor.shape), which is too large for its packed type; choose another type"
            )
        }
        return SafetensorsWriter.Item(
            name: role.packedName,
            dtype: dtype,
            shape: [byteCount / dtype.byteCount],
            byteCount: byteCount
        ) { (body) throws(CheckpointError) in
            try packing.pack(tensor.view(), body)
        }
    }

    /// The file's own description; programs read the manifest.
    private static func metadata(_ packing: (any MatrixPacking)?) -> [String: String] {
        guard let form = packing?.form else { return ["format": "pt"] }
        return [
            "format": "switchyard-packed", "form_version": "\(form.version)", "panel_rows": "\(form.panelRows)",
        ]
    }
}
