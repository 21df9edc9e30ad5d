// SPDX-License-Identifier: Apache-2.0

internal import SwitchyardTypes

extension ExpertPruning {
    /// Writes the smaller model in Hugging Face layout, with tokenizer and generation settings.
    ///
    /// Everything is written into a folder next to the output, which gets its name when it is complete: an output folder
    /// that exists is whole.
    ///
    /// - Parameters:
    ///   - model: The folder of a Switch Transformer.
    ///   - output: A folder that does not exist yet or is empty.
    ///   - progress: Called for every piece written.
    /// - Returns: The smaller model's configuration.
    /// - Throws: `CheckpointError` with what does not fit, or what cannot be read or written.
    @discardableResult
    public func write(
        model: String,
        output: String,
        progress: (@Sendable (WorkProgress) -> Void)? = nil
    ) throws(CheckpointError) -> ModelConfiguration {
        let checkpoint = try Checkpoint.open(model, progress: progress)
        try checkpoint.validate()
        let (configuration, tensors) = try checkpoint.pruned(self)
        let target = try OutputDirectory(output, model: model, force: false)
        do {
            let total = tensors.reduce(0) { $0 + $1.byteCount }
            try target.checkSpace(total)
            let rate = try DenseConfigurationFile.dropoutRate(of: model)
            let file = try OutputFile(path: "\(target.temporary)/\(ModelConfiguration.configurationFile)")
            try file.write(Array(SwitchConfigurationFile.text(configuration, dropoutRate: rate).utf8))
            try file.finish()
            for name in CheckpointSharder.companionFiles
            where name != ModelConfiguration.configurationFile && FileSystem.isFile("\(model)/\(name)") {
                try FileSystem.copy("\(model)/\(name)", to: "\(target.temporary)/\(name)")
            }
            var written = 0
            try SafetensorsWriter.write(
                tensors,
                to: "\(target.temporary)/\(CheckpointSharder.weightsFile)",
                metadata: ["format": "pt"]
            ) { count in
                written += count
                progress?(WorkProgress(label: "Writing weights", completed: written, total: total, unit: .bytes))
            }
            try FileSystem.synchronize(target.temporary)
            try target.commit()
        } catch {
            target.discard()
            throw error
        }
        return configuration
    }
}
