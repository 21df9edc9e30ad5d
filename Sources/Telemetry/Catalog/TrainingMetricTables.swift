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

/// Metrics of a trainer about the hosts that its experts are on.
package struct TrainingShardTable: MetricTable {
    package let replicaState = MetricDefinition(
        "switchyard_training_replica_state",
        .gauge,
        ["shard", "replica", "state"],
        "1 for what each replica does: live, loading, waiting, opening or away; the others are 0."
    )
    package let replicaLag = MetricDefinition(
        "switchyard_training_replica_lag_steps",
        .gauge,
        ["shard", "replica"],
        "Steps that a live replica is behind the trainer."
    )
    package let failuresTotal = MetricDefinition(
        "switchyard_training_replica_failures_total",
        .counter,
        ["shard"],
        "Calls to a shard's replicas that failed, and connections that were lost."
    )
    package let repeatedCallsTotal = MetricDefinition(
        "switchyard_training_repeated_calls_total",
        .counter,
        ["shard"],
        "Backward calls that replicas were sent again from the log."
    )
    package let logBytes = MetricDefinition(
        "switchyard_training_log_bytes",
        .gauge,
        ["shard"],
        "Bytes of the log: what a new replica would have to repeat."
    )
    package let logFileBytes = MetricDefinition(
        "switchyard_training_log_file_bytes",
        .gauge,
        ["shard"],
        "Bytes of the log that are in files, in log-dir."
    )
    package let logLimit = MetricDefinition(
        "switchyard_training_log_limit_bytes",
        .gauge,
        "Bytes of all shards' logs at most: log-bytes, and with log-dir what calls may take of log-file-bytes."
    )
    package let logSteps = MetricDefinition(
        "switchyard_training_log_steps",
        .gauge,
        ["shard"],
        "Steps since the newest state that the log begins with."
    )
    package let checksTotal = MetricDefinition(
        "switchyard_training_replica_checks_total",
        .counter,
        ["shard", "replica", "outcome"],
        "Comparisons of checksums: a step's state agreed with the one that was given for it before, or differed; a host's memory was unchanged since its last step, or changed."
    )
    package let recoveriesTotal = MetricDefinition(
        "switchyard_training_recoveries_total",
        .counter,
        ["shard"],
        "Replicas that took over a state, repeated what came since, and are of use again."
    )
    package let bytesTotal = MetricDefinition(
        "switchyard_training_wire_bytes_total",
        .counter,
        ["shard", "direction"],
        "Bytes of rows and gradients that were sent to a shard's hosts and received from them."
    )
    package let stateBytesTotal = MetricDefinition(
        "switchyard_training_state_bytes_total",
        .counter,
        ["shard", "direction"],
        "Bytes of states of what is trained that were sent to a shard's hosts and received from them."
    )
    package let frozenBytesTotal = MetricDefinition(
        "switchyard_training_frozen_bytes_total",
        .counter,
        ["shard"],
        "Bytes of weights that stay as they are below an adapter, sent to a shard's hosts."
    )
}

/// Metrics of a host whose experts are trained.
package struct TrainingHostTable: MetricTable {
    package let rowsTotal = MetricDefinition(
        "switchyard_training_host_rows_total",
        .counter,
        ["kind"],
        "Token rows computed; kind is forward, backward, or replay for those of a log that a host repeats after a failure."
    )
    package let queueSeconds = MetricDefinition(
        "switchyard_training_host_queue_seconds",
        .histogram(.callSeconds),
        "Time that a call with rows waited to be computed."
    )
    package let computeSeconds = MetricDefinition(
        "switchyard_training_host_compute_seconds",
        .histogram(.callSeconds),
        "Time that a call with rows was computed."
    )
    package let isLoaded = MetricDefinition(
        "switchyard_training_host_loaded",
        .gauge,
        "1 if the host holds a shard's state, 0 if it waits for one."
    )
    package let step = MetricDefinition(
        "switchyard_training_host_step",
        .gauge,
        "Steps that the host has applied."
    )
    package let waitingCalls = MetricDefinition(
        "switchyard_training_host_waiting_calls",
        .gauge,
        "Calls waiting to be computed."
    )
    package let snapshotsTotal = MetricDefinition(
        "switchyard_training_host_snapshots_total",
        .counter,
        ["outcome"],
        "Snapshots written to this host's disk: ok or failed."
    )
    package let snapshotTime = MetricDefinition(
        "switchyard_training_host_snapshot_timestamp_seconds",
        .gauge,
        "When the last snapshot was written to this host's disk."
    )
}
