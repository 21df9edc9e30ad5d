// SPDX-License-Identifier: Apache-2.0

internal import Checkpoints
internal import SwitchModel
public import SwitchTraining
internal import SwitchyardTypes
public import TensorKernels
internal import Tokenization
internal import TrainingData

/// One training run in this process: reads, steps, evaluates, saves.
///
/// A run is the same run however often it is stopped, killed and resumed: what it computes depends on the plan and on the
/// last save. It blocks the calling thread.
public final class TrainingRun {
    private let plan: RunPlan
    private let pool: WorkPool
    private let folder: SaveFolder
    private let log: MetricsLog
    private let files: SavedCheckpoint
    private let step: TrainingStep
    private let parameters: RunParameters
    /// Whom the model learns from besides the data.
    private let teacher: (any Teacher)?
    /// Whose answers stand in place of the data's targets.
    private let answers: (any AnswerSource)?
    /// The checkpoint below an adapter, or around whose experts all else is trained.
    private let base: UInt64?
    /// The number by which hosts know the run; nil where none ever trained for it.
    private let number: UInt64?
    private let schedule: LearningRateSchedule
    private let lines: RunLines
    private var batches: BatchStream<RunLines>
    private let evaluation: EvaluationSet
    private var pace: RunPace
    private var best: ResumeState.Best?
    private let secondsBefore: Double
    private let start = ContinuousClock.now
    private let tell: (RunEvent) -> Void

    /// Opens model, data and the run's folder.
    ///
    /// - Parameters:
    ///   - plan: The run.
    ///   - resumes: Whether it goes on where the folder's last save ends.
    ///   - pool: The threads.
    ///   - experts: Where experts are computed. It does not change the weights.
    ///   - teacher: Whom the model learns from, where the plan has a teacher's loss. Answers that are the same wherever they
    ///     come from give the same weights.
    ///   - answers: Whose answers stand in place of the data's targets; nil to learn those.
    ///   - tell: Told how it goes.
    /// - Throws: ``RunError``, `CheckpointError`, `TokenizerError`, `DataError` or `TrainingError`, each saying what to do.
    public init(
        _ plan: RunPlan,
        resumes: Bool,
        pool: WorkPool,
        experts: ExpertPlace = .here,
        teacher: (any Teacher)? = nil,
        answers: (any AnswerSource)? = nil,
        tell: @escaping (RunEvent) -> Void
    ) throws {
        try plan.validate()
        if case .frozen = experts, !plan.freezesExperts {
            throw RunError("the experts elsewhere stay as they are, but this run trains them; freeze them")
        }
        if case .learning(let learning) = experts {
            guard !plan.freezesExperts else {
                throw RunError(
                    "the experts elsewhere are trained, but this run leaves them as they are; train them here"
                )
            }
            guard learning.adapter == plan.lowRank else {
                throw RunError(
                    "the experts elsewhere are trained with \(Self.words(learning.adapter)), but this run with"
                        + " \(Self.words(plan.lowRank)); give both the same"
                )
            }
        }
        guard (teacher != nil) == (plan.training.teacher != nil) else {
            throw RunError("a run needs a teacher where its loss has one, and only there; give both or neither")
        }
        self.teacher = teacher
        self.answers = answers
        // Answers of another teacher, or fewer of them, make another run.
        var plan = plan
        plan.teacher = teacher.map { "\($0.identity)" }
        plan.answers = answers.map { "\($0.identity)" }
        self.plan = plan
        self.pool = pool
        self.tell = tell
        self.folder = SaveFolder(plan.output)
        let save = try self.folder.last(resumes: resumes)
        let state = try save.map { try ResumeState.load($0, for: plan) }
        // An adapter's save holds merged weights; the run goes on beside those that it began with.
        let (configuration, checkpoint) = try plan.model.open(resumingFrom: plan.lowRank == nil ? save?.path : nil)
        self.base =
            plan.lowRank != nil
            ? checkpoint?.fingerprint : plan.freezesExperts ? try plan.model.fingerprint() : nil
        if let state, state.base != self.base {
            throw RunError("\(plan.model.name) is not the checkpoint that the run began with; bring that one")
        }
        if case .learning(let learning) = experts { self.number = learning.run } else { self.number = state?.run }
        self.files = try SavedCheckpoint(plan)
        let tokenizer = try Self.tokenizer(plan.model, configuration, for: plan.examples)
        try Self.checkSupport(plan, configuration, teacher: teacher, answers: answers)
        self.lines = try RunLines(
            plan.data,
            plan.examples,
            .training(holdingOut: plan.evaluationShare),
            tokenizer
        )
        self.batches = try BatchStream(
            try ExampleStream(
                self.lines,
                settings: plan.examples,
                tokenizer: tokenizer,
                use: .training(epochs: nil),
                // What a text holds out is none of its windows.
                evaluationShare: plan.examples.isNext ? 0 : plan.evaluationShare,
                seed: plan.seed,
                resumingAt: state?.position
            ),
            limits: plan.batch
        )
        self.evaluation = try EvaluationSet(plan, self.lines, tokenizer)
        var training = plan.training
        training.seed = plan.seed
        self.step = try TrainingStep(configuration, settings: training, pool: pool, experts: experts)
        self.parameters = try RunParameters(
            plan,
            self.step.layout,
            configuration,
            checkpoint,
            resumingFrom: save,
            experts: experts,
            pool: pool
        )
        self.schedule = try plan.learningRateSchedule
        self.pace = RunPace(plan, resumingAfter: state?.step ?? 0)
        self.best = state?.best
        self.secondsBefore = state?.seconds ?? 0
        // Nothing of the folder changes before all of the plan is known to be usable.
        try self.folder.prepare()
        self.log = try MetricsLog(self.folder.file(MetricsLog.name), resumingAfter: state?.step)
        let size = RunSize(
            parameters: self.step.layout.parameterCount,
            trainedParameters: self.parameters.trainedCount,
            freezesExperts: plan.freezesExperts,
            lines: self.batches.examples.linesPerEpoch,
            evaluationExamples: self.evaluation.exampleCount
        )
        tell(.started(size, resumedAfter: state?.step))
    }

