// SPDX-License-Identifier: Apache-2.0

/// Every metric of this software: the one place that names and explains each.
///
/// A count refers to a definition, such as `MetricCatalog.engine.stepsTotal`, so a metric missing here does not
/// compile. `switchyard config list` writes the tables of `docs/operations.md` from it.
public enum MetricCatalog {
    /// Metrics of both services about their process and themselves.
    package static let service = ServiceMetrics()
    /// Metrics of the gRPC listener of either service.
    package static let transport = TransportMetrics()
    /// Metrics of a gateway's listener of HTTP and JSON.
    package static let http = HTTPMetrics()
    /// Metrics of a gateway about its requests and steps.
    package static let engine = EngineMetrics()
    /// Metrics of a gateway about its expert pools and their replicas.
    package static let pools = ExpertPoolMetrics()
    /// Metrics of an expert host.
    package static let host = HostMetrics()
    /// Metrics of a training run.
    package static let training = TrainingMetrics()
    /// Metrics of a trainer about the hosts that its experts are on.
    package static let trainingShards = TrainingShardTable()
    /// Metrics of a host whose experts are trained.
    package static let trainingHost = TrainingHostTable()

    /// All families, in the order in which they are written.
    public static let all: [MetricDefinition] = [
        Self.service.definitions, Self.transport.definitions, Self.http.definitions, Self.engine.definitions,
        Self.pools.definitions, Self.host.definitions, Self.training.definitions, Self.trainingShards.definitions,
        Self.trainingHost.definitions,
    ]
    .flatMap { $0 }

    private static let byName = Dictionary(Self.all.map { ($0.name, $0) }) { first, _ in first }

    /// The family of a name, or nil if the table has none.
    ///
    /// - Parameter name: The family's name.
    /// - Returns: Its definition.
    public static func definition(of name: String) -> MetricDefinition? { Self.byName[name] }
}

/// Metrics whose definitions are the stored properties of a type, so that none can be forgotten in a list.
package protocol MetricTable: Sendable {}

extension MetricTable {
    /// The definitions in the order in which they are declared.
    package var definitions: [MetricDefinition] {
        Mirror(reflecting: self).children.compactMap { $0.value as? MetricDefinition }
    }
}
