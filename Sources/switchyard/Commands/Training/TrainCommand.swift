// SPDX-License-Identifier: Apache-2.0

import ArgumentParser
import Checkpoints
import CommandKit
import ExpertTraining
import Foundation
import GatewayServing
import Logging
import ServiceKit
import SwitchModel
import SwitchTraining
import Telemetry
import TensorKernels
import TrainingData
import TrainingRuns

/// `switchyard train`: trains a model in this process.
struct TrainCommand: AsyncParsableCommand, ThreadedCommand {
    static let configuration = CommandConfiguration(
        commandName: "train",
        abstract: "Train a model: fine-tune a checkpoint, or begin with new weights.",
        discussion: """
            Each save is a folder that transformers and `switchyard up` load as it is, and that --resume goes on from; a
            resumed run is the same run. DIR/latest is the newest save, DIR/metrics.jsonl has a line for each report, and
            DIR/training.svg shows losses and the experts' balance at the end.

            SIGTERM or Ctrl-C saves after the step and ends; a second one ends at once. Every flag is also an environment
            variable (--batch-tokens is SWITCHYARD_BATCH_TOKENS) and a key of the file that --config names.

            EXAMPLES
              switchyard train google/switch-base-8 --data train.jsonl --eval-share 0.02 --out run --steps 2000
              switchyard train t5-small-8 --data words.tsv --eval held-out.tsv --out run --minutes 60 --batch-examples 48
              switchyard train --new config.json --tokenizer deploy/models/switch-mini --data text.txt --out run \\
                --steps 5000 --learning-rate 1 --schedule t5 --warm-up 1000
              switchyard train google/switch-base-8 --data train.jsonl --out run --steps 4000 --resume
              switchyard train google/switch-base-8 --data train.jsonl --out run --steps 2000 --lora-rank 8
              switchyard train google/switch-base-8 --data train.jsonl --out run --steps 2000 --experts frozen \\
                --pool pool-0=127.0.0.1:7401 --pool pool-1=127.0.0.1:7402
              switchyard train google/switch-base-8 --data train.jsonl --out run --steps 2000 --experts full \\
                --pool pool-0=10.0.0.1:7401,10.0.0.2:7401 --pool pool-1=10.0.0.3:7401,10.0.0.4:7401
              switchyard train google/switch-base-8 --data train.jsonl --out run --steps 2000 --experts lora \\
                --lora-rank 8 --lora-target q --lora-target v --lora-target '*.experts.*' \\
                --pool pool-0=10.0.0.1:7401 --pool pool-1=10.0.0.3:7401
              switchyard train --family labml --text shakespeare.txt --eval-share 0.1 --out run --steps 5000
              switchyard up run/latest
            """
    )

    @Argument(help: "The checkpoint to begin with: a folder in Hugging Face layout, or a hub id in the local cache.")
    var model: String?

    @Option(TrainSettings.table.new) var new: String?
    @Option(TrainSettings.table.family) var family: String?
    @Option(TrainSettings.table.size) var size: [String] = []
    @Option(TrainSettings.table.tokenizer) var tokenizer: String?
    @Option(TrainSettings.table.initialisation) var initialisation: String?
    @Option(TrainSettings.table.out) var out: String?
    @Option(TrainSettings.table.steps) var steps: String?
    @Option(TrainSettings.table.minutes) var minutes: String?
    @Flag(TrainSettings.table.resume) var resume = false
    @Flag(TrainSettings.table.resumeIfSaved) var resumeIfSaved = false
    @Option(TrainSettings.table.seed) var seed: String?
    @Option(TrainSettings.table.experts) var experts: String?
    @Option(ComputeSettings().threads) var threads: String?
    @Option(ServiceSettings.table.config) var config: String?

    @OptionGroup(title: "Data") var data: TrainingDataOptions
    @OptionGroup(title: "Batches and memory") var batch: BatchOptions
    @OptionGroup(title: "Loss") var loss: LossOptions
    @OptionGroup(title: "LoRA") var adapter: AdapterOptions
    @OptionGroup(title: "Optimizer") var optimizer: OptimizerOptions
    @OptionGroup(title: "Reports, evaluation and saves") var pace: PaceOptions
    @OptionGroup(title: "Experts on hosts") var cluster: TrainClusterOptions
    @OptionGroup(title: "Experts on hosts") var security: ExpertsSecurityOptions
    @OptionGroup(title: "Metrics") var admin: AdminOptions

    /// Reads all layers of settings.
    func settings() async throws -> Settings {
        let keys = Set(CommandSettings.train.map(\.key))
        var flags = SettingFlags.given(by: self).filter { keys.contains($0.key) }
        flags[TrainSettings.table.model.key] = self.model
        let environment = ProcessInfo.processInfo.environment
        let file = environment[ServiceSettings.table.config.definition.variable].flatMap { $0.isEmpty ? nil : $0 }
        return try await Settings(
            known: CommandSettings.train,
            elsewhere: CommandSettings.all,
            flags: flags,
            environment: environment,
            file: self.config ?? file
        )
    }