    private static func words(_ adapter: LowRankSettings?) -> String {
        adapter.map { "an adapter of rank \($0.rank) for \($0.targets.joined(separator: ", "))" } ?? "all their weights"
    }

    /// The number by which hosts know a run: that of its last save, or a new one.
    ///
    /// - Parameters:
    ///   - plan: The run.
    ///   - resumes: Whether it goes on.
    /// - Returns: The number, which is not 0.
    /// - Throws: ``RunError`` for a save that cannot be used.
    public static func number(of plan: RunPlan, resumes: Bool) throws -> UInt64 {
        let save = try SaveFolder(plan.output).last(resumes: resumes)
        return try save.flatMap { try ResumeState.load($0, for: plan).run } ?? UInt64.random(in: 1...UInt64.max)
    }

    /// The model's tokenizer, if its tokens are all in the model's vocabulary and its examples are of its kind.
    static func tokenizer(
        _ model: RunModel,
        _ configuration: ModelConfiguration,
        for examples: ExampleSettings
    ) throws -> Tokenizer {
        let tokenizer = try model.makeTokenizer()
        guard configuration.design.isDecoderOnly == examples.isNext else {
            throw RunError(
                "\(model.name) is of the type \(configuration.family.rawValue), which has "
                    + (examples.isNext
                        ? "an encoder; a text whose next character is learned is for models without one: give it as plain text in --data"
                        : "no encoder, and examples of an input and a target are for models with one; give a text with --text")
            )
        }
        guard tokenizer.vocabularySize <= configuration.vocabularySize else {
            throw RunError(
                "the tokenizer of \(model.name) has \(tokenizer.vocabularySize) tokens, but the model only"
                    + " \(configuration.vocabularySize); bring the model's own tokenizer"
            )
        }
        return tokenizer
    }

