// SPDX-License-Identifier: Apache-2.0

import ArgumentParser
import Checkpoints
import CommandKit
import SwitchModel
import SwitchyardTypes
import Tokenization

/// `switchyard inspect`: what a checkpoint is, before anything is cut or served.
struct InspectCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "inspect",
        abstract: "Show what a checkpoint is, what of it is not used, and what would prevent serving it.",
        discussion: """
            Reads configuration, tokenizer and the headers of the weights, so that it takes a second or two for a large
            checkpoint; shard and the services make the same checks. Memory is that of weights alone. The exit status is 1
            if the checkpoint cannot be served.

            EXAMPLES
              switchyard inspect deploy/models/switch-mini
              switchyard inspect google/switch-base-8 --pools 4 --json
              switchyard inspect google/switch-c-2048 --override num_decoder_layers=15 --override decoder_sparse_step=1
            """
    )

    @Argument(help: "A folder in Hugging Face layout, a part of a cut checkpoint, or a hub id in the local cache.")
    var model: String

    @Option(help: "Show the memory for this many expert pools.")
    var pools = 2

    @Option(help: ArgumentHelp("Override a value in config.json; may be given several times.", valueName: "key=value"))
    var override: [String] = []

    @Option(
        help: ArgumentHelp(
            "Merge this LoRA adapter into the weights: a folder, or a hub id in the local cache.",
            valueName: "dir"
        )
    )
    var mergeAdapter: String?

    @Flag(help: "Print JSON.")
    var json = false

    func validate() throws {
        guard self.pools >= 1 else { throw ValidationError("--pools is \(self.pools); it must be 1 or more") }
    }

    func run() async throws {
        let folder = try ModelSettings.directory(self.model)
        let report = CheckpointInspector(
            folder: folder,
            overrides: try ModelSettings.overrides(self.override),
            adapter: try self.mergeAdapter.map(ModelSettings.directory),
            pools: self.pools
        )
        .report()
        Terminal.print(self.json ? try report.json() : report.text(next: self.next(report)))
        guard report.problems.isEmpty else { throw ExitCode.failure }
    }

    /// The command that serves what was inspected.
    private func next(_ report: InspectReport) -> String {
        switch report.kind {
        case .experts: return "switchyard expert-host --shard \(self.model) --listen 127.0.0.1:7401"
        case .gateway: return "switchyard gateway --model \(self.model) --pool pool-0=127.0.0.1:7401"
        case .whole:
            let flags =
                self.override.map { " --override \($0)" }.joined()
                + (self.mergeAdapter.map { " --merge-adapter \($0)" } ?? "")
            return "switchyard up \(self.model)\(flags)"
        }
    }
}

/// Opens a checkpoint as a service would, and goes on after each problem as far as possible.
struct CheckpointInspector {
    let folder: String
    let overrides: [String: String]
    /// The folder of a LoRA adapter to merge.
    var adapter: String?
    let pools: Int

    /// Looks at everything.
    ///
    /// - Returns: What was found, problems included.
    func report() -> InspectReport {
        var report = InspectReport(folder: self.folder)
        do {
            let checkpoint = try Checkpoint.open(self.folder, overrides: self.overrides, adapter: self.adapter)
            self.add(checkpoint, to: &report)
        } catch {
            report.problems.append(error.description)
            // The configuration may be sound where the weights are not.
            if let model = try? ModelConfiguration.load(directory: self.folder, overrides: self.overrides) {
                self.add(model, to: &report)
            }
        }
        return report
    }

