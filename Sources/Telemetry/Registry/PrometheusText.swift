// SPDX-License-Identifier: Apache-2.0

/// Writes metrics in Prometheus' text format, version 0.0.4.
///
/// Source: https://prometheus.io/docs/instrumenting/exposition_formats/ (Text format details).
public enum PrometheusText {
    /// The content type of an answer that holds it.
    public static let contentType = "text/plain; version=0.0.4; charset=utf-8"

    /// Writes the families that have series, each with its help and type, in the table's order.
    ///
    /// - Parameters:
    ///   - definitions: The table.
    ///   - snapshot: The values.
    /// - Returns: UTF-8.
    static func render(_ definitions: [MetricDefinition], _ snapshot: MetricSnapshot) -> [UInt8] {
        var text = ""
        for definition in definitions {
            guard let samples = snapshot.samples[definition.name], !samples.isEmpty else { continue }
            text += "# HELP \(definition.name) \(Self.escaped(help: definition.help))\n"
            text += "# TYPE \(definition.name) \(definition.kind.name)\n"
            for sample in samples {
                let labels = Self.labels(definition.labels, sample.labels)
                switch sample.value {
                case .integer(let value): Self.line(definition.name, labels, "\(value)", to: &text)
                case .number(let value): Self.line(definition.name, labels, Self.number(value), to: &text)
                case .histogram(let counts): Self.histogram(definition.name, labels, counts, to: &text)
                }
            }
        }
        return Array(text.utf8)
    }

    private static func histogram(
        _ name: String,
        _ labels: String,
        _ histogram: HistogramCounts,
        to text: inout String
    ) {
        let comma = labels.isEmpty ? "" : ","
        var total: UInt64 = 0
        for (bound, count) in zip(histogram.buckets.bounds + [.infinity], histogram.counts) {
            total &+= count
            Self.line("\(name)_bucket", "\(labels)\(comma)le=\"\(Self.number(bound))\"", "\(total)", to: &text)
        }
        Self.line("\(name)_sum", labels, Self.number(histogram.sum), to: &text)
        Self.line("\(name)_count", labels, "\(total)", to: &text)
    }

    private static func line(_ name: String, _ labels: String, _ value: String, to text: inout String) {
        text += name
        if !labels.isEmpty { text += "{\(labels)}" }
        text += " \(value)\n"
    }

    private static func labels(_ names: [String], _ values: [String]) -> String {
        zip(names, values).map { "\($0)=\"\(Self.escaped(label: $1))\"" }.joined(separator: ",")
    }

    /// A number in Prometheus' format, without a fraction if it is whole.
    static func number(_ value: Double) -> String {
        if value.isNaN { return "NaN" }
        if value.isInfinite { return value < 0 ? "-Inf" : "+Inf" }
        // Up to here a double represents every integer exactly.
        if value == value.rounded(), abs(value) < 0x1p53 { return "\(Int64(value))" }
        return "\(value)"
    }

    /// A label's value: backslashes, quotes and line feeds are written with a backslash.
    static func escaped(label value: String) -> String {
        Self.escaped(value, quotes: true)
    }

    /// A help text: backslashes and line feeds are written with a backslash.
    static func escaped(help text: String) -> String {
        Self.escaped(text, quotes: false)
    }

    private static func escaped(_ text: String, quotes: Bool) -> String {
        // Scalars: a carriage return and a line feed are one character.
        guard text.unicodeScalars.contains(where: { $0 == "\\" || $0 == "\n" || (quotes && $0 == "\"") }) else {
            return text
        }
        var escaped = String.UnicodeScalarView()
        for scalar in text.unicodeScalars {
            switch scalar {
            case "\\": escaped.append(contentsOf: "\\\\".unicodeScalars)
            case "\n": escaped.append(contentsOf: "\\n".unicodeScalars)
            case "\"" where quotes: escaped.append(contentsOf: "\\\"".unicodeScalars)
            default: escaped.append(scalar)
            }
        }
        return String(escaped)
    }
}