    /// Refuses what models without an encoder are not trained with.
    private static func checkSupport(
        _ plan: RunPlan,
        _ configuration: ModelConfiguration,
        teacher: (any Teacher)?,
        answers: (any AnswerSource)?
    ) throws(RunError) {
        guard configuration.design.isDecoderOnly else { return }
        guard plan.lowRank == nil else {
            throw RunError("a LoRA adapter is for models with an encoder; train all weights of \(plan.model.name)")
        }
        guard teacher == nil, answers == nil else {
            throw RunError("students are models with an encoder; train \(plan.model.name) on a text")
        }
        if case .floor(_, .drawn) = plan.training.capacity, plan.partTokens != nil {
            throw RunError(
                "dropped tokens are drawn among all of a step, which a limit of a part's tokens cuts; leave out the limit, or drop"
                    + " in the tokens' order"
            )
        }
    }

    private var seconds: Double { self.secondsBefore + (ContinuousClock.now - self.start).inSeconds }

    /// Trains until the plan's end.
    ///
    /// - Parameter isStopping: Asked before each step whether the run is to save and end now.
    /// - Returns: How it ended.
    /// - Throws: As `init`; the last save stays as it is. ``RunError`` too when the last save cannot be written.
    public func run(isStopping: () -> Bool) throws -> RunOutcome {
        if self.pace.step == 0, !isStopping() { try self.evaluate(unless: isStopping) }
        var means = ReportMeans(seconds: self.seconds)
        var wasStopped = isStopping()
        while !wasStopped, !self.pace.isOver(after: self.seconds) {
            guard let next = try self.batches.next() else { break }
            let rate = self.schedule.rate(at: self.pace.step)
            means.add(try self.train(on: next, rate: rate))
            wasStopped = isStopping()
            for action in self.pace.stepped(after: self.seconds, isStopping: wasStopped) {
                try self.perform(action, &means, rate: rate, isStopping)
            }
            // An evaluation takes its time; a run that is told to end in it must not take another step.
            guard !wasStopped, isStopping() else { continue }
            wasStopped = true
            for action in self.pace.stopped() { try self.perform(action, &means, rate: rate, isStopping) }
        }
        return RunOutcome(
            step: self.pace.step,
            save: self.pace.savedStep.map { self.folder.file(SaveFolder.name($0)) },
            bestSave: self.best.flatMap { best in self.folder.saves().first { $0.step == best.step }?.path },
            wasStopped: wasStopped
        )
    }

    /// Makes a step; an error says too where its data lies, and which save is untouched.
    private func train(on batch: TokenizedBatch, rate: Double) throws -> StepReport {
        do {
            var examples = batch.examples(partTokens: self.plan.partTokens)
            try self.answers?.replaceTargets(of: &examples)
            try self.teacher?.teach(&examples)
            var report = try self.step.gradients(
                examples,
                weights: self.parameters.weights,
                into: self.parameters.gradients,
                step: self.pace.step
            )
            try self.parameters.update(
                &report,
                squares: self.step.squaresElsewhere,
                rate: rate,
                limit: self.plan.clipNorm
            )
            return report
        } catch {
            let places = [batch.lines.first, batch.lines.last].compactMap { $0.map { "\(self.lines.place(of: $0))" } }
            let save = self.pace.savedStep.map { "the last save is \(self.folder.file(SaveFolder.name($0)))" }
            throw RunError(
                "\(error); the step's first and last line are \(places.joined(separator: " and "));"
                    + " \(save ?? "there is no save yet")"
            )
        }
    }

    private func perform(
        _ action: RunPace.Action,
        _ means: inout ReportMeans,
        rate: Double,
        _ isStopping: () -> Bool
    ) throws {
        switch action {
        case .report:
            var report = means.report(step: self.pace.step, seconds: self.seconds)
            report.learningRate = rate
            let position = self.batches.position
            report.epoch = Double(position.epoch) + Double(position.place) / Double(self.batches.examples.linesPerEpoch)
            let stepTime = means.stepTime(until: self.seconds)
            means = ReportMeans(seconds: self.seconds)
            self.note(report, secondsLeft: self.pace.secondsLeft(after: self.seconds, stepTime: stepTime))
        case .evaluate:
            try self.evaluate(unless: isStopping)
        case .save:
            try self.save()
        case .finish:
            try self.finish()
        }
    }

