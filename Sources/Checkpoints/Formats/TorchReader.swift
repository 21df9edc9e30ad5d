// SPDX-License-Identifier: Apache-2.0

internal import SwitchyardTypes

/// Reads a state dictionary that `torch.save` wrote (torch 1.6 and later): a zip archive with `data.pkl`, which
/// describes the tensors, and one member `data/KEY` with the bytes of each storage.
enum TorchReader {
    /// A description takes about 250 bytes per tensor: this is enough for a quarter of a million tensors in one file.
    static let maxPickleBytes = 67_108_864
    static let maxRank = 8

    static func read(_ path: String) throws(CheckpointError) -> [StoredTensor] {
        try self.read(MappedFile(path: path), path: path)
    }

    static func read(_ storage: any TensorStorage, path: String) throws(CheckpointError) -> [StoredTensor] {
        let bytes = storage.bytes
        try FileContent.refuseStandIns(bytes, path)
        if LegacyTorchReader.recognizes(bytes) { return try LegacyTorchReader.read(storage, path: path) }
        let archive = try ZipArchive(bytes, path: path)
        let descriptions = archive.members.keys.filter { $0.hasSuffix("/data.pkl") }
        guard descriptions.count == 1, let description = descriptions.first, let pickle = archive.members[description]
        else {
            throw self.malformed("holds \(descriptions.count) members */data.pkl where torch.save writes one", path)
        }
        let prefix = description.dropLast("data.pkl".count)
        if let order = archive.members["\(prefix)byteorder"] {
            let name = String(decoding: bytes[order].prefix(16), as: UTF8.self)
            guard name == "little" else {
                throw CheckpointError(
                    code: .unsupported,
                    message: "has \(name)-endian data; save it on a little-endian machine",
                    file: path
                )
            }
        }
        guard pickle.count <= self.maxPickleBytes else {
            throw CheckpointError(
                code: .limitExceeded,
                message: "has a data.pkl of \(pickle.count) bytes; the limit is \(self.maxPickleBytes)",
                file: path
            )
        }
        var unpickler = Unpickler(UnsafeRawBufferPointer(rebasing: bytes[pickle]), path: path)
        return try unpickler.run()
            .map { (name, tensor) throws(CheckpointError) in
                try self.tensor(name, tensor, in: storage, path) { archive.members["\(prefix)data/\($0)"] }
            }
    }

    /// Describes a tensor, once its storage is found and its extent checked.
    ///
    /// - Parameters:
    ///   - name: The tensor's name.
    ///   - tensor: What the pickle says of it.
    ///   - storage: The file.
    ///   - path: The file's name in errors.
    ///   - find: Where in the file the storage of a key lies.
    /// - Returns: The tensor.
    /// - Throws: `malformed` that names file and tensor.
    static func tensor(
        _ name: String,
        _ tensor: Unpickler.Tensor,
        in storage: any TensorStorage,
        _ path: String,
        _ find: (String) -> Range<Int>?
    ) throws(CheckpointError) -> StoredTensor {
        func malformed(_ complaint: String) -> CheckpointError {
            CheckpointError(
                code: .malformed,
                message: complaint + "; fetch the file again",
                file: path,
                tensor: String(name.prefix(200))
            )
        }
        let dtype = tensor.storage.dtype
        guard let member = find(tensor.storage.key) else {
            throw malformed("needs the storage \"\(tensor.storage.key.prefix(80))\", which is not in the file")
        }
        let (storageBytes, overflow) = tensor.storage.elementCount.multipliedReportingOverflow(by: dtype.byteCount)
        guard !overflow, storageBytes == member.count else {
            throw malformed(
                "needs a storage of \(tensor.storage.elementCount) \(dtype.safetensorsName) elements, but it has \(member.count) bytes"
            )
        }
        guard tensor.shape.count <= self.maxRank, tensor.shape.count == tensor.strides.count else {
            throw malformed(
                "has \(tensor.shape.count) axes and \(tensor.strides.count) strides; the limit is \(self.maxRank)"
            )
        }
        guard let byteCount = TensorView.byteCount(shape: tensor.shape, dtype: dtype), byteCount <= member.count,
            tensor.offset >= 0, let reach = self.reach(tensor), reach <= tensor.storage.elementCount - tensor.offset
        else {
            throw malformed(
                "reaches outside its storage of \(tensor.storage.elementCount) elements (offset \(tensor.offset), shape "
                    + "\(tensor.shape), strides \(tensor.strides))"
            )
        }
        let start = member.lowerBound + tensor.offset * dtype.byteCount
        return StoredTensor(
            name: name,
            dtype: dtype,
            shape: tensor.shape,
            storage: storage,
            range: start..<start + reach * dtype.byteCount,
            strides: self.isContiguous(tensor) ? nil : tensor.strides,
            file: path
        )
    }

    /// How many elements after the offset the tensor's strides reach; `nil` beyond 63 bits or for a negative stride.
    private static func reach(_ tensor: Unpickler.Tensor) -> Int? {
        if tensor.shape.contains(0) { return 0 }
        var last = 0
        for (extent, stride) in zip(tensor.shape, tensor.strides) {
            guard stride >= 0 else { return nil }
            let (step, overflow) = (extent - 1).multipliedReportingOverflow(by: stride)
            let (sum, carry) = last.addingReportingOverflow(step)
            if overflow || carry { return nil }
            last = sum
        }
        return last == Int.max ? nil : last + 1
    }

    private static func isContiguous(_ tensor: Unpickler.Tensor) -> Bool {
        if tensor.shape.contains(0) { return true }
        var expected = 1
        for (extent, stride) in zip(tensor.shape, tensor.strides).reversed() where extent != 1 {
            if stride != expected { return false }
            expected *= extent
        }
        return true
    }

    private static func malformed(_ complaint: String, _ path: String) -> CheckpointError {
        CheckpointError(code: .malformed, message: complaint + "; fetch the file again", file: path)
    }
}
