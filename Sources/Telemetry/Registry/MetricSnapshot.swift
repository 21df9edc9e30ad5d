// SPDX-License-Identifier: Apache-2.0

/// The values of some families at one moment, gathered for an answer.
public struct MetricSnapshot: Sendable {
    /// A value of one series.
    enum Value: Sendable, Hashable {
        case integer(UInt64)
        case number(Double)
        case histogram(HistogramCounts)
    }

    /// One series and its value.
    struct Sample: Sendable, Hashable {
        /// Values of the family's labels, in its order.
        let labels: [String]
        let value: Value
    }

    /// Samples by family name, in the order in which they arrived.
    private(set) var samples: [String: [Sample]] = [:]

    /// Values that do not match their definition, with the reason: a bug in this software.
    public private(set) var undescribed: Set<String> = []

    private let definition: @Sendable (String) -> MetricDefinition?

    /// Creates an empty snapshot of the families of ``MetricCatalog``.
    public init() {
        self.init { MetricCatalog.definition(of: $0) }
    }

    init(definition: @escaping @Sendable (String) -> MetricDefinition?) {
        self.definition = definition
    }

    /// Sets the value of a counter or gauge.
    ///
    /// - Parameters:
    ///   - metric: The family, from ``MetricCatalog``.
    ///   - labels: Values of its labels, in the table's order.
    ///   - value: The value.
    public mutating func set(_ metric: MetricDefinition, _ labels: [String], _ value: some BinaryInteger) {
        self.add(metric.name, labels, .integer(UInt64(clamping: value)))
    }

    /// Sets the value of a counter or gauge.
    ///
    /// - Parameters:
    ///   - metric: The family, from ``MetricCatalog``.
    ///   - labels: Values of its labels, in the table's order.
    ///   - value: The value.
    public mutating func set(_ metric: MetricDefinition, _ labels: [String], _ value: Double) {
        self.add(metric.name, labels, .number(value))
    }

    /// Sets the value of a histogram.
    ///
    /// - Parameters:
    ///   - metric: The family, from ``MetricCatalog``.
    ///   - labels: Values of its labels, in the table's order.
    ///   - counts: Its observations.
    public mutating func set(_ metric: MetricDefinition, _ labels: [String], _ counts: HistogramCounts) {
        self.add(metric.name, labels, .histogram(counts))
    }

    /// Sets the value of a counter or gauge without labels.
    ///
    /// - Parameters:
    ///   - metric: The family, from ``MetricCatalog``.
    ///   - value: The value.
    public mutating func set(_ metric: MetricDefinition, _ value: some BinaryInteger) { self.set(metric, [], value) }

    /// Sets the value of a counter or gauge without labels.
    ///
    /// - Parameters:
    ///   - metric: The family, from ``MetricCatalog``.
    ///   - value: The value.
    public mutating func set(_ metric: MetricDefinition, _ value: Double) { self.set(metric, [], value) }

    /// The value of a counter or gauge that was given, for tests and programs that embed a service.
    ///
    /// - Parameters:
    ///   - name: The family's name.
    ///   - labels: Values of its labels.
    /// - Returns: The value; nil if none was given.
    public func value(_ name: String, _ labels: [String] = []) -> Double? {
        switch self.samples[name]?.first(where: { $0.labels == labels })?.value {
        case .integer(let value): Double(value)
        case .number(let value): value
        case .histogram, nil: nil
        }
    }

    /// Writes the families of ``MetricCatalog`` that were given as Prometheus text.
    ///
    /// - Returns: UTF-8, for the content type ``PrometheusText/contentType``.
    public func text() -> [UInt8] { PrometheusText.render(MetricCatalog.all, self) }

    mutating func add(_ name: String, _ labels: [String], _ value: Value) {
        guard let definition = self.definition(name) else {
            self.undescribed.insert("\(name) is not in the table")
            return
        }
        guard definition.labels.count == labels.count else {
            self.undescribed.insert("\(name) has \(labels.count) labels, not \(definition.labels.count)")
            return
        }
        switch (definition.kind, value) {
        case (.counter, .integer), (.counter, .number), (.gauge, .integer), (.gauge, .number):
            break
        case (.histogram(let buckets), .histogram(let counts)) where counts.buckets == buckets:
            break
        default:
            self.undescribed.insert("\(name) is a \(definition.kind.name)")
            return
        }
        self.samples[name, default: []].append(Sample(labels: labels, value: value))
    }

    /// Records values that do not match their definition.
    mutating func report(_ undescribed: Set<String>) { self.undescribed.formUnion(undescribed) }
}
