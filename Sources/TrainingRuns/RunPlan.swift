// SPDX-License-Identifier: Apache-2.0

public import SwitchTraining
public import TrainingData

/// All that decides a run: model, data, what is minimised, how, and for how long.
public struct RunPlan: Sendable {
    /// What the weights begin as.
    public var model: RunModel
    /// The files to learn from.
    public var data: [String]
    /// The files to evaluate with; where there are none, a share of the data is held out.
    public var evaluationData: [String] = []
    /// The share of lines that is held out where no file is given for evaluation; 0 for no evaluation.
    public var evaluationShare = 0.0
    /// Examples of an evaluation at most.
    public var evaluationExamples = 1000
    /// The run's folder.
    public var output: String
    /// How lines become examples.
    public var examples: ExampleSettings
    /// How large a step's batch may become.
    public var batch = BatchLimits(targetTokens: 4096)
    /// Tokens, inputs and targets together, that are in memory at once; nil for a whole batch.
    ///
    /// It does not change a run's weights.
    public var partTokens: Int?
    /// Steps of the whole run; nil where time ends it.
    public var steps: Int?
    /// Minutes of the whole run, earlier sessions included; nil where steps end it.
    public var minutes: Double?
    /// What is minimised, and how.
    public var training = TrainingSettings()
    /// The LoRA adapter that is trained in place of the weights; nil to train the weights.
    public var lowRank: LowRankSettings?
    /// Whether experts' weights stay as they are, and all others are trained around them.
    public var freezesExperts = false
    /// What decides a teacher's answers; set by the run that has one.
    var teacher: String?
    /// What decides the answers that stand in place of targets; set by the run that has a source of them.
    var answers: String?
    /// How a student began, which decides its run as a new model's seed does; nil for other models.
    public var start: String?
    /// The model's name in an adapter's files; its folder where nil.
    public var modelName: String?
    /// What makes new weights of gradients.
    public var optimizer = OptimizerPlan.adamW(.init())
    /// The learning rate that the schedule is a factor of.
    public var learningRate = 1e-3
    /// How the learning rate goes on after the warm-up.
    public var schedule = LearningRateSchedule.Shape.constant
    /// Steps in which the learning rate rises.
    public var warmUpSteps = 0
    /// The gradients' greatest norm; nil for any.
    public var clipNorm: Double? = 1
    /// Steps from a report to the next.
    public var stepsPerReport = 10
    /// Steps from an evaluation to the next; nil for one at the end only.
    public var stepsPerEvaluation: Int?
    /// Steps from a save to the next; nil for one at the end only.
    public var stepsPerSave: Int? = 500
    /// How many of the newest saves stay; the one with the best evaluation stays too.
    public var keptSaves = 3
    /// What the order of the data and all random numbers come from.
    public var seed: UInt64 = 0

    /// A plan with the defaults.
    ///
    /// - Parameters:
    ///   - model: What the weights begin as.
    ///   - data: The files to learn from.
    ///   - output: The run's folder.
    ///   - format: How a line holds an example.
    public init(model: RunModel, data: [String], output: String, format: ExampleFormat) {
        self.model = model
        self.data = data
        self.output = output
        self.examples = ExampleSettings(format: format)
    }

