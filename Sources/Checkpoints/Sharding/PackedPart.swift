// SPDX-License-Identifier: Apache-2.0

public import SwitchyardTypes

/// A matrix of a packed part, in its mapped file.
public struct PackedTensor: Sendable {
    /// What the matrix is for.
    public let role: TensorRole
    /// The type of the packed elements: `F32`, `BF16` or `I8`.
    public let dtype: DType
    /// Rows of the matrix.
    public let rows: Int
    /// Columns of the matrix.
    public let columns: Int
    /// The file, for messages.
    public let file: String
    /// The tensor's name in the file, for messages.
    public let name: String
    /// The packed elements, at a multiple of ``PackedForm/alignment``; valid as long as ``owner`` lives.
    public var bytes: UnsafeRawBufferPointer { UnsafeRawBufferPointer(rebasing: self.storage.bytes[self.range]) }
    /// Keeps the mapping.
    public var owner: any AnyObject & Sendable { self.storage }

    private let storage: any TensorStorage
    private let range: Range<Int>

    fileprivate init(_ role: TensorRole, _ stored: StoredTensor, rows: Int, columns: Int) {
        self.role = role
        self.dtype = stored.dtype
        self.rows = rows
        self.columns = columns
        self.file = stored.file
        self.name = stored.name
        self.storage = stored.storage
        self.range = stored.range
    }

    /// An error about this tensor.
    ///
    /// - Parameters:
    ///   - code: What went wrong.
    ///   - message: What is wrong and what to do next, without the file and the tensor.
    /// - Returns: The error with file and tensor.
    public func failure(_ code: CheckpointError.Code, _ message: String) -> CheckpointError {
        CheckpointError(code: code, message: message, file: self.file, tensor: self.name)
    }
}

extension TensorRole {
    private static let packedSuffix = ".packed"

    /// The name of the matrix in a packed part, so that no other reader takes it for the matrix itself.
    var packedName: String { self.name + Self.packedSuffix }

    /// The role that a name in a packed part stands for; only experts are packed.
    init?(packedName: String) {
        guard packedName.hasSuffix(Self.packedSuffix),
            let role = TensorRole(name: String(packedName.dropLast(Self.packedSuffix.count))), role.isExpert
        else { return nil }
        self = role
    }
}

extension Checkpoint {
    /// How this part's experts are packed; nil for whole checkpoints, gateway parts and unpacked parts.
    public var packing: PackedForm? { self.manifest?.packing?.form }

    /// A packed matrix by its role.
    ///
    /// - Parameter role: An expert's matrix.
    /// - Returns: The matrix in the mapped file. Its number of bytes is whatever the file holds; code that knows the
    ///   form checks it.
    /// - Throws: `unsupported` if this part is not packed, `missingTensor`, `wrongDType`, or `malformed` if the matrix
    ///   is not aligned as its form requires.
    public func packedTensor(_ role: TensorRole) throws(CheckpointError) -> PackedTensor {
        guard self.packing != nil else {
            throw CheckpointError(
                code: .unsupported,
                message: "is not in a packed part; read the matrix itself",
                file: self.directory,
                tensor: role.name
            )
        }
        guard let stored = self.tensors[role.packedName], role.isExpert else {
            throw CheckpointError(
                code: .missingTensor,
                message: "is missing; this part does not hold this expert, choose the one that does",
                file: self.directory,
                tensor: role.packedName
            )
        }
        switch stored.dtype {
        case .float32, .bfloat16, .int8: break
        default:
            throw stored.failure(
                .wrongDType,
                "has \(stored.dtype.safetensorsName) elements; packed weights are F32, BF16 or I8, so cut the checkpoint again"
            )
        }
        let offset = stored.range.lowerBound
        guard stored.shape.count == 1, stored.strides == nil, offset.isMultiple(of: PackedForm.alignment) else {
            throw stored.failure(
                .malformed,
                "has the shape \(stored.shape) and begins at byte \(offset); a packed matrix has one axis and begins at a "
                    + "multiple of \(PackedForm.alignment), so cut the checkpoint again"
            )
        }
        let shape = self.configuration.shape(of: role)
        return PackedTensor(role, stored, rows: shape[0], columns: shape[1])
    }

    /// The names of this part's packed matrices, as ``verifyPacked(_:)`` takes them, sorted by offset.
    public var packedNames: [String] {
        guard self.packing != nil else { return [] }
        return self.tensors.values
            .sorted { ($0.file, $0.range.lowerBound) < ($1.file, $1.range.lowerBound) }
            .map(\.name)
    }

    /// Tells the system that this part will be read soon; returns at once.
    public func prefetchPacked() {
        guard self.packing != nil else { return }
        var seen: Set<ObjectIdentifier> = []
        for tensor in self.tensors.values where seen.insert(ObjectIdentifier(tensor.storage)).inserted {
            (tensor.storage as? MappedFile)?.prefetch()
        }
    }

    /// Reads a packed matrix from its first byte to its last and compares its checksum with the manifest's.
    ///
    /// - Parameter name: One of ``packedNames``.
    /// - Throws: `fingerprintMismatch` with file, tensor and both checksums, or `missingTensor`.
    public func verifyPacked(_ name: String) throws(CheckpointError) {
        guard let stored = self.tensors[name], let expected = self.manifest?.packing?.checksums[name] else {
            throw CheckpointError(
                code: .missingTensor,
                message: "is missing, or has no checksum in \(ShardManifest.fileName); cut the checkpoint again",
                file: self.directory,
                tensor: name
            )
        }
        try Self.verify(stored, expected)
    }

    static func verify(_ stored: StoredTensor, _ expected: String) throws(CheckpointError) {
        let found = Fingerprint.text(Fingerprint.checksum(stored))
        guard found == expected else {
            throw stored.failure(
                .fingerprintMismatch,
                "has the checksum \(found), but \(ShardManifest.fileName) says \(expected); copy the part again, or cut the "
                    + "checkpoint again"
            )
        }
    }

    /// The first tensor that differs from the manifest, to explain why a part does.
    static func findDamage(
        _ tensors: [String: StoredTensor],
        _ manifest: ShardManifest,
        _ directory: String
    ) throws(CheckpointError) {
        for (name, checksum) in (manifest.packing?.checksums ?? manifest.checksums ?? [:])
            .sorted(by: { $0.key < $1.key })
        {
            guard let stored = tensors[name] else {
                // In a part that is not packed, the fingerprint says that it is another one.
                if manifest.packing == nil { return }
                throw CheckpointError(
                    code: .missingTensor,
                    message: "is missing, though \(ShardManifest.fileName) names it; copy the whole part again",
                    file: directory,
                    tensor: name
                )
            }
            try Self.verify(stored, checksum)
        }
    }
}
