// SPDX-License-Identifier: Apache-2.0

/// Metrics of both services about their process and themselves.
package struct ServiceMetrics: MetricTable {
    package let cpuSecondsTotal = MetricDefinition(
        "process_cpu_seconds_total",
        .counter,
        "CPU time that the process has used, user and system, in seconds."
    )
    package let residentMemoryBytes = MetricDefinition(
        "process_resident_memory_bytes",
        .gauge,
        "Resident memory of the process in bytes; a mapped shard counts only what has been read."
    )
    package let virtualMemoryBytes = MetricDefinition(
        "process_virtual_memory_bytes",
        .gauge,
        "Address space of the process in bytes."
    )
    package let openFds = MetricDefinition(
        "process_open_fds",
        .gauge,
        "Open file descriptors."
    )
    package let maxFds = MetricDefinition(
        "process_max_fds",
        .gauge,
        "Limit of open file descriptors."
    )
    package let threads = MetricDefinition(
        "process_threads",
        .gauge,
        "Threads of the process."
    )
    package let startTimeSeconds = MetricDefinition(
        "process_start_time_seconds",
        .gauge,
        "Start of the process, in seconds since 1970."
    )
    package let buildInfo = MetricDefinition(
        "switchyard_build_info",
        .gauge,
        ["component", "version"],
        "Always 1; the labels name the service, gateway or expert-host, and its version."
    )
    package let modelInfo = MetricDefinition(
        "switchyard_model_info",
        .gauge,
        ["fingerprint", "dtype"],
        "Always 1; the labels name the checkpoint served and the type of its weights in memory."
    )
    package let ready = MetricDefinition(
        "switchyard_ready",
        .gauge,
        "1 while /readyz reports that the service takes calls, otherwise 0."
    )
    package let metricSeriesDroppedTotal = MetricDefinition(
        "switchyard_metric_series_dropped_total",
        .counter,
        ["metric"],
        "Values not counted because their metric has reached its limit of series."
    )
    package let logLinesDroppedTotal = MetricDefinition(
        "switchyard_log_lines_dropped_total",
        .counter,
        "Log lines lost because standard error was blocked, or could not be written."
    )

    package init() {}
}

/// Metrics of the gRPC listener of either service.
package struct TransportMetrics: MetricTable {
    package let rpcCallsTotal = MetricDefinition(
        "switchyard_rpc_calls_total",
        .counter,
        ["method", "code"],
        "Calls that ended, by method (unknown if there is no such method) and gRPC status code."
    )
    package let rpcOpenCalls = MetricDefinition(
        "switchyard_rpc_open_calls",
        .gauge,
        "Calls in flight."
    )
    package let rpcConnections = MetricDefinition(
        "switchyard_rpc_connections",
        .gauge,
        "Open client connections."
    )
    package let rpcConnectionsOpenedTotal = MetricDefinition(
        "switchyard_rpc_connections_opened_total",
        .counter,
        "Connections that clients opened."
    )
    package let rpcConnectionsRefusedTotal = MetricDefinition(
        "switchyard_rpc_connections_refused_total",
        .counter,
        "Connections refused: too many, plaintext where TLS is required, or a client that is not allowed."
    )
    package let rpcConnectionsDisplacedTotal = MetricDefinition(
        "switchyard_rpc_connections_displaced_total",
        .counter,
        "Idle connections that left for others, since there were too many or their peer or token had its share."
    )
    package let rpcReceivedBytesTotal = MetricDefinition(
        "switchyard_rpc_received_bytes_total",
        .counter,
        "Bytes of HTTP/2 received from clients, not counting TLS overhead."
    )
    package let rpcSentBytesTotal = MetricDefinition(
        "switchyard_rpc_sent_bytes_total",
        .counter,
        "Bytes of HTTP/2 sent to clients, not counting TLS overhead."
    )
    package let rpcHeldBytes = MetricDefinition(
        "switchyard_rpc_held_bytes",
        .gauge,
        "Bytes of requests that have arrived in part or wait to be read; a connection's first 64 KiB may be missing."
    )
    package let rpcBudgetRefusalsTotal = MetricDefinition(
        "switchyard_rpc_budget_refusals_total",
        .counter,
        "Calls that ended because such bytes were over the budget (receive-budget-bytes) of the service or of a connection."
    )
    package let tlsCertificateExpiryTimestampSeconds = MetricDefinition(
        "switchyard_tls_certificate_expiry_timestamp_seconds",
        .gauge,
        ["role"],
        "Expiry of the certificate in use, in seconds since 1970; role is listener, or experts for the one a gateway presents to hosts."
    )

    package init() {}
}

/// Metrics of a gateway's listener of HTTP and JSON.
package struct HTTPMetrics: MetricTable {
    package let httpRequestsTotal = MetricDefinition(
        "switchyard_http_requests_total",
        .counter,
        ["route", "dialect", "status"],
        "Requests that were answered, by address (unknown if there is none), dialect (openai, tgi, oip or own) and status; a stream's "
            + "status is that of its beginning."
    )
    package let httpOpenRequests = MetricDefinition(
        "switchyard_http_open_requests",
        .gauge,
        "Requests whose answer is not complete."
    )
    package let httpConnections = MetricDefinition(
        "switchyard_http_connections",
        .gauge,
        "Open client connections of HTTP."
    )
    package let httpConnectionsOpenedTotal = MetricDefinition(
        "switchyard_http_connections_opened_total",
        .counter,
        "Connections of HTTP that clients opened."
    )
    package let httpConnectionsRefusedTotal = MetricDefinition(
        "switchyard_http_connections_refused_total",
        .counter,
        "Connections of HTTP refused: all others were busy, or the client is not allowed."
    )
    package let httpConnectionsDisplacedTotal = MetricDefinition(
        "switchyard_http_connections_displaced_total",
        .counter,
        "Idle connections of HTTP that left for others, since there were too many or their client had its share."
    )
    package let httpReceivedBytesTotal = MetricDefinition(
        "switchyard_http_received_bytes_total",
        .counter,
        "Bytes of HTTP received from clients, not counting TLS overhead."
    )
    package let httpSentBytesTotal = MetricDefinition(
        "switchyard_http_sent_bytes_total",
        .counter,
        "Bytes of HTTP sent to clients, not counting TLS overhead."
    )
    package let httpHeldBytes = MetricDefinition(
        "switchyard_http_held_bytes",
        .gauge,
        "Bytes of the bodies of requests that are not answered yet."
    )

    package init() {}
}