    func run() async throws {
        let settings = try await self.settings()
        let plan = try Self.plan(settings)
        var hosts = try TrainClusterSettings.table.hosts(settings, of: plan)
        let hasSaves = !SaveFolder(plan.output).saves().isEmpty
        let resumes =
            try settings.value(TrainSettings.table.resume)
            || (try settings.value(TrainSettings.table.resumeIfSaved) && hasSaves)
        let threads = try settings.value(ComputeSettings().threads)
        try ThreadAllowance.require(ThreadAllowance.ofServices(computing: threads), for: "switchyard train")
        let logger = Logger(label: "train") { _ in SwiftLogNoOpLogHandler() }
        let port = try self.admin.port(settings, CommandSettings.trainingAdmin, of: TrainingFigures.component)
        let figures = TrainingFigures(steps: plan.steps)
        port?.attach(readiness: { figures.readiness }, collect: { figures.collect(into: &$0, expertSeriesLimit: $1) })
        let stop = TrainingStop()
        await stop.listen()
        let display = TrainingDisplay(steps: plan.steps)
        let train: @Sendable (ExpertPlace) async throws -> RunOutcome = { experts in
            try await StopSignals.interruptible {
                let pool = WorkPool(threads: threads)
                let run = try TrainingRun(plan, resumes: resumes, pool: pool, experts: experts) { event in
                    figures.note(event)
                    display.show(event)
                }
                return try run.run { stop.isAsked }
            }
        }
        try hosts?.openFiles(settings, logger: logger)
        let cluster = hosts
        try await AdminPort.run(port, logger: logger) {
            let outcome = try await StatusFile(folder: plan.output, figures: figures)
                .whileRunning {
                    try await Self.withExperts(on: cluster, of: plan, resumes, stop, figures, display, train)
                }
            display.end(outcome, folder: plan.output)
        }
        if let code = stop.exitCode { throw code }
    }

    /// Trains with experts on hosts, if there are any.
    private static func withExperts(
        on hosts: TrainClusterSettings.Hosts?,
        of plan: RunPlan,
        _ resumes: Bool,
        _ stop: TrainingStop,
        _ figures: TrainingFigures,
        _ display: TrainingDisplay,
        _ train: @escaping @Sendable (ExpertPlace) async throws -> RunOutcome
    ) async throws -> RunOutcome {
        guard let hosts else { return try await train(.here) }
        // What becomes of hosts is for people, beside the run's own lines.
        var logger = Logger(label: "experts") { StreamLogHandler.standardError(label: $0) }
        logger.logLevel = .warning
        if let training = hosts.training {
            let experts = try ShardedExperts(
                training,
                of: plan,
                run: try TrainingRun.number(of: plan, resumes: resumes),
                isStopping: { stop.isAsked },
                logger: logger
            )
            figures.watch(experts)
            display.watch(experts)
            return try await experts.running { try await train(.learning(experts)) }
        }
        guard case .checkpoint(let directory) = plan.model else { return try await train(.here) }
        return try await TrainingCluster.with(
            hosts.cluster,
            of: try Checkpoint.open(directory),
            patience: hosts.patience,
            isStopping: { stop.isAsked },
            logger: logger,
            body: { try await train(.frozen($0)) }
        )
    }

    /// The run that settings describe.
    ///
    /// - Parameter settings: The settings.
    /// - Returns: The plan.
    /// - Throws: ``Settings/Failure`` naming what cannot be used, `CheckpointError` for a model that is none.
    static func plan(_ settings: Settings) throws -> RunPlan {
        let table = TrainSettings.table
        guard let output = try settings.value(table.out) else {
            throw Settings.Failure("no folder is given for the run; name one with --out DIR")
        }
        let (model, configuration) = try Self.model(settings)
        var plan = try Self.base(settings, model: model, output: output)
        plan.freezesExperts = try settings.value(table.experts) == .frozen
        if plan.freezesExperts, !settings.isSet(table.loss.expertDropout) { plan.training.expertDropout = 0 }
        plan.lowRank = try table.adapter.lowRank(settings)
        plan.modelName = try settings.value(table.model)
        if configuration.design.isDecoderOnly { try TextTraining.apply(settings, to: &plan, of: configuration) }
        try table.optimizer.apply(settings, to: &plan, of: configuration)
        try table.pace.apply(settings, to: &plan)
        try plan.validate()
        return plan
    }

    /// The part of a run that `train` and `distill` have in common: data, batches, loss and length.
    ///
    /// - Parameters:
    ///   - settings: The settings.
    ///   - model: What the weights begin as.
    ///   - output: The run's folder.
    /// - Returns: The plan, without optimizer and pace.
    /// - Throws: ``Settings/Failure`` naming what cannot be used.
    static func base(_ settings: Settings, model: RunModel, output: String) throws -> RunPlan {
        let table = TrainSettings.table
        let examples = try TrainingDataSettings.table.examples(settings)
        var plan = RunPlan(
            model: model,
            data: try TrainingDataSettings.table.files(settings),
            output: output,
            format: examples.format
        )
        plan.examples = examples
        plan.steps = try settings.value(table.steps)
        plan.minutes = try settings.value(table.minutes)
        plan.seed = UInt64(try settings.value(table.seed))
        plan.training = try table.loss.training(settings)
        plan.training.precision = try settings.value(table.batch.precision)
        plan.training.recomputesBlocks = try settings.value(table.batch.recompute)
        plan.partTokens = try settings.value(table.batch.partTokens)
        plan.batch = try table.batch.limits(settings)
        return plan
    }

