// SPDX-License-Identifier: Apache-2.0

import ArgumentParser
import Checkpoints
import CommandKit
import Foundation
import Logging
import ServiceKit
import SwitchTraining
import Telemetry
import TensorKernels
import TrainingData
import TrainingRuns

/// `switchyard distill`: trains a small model to answer as a large one does.
struct DistillCommand: AsyncParsableCommand, ThreadedCommand {
    static let configuration = CommandConfiguration(
        commandName: "distill",
        abstract: "Train a dense student on data and on a teacher's probabilities.",
        discussion: """
            The student has the teacher's weights but for its experts, in whose place dense networks learn from a mixture of
            the data and the teacher's probabilities (arXiv 2101.03961, section 4.1). DIR/student is the student before its
            first step, DIR/latest the newest save; both are folders that transformers and `switchyard up` load.

            The teacher's answers are kept in DIR/answers, or where --cache says: what was asked once is not computed again.
            Data, optimizer, saves, --resume, signals and settings are those of `switchyard train`.

            With --teacher-gateway a cluster answers that serves the teacher, with the same bits.

            EXAMPLES
              switchyard distill --teacher run/latest --data train.tsv --eval held-out.tsv --out student --steps 2000
              switchyard distill --teacher google/switch-base-8 --student t5-small.json --data train.jsonl --out small \\
                --minutes 60 --teacher-weight 0.5 --temperature 2 --teacher-top 100
              switchyard distill --teacher google/switch-base-8 --teacher-gateway 127.0.0.1:7400 --data train.jsonl \\
                --out student --steps 2000
              switchyard up student/latest
            """
    )

    @Option(DistillSettings.table.teacher) var teacher: String?
    @Option(DistillSettings.table.student) var student: String?
    @Option(DistillSettings.table.studentWeights) var studentWeights: String?
    @Option(DistillSettings.table.feedForward) var feedForward: String?
    @Option(DistillSettings.table.teacherWeight) var teacherWeight: String?
    @Option(DistillSettings.table.temperature) var temperature: String?
    @Option(DistillSettings.table.teacherTop) var teacherTop: String?
    @Option(DistillSettings.table.targets) var targets: String?
    @Option(DistillSettings.table.teacherBeams) var teacherBeams: String?
    @Option(DistillSettings.table.cache) var cache: String?
    @Option(DistillSettings.table.cacheBytes) var cacheBytes: String?
    @Option(TrainSettings.table.initialisation) var initialisation: String?
    @Option(TrainSettings.table.out) var out: String?
    @Option(TrainSettings.table.steps) var steps: String?
    @Option(TrainSettings.table.minutes) var minutes: String?
    @Flag(TrainSettings.table.resume) var resume = false
    @Option(TrainSettings.table.seed) var seed: String?
    @Option(ComputeSettings().threads) var threads: String?
    @Option(ServiceSettings.table.config) var config: String?

    @OptionGroup(title: "Teacher on a cluster") var gateway: TeacherGatewayOptions
    @OptionGroup(title: "Data") var data: TrainingDataOptions
    @OptionGroup(title: "Batches and memory") var batch: BatchOptions
    @OptionGroup(title: "Loss") var loss: LossOptions
    @OptionGroup(title: "Optimizer") var optimizer: OptimizerOptions
    @OptionGroup(title: "Reports, evaluation and saves") var pace: PaceOptions
    @OptionGroup(title: "Metrics") var admin: AdminOptions

    /// Reads all layers of settings.
    func settings() async throws -> Settings {
        let keys = Set(CommandSettings.distill.map(\.key))
        let environment = ProcessInfo.processInfo.environment
        let file = environment[ServiceSettings.table.config.definition.variable].flatMap { $0.isEmpty ? nil : $0 }
        return try await Settings(
            known: CommandSettings.distill,
            elsewhere: CommandSettings.all,
            flags: SettingFlags.given(by: self).filter { keys.contains($0.key) },
            environment: environment,
            file: self.config ?? file
        )
    }

