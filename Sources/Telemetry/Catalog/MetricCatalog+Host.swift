// SPDX-License-Identifier: Apache-2.0

extension MetricCatalog {
    /// The expert host.
    static let host: [MetricDefinition] = [
        MetricDefinition(
            "switchyard_host_calls_total",
            .counter,
            ["outcome"],
            "Forward calls that ended: ok, refused, expired, cancelled, invalid or failed."
        ),
        MetricDefinition("switchyard_host_rows_total", .counter, "Token rows that were computed."),
        MetricDefinition(
            "switchyard_host_expert_rows_total",
            .counter,
            ["stack", "layer", "expert"],
            "Token rows computed by each expert; expert is a range of them where there are more than metrics-expert-series allows."
        ),
        MetricDefinition("switchyard_host_passes_total", .counter, "Passes over experts' weights."),
        MetricDefinition("switchyard_host_pass_calls", .histogram(.calls), "Calls that one pass computed."),
        MetricDefinition("switchyard_host_pass_rows", .histogram(.rows), "Token rows that one pass computed."),
        MetricDefinition(
            "switchyard_host_named_experts_total",
            .counter,
            "Experts that computed calls named, each call by itself."
        ),
        MetricDefinition(
            "switchyard_host_expert_reads_total",
            .counter,
            "Experts whose weights were read, each once a pass."
        ),
        MetricDefinition(
            "switchyard_host_queue_seconds",
            .histogram(.callSeconds),
            "Time that a call waited before it was computed."
        ),
        MetricDefinition("switchyard_host_compute_seconds", .histogram(.callSeconds), "Time of a pass."),
        MetricDefinition("switchyard_host_waiting_calls", .gauge, "Calls that wait to be computed."),
        MetricDefinition("switchyard_host_waiting_rows", .gauge, "Token rows of the calls that wait."),
        MetricDefinition("switchyard_host_queue_limit", .gauge, "Calls that may wait; one more is refused."),
        MetricDefinition("switchyard_host_queue_row_limit", .gauge, "Token rows that may wait."),
        MetricDefinition(
            "switchyard_host_weight_bytes",
            .gauge,
            "Memory that the experts' weights take, in bytes; for mapped shards, what they take in the file."
        ),
        MetricDefinition("switchyard_host_held_experts", .gauge, "Experts that the host holds, over all layers."),
    ]
}
