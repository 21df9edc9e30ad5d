// SPDX-License-Identifier: Apache-2.0

/// Metrics of an expert host.
package struct HostMetrics: MetricTable {
    package let callsTotal = MetricDefinition(
        "switchyard_host_calls_total",
        .counter,
        ["work", "outcome"],
        "Calls that ended: ok, refused, expired, cancelled, invalid or failed. work is serving (a gateway's Forward), training (a trainer's) or gradients (Backward)."
    )
    package let rowsTotal = MetricDefinition(
        "switchyard_host_rows_total",
        .counter,
        ["work"],
        "Token rows computed for each kind of work."
    )
    package let expertRowsTotal = MetricDefinition(
        "switchyard_host_expert_rows_total",
        .counter,
        ["stack", "layer", "expert"],
        "Token rows computed by each expert; expert is a range if there are more experts than metrics-expert-series allows."
    )
    package let passesTotal = MetricDefinition(
        "switchyard_host_passes_total",
        .counter,
        "Passes over expert weights."
    )
    package let passCalls = MetricDefinition(
        "switchyard_host_pass_calls",
        .histogram(.calls),
        "Calls computed per pass."
    )
    package let passRows = MetricDefinition(
        "switchyard_host_pass_rows",
        .histogram(.rows),
        "Token rows computed per pass."
    )
    package let namedExpertsTotal = MetricDefinition(
        "switchyard_host_named_experts_total",
        .counter,
        "Experts named by the computed calls, counted per call."
    )
    package let expertReadsTotal = MetricDefinition(
        "switchyard_host_expert_reads_total",
        .counter,
        "Experts whose weights were read, counted once per pass."
    )
    package let queueSeconds = MetricDefinition(
        "switchyard_host_queue_seconds",
        .histogram(.callSeconds),
        ["work"],
        "Time that a call waited to be computed."
    )
    package let computeSeconds = MetricDefinition(
        "switchyard_host_compute_seconds",
        .histogram(.callSeconds),
        ["work"],
        "Time of a pass; of one that paused for served calls, without the pauses."
    )
    package let waitingCalls = MetricDefinition(
        "switchyard_host_waiting_calls",
        .gauge,
        "Calls waiting to be computed."
    )
    package let waitingRows = MetricDefinition(
        "switchyard_host_waiting_rows",
        .gauge,
        "Token rows of the waiting calls."
    )
    package let queueLimit = MetricDefinition(
        "switchyard_host_queue_limit",
        .gauge,
        "Limit of waiting calls; further ones are refused."
    )
    package let queueRowLimit = MetricDefinition(
        "switchyard_host_queue_row_limit",
        .gauge,
        "Limit of waiting token rows."
    )
    package let weightBytes = MetricDefinition(
        "switchyard_host_weight_bytes",
        .gauge,
        "Memory of the expert weights in bytes; for mapped shards, their size in the file."
    )
    package let heldExperts = MetricDefinition(
        "switchyard_host_held_experts",
        .gauge,
        "Experts held by the host, over all layers."
    )

    package init() {}
}
