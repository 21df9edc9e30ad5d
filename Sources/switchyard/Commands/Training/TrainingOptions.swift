// SPDX-License-Identifier: Apache-2.0

import ArgumentParser
import ServiceKit

/// Flags of how lines become examples.
struct TrainingDataOptions: ParsableArguments {
    @Option(TrainingDataSettings.table.data) var data: [String] = []
    @Option(TrainingDataSettings.table.text) var text: [String] = []
    @Option(TrainingDataSettings.table.sequence) var sequence: String?
    @Option(TrainingDataSettings.table.format) var format: String?
    @Option(TrainingDataSettings.table.inputField) var inputField: String?
    @Option(TrainingDataSettings.table.targetField) var targetField: String?
    @Option(TrainingDataSettings.table.inputColumn) var inputColumn: String?
    @Option(TrainingDataSettings.table.targetColumn) var targetColumn: String?
    @Option(TrainingDataSettings.table.prefix) var prefix: String?
    @Option(TrainingDataSettings.table.maxInput) var maxInput: String?
    @Option(TrainingDataSettings.table.maxTarget) var maxTarget: String?
    @Option(TrainingDataSettings.table.tooLong) var tooLong: String?
    @Option(TrainingDataSettings.table.badLines) var badLines: String?
    @Option(TrainingDataSettings.table.noiseDensity) var noiseDensity: String?
    @Option(TrainingDataSettings.table.meanSpan) var meanSpan: String?
}

/// Flags of batches and memory.
struct BatchOptions: ParsableArguments {
    @Option(BatchSettings.table.batchTokens) var batchTokens: String?
    @Option(BatchSettings.table.batchExamples) var batchExamples: String?
    @Option(BatchSettings.table.epochEnd) var epochEnd: String?
    @Option(BatchSettings.table.partTokens) var partTokens: String?
    @Option(BatchSettings.table.precision) var precision: String?
    @Flag(BatchSettings.table.recompute) var recompute = false
}

/// Flags of what a run minimises.
struct LossOptions: ParsableArguments {
    @Option(LossSettings.table.dropout) var dropout: String?
    @Option(LossSettings.table.expertDropout) var expertDropout: String?
    @Option(LossSettings.table.jitter) var jitter: String?
    @Option(LossSettings.table.labelSmoothing) var labelSmoothing: String?
    @Option(LossSettings.table.softmaxZ) var softmaxZ: String?
    @Option(LossSettings.table.balance) var balance: String?
    @Option(LossSettings.table.routerZ) var routerZ: String?
    @Option(LossSettings.table.routerLoss) var routerLoss: String?
    @Option(LossSettings.table.capacity) var trainCapacity: String?
    @Option(LossSettings.table.evalCapacity) var evalCapacity: String?
}

/// Flags of a LoRA adapter.
struct AdapterOptions: ParsableArguments {
    @Option(AdapterSettings.table.loraRank) var loraRank: String?
    @Option(AdapterSettings.table.loraAlpha) var loraAlpha: String?
    @Option(AdapterSettings.table.loraTargets) var loraTarget: [String] = []
    @Flag(AdapterSettings.table.loraRankStabilized) var loraRankStabilized = false
}

/// Flags of what makes new weights of gradients.
struct OptimizerOptions: ParsableArguments {
    @Option(OptimizerSettings.table.optimizer) var optimizer: String?
    @Option(OptimizerSettings.table.learningRate) var learningRate: String?
    @Option(OptimizerSettings.table.schedule) var schedule: String?
    @Option(OptimizerSettings.table.warmUp) var warmUp: String?
    @Option(OptimizerSettings.table.weightDecay) var weightDecay: String?
    @Option(OptimizerSettings.table.clip) var clip: String?
    @Option(OptimizerSettings.table.beta1) var beta1: String?
    @Option(OptimizerSettings.table.beta2) var beta2: String?
    @Option(OptimizerSettings.table.epsilon) var epsilon: String?
    @Flag(OptimizerSettings.table.scaleByWeights) var scaleByWeights = false
}

/// Flags of when a run reports, evaluates and saves.
struct PaceOptions: ParsableArguments {
    @Option(PaceSettings.table.eval) var eval: [String] = []
    @Option(PaceSettings.table.evalShare) var evalShare: String?
    @Option(PaceSettings.table.evalExamples) var evalExamples: String?
    @Option(PaceSettings.table.evalEvery) var evalEvery: String?
    @Option(PaceSettings.table.saveEvery) var saveEvery: String?
    @Option(PaceSettings.table.keep) var keep: String?
    @Option(PaceSettings.table.reportEvery) var reportEvery: String?
}
