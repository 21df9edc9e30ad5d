// SPDX-License-Identifier: Apache-2.0

import CommandKit
import ServiceKit
import SwitchTraining
import SwitchyardClient
import TrainingRuns

/// What a student's targets are.
enum DistillTargets: String, CaseIterable, Sendable {
    case data
    case teacher
}

/// Settings of `switchyard distill` besides those that it shares with `train`.
struct DistillSettings: SettingTable {
    static let table = DistillSettings()

    let teacher = Setting.text(
        "teacher",
        placeholder: "model",
        "The checkpoint to learn from: a folder, or a hub id in the cache."
    )
    let teacherGateway = Setting.parsed(
        "teacher-gateway",
        default: nil as Endpoint?,
        written: nil,
        defaultInWords: "the teacher answers in this process",
        allowed: "HOST:PORT",
        range: "HOST:PORT",
        placeholder: "host:port",
        "A gateway that serves the teacher, and answers in its place."
    ) { try Endpoint(parsing: $0) }
    let teacherWait = Setting.time(
        "teacher-wait-seconds",
        .seconds,
        in: 1...86_400,
        default: 600,
        "How long a step waits while the gateway gives no answer, before the run ends."
    )
    let targets = Setting.choice(
        "targets",
        of: DistillTargets.allCases,
        default: .data,
        name: \.rawValue,
        placeholder: "source",
        "Whether the student learns the data's targets, or the teacher's own answers to the data's inputs."
    )
    let teacherBeams = Setting.whole(
        "teacher-beams",
        in: 1...64,
        default: 1,
        "Beams of the teacher's answers with --targets teacher; 1 for greedy search."
    )
    let student = Setting.text(
        "student",
        default: "auto",
        placeholder: "config",
        "A config.json that describes the student; auto is the teacher's shape, with dense networks in place of experts."
    )
    let studentWeights = Setting.choice(
        "student-weights",
        of: StudentStart.Weights.allCases,
        default: .teacher,
        name: \.rawValue,
        placeholder: "source",
        "Whether the student begins with the teacher's weights where they fit, or with drawn ones alone."
    )
    let feedForward = Setting.choice(
        "feed-forward",
        of: StudentStart.FeedForward.allCases,
        default: .drawn,
        name: \.rawValue,
        placeholder: "source",
        "Whether dense networks in place of experts are drawn, or the mean of a layer's experts."
    )
    let teacherWeight = Setting.number(
        "teacher-weight",
        in: 0...1,
        default: TeacherLoss().weight,
        "The teacher's share of the loss; the rest is the data's."
    )
    let temperature = Setting.number(
        "temperature",
        in: 0.01...TeacherLoss.highestTemperature,
        default: TeacherLoss().temperature,
        "What logits of teacher and student are divided by before they are compared."
    )
    let teacherTop = Setting.whole(
        "teacher-top",
        in: 0...10_000_000,
        default: 32,
        placeholder: "tokens",
        "Most likely tokens that the teacher names at each place; all others count as one. 0 for all tokens."
    )
    let cache = Setting.text(
        "cache",
        defaultInWords: "answers in the run's folder",
        placeholder: "dir",
        "The folder that keeps the teacher's answers."
    )
    let cacheBytes = Setting.whole(
        "cache-bytes",
        in: ContentCache.leastBytes...(1 << 50),
        default: 4 << 30,
        placeholder: "bytes",
        "Bytes of kept answers at most; the oldest go first."
    )

    /// What both commands set of a run.
    static let shared: [SettingDefinition] = [
        TrainSettings.table.initialisation.definition, TrainSettings.table.out.definition,
        TrainSettings.table.steps.definition, TrainSettings.table.minutes.definition,
        TrainSettings.table.resume.definition, TrainSettings.table.seed.definition,
    ]

    /// How a student begins.
    ///
    /// - Parameter settings: The settings.
    /// - Returns: The same, as it is written.
    /// - Throws: ``Settings/Failure`` naming what cannot be used.
    func start(_ settings: Settings) throws -> StudentStart {
        guard let teacher = try settings.value(self.teacher) else {
            throw Settings.Failure("no teacher is given; name a checkpoint with --teacher MODEL")
        }
        var start = StudentStart(teacher: try ModelSettings.directory(teacher))
        let student = try settings.value(self.student) ?? "auto"
        start.configurationFile = student == "auto" ? nil : student
        start.weights = try settings.value(self.studentWeights)
        start.feedForward = try settings.value(self.feedForward)
        start.initialisation =
            try settings.value(TrainSettings.table.initialisation).initialisation
        start.seed = UInt64(try settings.value(TrainSettings.table.seed))
        if start.weights == .drawn, start.feedForward != .drawn {
            throw Settings.Failure(
                "\(self.feedForward.key) is \(start.feedForward.rawValue), but \(self.studentWeights.key) is drawn: then nothing"
                    + " is taken from the teacher; leave out one of them"
            )
        }
        return start
    }

    /// What is learnt of the teacher.
    ///
    /// - Parameter settings: The settings.
    /// - Returns: The loss.
    /// - Throws: ``Settings/Failure`` naming what cannot be used.
    func loss(_ settings: Settings) throws -> TeacherLoss {
        var loss = TeacherLoss()
        loss.weight = try settings.value(self.teacherWeight)
        loss.temperature = try settings.value(self.temperature)
        return loss
    }
}
