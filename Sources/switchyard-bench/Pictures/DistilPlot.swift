// SPDX-License-Identifier: Apache-2.0

import Figures
import Foundation

/// The picture of docs/training.md about distillation: how good models are, against what they weigh and how fast they answer.
struct DistilPlot: Decodable, Sendable {
    /// Models that were trained and measured on the same data.
    struct Comparison: Decodable, Sendable {
        /// What they learnt.
        var title: String
        /// The models.
        var rows: [Row]
    }

    /// One way to a model, with several seeds.
    struct Row: Decodable, Sendable {
        /// Its name; the same in all comparisons.
        var name: String
        /// Bytes of its weights.
        var bytes: Double
        /// Held-out cross-entropy of each seed, in nats.
        var crossEntropy: [Double]
    }

    /// Models of one size, served.
    struct Served: Decodable, Sendable {
        /// Bytes of the weights.
        var bytes: Double
        /// New tokens per second of each round, all callers together.
        var tokensPerSecond: [Double]
    }

    /// What was trained; the models of the first one were served.
    var comparisons: [Comparison]
    /// How fast models answer, by their bytes.
    var served: [Served]

    /// The figure: a diagram of bytes for each comparison, then one of tokens per second.
    var figure: SVGFigure {
        let sizes = self.comparisons.map { comparison in
            self.plot(comparison, comparison.title, SVGAxis("weights, MB", scale: .logarithmic, range: 0.5...10)) {
                $0.bytes / 1e6
            }
        }
        var plots = sizes
        if let first = self.comparisons.first {
            let rates = Dictionary(self.served.map { ($0.bytes, $0.tokensPerSecond) }) { first, _ in first }
            let axis = SVGAxis("new tokens per second, 16 callers", range: 0...self.mostTokens)
            plots.append(
                self.plot(first, "\(first.title), served", axis) { row in rates[row.bytes].flatMap(Self.median) }
            )
        }
        return SVGFigure(
            title: "A sparse teacher, and dense students of a tenth of its size",
            subtitle: "held-out cross-entropy, lower is better; means of the seeds, and their range",
            plots: plots,
            columns: 2
        )
    }

    /// Cross-entropy of each row over something else that is known of it; rows of which it is not known are left out.
    private func plot(
        _ comparison: Comparison,
        _ title: String,
        _ axis: SVGAxis,
        x: (Row) -> Double?
    ) -> SVGPlot {
        // Models of one shape lie at one place: side by side they can be told apart.
        var places: [Double: Int] = [:]
        let counts = Dictionary(comparison.rows.compactMap { row in x(row).map { ($0, 1) } }, uniquingKeysWith: +)
        let series = comparison.rows.compactMap { row -> SVGPlot.Series? in
            guard let place = x(row), let low = row.crossEntropy.min(), let high = row.crossEntropy.max() else {
                return nil
            }
            let index = places[place, default: 0]
            places[place] = index + 1
            return SVGPlot.Series(
                row.name,
                style: .points,
                points: [.init(place, mean(row.crossEntropy), range: low...high)],
                shift: 10 * (Double(index) - Double((counts[place] ?? 1) - 1) / 2)
            )
        }
        return SVGPlot(title: title, x: axis, y: SVGAxis("nats for each token"), series: series)
    }

    /// The end of the axis of tokens per second.
    private var mostTokens: Double {
        let most = self.served.compactMap { Self.median($0.tokensPerSecond) }.max() ?? 0
        return max(1000, (most * 1.2 / 1000).rounded(.up) * 1000)
    }

    private static func median(_ values: [Double]) -> Double? {
        guard !values.isEmpty else { return nil }
        let sorted = values.sorted()
        return (sorted[(sorted.count - 1) / 2] + sorted[sorted.count / 2]) / 2
    }
}
