// SPDX-License-Identifier: Apache-2.0

/// Metrics of a gateway about its requests and steps.
package struct EngineMetrics: MetricTable {
    package let requestsTotal = MetricDefinition(
        "switchyard_requests_total",
        .counter,
        ["outcome"],
        "Requests to the engine that ended: finished, refused, expired, cancelled, lost_tokens (by the request's drop policy) or failed."
    )
    package let requestSeconds = MetricDefinition(
        "switchyard_request_seconds",
        .histogram(.seconds),
        ["work"],
        "Time from arrival to end of finished requests, by work: generate, encode or score."
    )
    package let queuedRequests = MetricDefinition(
        "switchyard_queued_requests",
        .gauge,
        "Requests waiting for batch slots."
    )
    package let queueLimit = MetricDefinition(
        "switchyard_queue_limit",
        .gauge,
        "Limit of waiting requests; further ones are refused."
    )
    package let runningRequests = MetricDefinition(
        "switchyard_running_requests",
        .gauge,
        "Requests holding batch slots."
    )
    package let usedBatchSlots = MetricDefinition(
        "switchyard_used_batch_slots",
        .gauge,
        "Batch slots in use."
    )
    package let batchSlots = MetricDefinition(
        "switchyard_batch_slots",
        .gauge,
        "Batch slots in total."
    )
    package let queueSeconds = MetricDefinition(
        "switchyard_queue_seconds",
        .histogram(.seconds),
        "Time from a request's arrival to its first step."
    )
    package let firstTokenSeconds = MetricDefinition(
        "switchyard_first_token_seconds",
        .histogram(.seconds),
        "Time from a request's arrival to its first token."
    )
    package let nextTokenSeconds = MetricDefinition(
        "switchyard_next_token_seconds",
        .histogram(.seconds),
        "Time from one token of a request to the next; its beams count as one."
    )
    package let stepsTotal = MetricDefinition(
        "switchyard_steps_total",
        .counter,
        "Steps of the engine."
    )
    package let stepSeconds = MetricDefinition(
        "switchyard_step_seconds",
        .histogram(.seconds),
        "Time of a step: one pass of all running requests through the decoder, and any encoding done alongside it."
    )
    package let decodeSeconds = MetricDefinition(
        "switchyard_decode_seconds",
        .histogram(.seconds),
        "Time of one pass of all running rows through the decoder."
    )
    package let decodeRows = MetricDefinition(
        "switchyard_decode_rows",
        .histogram(.rows),
        "Rows per pass through the decoder, the batch size: one per beam or returned sequence of a request."
    )
    package let encodeSeconds = MetricDefinition(
        "switchyard_encode_seconds",
        .histogram(.seconds),
        "Time to encode inputs that go through the encoder together, or to prefill prompts, including waits for decoder steps in between."
    )
    package let encodedTokensTotal = MetricDefinition(
        "switchyard_encoded_tokens_total",
        .counter,
        "Input tokens encoded, or prefilled in a model without an encoder."
    )
    package let decodedTokensTotal = MetricDefinition(
        "switchyard_decoded_tokens_total",
        .counter,
        "Decoder rows, summed over all steps."
    )
    package let routedTokensTotal = MetricDefinition(
        "switchyard_routed_tokens_total",
        .counter,
        ["stack"],
        "Tokens times sparse layers: the total that dropped tokens are a fraction of."
    )
    package let droppedTokensTotal = MetricDefinition(
        "switchyard_dropped_tokens_total",
        .counter,
        ["stack", "layer", "reason"],
        "Tokens that got no expert output: capacity, timeout, unavailable, overloaded or bad_reply."
    )
    package let expertTokensTotal = MetricDefinition(
        "switchyard_expert_tokens_total",
        .counter,
        ["stack", "layer", "expert"],
        "Tokens dispatched to each expert; expert is a range if there are more experts than metrics-expert-series allows."
    )
    package let busiestExpertRatio = MetricDefinition(
        "switchyard_busiest_expert_ratio",
        .gauge,
        ["stack", "layer"],
        "Fraction of a layer's recent tokens that its busiest expert got; 1 / (experts per layer) is perfectly even."
    )

    package init() {}
}