    /// Refuses what cannot be run, before anything slow.
    ///
    /// - Throws: ``RunError`` that names the field, its limits and its value.
    public func validate() throws(RunError) {
        func check(_ holds: Bool, _ message: @autoclosure () -> String) throws(RunError) {
            guard holds else { throw RunError(message()) }
        }
        try check(!self.data.isEmpty, "no data is given; name a file to learn from")
        try check(
            self.steps != nil || self.minutes != nil,
            "nothing ends the run; give it a number of steps, or of minutes"
        )
        if let steps { try check((1...1 << 40).contains(steps), "steps is \(steps), but must be from 1 to 2^40") }
        if let minutes {
            try check(minutes > 0 && minutes <= 1e6, "minutes is \(minutes), but must be above 0 and at most 1000000")
        }
        switch self.schedule {
        case .linear, .cosine:
            try check(self.steps != nil, "the schedule ends at 0 at the last step, so the run needs a number of steps")
        default: break
        }
        for (name, value) in [
            ("steps from a report to the next", self.stepsPerReport), ("kept saves", self.keptSaves),
            ("steps from an evaluation to the next", self.stepsPerEvaluation ?? 1),
            ("steps from a save to the next", self.stepsPerSave ?? 1),
            ("examples of an evaluation", self.evaluationExamples), ("tokens of a part", self.partTokens ?? 1),
        ] {
            try check(value >= 1, "\(name) is \(value), but must be at least 1")
        }
        if let clipNorm {
            try check(
                clipNorm > 0 && clipNorm.isFinite,
                "the gradients' greatest norm is \(clipNorm), but must be above 0"
            )
        }
        if self.lowRank != nil, self.model.isNew {
            throw RunError("a LoRA adapter is trained beside the weights of a checkpoint; a new model has none")
        }
        if self.freezesExperts { try self.checkFrozenExperts() }
        try check(
            self.evaluationData.isEmpty || self.evaluationShare == 0,
            "files to evaluate with and a held-out share exclude each other; give one of them"
        )
    }

    private func checkFrozenExperts() throws(RunError) {
        guard self.lowRank == nil else {
            throw RunError(
                "a LoRA adapter leaves experts as they are unless it names them; leave out that experts are frozen"
            )
        }
        if self.model.isNew {
            throw RunError(
                "experts that stay as they are have learnt something; a new model's have not: train them too"
            )
        }
        let dropout = self.training.expertDropout ?? self.training.dropout
        guard dropout == 0 else {
            throw RunError(
                "expert-dropout is \(dropout), but must be 0 where experts stay as they are: what it drops is not computed here;"
                    + " set it to 0, or leave it out"
            )
        }
    }

    /// The learning rate of each step.
    var learningRateSchedule: LearningRateSchedule {
        get throws(TrainingError) {
            try LearningRateSchedule(
                peak: self.learningRate,
                shape: self.schedule,
                warmUpSteps: self.warmUpSteps,
                totalSteps: self.steps ?? 1
            )
        }
    }

    /// What a run that resumes must have in common with the one before, by name.
    ///
    /// How long it takes, how often it reports and saves, and what is in memory at once are left out: they do not decide
    /// the weights of a step.
    var identity: [String: String] {
        var optimizer = ""
        switch self.optimizer {
        case .adamW(let settings): optimizer = "adamw \(settings)"
        case .adafactor(let settings): optimizer = "adafactor \(settings)"
        case .adam(let settings): optimizer = "adam \(settings)"
        }
        if self.freezesExperts { optimizer += ", experts as they are" }
        // Types of this module and others print all their properties; one added later counts by itself.
        optimizer = optimizer.replacing("SwitchTraining.", with: "")
        var training = self.training
        training.recomputesBlocks = false
        var identity = [
            "optimizer": optimizer,
            // Saves of runs without a teacher are older than teachers.
            "training settings": "\(training)".replacing("SwitchTraining.", with: "")
                .replacing(", teacher: nil", with: ""),
            "learning rate": "\(self.learningRate)",
            "schedule": "\(self.schedule)".replacing("SwitchTraining.", with: ""),
            "warm-up": "\(self.warmUpSteps)",
            "greatest norm": "\(self.clipNorm.map { "\($0)" } ?? "none")",
            "batch": "\(self.batch)".replacing("TrainingData.", with: ""),
            "seed": "\(self.seed)",
            "LoRA": self.lowRank.map { "\($0)".replacing("SwitchTraining.", with: "") } ?? "none",
        ]
        if let teacher { identity["teacher"] = teacher }
        if let answers { identity["answers"] = answers }
        if let start { identity["student"] = start }
        switch self.schedule {
        case .linear, .cosine: identity["steps"] = "\(self.steps ?? 0)"
        default: break
        }
        return identity
    }
}