    private func add(_ checkpoint: Checkpoint, to report: inout InspectReport) {
        let model = checkpoint.configuration
        self.add(model, to: &report)
        do {
            try ModelError.requireSupport(for: model)
        } catch {
            report.problems.append(error.description)
        }
        do {
            try GenerationParameters.check(settingsOf: model)
        } catch {
            report.problems.append(error.description)
        }
        report.fingerprint = checkpoint.fingerprint.fingerprintText
        if let manifest = checkpoint.manifest {
            report.part = "\(manifest.name) of \(manifest.source)"
            report.kind = manifest.kind == .gateway ? .gateway : .experts
        }
        report.adapter = checkpoint.adapter?.notes ?? []
        let contents = checkpoint.contents
        report.files = contents.files
        report.types = contents.types.sorted { $0.value.bytes > $1.value.bytes }
            .map {
                .init(
                    dtype: "\($0.key)",
                    tensors: $0.value.tensors,
                    parameters: $0.value.parameters,
                    bytes: $0.value.bytes
                )
            }
        report.gatewayParameters = contents.gateway.parameters
        report.expertParameters = contents.experts.parameters
        report.unusedTensors = contents.unused
        do {
            try checkpoint.validate()
            try self.addMemory(checkpoint, to: &report)
        } catch {
            report.problems.append(error.description)
        }
        guard checkpoint.manifest?.kind != .experts else { return }
        do {
            if let tokenizer = try Tokenizer.find(in: checkpoint.directory) {
                report.tokenizer =
                    tokenizer.endTokenID == nil
                    ? "\(tokenizer.vocabularySize) characters"
                    : "\(tokenizer.vocabularySize) tokens, \(tokenizer.sentinelCount) of them sentinels"
                if tokenizer.vocabularySize > model.vocabularySize {
                    report.tokenizer? += "; texts that need one beyond \(model.vocabularySize - 1) are refused"
                }
            } else {
                report.tokenizer = "none: ids only"
            }
        } catch {
            report.problems.append(error.description)
        }
    }

    private func add(_ model: ModelConfiguration, to report: inout InspectReport) {
        report.notes = model.generationNotes
        func blocks(_ stack: Stack) -> [Int] { model.sparseLayers.filter { $0.stack == stack }.map(\.block) }
        report.shape = InspectReport.Shape(
            family: model.family.rawValue,
            parameters: model.parameterCount,
            vocabularySize: model.vocabularySize,
            modelWidth: model.modelWidth,
            feedForwardWidth: model.feedForwardWidth,
            keyWidth: model.keyWidth,
            heads: model.headCount,
            encoderBlocks: model.encoderBlocks,
            decoderBlocks: model.decoderBlocks,
            encoderSparseBlocks: blocks(.encoder),
            decoderSparseBlocks: blocks(.decoder),
            expertsPerLayer: model.expertCount,
            expertCapacity: model.expertCapacity,
            activation: (model.gatedFeedForward ? "gated " : "") + model.activation.rawValue,
            head: (model.tiedEmbeddings ? "head tied to the embedding" : "its own head")
                + (model.scalesDecoderOutputs == model.tiedEmbeddings
                    ? "" : model.scalesDecoderOutputs ? ", outputs scaled" : ", outputs not scaled"),
            decoderStartToken: model.decoderStartTokenID,
            endTokens: model.generation.endTokenIDs,
            padToken: model.padTokenID
        )
    }

    private func addMemory(_ checkpoint: Checkpoint, to report: inout InspectReport) throws(CheckpointError) {
        // A part is not the whole that the table describes.
        guard checkpoint.manifest == nil else { return }
        let pools = checkpoint.configuration.sparseLayers.isEmpty ? 0 : self.pools
        guard pools <= checkpoint.configuration.expertCount else {
            throw CheckpointError(
                code: .invalidArgument,
                message: "cannot be cut into \(pools) pools; its experts are \(checkpoint.configuration.expertCount)",
                file: self.folder
            )
        }
        for storage in [WeightStorage.float32, .bfloat16, .int8] {
            let memory = try MemoryEstimate(checkpoint, storage: storage, pools: pools)
            report.memory.append(
                .init(storage: storage.rawValue, gatewayBytes: memory.gateway, poolBytes: memory.pools)
            )
        }
    }
}