/// Metrics of a gateway about its expert pools and their replicas.
package struct ExpertPoolMetrics: MetricTable {
    package let expertsComplete = MetricDefinition(
        "switchyard_experts_complete",
        .gauge,
        "1 while every expert is held by a ready replica, otherwise 0."
    )
    package let replicas = MetricDefinition(
        "switchyard_expert_replicas",
        .gauge,
        ["pool", "state"],
        "Replicas by state: disconnected, unverified, ready, ejected, draining, mismatched, spare or quarantined."
    )
    package let callsTotal = MetricDefinition(
        "switchyard_expert_calls_total",
        .counter,
        ["pool"],
        "Calls to a pool, one per sparse layer and pass with rows for it; hedges and retries are not counted again."
    )
    package let auditsTotal = MetricDefinition(
        "switchyard_expert_audits_total",
        .counter,
        ["pool", "result"],
        "Calls whose answers were compared with a second opinion: agreed, caught, disputed (no third opinion), unfinished (it came "
            + "too late) or unwitnessed (no second opinion to be had)."
    )
    package let auditedRowsTotal = MetricDefinition(
        "switchyard_expert_audited_rows_total",
        .counter,
        ["pool"],
        "Token rows that were compared with a second opinion."
    )
    package let recomputedTotal = MetricDefinition(
        "switchyard_expert_recomputed_calls_total",
        .counter,
        ["pool"],
        "Audited calls that the gateway computed itself."
    )
    package let catchesTotal = MetricDefinition(
        "switchyard_expert_catches_total",
        .counter,
        ["pool", "replica"],
        "Times that an audit found a replica's outputs wrong, which quarantines it."
    )
    package let proofsTotal = MetricDefinition(
        "switchyard_expert_proofs_total",
        .counter,
        ["pool", "result"],
        "Calls that quarantined replicas answered to prove themselves: right, wrong or failed."
    )
    package let disputed = MetricDefinition(
        "switchyard_expert_pool_disputed",
        .gauge,
        ["pool"],
        "1 while replicas of the pool give different outputs and there is no third opinion, otherwise 0."
    )
    package let attemptsTotal = MetricDefinition(
        "switchyard_expert_attempts_total",
        .counter,
        ["pool", "replica", "outcome"],
        "Attempts of calls: ok, deadline, unavailable, overloaded, bad_reply, refused, or given_up if no longer needed."
    )
    package let callSeconds = MetricDefinition(
        "switchyard_expert_call_seconds",
        .histogram(.callSeconds),
        ["pool", "replica"],
        "Time of a successful attempt."
    )
    package let openCalls = MetricDefinition(
        "switchyard_expert_open_calls",
        .gauge,
        ["pool", "replica"],
        "Attempts in flight."
    )
    package let openRows = MetricDefinition(
        "switchyard_expert_open_rows",
        .gauge,
        ["pool", "replica"],
        "Token rows of the attempts in flight."
    )
    package let rowsTotal = MetricDefinition(
        "switchyard_expert_rows_total",
        .counter,
        ["pool", "replica"],
        "Token rows of successful attempts."
    )
    package let sentBytesTotal = MetricDefinition(
        "switchyard_expert_sent_bytes_total",
        .counter,
        ["pool", "replica"],
        "Bytes of HTTP/2 sent to a replica, not counting TLS overhead."
    )
    package let receivedBytesTotal = MetricDefinition(
        "switchyard_expert_received_bytes_total",
        .counter,
        ["pool", "replica"],
        "Bytes of HTTP/2 received from a replica, not counting TLS overhead."
    )
    package let hedgesTotal = MetricDefinition(
        "switchyard_expert_hedges_total",
        .counter,
        ["pool"],
        "Calls also sent to a second replica because the first was slow."
    )
    package let hedgesWonTotal = MetricDefinition(
        "switchyard_expert_hedges_won_total",
        .counter,
        ["pool"],
        "Hedges that answered first."
    )
    package let preferencesTotal = MetricDefinition(
        "switchyard_expert_preferences_total",
        .counter,
        ["pool", "result"],
        "Experts of a layer whose rows went to the replica that they prefer (kept), or some of them elsewhere (yielded)."
    )
    package let retriesTotal = MetricDefinition(
        "switchyard_expert_retries_total",
        .counter,
        ["pool"],
        "Attempts made because an earlier one failed."
    )
    package let droppedRowsTotal = MetricDefinition(
        "switchyard_expert_dropped_rows_total",
        .counter,
        ["pool"],
        "Token rows dropped."
    )
    package let ejectionsTotal = MetricDefinition(
        "switchyard_expert_ejections_total",
        .counter,
        ["pool", "replica"],
        "Ejections of a replica."
    )

    package init() {}
}
