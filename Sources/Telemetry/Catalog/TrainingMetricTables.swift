// SPDX-License-Identifier: Apache-2.0

/// Metrics of a training run.
package struct TrainingMetrics: MetricTable {
    package let stepsTotal = MetricDefinition(
        "switchyard_training_steps_total",
        .counter,
        "Steps of the whole run."
    )
    package let loss = MetricDefinition(
        "switchyard_training_loss",
        .gauge,
        ["kind"],
        "Loss of the last report; kind is training or evaluation."
    )
    package let crossEntropy = MetricDefinition(
        "switchyard_training_cross_entropy",
        .gauge,
        ["kind"],
        "Cross-entropy of the last report in nats per token."
    )
    package let balance = MetricDefinition(
        "switchyard_training_balance",
        .gauge,
        "Load balancing loss of the last report, before its factor."
    )
    package let droppedFraction = MetricDefinition(
        "switchyard_training_dropped_fraction",
        .gauge,
        "Share of sparse layers' tokens that was dropped in the last report."
    )
    package let gradientNorm = MetricDefinition(
        "switchyard_training_gradient_norm",
        .gauge,
        "Norm of the gradients before clipping, averaged over the last report's steps."
    )
    package let learningRate = MetricDefinition(
        "switchyard_training_learning_rate",
        .gauge,
        "Learning rate of the last step."
    )
    package let tokensPerSecond = MetricDefinition(
        "switchyard_training_tokens_per_second",
        .gauge,
        "Input and target tokens that the last report's steps took per second."
    )
    package let expertShare = MetricDefinition(
        "switchyard_training_expert_share",
        .gauge,
        ["stack", "layer", "expert"],
        "Share of a sparse layer's tokens that each expert was sent in the last report."
    )
    package let savedStep = MetricDefinition(
        "switchyard_training_saved_step",
        .gauge,
        "Steps before the last save."
    )
    package let saveFailuresTotal = MetricDefinition(
        "switchyard_training_save_failures_total",
        .counter,
        "Saves that could not be written."
    )
}
