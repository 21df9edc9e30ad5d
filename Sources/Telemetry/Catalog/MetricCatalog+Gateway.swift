// SPDX-License-Identifier: Apache-2.0

extension MetricCatalog {
    /// The gateway's engine.
    static let gateway: [MetricDefinition] = [
        MetricDefinition(
            "switchyard_requests_total",
            .counter,
            ["outcome"],
            "Requests to the engine that ended: finished, refused, expired, cancelled, lost_tokens (its drop policy) or failed."
        ),
        MetricDefinition(
            "switchyard_request_seconds",
            .histogram(.seconds),
            ["work"],
            "Time of a request that finished, from its arrival to its end, by work: generate, encode or score."
        ),
        MetricDefinition("switchyard_queued_requests", .gauge, "Requests that wait for a batch slot."),
        MetricDefinition("switchyard_queue_limit", .gauge, "Requests that may wait; one more is refused."),
        MetricDefinition("switchyard_running_requests", .gauge, "Requests that have batch slots."),
        MetricDefinition("switchyard_used_batch_slots", .gauge, "Batch slots that are taken."),
        MetricDefinition("switchyard_batch_slots", .gauge, "Batch slots that there are."),
        MetricDefinition(
            "switchyard_queue_seconds",
            .histogram(.seconds),
            "Time from a request's arrival to its first step."
        ),
        MetricDefinition(
            "switchyard_first_token_seconds",
            .histogram(.seconds),
            "Time from a request's arrival to its first token."
        ),
        MetricDefinition(
            "switchyard_next_token_seconds",
            .histogram(.seconds),
            "Time from one token of a request to the next, all its beams at once."
        ),
        MetricDefinition("switchyard_steps_total", .counter, "Steps of the engine."),
        MetricDefinition(
            "switchyard_step_seconds",
            .histogram(.seconds),
            "Time of a step: one pass through the decoder for all that run, and what is encoded beside it."
        ),
        MetricDefinition(
            "switchyard_decode_seconds",
            .histogram(.seconds),
            "Time of one pass of all rows that run through the decoder."
        ),
        MetricDefinition(
            "switchyard_decode_rows",
            .histogram(.rows),
            "Rows of one pass through the decoder, the batch size: one for each beam or sequence of a request."
        ),
        MetricDefinition(
            "switchyard_encode_seconds",
            .histogram(.seconds),
            "Time of encoding inputs that go through the encoder together, waits for decoder steps in between included."
        ),
        MetricDefinition("switchyard_encoded_tokens_total", .counter, "Input tokens that were encoded."),
        MetricDefinition("switchyard_decoded_tokens_total", .counter, "Decoder rows over all steps."),
        MetricDefinition(
            "switchyard_routed_tokens_total",
            .counter,
            ["stack"],
            "Tokens times sparse layers: what dropped tokens are a part of."
        ),
        MetricDefinition(
            "switchyard_dropped_tokens_total",
            .counter,
            ["stack", "layer", "reason"],
            "Tokens that got no expert's output: capacity, timeout, unavailable, overloaded or bad_reply."
        ),
        MetricDefinition(
            "switchyard_expert_tokens_total",
            .counter,
            ["stack", "layer", "expert"],
            "Tokens dispatched to each expert; expert is a range of them where there are more than metrics-expert-series allows."
        ),
        MetricDefinition(
            "switchyard_busiest_expert_ratio",
            .gauge,
            ["stack", "layer"],
            "Part of a layer's tokens that its busiest expert got lately; 1 divided by the experts of a layer is even."
        ),
    ]

    /// The gateway's expert pools and their replicas.
    static let expertPlane: [MetricDefinition] = [
        MetricDefinition(
            "switchyard_experts_complete",
            .gauge,
            "1 where every expert is held by a replica that takes calls, otherwise 0."
        ),
        MetricDefinition(
            "switchyard_expert_replicas",
            .gauge,
            ["pool", "state"],
            "Replicas by state: connecting, describing, serving, ejected, probing, draining or mismatched."
        ),
        MetricDefinition(
            "switchyard_expert_calls_total",
            .counter,
            ["pool"],
            "Calls to a pool, one for each sparse layer of a pass that has rows for it; attempts count once."
        ),
        MetricDefinition(
            "switchyard_expert_attempts_total",
            .counter,
            ["pool", "replica", "outcome"],
            "Attempts of calls: ok, deadline, unavailable, overloaded, bad_reply, refused, or given_up for those not waited for."
        ),
        MetricDefinition(
            "switchyard_expert_call_seconds",
            .histogram(.callSeconds),
            ["pool", "replica"],
            "Time of an attempt that was answered well."
        ),
        MetricDefinition("switchyard_expert_open_calls", .gauge, ["pool", "replica"], "Attempts that are out."),
        MetricDefinition(
            "switchyard_expert_open_rows",
            .gauge,
            ["pool", "replica"],
            "Token rows of the attempts that are out."
        ),
        MetricDefinition(
            "switchyard_expert_rows_total",
            .counter,
            ["pool", "replica"],
            "Token rows of attempts that were answered well."
        ),
        MetricDefinition(
            "switchyard_expert_sent_bytes_total",
            .counter,
            ["pool", "replica"],
            "Bytes of HTTP/2 that were sent to a replica, without what TLS adds."
        ),
        MetricDefinition(
            "switchyard_expert_received_bytes_total",
            .counter,
            ["pool", "replica"],
            "Bytes of HTTP/2 that a replica sent, without what TLS adds."
        ),
        MetricDefinition(
            "switchyard_expert_hedges_total",
            .counter,
            ["pool"],
            "Calls that were sent to a second replica while the first was silent."
        ),
        MetricDefinition(
            "switchyard_expert_hedges_won_total",
            .counter,
            ["pool"],
            "Hedges that were answered first."
        ),
        MetricDefinition("switchyard_expert_retries_total", .counter, ["pool"], "Attempts after one that failed."),
        MetricDefinition("switchyard_expert_dropped_rows_total", .counter, ["pool"], "Token rows that were given up."),
        MetricDefinition(
            "switchyard_expert_ejections_total",
            .counter,
            ["pool", "replica"],
            "Times that a replica was left alone for a while."
        ),
    ]
}
