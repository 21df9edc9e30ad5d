// SPDX-License-Identifier: Apache-2.0

package import SwitchyardTypes

/// The tensors that one weight file in memory describes, without a checkpoint around it.
package struct WeightFileContents: Sendable {
    /// The format of a weight file.
    package enum Format: Sendable {
        /// `model.safetensors`.
        case safetensors
        /// `pytorch_model.bin`.
        case torch
    }

    /// A tensor as its file describes it.
    package struct Tensor: Sendable {
        private let stored: StoredTensor

        fileprivate init(_ stored: StoredTensor) { self.stored = stored }

        /// The tensor's name in the file.
        package var name: String { self.stored.name }
        /// The type of the elements.
        package var dtype: DType { self.stored.dtype }
        /// The type's name in a safetensors header.
        package var typeName: String { self.stored.dtype.safetensorsName }
        /// The extents, slowest first.
        package var shape: [Int] { self.stored.shape }
        /// The tensor's bytes in the file; for a tensor that is not contiguous all that its strides may reach.
        package var range: Range<Int> { self.stored.range }
        /// Whether the file holds the elements row by row.
        package var isContiguous: Bool { self.stored.strides == nil }

        /// Reads the tensor, and copies it if it is not contiguous.
        ///
        /// - Returns: The tensor, row by row.
        package func view() -> TensorView { self.stored.view() }
    }

    /// The tensors, in the file's order.
    package let tensors: [Tensor]

    /// Reads a file.
    ///
    /// - Parameters:
    ///   - bytes: The whole file, which is copied.
    ///   - format: What it should be.
    /// - Throws: `CheckpointError` that says what is wrong with it.
    package init(_ bytes: [UInt8], as format: Format) throws(CheckpointError) {
        let storage = CopiedStorage(byteCount: bytes.count) { $0.copyBytes(from: bytes) }
        let stored =
            switch format {
            case .safetensors: try SafetensorsReader.read(storage, path: "memory")
            case .torch: try TorchReader.read(storage, path: "memory")
            }
        self.tensors = stored.map(Tensor.init)
    }
}
