// SPDX-License-Identifier: Apache-2.0

/// Finds and reads the weight files of a checkpoint folder.
enum WeightFiles {
    private static let maxIndexBytes = 268_435_456
    private static let maxFiles = 65_536

    private struct Index: Decodable {
        var weightMap: [String: String]

        private enum CodingKeys: String, CodingKey {
            case weightMap = "weight_map"
        }
    }

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
        let index = try JSONFile.decode(Index.self, contentsOf: path, maxBytes: self.maxIndexBytes)
        let files = Set(index.weightMap.values).sorted()
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
            for tensor in try layout.read("\(directory)/\(file)") where index.weightMap[tensor.name] == file {
                tensors[tensor.name] = tensor
            }
            progress?(
                WorkProgress(label: "Opening \(file)", completed: position + 1, total: files.count, unit: .files)
            )
        }
        if tensors.count < index.weightMap.count,
            let missing = index.weightMap.filter({ tensors[$0.key] == nil }).min(by: { $0.key < $1.key })
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
}