    private static func model(_ settings: Settings) throws -> (RunModel, ModelConfiguration) {
        let table = TrainSettings.table
        let family = try settings.value(table.family)
        guard family != nil || !settings.isSet(table.size) else {
            throw Settings.Failure(
                "\(table.size.key) is for the models of --family; leave it out, or override config.json"
            )
        }
        switch (try settings.value(table.model), try settings.value(table.new), family) {
        case (let name?, nil, nil):
            for (key, isSet) in [
                (table.tokenizer.key, settings.isSet(table.tokenizer)),
                (table.initialisation.key, settings.isSet(table.initialisation)),
            ] where isSet {
                throw Settings.Failure("\(key) is for new models; leave it out, or give --new in place of a checkpoint")
            }
            let directory = try ModelSettings.directory(name)
            return (.checkpoint(directory), try ModelConfiguration.load(directory: directory))
        case (nil, let file?, nil):
            return try Self.newModel(settings, file)
        case (nil, nil, .labml?):
            return try TextTraining.model(settings)
        case (nil, nil, nil):
            throw Settings.Failure(
                "no model is given; name a checkpoint, or draw a new model with --new CONFIG.json or --family labml"
            )
        default:
            throw Settings.Failure("a checkpoint, --new and --family exclude each other; give one of them")
        }
    }

    private static func newModel(
        _ settings: Settings,
        _ file: String
    ) throws -> (RunModel, ModelConfiguration) {
        let table = TrainSettings.table
        let configuration = try ModelConfiguration.load(file: file)
        var initialisation = try settings.value(table.initialisation).initialisation
        if configuration.design.isDecoderOnly {
            guard !settings.isSet(table.tokenizer) else {
                throw Settings.Failure(
                    "\(table.tokenizer.key) is for models of word pieces, but \(file) lists characters; leave it out"
                )
            }
            if !settings.isSet(table.initialisation) { initialisation = .labml }
            return (try TextTraining.model(describedBy: file, initialisation), configuration)
        }
        guard let tokenizer = try settings.value(table.tokenizer) else {
            throw Settings.Failure("a new model needs a tokenizer; name a folder that has one with --tokenizer DIR")
        }
        let directory = try ModelSettings.directory(tokenizer)
        return (.new(configuration: file, tokenizer: directory, initialisation), configuration)
    }
}

extension ShardedExperts {
    /// Names the hosts of a run.
    ///
    /// - Parameters:
    ///   - configuration: The hosts.
    ///   - plan: The run.
    ///   - run: Its number.
    ///   - isStopping: Whether it has been told to end.
    ///   - logger: Logs what becomes of hosts.
    /// - Throws: `CheckpointError` for a model that cannot be read, `TrainingError` for pools that do not fit it.
    convenience init(
        _ configuration: Configuration,
        of plan: RunPlan,
        run: UInt64,
        isStopping: @escaping @Sendable () -> Bool,
        logger: Logger
    ) throws {
        let contents = try plan.model.configurationContents()
        var settings = plan.training
        settings.seed = plan.seed
        try self.init(
            configuration,
            model: try ModelConfiguration.load(contents: contents, name: "config.json"),
            file: contents,
            optimizer: plan.optimizer,
            settings: settings,
            adapter: try plan.adapterOnHosts(),
            run: run,
            pool: WorkPool(threads: 1),
            isStopping: isStopping,
            logger: logger
        )
    }
}

extension RunPlan {
    /// The adapter that hosts train in place of experts' weights, with the checkpoint that it is trained beside.
    ///
    /// - Returns: The adapter; nil where experts' weights are trained.
    /// - Throws: `CheckpointError` for a checkpoint that cannot be read.
    fileprivate func adapterOnHosts() throws -> ShardedExperts.Adapter? {
        guard let settings = self.lowRank, case .checkpoint(let directory) = self.model else { return nil }
        return ShardedExperts.Adapter(settings, base: try Checkpoint.open(directory))
    }
}

extension BatchSettings {
    /// How large a step becomes.
    ///
    /// - Parameter settings: The settings.
    /// - Returns: The limits.
    /// - Throws: ``Settings/Failure`` naming what cannot be used.
    func limits(_ settings: Settings) throws -> BatchLimits {
        let examples = try settings.value(self.batchExamples)
        return BatchLimits(
            targetTokens: try settings.value(self.batchTokens) ?? (examples == nil ? 4096 : nil),
            examples: examples,
            endsWithEpoch: try settings.value(self.epochEnd) == .short
        )
    }
}
