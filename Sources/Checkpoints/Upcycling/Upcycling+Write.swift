// SPDX-License-Identifier: Apache-2.0

internal import SwitchyardTypes

extension Upcycling {
    /// The files beside the weights that are the same for both models.
    private static let companionFiles = CheckpointSharder.companionFiles.filter {
        $0 != ModelConfiguration.configurationFile
    }

    /// Writes the Switch Transformer that a dense T5 becomes, in Hugging Face layout.
    ///
    /// Everything is written into a folder next to the output, which gets its name when it is complete: an output folder
    /// that exists is whole.
    ///
    /// - Parameters:
    ///   - model: The folder of a dense T5.
    ///   - output: A folder that does not exist yet or is empty.
    ///   - router: Draws a router's matrix: given its name and its number of elements.
    ///   - progress: Called for every piece written.
    /// - Returns: The Switch Transformer's configuration.
    /// - Throws: `CheckpointError` with what does not fit, or what cannot be read or written.
    @discardableResult
    public func write(
        model: String,
        output: String,
        router: (_ name: String, _ count: Int) -> [Float],
        progress: (@Sendable (WorkProgress) -> Void)? = nil
    ) throws(CheckpointError) -> ModelConfiguration {
        let checkpoint = try Checkpoint.open(model, progress: progress)
        try checkpoint.validate()
        let (configuration, tensors) = try checkpoint.upcycled(self, router: router)
        let target = try OutputDirectory(output, model: model, force: false)
        do {
            let total = tensors.reduce(0) { $0 + $1.byteCount }
            try target.checkSpace(total)
            let text = SwitchConfigurationFile.text(
                configuration,
                dropoutRate: try DenseConfigurationFile.dropoutRate(of: model)
            )
            let file = try OutputFile(path: "\(target.temporary)/\(ModelConfiguration.configurationFile)")
            try file.write(Array(text.utf8))
            try file.finish()
            for file in Self.companionFiles where FileSystem.isFile("\(model)/\(file)") {
                try FileSystem.copy("\(model)/\(file)", to: "\(target.temporary)/\(file)")
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
