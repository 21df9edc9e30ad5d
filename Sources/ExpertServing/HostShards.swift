// SPDX-License-Identifier: Apache-2.0

internal import Checkpoints
internal import SwitchModel

/// The folders that a host loads experts from: parts of one and the same checkpoint.
struct HostShards: Sendable {
    /// The open folders, in the order in which they were given.
    let checkpoints: [Checkpoint]

    /// The first folder, for what all of them have in common.
    let first: Checkpoint

    /// Opens the folders of a configuration.
    ///
    /// - Parameters:
    ///   - configuration: What the host was told.
    ///   - progress: Told after every weight file.
    /// - Throws: `CheckpointError` where a folder cannot be opened; ``ExpertHostError`` where they come from different
    ///   checkpoints.
    init(_ configuration: ExpertHostConfiguration, progress: (@Sendable (WorkProgress) -> Void)?) throws {
        var checkpoints: [Checkpoint] = []
        for directory in configuration.shardDirectories {
            let checkpoint = try Checkpoint.open(
                directory,
                overrides: configuration.modelOverrides,
                progress: progress
            )
            if let first = checkpoints.first {
                try Self.check(checkpoint, against: first)
            }
            checkpoints.append(checkpoint)
        }
        guard let first = checkpoints.first else {
            throw ExpertHostError(.configuration, "the shard's folder is not given; pass --shard DIR")
        }
        self.checkpoints = checkpoints
        self.first = first
    }

    /// The shards' names, each once, joined by commas.
    var name: String {
        var names: [String] = []
        for checkpoint in self.checkpoints {
            let name = checkpoint.manifest?.name ?? checkpoint.directory
            if !names.contains(name) {
                names.append(name)
            }
        }
        return names.joined(separator: ",")
    }

    /// The first folder that holds an expert.
    func checkpoint(holding expert: Int, of layer: SparseLayer) -> Checkpoint? {
        self.checkpoints.first { $0.heldExperts[layer]?.contains(expert) == true }
    }

    private static func check(_ checkpoint: Checkpoint, against first: Checkpoint) throws(ExpertHostError) {
        guard checkpoint.fingerprint == first.fingerprint else {
            throw ExpertHostError(
                .mixedShards,
                "\(first.directory) comes from the checkpoint \(hex(first.fingerprint)) and \(checkpoint.directory) "
                    + "from \(hex(checkpoint.fingerprint)); give a host parts of one checkpoint, cut at once"
            )
        }
        guard checkpoint.configuration == first.configuration else {
            throw ExpertHostError(
                .mixedShards,
                "\(first.directory) and \(checkpoint.directory) come from the checkpoint \(hex(first.fingerprint)), but "
                    + "their configurations differ; cut the checkpoint again and copy whole parts"
            )
        }
    }
}
