// SPDX-License-Identifier: Apache-2.0

internal import Checkpoints
internal import Foundation
internal import SwitchTraining

/// Writes a save: a checkpoint that transformers and the cluster load as it is, with what a run needs to go on.
struct SavedCheckpoint {
    /// The files of the checkpoint that the run began with, which saves have too.
    static let companions = [
        Self.generationName, "spiece.model", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json",
        "added_tokens.json",
    ]
    private static let generationName = "generation_config.json"
    static let weightsName = "model.safetensors"

    /// The folder within a save that holds the adapter, in PEFT's layout.
    static let adapterName = "adapter"

    private let adapterBase: String
    private let files: [(name: String, bytes: [UInt8])]

    /// Reads the small files of a model, so that a run does not depend on its folder afterwards.
    ///
    /// - Parameter plan: The run.
    /// - Throws: ``RunError`` for a file that cannot be read.
    init(_ plan: RunPlan) throws(RunError) {
        let model = plan.model
        self.adapterBase = plan.modelName ?? model.name
        var files = [("config.json", Self.float32(try model.configurationContents()))]
        // A new model has no generation settings of its own; those beside the tokenizer may be of another model.
        for name in Self.companions where !(model.isNew && name == Self.generationName) {
            guard let folder = model.tokenizer else { break }
            let path = "\(folder)/\(name)"
            guard FileManager.default.fileExists(atPath: path) else { continue }
            files.append((name, try Self.contents(path)))
        }
        self.files = files
    }

    private static func contents(_ path: String) throws(RunError) -> [UInt8] {
        guard let data = FileManager.default.contents(atPath: path) else {
            throw RunError("\(path) cannot be read; correct the name, or its permissions")
        }
        return Array(data)
    }

    /// `config.json` that names float32, the type of the saved weights.
    static func float32(_ configuration: [UInt8]) -> [UInt8] {
        let text = String(decoding: configuration, as: UTF8.self)
        return Array(
            text.replacing(/"(torch_dtype|dtype)"(\s*:\s*)"[a-z0-9]+"/) { "\"\($0.1)\"\($0.2)\"float32\"" }.utf8
        )
    }

    /// Bytes of a save, nearly.
    ///
    /// - Parameters:
    ///   - parameters: The weights, and an adapter's.
    ///   - state: The optimizer's state.
    /// - Returns: Bytes.
    func byteCount(_ parameters: RunParameters, _ state: [TensorView]) -> Int {
        let elements = parameters.weights.layout.count + (parameters.adapter?.layout.count ?? 0)
        let tensors = state.reduce(elements * MemoryLayout<Float>.stride) { $0 + $1.byteCount }
        // Headers of tensors, the resume state, and what file systems add.
        return self.files.reduce(tensors + 65_536) { $0 + $1.bytes.count }
    }

    /// Writes the files of a save.
    ///
    /// - Parameters:
    ///   - directory: The folder.
    ///   - parameters: The weights, and an adapter's.
    ///   - optimizer: The optimizer's state.
    ///   - state: What else a run needs to go on.
    /// - Throws: Why a file cannot be written.
    func write(
        to directory: String,
        _ parameters: RunParameters,
        optimizer: [TensorView],
        state: ResumeState
    ) throws {
        for file in self.files { try SyncedFile.write(file.bytes, to: "\(directory)/\(file.name)") }
        try SafetensorsWriter.write(
            try parameters.weights.tensors(),
            to: "\(directory)/\(Self.weightsName)",
            metadata: ["format": "pt"]
        )
        if let adapter = parameters.adapter {
            let folder = "\(directory)/\(Self.adapterName)"
            try FileManager.default.createDirectory(atPath: folder, withIntermediateDirectories: false)
            try adapter.write(to: folder, base: self.adapterBase)
        }
        let resume = "\(directory)/\(SaveFolder.resumeName)"
        try SafetensorsWriter.write(optimizer, to: "\(resume)/\(ResumeState.optimizerName)")
        try state.write(to: directory)
    }
}
