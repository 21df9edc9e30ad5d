// SPDX-License-Identifier: Apache-2.0

internal import RPCCore
public import RPCTransport
internal import SwitchyardTypes
public import Telemetry

extension MetricSnapshot {
    /// Adds a service's name, version and readiness.
    ///
    /// - Parameters:
    ///   - component: The service's name: `gateway` or `expert-host`.
    ///   - isReady: Whether it takes calls.
    public mutating func setService(_ component: String, isReady: Bool) {
        self.set(MetricCatalog.service.buildInfo, [component, SoftwareVersion.current], 1)
        self.set(MetricCatalog.service.ready, isReady ? 1 : 0)
        self.set(MetricCatalog.service.logLinesDroppedTotal, StandardStream.droppedCount)
    }

    /// Adds the checkpoint that a service serves.
    ///
    /// - Parameters:
    ///   - fingerprint: The fingerprint of the checkpoint that it serves.
    ///   - weightType: How it keeps weights in memory.
    public mutating func setModel(fingerprint: UInt64, weightType: String) {
        self.set(MetricCatalog.service.modelInfo, [fingerprint.fingerprintText, weightType], 1)
    }

    /// Adds a listener's counts and current state.
    ///
    /// - Parameters:
    ///   - server: The listener.
    ///   - security: Its security.
    public mutating func set(_ server: RPCServer, security: ServerSecurity) {
        let counts = server.counts
        // Two versions of a service have methods with the same names.
        var calls: [[String]: UInt64] = [:]
        for entry in counts.calls {
            calls[[entry.method?.name ?? "unknown", entry.code.name], default: 0] += entry.count
        }
        for (labels, count) in calls.sorted(by: { $0.key.lexicographicallyPrecedes($1.key) }) {
            self.set(MetricCatalog.transport.rpcCallsTotal, labels, count)
        }
        self.set(MetricCatalog.transport.rpcOpenCalls, counts.openCalls)
        self.set(MetricCatalog.transport.rpcConnections, server.connectionCount)
        self.set(MetricCatalog.transport.rpcConnectionsOpenedTotal, counts.openedConnections)
        self.set(MetricCatalog.transport.rpcConnectionsRefusedTotal, counts.refusedConnections)
        self.set(MetricCatalog.transport.rpcConnectionsDisplacedTotal, counts.displacedConnections)
        self.set(MetricCatalog.transport.rpcReceivedBytesTotal, counts.traffic.receivedBytes)
        self.set(MetricCatalog.transport.rpcSentBytesTotal, counts.traffic.sentBytes)
        self.set(MetricCatalog.transport.rpcHeldBytes, counts.heldBytes)
        self.set(MetricCatalog.transport.rpcBudgetRefusalsTotal, counts.callsEndedForBudget)
        if case .tls(let tls) = security, let end = tls.certificateEnd {
            self.set(MetricCatalog.transport.tlsCertificateExpiryTimestampSeconds, ["listener"], end)
        }
    }
}
