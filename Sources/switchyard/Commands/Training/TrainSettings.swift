// SPDX-License-Identifier: Apache-2.0

import Checkpoints
import GatewayServing
import ServiceKit
import SwitchTraining
import TrainingRuns

/// How a new model's weights are drawn.
enum InitialisationName: String, CaseIterable, Sendable {
    case paper
    case transformers
    case labml

    /// The same, as the trainer takes it.
    var initialisation: Initialisation {
        switch self {
        case .paper: .paper()
        case .transformers: .transformers()
        case .labml: .labml
        }
    }
}

/// A family whose models are drawn without a file that describes them.
enum DrawnFamily: String, CaseIterable, Sendable {
    case labml
}

/// What becomes of the experts.
enum ExpertTraining: String, CaseIterable, Sendable {
    case full
    case frozen
    case lora
}

/// Settings of `switchyard train` besides its data's: what is trained, and for how long.
struct TrainSettings: SettingTable {
    static let table = TrainSettings()

    let model = Setting.text(
        "model",
        placeholder: "model",
        "The checkpoint to begin with: a folder, or a hub id in the cache."
    )
    let new = Setting.text(
        "new",
        placeholder: "file",
        "A config.json of a model to draw new weights for, in place of MODEL."
    )
    let family = Setting.parsed(
        "family",
        default: DrawnFamily?.none,
        written: nil,
        defaultInWords: "that of MODEL or --new",
        allowed: "labml",
        range: "labml",
        placeholder: "name",
        "Draw a model of this family for the characters of --text, of labml's sizes: its decoder-only Switch Transformer."
    ) { text in DrawnFamily(rawValue: text).map { .some($0) } }
    let size = Setting.list(
        "size",
        allowed: "KEY=VALUE, such as d_model=64",
        range: "KEY=VALUE",
        placeholder: "key=value",
        "A key of --family's config.json, such as d_model=64, n_layers=2 or drop_tokens=false; may be given several times."
    ) { GatewaySettings.override($0) }
    let tokenizer = Setting.text("tokenizer", placeholder: "dir", "The folder whose tokenizer a new model gets.")
    let initialisation = Setting.choice(
        "initialisation",
        of: InitialisationName.allCases,
        default: .paper,
        name: \.rawValue,
        placeholder: "kind",
        "How a new model's weights are drawn: as in the paper, with a scale of 0.1, as in transformers, or as labml does."
    )
    let out = Setting.text("out", placeholder: "dir", "The run's folder: saves, metrics.jsonl and training.svg.")
    let steps = Setting<Int?>
        .whole(
            "steps",
            in: 1...1_000_000_000,
            defaultInWords: "until --minutes end the run",
            "Steps of the whole run."
        )
    let minutes = Setting<Double?>
        .number(
            "minutes",
            in: 0.01...1_000_000,
            defaultInWords: "until --steps end the run",
            "Minutes of the whole run, earlier sessions included."
        )
    let resume = Setting.toggle("resume", "Go on after the last save in --out.")
    let resumeIfSaved = Setting.toggle(
        "resume-if-saved",
        "Go on after the last save in --out if there is one, or else begin: for jobs that are started again."
    )
    let seed = Setting.whole(
        "seed",
        in: 0...Int(Int32.max),
        default: 0,
        "What the data's order, dropout, jitter and new weights come from."
    )
    let experts = Setting.choice(
        "experts",
        of: ExpertTraining.allCases,
        default: .full,
        name: \.rawValue,
        placeholder: "choice",
        "Whether experts are trained too, stay as they are while all else is trained around them, or get a LoRA adapter's "
            + "changes with the rest of the model."
    )
    let batch = BatchSettings.table
    let loss = LossSettings.table
    let adapter = AdapterSettings.table
    let optimizer = OptimizerSettings.table
    let pace = PaceSettings.table
}

/// What happens where an epoch ends within a step.
enum EpochEnd: String, CaseIterable, Sendable {
    /// The step is filled up with the next epoch's examples.
    case fill
    /// The step ends with its epoch.
    case short
}

/// Settings of a run's batches and memory.
struct BatchSettings: SettingTable {
    static let table = BatchSettings()

    let batchTokens = Setting<Int?>
        .whole(
            "batch-tokens",
            in: 1...100_000_000,
            defaultInWords: "4096, or unlimited with --batch-examples",
            "Target tokens of a step at most."
        )
    let batchExamples = Setting<Int?>
        .whole(
            "batch-examples",
            in: 1...10_000_000,
            defaultInWords: "unlimited",
            "Examples of a step at most."
        )
    let epochEnd = Setting.choice(
        "epoch-end",
        of: EpochEnd.allCases,
        default: .fill,
        name: \.rawValue,
        placeholder: "rule",
        "The last step of an epoch: fill it up with the next epoch's examples, or take it short, as --family labml does."
    )
    let partTokens = Setting<Int?>
        .whole(
            "part-tokens",
            in: 1...100_000_000,
            defaultInWords: "a whole step",
            "Tokens, inputs and targets together, that are in memory at once; gradients add up to the same bits."
        )
    let precision = Setting.choice(
        "precision",
        of: TrainingPrecision.allCases,
        default: .float32,
        name: \.rawValue,
        placeholder: "type",
        "Type of weights and rows in a step; with bfloat16 routers, gradients and the weights that are kept stay float32."
    )
    let recompute = Setting.toggle(
        "recompute",
        "Keep each block's input only, and compute the block again on the way back."
    )
}

