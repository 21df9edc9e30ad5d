// SPDX-License-Identifier: Apache-2.0

/// What a run tells while it goes on.
public enum RunEvent: Sendable {
    /// The run begins, or goes on after a step.
    case started(RunSize, resumedAfter: Int?)
    /// A line of `metrics.jsonl` was written.
    case report(RunReport, secondsLeft: Double?)
    /// A save was written.
    case saved(SaveFolder.Save)
    /// A save could not be written; it is tried again after the next step.
    case saveFailed(RunError)
    /// A line could not be added to `metrics.jsonl`.
    case metricsLost
    /// Lines could not be used in this session: how many, and why.
    case unusableLines(Int, String)
}

/// How large a run is.
public struct RunSize: Sendable, Hashable {
    /// Elements of all tensors of the model.
    public var parameters: Int
    /// Elements of all tensors that are trained: an adapter's, or the model's, with or without its experts.
    public var trainedParameters: Int
    /// Whether experts stay as they are.
    public var freezesExperts = false
    /// Lines of an epoch.
    public var lines: Int
    /// Examples of an evaluation.
    public var evaluationExamples: Int
}

/// How a run ended.
public struct RunOutcome: Sendable, Hashable {
    /// Steps of the whole run.
    public var step: Int
    /// The folder of its last save; nil where it was stopped before its first step.
    public var save: String?
    /// The folder of the save with the best evaluation, where it is kept.
    public var bestSave: String?
    /// Whether it was asked to end before its time.
    public var wasStopped: Bool
}
