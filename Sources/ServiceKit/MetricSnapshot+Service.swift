// SPDX-License-Identifier: Apache-2.0

internal import RPCCore
public import RPCTransport
public import Telemetry

extension MetricSnapshot {
    /// Gives what a service is.
    ///
    /// - Parameters:
    ///   - component: The service's name: `gateway` or `expert-host`.
    ///   - isReady: Whether it takes calls.
    public mutating func setService(_ component: String, isReady: Bool) {
        self.set("switchyard_build_info", [component, SoftwareVersion.current], 1)
        self.set("switchyard_ready", isReady ? 1 : 0)
    }

    /// Gives what a service serves.
    ///
    /// - Parameters:
    ///   - fingerprint: The fingerprint of the checkpoint that it serves.
    ///   - weightType: How it keeps weights in memory.
    public mutating func setModel(fingerprint: UInt64, weightType: String) {
        let digits = String(fingerprint, radix: 16)
        let name = String(repeating: "0", count: 16 - digits.count) + digits
        self.set("switchyard_model_info", [name, weightType], 1)
    }

    /// Gives what a listener has done and does.
    ///
    /// - Parameters:
    ///   - server: The listener.
    ///   - security: What it is secured with.
    public mutating func set(_ server: RPCServer, security: ServerSecurity) {
        let counts = server.counts
        // Two versions of one service have methods of the same names.
        var calls: [[String]: UInt64] = [:]
        for entry in counts.calls {
            calls[[entry.method?.name ?? "unknown", entry.code.name], default: 0] += entry.count
        }
        for (labels, count) in calls.sorted(by: { $0.key.lexicographicallyPrecedes($1.key) }) {
            self.set("switchyard_rpc_calls_total", labels, count)
        }
        self.set("switchyard_rpc_open_calls", counts.openCalls)
        self.set("switchyard_rpc_connections", server.connectionCount)
        self.set("switchyard_rpc_connections_opened_total", counts.openedConnections)
        self.set("switchyard_rpc_connections_refused_total", counts.refusedConnections)
        self.set("switchyard_rpc_received_bytes_total", counts.traffic.receivedBytes)
        self.set("switchyard_rpc_sent_bytes_total", counts.traffic.sentBytes)
        if case .tls(let tls) = security, let end = tls.certificateEnd {
            self.set("switchyard_tls_certificate_expiry_timestamp_seconds", ["listener"], end)
        }
    }
}
