// SPDX-License-Identifier: Apache-2.0

internal import JSONValues

/// Finds and reads the weight files of a checkpoint folder.
enum WeightFiles {
    private static let maxIndexBytes = 67_108_864
    private static let maxFiles = 65_536

    /// A layout of weights that a folder may have.
    private struct Layout: Sendable {
        var single: String
        var index: String
        var read: @Sendable (String) throws(CheckpointError) -> [StoredTensor]
    }

    /// In order of preference, as in transformers: safetensors before torch, one file before several.
    private static let layouts: [Layout] = [
        Layout(single: "model.safetensors", index: "model.safetensors.index.json", read: SafetensorsReader.read),
        Layout(single: "pytorch_model.bin", index: "pytorch_model.bin.index.json", read: TorchReader.read),
    ]

    /// Reads all tensors' descriptions; their data stays in the files.
    ///
    /// - Parameters:
    ///   - directory: The checkpoint's folder.
    ///   - progress: Called after every file.
    /// - Returns: Every tensor by its name.
    /// - Throws: `CheckpointError` that names the file and the tensor.
    static func read(
        _ directory: String,
        progress: ((WorkProgress) -> Void)?
    ) throws(CheckpointError) -> [String: StoredTensor] {
        for layout in self.layouts {
            if FileSystem.isFile("\(directory)/\(layout.single)") {
                let tensors = try layout.read("\(directory)/\(layout.single)")
                progress?(WorkProgress(label: "Opening \(layout.single)", completed: 1, total: 1, unit: .files))
                // A format that can name a tensor twice has already refused that.
                return Dictionary(tensors.map { ($0.name, $0) }) { first, _ in first }
            }
            if FileSystem.isFile("\(directory)/\(layout.index)") {
                return try self.readSharded(directory, layout, progress: progress)
            }
        }
        // A link that leads nowhere is not a file, so no layout was found by it: say that it is there.
        for name in self.layouts.flatMap({ [$0.single, $0.index] }) where FileSystem.exists("\(directory)/\(name)") {
            _ = try MappedFile(path: "\(directory)/\(name)")
        }
        let names = self.layouts.flatMap { [$0.single, $0.index] }.joined(separator: ", ")
        throw CheckpointError(
            code: .notFound,
            message: "has none of the weight files \(names); point at a complete checkpoint folder",
            file: directory
        )
    }

    private static func readSharded(
        _ directory: String,
        _ layout: Layout,
        progress: ((WorkProgress) -> Void)?
    ) throws(CheckpointError) -> [String: StoredTensor] {
        let path = "\(directory)/\(layout.index)"
        let weightMap = try self.weightMap(path)
        let files = Set(weightMap.values).sorted()
        guard !files.isEmpty, files.count <= self.maxFiles else {
            throw CheckpointError(
                code: .malformed,
                message: "names \(files.count) files; 1 through \(self.maxFiles) are allowed, so fetch the file again",
                file: path
            )
        }
        var tensors: [String: StoredTensor] = [:]
        for (position, file) in files.enumerated() {
            guard !file.isEmpty, !file.contains("/"), !file.contains("\0"), file != "..", file != "." else {
                throw CheckpointError(
                    code: .malformed,
                    message: "names \"\(file.prefix(200))\", which is not a file next to it; fetch the file again",
                    file: path
                )
            }
            for tensor in try layout.read("\(directory)/\(file)") where weightMap[tensor.name] == file {
                tensors[tensor.name] = tensor
            }
            progress?(
                WorkProgress(label: "Opening \(file)", completed: position + 1, total: files.count, unit: .files)
            )
        }
        if tensors.count < weightMap.count,
            let missing = weightMap.filter({ tensors[$0.key] == nil }).min(by: { $0.key < $1.key })
        {
            throw CheckpointError(
                code: .missingTensor,
                message: "is missing, though \(layout.index) names it; fetch both files again",
                file: "\(directory)/\(missing.value)",
                tensor: missing.key
            )
        }
        return tensors
    }

    /// Which file holds which tensor; of two equal names the last counts, as in Python.
    private static func weightMap(_ path: String) throws(CheckpointError) -> [String: String] {
        func malformed(_ complaint: String) -> CheckpointError {
            CheckpointError(code: .malformed, message: complaint + "; fetch the file again", file: path)
        }
        let index = try JSONValue.object(contentsOf: path, maxBytes: self.maxIndexBytes)
        guard case .object(let entries)? = index["weight_map"] else {
            throw malformed("is not the expected JSON (no object weight_map)")
        }
        var map: [String: String] = [:]
        for (name, value) in entries {
            guard case .string(let file) = value else {
                throw malformed("names \(value.kind) as the file of \"\(name.prefix(200))\"")
            }
            map[name] = file
        }
        return map
    }
}
