// SPDX-License-Identifier: Apache-2.0

internal import Checkpoints
internal import SwitchyardTypes
internal import TensorKernels

extension WeightLoader {
    /// Checks that a packed part has the form that this build's kernels read, and the requested type.
    ///
    /// - Parameter checkpoint: A part; nothing is checked if it is not packed.
    /// - Throws: `CheckpointError` that names the part, its form and the one that is needed.
    static func requireReadable(_ checkpoint: Checkpoint) throws(CheckpointError) {
        guard let found = checkpoint.packing else { return }
        let own = PackedForm.own
        guard found == own else {
            throw CheckpointError(
                code: .unsupported,
                message:
                    "is packed in form \(found.version) with panels of \(found.panelRows) rows, and this build reads "
                    + "form \(own.version) with panels of \(own.panelRows); cut the checkpoint again with this build, or "
                    + "without packing",
                file: "\(checkpoint.directory)/\(ShardManifest.fileName)"
            )
        }
    }

    /// A matrix of a packed part, used straight from its mapped file.
    func mapped(_ role: TensorRole, as storage: WeightStorage) throws(CheckpointError) -> PackedMatrix {
        let tensor = try self.checkpoint.packedTensor(role)
        let dtype = tensor.dtype
        guard dtype.isPacked else {
            throw tensor.failure(
                .wrongDType,
                "has \(dtype.safetensorsName) elements, which this build has no kernels for; cut the checkpoint again"
            )
        }
        guard storage.accepts(packed: dtype) else {
            throw tensor.failure(
                .wrongDType,
                "is packed in \(dtype), but \(storage) was requested; a packed part is served as it is, so request \(dtype), "
                    + "or cut the checkpoint in \(storage)"
            )
        }
        let layout = PackedLayout(outputs: tensor.rows, inputs: tensor.columns, dtype: dtype)
        guard let layout, let matrix = PackedMatrix(adopting: tensor.bytes, layout: layout, owner: tensor.owner) else {
            throw tensor.failure(
                .wrongShape,
                "has \(tensor.bytes.count) bytes, but [\(tensor.rows), \(tensor.columns)] packed in \(dtype) takes "
                    + "\(layout.map { "\($0.byteCount)" } ?? "more than there can be"); cut the checkpoint again"
            )
        }
        return matrix
    }
}

extension PackedForm {
    /// The form that this build's kernels read.
    static var own: PackedForm {
        PackedForm(version: PackedLayout.version, panelRows: PackedLayout.panelColumns)
    }
}