    func run() async throws {
        let settings = try await self.settings()
        let start = try DistillSettings.table.start(settings)
        let (plan, student) = try Self.plan(settings, start)
        let resumes = try settings.value(TrainSettings.table.resume)
        let threads = try settings.value(ComputeSettings().threads)
        try ThreadAllowance.require(ThreadAllowance.ofServices(computing: threads), for: "switchyard distill")
        let answers = try Self.answers(settings, of: plan)
        let logger = Logger(label: "distill") { _ in SwiftLogNoOpLogHandler() }
        let port = try self.admin.port(settings, CommandSettings.trainingAdmin, of: TrainingFigures.component)
        let figures = TrainingFigures(steps: plan.steps)
        port?.attach(readiness: { figures.readiness }, collect: { figures.collect(into: &$0, expertSeriesLimit: $1) })
        let stop = TrainingStop()
        await stop.listen()
        let display = TrainingDisplay(steps: plan.steps)
        let train: @Sendable (TeacherGateway.Served) throws -> (RunOutcome, ContentCache.Counts) = { served in
            let pool = WorkPool(threads: threads)
            let made = try start.write(to: plan.output, as: student, pool: pool)
            display.note(made.inWords)
            let cache = try ContentCache(answers.cache, limit: answers.cacheBytes)
            let run = try TrainingRun(
                plan,
                resumes: resumes,
                pool: pool,
                teacher: CachedTeacher(
                    try answers.teacher(start.teacher, or: served.teacher, pool: pool),
                    cache: cache
                ),
                answers: served.answers.map { CachedAnswers($0, cache: cache) }
            ) { event in
                figures.note(event)
                display.show(event)
            }
            return (try run.run { stop.isAsked }, cache.counts)
        }
        try await AdminPort.run(port, logger: logger) {
            let (outcome, counts) = try await TeacherGateway.with(settings, of: start.teacher, answers, stop) {
                served in
                try await StopSignals.interruptible { try train(served) }
            }
            display.note(counts.inWords)
            display.end(outcome, folder: plan.output)
        }
        if let code = stop.exitCode { throw code }
    }

    /// Where answers come from.
    struct Answers: Sendable {
        var kept: Int?
        var temperature: Double
        var cache: String
        var cacheBytes: Int

        /// Beams of the answers that stand in place of targets; nil where the data's targets count.
        var beams: Int?
        /// Tokens of such an answer at most.
        var mostTokens: Int
        /// Compute threads.
        var threads: Int

        /// A teacher on a cluster or in this process.
        func teacher(_ directory: String, or served: GatewayTeacher?, pool: WorkPool) throws -> any Teacher {
            if let served { return served }
            return try LocalTeacher(directory, kept: self.kept, temperature: self.temperature, pool: pool)
        }
    }

    private static func answers(_ settings: Settings, of plan: RunPlan) throws -> Answers {
        let table = DistillSettings.table
        let top = try settings.value(table.teacherTop)
        return Answers(
            kept: top > 0 ? top : nil,
            temperature: try settings.value(table.temperature),
            cache: try settings.value(table.cache) ?? "\(plan.output)/answers",
            cacheBytes: try settings.value(table.cacheBytes),
            beams: try settings.value(table.targets) == .teacher ? try settings.value(table.teacherBeams) : nil,
            mostTokens: plan.examples.maximumTargetTokens,
            threads: try settings.value(ComputeSettings().threads)
        )
    }

    /// The run that settings describe, and the student that it begins with.
    ///
    /// - Parameters:
    ///   - settings: The settings.
    ///   - start: How the student begins.
    /// - Returns: The plan, whose model is the student's folder, and the student.
    /// - Throws: ``Settings/Failure`` naming what cannot be used, `CheckpointError` for a teacher that is none.
    static func plan(_ settings: Settings, _ start: StudentStart) throws -> (RunPlan, StudentStart.Student) {
        let student = try start.student()
        guard let output = try settings.value(TrainSettings.table.out) else {
            throw Settings.Failure("no folder is given for the run; name one with --out DIR")
        }
        var plan = try TrainCommand.base(
            settings,
            model: .checkpoint("\(output)/\(StudentStart.folderName)"),
            output: output
        )
        plan.training.teacher = try DistillSettings.table.loss(settings)
        plan.start = student.description
        try OptimizerSettings.table.apply(settings, to: &plan, of: student.configuration)
        try PaceSettings.table.apply(settings, to: &plan)
        try plan.validate()
        return (plan, student)
    }
}

extension StudentStart.Made {
    /// `Student: 1581824 parameters, 27 % of the teacher's 5774336; 1050112 of them are the teacher's`.
    var inWords: String {
        let share = 100 * Double(self.parameters) / Double(max(1, self.teacherParameters))
        return "Student: \(self.parameters) parameters, \(String(format: "%.0f", share)) % of the teacher's"
            + " \(self.teacherParameters); \(self.taken) of them are the teacher's"
    }
}

extension ContentCache.Counts {
    /// `Answers: 640 from the cache, 1280 from the teacher`.
    var inWords: String {
        "Answers: \(self.found) from the cache, \(self.missing) from the teacher"
            + (self.damaged > 0 ? ", \(self.damaged) of them since what was kept is damaged" : "")
            + (self.lost > 0 ? "; \(self.lost) could not be kept" : "")
    }
}
