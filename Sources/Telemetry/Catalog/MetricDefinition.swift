// SPDX-License-Identifier: Apache-2.0

package import Metrics

/// The definition of a family of series: name, type, labels, buckets and meaning.
///
/// Names follow Prometheus' conventions: base units as suffixes, `_total` for counters
/// (https://prometheus.io/docs/practices/naming/).
public struct MetricDefinition: Sendable, Hashable {
    /// The type of a family's values.
    public enum Kind: Sendable, Hashable {
        /// Only grows until the process restarts.
        case counter
        /// A current value.
        case gauge
        /// A distribution of observations.
        case histogram(Buckets)

        /// The type's name in the text format.
        public var name: String {
            switch self {
            case .counter: "counter"
            case .gauge: "gauge"
            case .histogram: "histogram"
            }
        }
    }

    /// The family's name.
    public let name: String
    /// The type of its values.
    public let kind: Kind
    /// Names of its labels, in output order.
    public let labels: [String]
    /// Its meaning for people, in one line.
    public let help: String

    /// Describes a family.
    ///
    /// - Parameters:
    ///   - name: The family's name.
    ///   - kind: The type of its values.
    ///   - labels: Names of its labels.
    ///   - help: What it means.
    public init(_ name: String, _ kind: Kind, _ labels: [String], _ help: String) {
        self.name = name
        self.kind = kind
        self.labels = labels
        self.help = help
    }

    /// Describes a family of one series, without labels.
    ///
    /// - Parameters:
    ///   - name: The family's name.
    ///   - kind: The type of its values.
    ///   - help: What it means.
    public init(_ name: String, _ kind: Kind, _ help: String) {
        self.init(name, kind, [], help)
    }
}

extension MetricDefinition {
    /// Makes a counter of this family.
    ///
    /// - Parameters:
    ///   - values: Values of its labels, in their order.
    ///   - factory: The metrics system.
    /// - Returns: The counter.
    package func counter(_ values: [String] = [], factory: any MetricsFactory) -> Counter {
        Counter(label: self.name, dimensions: self.dimensions(values), factory: factory)
    }

    /// Makes a histogram of times of this family.
    ///
    /// - Parameters:
    ///   - values: Values of its labels, in their order.
    ///   - factory: The metrics system.
    /// - Returns: The timer.
    package func timer(_ values: [String] = [], factory: any MetricsFactory) -> Timer {
        Timer(label: self.name, dimensions: self.dimensions(values), factory: factory)
    }

    /// Makes a histogram of sizes of this family.
    ///
    /// - Parameters:
    ///   - values: Values of its labels, in their order.
    ///   - factory: The metrics system.
    /// - Returns: The recorder.
    package func recorder(_ values: [String] = [], factory: any MetricsFactory) -> Recorder {
        Recorder(label: self.name, dimensions: self.dimensions(values), aggregate: true, factory: factory)
    }

    private func dimensions(_ values: [String]) -> [(String, String)] { Array(zip(self.labels, values)) }

    /// The family as a row of a table in Markdown.
    package var markdownRow: [String] {
        ["`\(self.name)`", self.kind.name, self.labels.map { "`\($0)`" }.joined(separator: ", "), self.help]
    }
}

/// The upper bounds of a histogram's buckets; an extra last bucket takes everything else.
public enum Buckets: Sendable, Hashable {
    /// Times of requests and steps: 1 ms to a minute.
    case seconds
    /// Times of single calls: 0.1 ms to 5 s.
    case callSeconds
    /// Numbers of rows: powers of two up to 4096.
    case rows
    /// Numbers of calls: powers of two up to 64.
    case calls

    private static let secondBounds = [
        0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60,
    ]
    private static let callSecondBounds = [
        0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5,
    ]
    private static let rowBounds: [Double] = [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096]
    private static let callBounds: [Double] = [1, 2, 4, 8, 16, 32, 64]

    /// The bounds, ascending; a value that equals one belongs to it.
    public var bounds: [Double] {
        switch self {
        case .seconds: Self.secondBounds
        case .callSeconds: Self.callSecondBounds
        case .rows: Self.rowBounds
        case .calls: Self.callBounds
        }
    }
}
