// SPDX-License-Identifier: Apache-2.0

internal import Checkpoints
internal import Foundation
public import SwitchTraining
internal import SwitchyardTypes
internal import TensorKernels
internal import Tokenization

/// What the weights of a run begin as.
public enum RunModel: Sendable, Hashable {
    /// Those of a checkpoint in this folder.
    case checkpoint(String)
    /// New ones for the model that a file like `config.json` describes, with the tokenizer of this folder.
    case new(configuration: String, tokenizer: String, Initialisation)
    /// New ones for the model that these contents of a `config.json` describe, whose tokens are these single characters.
    case drawn(configuration: [UInt8], characters: String, Initialisation)

    /// The folder with the files of the tokenizer that reads the data; nil where the configuration lists the characters.
    var tokenizer: String? {
        switch self {
        case .checkpoint(let directory): directory
        case .new(_, let tokenizer, _): tokenizer
        case .drawn: nil
        }
    }

    /// The model in messages.
    var name: String { self.tokenizer ?? "the new model" }

    /// Whether the weights are drawn.
    var isNew: Bool {
        switch self {
        case .checkpoint: false
        case .new, .drawn: true
        }
    }

    /// The tokenizer that reads the data.
    func makeTokenizer() throws -> Tokenizer {
        switch self {
        case .checkpoint(let directory): try Tokenizer(directory: directory)
        case .new(_, let directory, _): try Tokenizer(directory: directory)
        case .drawn(_, let characters, _): try Tokenizer(characters: characters, path: self.name)
        }
    }

    /// The `config.json` that saves have.
    ///
    /// - Returns: Its contents.
    /// - Throws: ``RunError`` for a file that cannot be read.
    public func configurationContents() throws(RunError) -> [UInt8] {
        let file: String
        switch self {
        case .checkpoint(let directory): file = "\(directory)/config.json"
        case .new(let path, _, _): file = path
        case .drawn(let contents, _, _): return contents
        }
        guard let data = FileManager.default.contents(atPath: file) else {
            throw RunError("\(file) cannot be read; correct the name, or its permissions")
        }
        return Array(data)
    }

    /// The model's shape, from its first checkpoint or from a save.
    ///
    /// - Parameter save: The save that the run goes on from, if it does.
    /// - Returns: The configuration, and the checkpoint that has weights, if one does.
    /// - Throws: `CheckpointError` for a checkpoint that is damaged; ``RunError`` for one that holds a part of a model.
    func open(resumingFrom save: String?) throws -> (ModelConfiguration, Checkpoint?) {
        switch (self, save) {
        case (.new(let file, _, _), nil):
            return (try ModelConfiguration.load(file: file), nil)
        case (.drawn(let contents, _, _), nil):
            return (try ModelConfiguration.load(contents: contents, name: self.name), nil)
        case (.checkpoint(let directory), nil), (_, let directory?):
            let checkpoint = try Checkpoint.open(directory)
            guard checkpoint.manifest == nil else {
                throw RunError("\(directory) holds a part of a model; train the whole checkpoint that it was cut from")
            }
            try checkpoint.validate()
            return (checkpoint.configuration, checkpoint)
        }
    }

    /// The fingerprint of the checkpoint that a run begins with.
    ///
    /// - Returns: The fingerprint; nil for a new model.
    /// - Throws: `CheckpointError` for a checkpoint that is damaged.
    public func fingerprint() throws -> UInt64? {
        guard case .checkpoint(let directory) = self else { return nil }
        return try Checkpoint.open(directory).fingerprint
    }

    /// The first weights.
    ///
    /// - Parameters:
    ///   - layout: Where the tensors lie.
    ///   - configuration: The model.
    ///   - checkpoint: The checkpoint with the weights; nil for new ones.
    ///   - seed: What new weights come from.
    ///   - pool: The threads.
    /// - Returns: The weights.
    /// - Throws: `CheckpointError` for tensors that cannot be used, `TrainingError` for an initialisation out of range.
    func weights(
        _ layout: ParameterLayout,
        _ configuration: ModelConfiguration,
        _ checkpoint: Checkpoint?,
        seed: UInt64,
        pool: WorkPool
    ) throws -> ParameterBuffer {
        if let checkpoint { return try ParameterBuffer.load(checkpoint, layout: layout) }
        let weights = ParameterBuffer(layout: layout)
        switch self {
        case .new(_, _, let initialisation), .drawn(_, _, let initialisation):
            try initialisation.fill(weights, keyWidth: configuration.keyWidth, seed: seed, pool: pool)
        case .checkpoint: break
        }
        return weights
    }
}