    private func note(_ report: RunReport, secondsLeft: Double?) {
        if !self.log.append(report) { self.tell(.metricsLost) }
        self.tell(.report(report, secondsLeft: secondsLeft))
    }

    /// Evaluates; an evaluation that is cut short leaves no trace.
    private func evaluate(unless isStopping: () -> Bool) throws {
        guard !self.evaluation.batches.isEmpty else { return }
        var means = ReportMeans(seconds: self.seconds)
        for batch in self.evaluation.batches {
            guard !isStopping() else { return }
            means.add(try self.step.evaluate(batch, weights: self.parameters.weights))
        }
        var report = means.report(step: self.pace.step, seconds: self.seconds)
        report.kind = .evaluation
        report.gradientNorm = nil
        if self.pace.step > 0, report.crossEntropy < self.best?.crossEntropy ?? .infinity {
            self.best = .init(step: self.pace.step, crossEntropy: report.crossEntropy)
        }
        self.note(report, secondsLeft: nil)
    }

    private func save() throws {
        let optimizer = try self.parameters.bringHome()
        guard self.parameters.weights.all.allSatisfy(\.isFinite) else {
            throw RunError(
                "after step \(self.pace.step) a weight is an infinity or not a number, so it was not saved; lower the learning"
                    + " rate, and resume from the last save"
            )
        }
        let state = ResumeState(
            step: self.pace.step,
            seconds: self.seconds,
            position: self.batches.position,
            identity: self.plan.identity,
            best: self.best,
            base: self.base,
            run: self.number
        )
        do {
            let save = try self.folder.save(
                step: self.pace.step,
                byteCount: self.files.byteCount(self.parameters, optimizer)
            ) {
                try self.files.write(to: $0, self.parameters, optimizer: optimizer, state: state)
            }
            self.pace.saved(true)
            self.folder.trim(keeping: self.plan.keptSaves, and: self.best?.step)
            self.tell(.saved(save))
        } catch {
            self.pace.saved(false)
            self.tell(.saveFailed(error))
        }
    }

    private func finish() throws {
        if let svg = RunPicture(self.log.reports()).svg {
            try? SyncedFile.write(Array(svg.utf8), to: self.folder.file(RunPicture.name))
        }
        let faults = self.plan.examples.unusable(self.batches.examples.faults)
        if faults.count > 0 { self.tell(.unusableLines(faults.count, "\(faults)")) }
        guard self.pace.savedStep == self.pace.step else {
            throw RunError(
                "the run's end, after step \(self.pace.step), could not be saved to \(self.plan.output); make room, and"
                    + " resume from step \(self.pace.savedStep.map { "\($0)" } ?? "0")"
            )
        }
    }
}

extension ExampleSettings {
    /// The faults that a user wants to know of.
    ///
    /// - Parameter faults: All faults.
    /// - Returns: The same, without the blank lines of plain text.
    func unusable(_ faults: FaultSummary) -> FaultSummary {
        if case .text = self.format { faults.withoutBlankLines } else { faults }
    }
}

extension TokenizedBatch {
    /// The batch as a step takes it.
    ///
    /// - Parameters:
    ///   - partTokens: Tokens that are in memory at once; nil for all.
    ///   - limit: Examples at most.
    /// - Returns: The step's batch.
    func examples(partTokens: Int?, atMost limit: Int = .max) -> TrainingBatch {
        let examples = (0..<min(self.count, limit))
            .map { TrainingExample(input: Array(self.input($0)), target: Array(self.target($0))) }
        return partTokens.map { TrainingBatch(examples, mostTokens: $0) }
            ?? TrainingBatch(examples)
    }
}
