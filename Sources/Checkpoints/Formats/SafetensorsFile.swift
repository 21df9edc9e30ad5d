// SPDX-License-Identifier: Apache-2.0

/// A file in the safetensors format that is no checkpoint: an optimizer's state, for example.
public enum SafetensorsFile {
    /// Reads a file's tensors: maps it, and checks its header.
    ///
    /// - Parameter path: The file.
    /// - Returns: Views of the mapped file, in no particular order.
    /// - Throws: `CheckpointError` that names the file and what is wrong with it.
    public static func read(_ path: String) throws(CheckpointError) -> [TensorView] {
        try SafetensorsReader.read(path).map { $0.view() }
    }
}
