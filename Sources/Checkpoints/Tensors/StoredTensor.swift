// SPDX-License-Identifier: Apache-2.0

internal import SwitchyardTypes

/// One tensor of a file, bounds already checked, as a reader hands it to `Checkpoint`.
struct StoredTensor: Sendable {
    let name: String
    let dtype: DType
    let shape: [Int]
    let storage: any TensorStorage
    /// The tensor's bytes if it is contiguous, else all bytes that its strides may reach.
    let range: Range<Int>
    /// Steps in elements along each axis, for a tensor that is not contiguous.
    let strides: [Int]?
    /// The file, for messages.
    let file: String
    /// What an adapter makes of the tensor; nil for the tensor as the file has it.
    var update: AdapterUpdate?

    /// The tensor as an adapter changes it; copied only if one does, or if it is not contiguous.
    func view() -> TensorView {
        self.update?.view(of: self) ?? self.unchangedView()
    }

    /// The tensor as the file has it.
    func unchangedView() -> TensorView {
        guard let strides = self.strides else {
            return TensorView(
                name: self.name,
                dtype: self.dtype,
                shape: self.shape,
                storage: self.storage,
                range: self.range
            )
        }
        let size = self.dtype.byteCount
        let byteCount = self.shape.reduce(size, *)
        let copy = CopiedStorage(byteCount: byteCount) { target in
            let source = UnsafeRawBufferPointer(rebasing: self.storage.bytes[self.range])
            var index = Array(repeating: 0, count: self.shape.count)
            for position in stride(from: 0, to: byteCount, by: size) {
                var element = 0
                for axis in index.indices { element += index[axis] * strides[axis] }
                for byte in 0..<size { target[position + byte] = source[element * size + byte] }
                for axis in index.indices.reversed() {
                    index[axis] += 1
                    if index[axis] < self.shape[axis] { break }
                    index[axis] = 0
                }
            }
        }
        return TensorView(name: self.name, dtype: self.dtype, shape: self.shape, storage: copy, range: 0..<byteCount)
    }

    /// The same tensor under another name.
    func renamed(_ name: String) -> StoredTensor {
        StoredTensor(
            name: name,
            dtype: self.dtype,
            shape: self.shape,
            storage: self.storage,
            range: self.range,
            strides: self.strides,
            file: self.file,
            update: self.update
        )
    }

    func failure(_ code: CheckpointError.Code, _ message: String) -> CheckpointError {
        let file = self.update.map { "\(self.file) with \($0.file)" } ?? self.file
        return CheckpointError(code: code, message: message, file: file, tensor: self.name)
    }
}
