// SPDX-License-Identifier: Apache-2.0

/// Every metric of this software: the one place that says what each means.
///
/// A metric that does not stand here is not kept; `docs/operations.md` has the same table for people, and a test compares
/// the two.
public enum MetricCatalog {
    /// All families, in the order in which they are written.
    public static let all = Self.process + Self.transport + Self.gateway + Self.expertPlane + Self.host

    private static let byName = Dictionary(Self.all.map { ($0.name, $0) }) { first, _ in first }

    /// The family of a name, or nil where the table has none.
    ///
    /// - Parameter name: The family's name.
    /// - Returns: What is known of it.
    public static func definition(of name: String) -> MetricDefinition? { Self.byName[name] }

    /// What both services say of themselves.
    static let process: [MetricDefinition] = [
        MetricDefinition(
            "process_cpu_seconds_total",
            .counter,
            "Processor time that the process has used, in the system and out of it, in seconds."
        ),
        MetricDefinition(
            "process_resident_memory_bytes",
            .gauge,
            "Memory of the process that is in RAM, in bytes; mapped shards count as far as they were read."
        ),
        MetricDefinition("process_virtual_memory_bytes", .gauge, "Address space of the process in bytes."),
        MetricDefinition("process_open_fds", .gauge, "File descriptors that are open."),
        MetricDefinition("process_max_fds", .gauge, "File descriptors that the process may have open."),
        MetricDefinition("process_threads", .gauge, "Threads of the process."),
        MetricDefinition(
            "process_start_time_seconds",
            .gauge,
            "When the process started, in seconds since 1970."
        ),
        MetricDefinition(
            "switchyard_build_info",
            .gauge,
            ["component", "version"],
            "Always 1; the labels say which service this is, gateway or expert-host, and of which version."
        ),
        MetricDefinition(
            "switchyard_model_info",
            .gauge,
            ["fingerprint", "dtype"],
            "Always 1; the labels say which checkpoint is served and how its weights are kept in memory."
        ),
        MetricDefinition("switchyard_ready", .gauge, "1 where /readyz says that the service takes calls, otherwise 0."),
        MetricDefinition(
            "switchyard_metric_series_dropped_total",
            .counter,
            ["metric"],
            "Values that were not counted because their metric has as many series as it may have."
        ),
    ]

    /// The gRPC listener of either service.
    static let transport: [MetricDefinition] = [
        MetricDefinition(
            "switchyard_rpc_calls_total",
            .counter,
            ["method", "code"],
            "Calls that ended, by method (unknown where there is no such method) and gRPC status code."
        ),
        MetricDefinition("switchyard_rpc_open_calls", .gauge, "Calls that have no status yet."),
        MetricDefinition("switchyard_rpc_connections", .gauge, "Connections of clients that are open."),
        MetricDefinition("switchyard_rpc_connections_opened_total", .counter, "Connections that clients opened."),
        MetricDefinition(
            "switchyard_rpc_connections_refused_total",
            .counter,
            "Connections that were refused: too many, no TLS where it is wanted, or a client that is not taken."
        ),
        MetricDefinition(
            "switchyard_rpc_received_bytes_total",
            .counter,
            "Bytes of HTTP/2 that clients sent, without what TLS adds."
        ),
        MetricDefinition(
            "switchyard_rpc_sent_bytes_total",
            .counter,
            "Bytes of HTTP/2 that were sent to clients, without what TLS adds."
        ),
        MetricDefinition(
            "switchyard_tls_certificate_expiry_timestamp_seconds",
            .gauge,
            ["role"],
            "When the certificate in use ends, in seconds since 1970; role is listener, or experts for what a gateway shows hosts."
        ),
    ]
}