/// Settings of what a run minimises.
struct LossSettings: SettingTable {
    static let table = LossSettings()

    let dropout = Setting.number("dropout", in: 0...0.99, default: 0.1, "Probability of dropping an element of a row.")
    let expertDropout = Setting.number(
        "expert-dropout",
        in: 0...0.99,
        default: 0.4,
        "The same within experts; 0 where they are frozen."
    )
    let jitter = Setting.number(
        "jitter",
        in: 0...0.99,
        default: 0.01,
        "Routers' inputs are multiplied by numbers this far from 1 at most."
    )
    let labelSmoothing = Setting.number(
        "label-smoothing",
        in: 0...0.99,
        default: 0,
        "Share of each target that is spread over the vocabulary."
    )
    let softmaxZ = Setting.number(
        "softmax-z",
        in: 0...100,
        default: 0,
        "Factor of the squared log of the softmax's sum."
    )
    let balance = Setting.number("balance", in: 0...100, default: 0.01, "Factor of the load balancing loss.")
    let routerZ = Setting.number("router-z", in: 0...100, default: 0, "Factor of the router z-loss.")
    let routerLoss = Setting.choice(
        "router-loss",
        of: RouterLossForm.allCases,
        default: .paper,
        name: \.rawValue,
        placeholder: "form",
        "Whether routers' losses are formed layer by layer, or over all layers of a stack as in transformers."
    )
    let capacity = Setting.parsed(
        "train-capacity",
        default: TrainingSettings().capacity,
        written: "factor:1.25",
        allowed: "checkpoint, unlimited, factor:N, floor:N or floor:N:drawn:SEED",
        range: "checkpoint, unlimited, factor:N, floor:N or floor:N:drawn:SEED",
        placeholder: "rule",
        "How many tokens an expert takes in training."
    ) { GatewaySettings.capacityPolicy($0) }
    let evalCapacity = Setting.parsed(
        "eval-capacity",
        default: TrainingSettings().evaluationCapacity,
        written: "factor:2",
        allowed: "checkpoint, unlimited, factor:N, floor:N or floor:N:drawn:SEED",
        range: "checkpoint, unlimited, factor:N, floor:N or floor:N:drawn:SEED",
        placeholder: "rule",
        "How many tokens an expert takes in evaluation."
    ) { GatewaySettings.capacityPolicy($0) }

    /// What a step minimises.
    ///
    /// - Parameter settings: The settings.
    /// - Returns: The same, as the trainer takes it.
    /// - Throws: ``Settings/Failure`` naming what cannot be used.
    func training(_ settings: Settings) throws -> TrainingSettings {
        var training = TrainingSettings()
        training.dropout = try settings.value(self.dropout)
        training.expertDropout = try settings.value(self.expertDropout)
        training.jitter = try settings.value(self.jitter)
        training.labelSmoothing = try settings.value(self.labelSmoothing)
        training.softmaxZ = try settings.value(self.softmaxZ)
        training.balance = try settings.value(self.balance)
        training.routerZ = try settings.value(self.routerZ)
        training.routerLosses = try settings.value(self.routerLoss)
        training.capacity = try settings.value(self.capacity)
        training.evaluationCapacity = try settings.value(self.evalCapacity)
        return training
    }
}

/// Settings of when a run reports, evaluates and saves.
struct PaceSettings: SettingTable {
    static let table = PaceSettings()

    let eval = Setting.texts("eval", placeholder: "file", "A file to evaluate with; may be given several times.")
    let evalShare = Setting.number(
        "eval-share",
        in: 0...0.9,
        default: 0,
        "Share of the data's lines that is held out to evaluate."
    )
    let evalExamples = Setting.whole(
        "eval-examples",
        in: 1...1_000_000,
        default: 1000,
        "Examples of an evaluation at most."
    )
    let evalEvery = Setting<Int?>
        .whole(
            "eval-every",
            in: 1...1_000_000_000,
            defaultInWords: "as --save-every",
            "Steps from an evaluation to the next."
        )
    let saveEvery = Setting.whole("save-every", in: 1...1_000_000_000, default: 500, "Steps from a save to the next.")
    let keep = Setting.whole(
        "keep",
        in: 1...10_000,
        default: 3,
        "How many of the newest saves stay; the best one stays too."
    )
    let reportEvery = Setting.whole("report-every", in: 1...1_000_000, default: 10, "Steps from a report to the next.")

    /// Sets the pace.
    ///
    /// - Parameters:
    ///   - settings: The settings.
    ///   - plan: The run.
    /// - Throws: ``Settings/Failure`` naming what cannot be used.
    func apply(_ settings: Settings, to plan: inout RunPlan) throws {
        plan.evaluationData = try settings.value(self.eval)
        plan.evaluationShare = try settings.value(self.evalShare)
        plan.evaluationExamples = try settings.value(self.evalExamples)
        plan.stepsPerSave = try settings.value(self.saveEvery)
        plan.stepsPerEvaluation = try settings.value(self.evalEvery) ?? plan.stepsPerSave
        plan.keptSaves = try settings.value(self.keep)
        plan.stepsPerReport = try settings.value(self.reportEvery)
    }
}
