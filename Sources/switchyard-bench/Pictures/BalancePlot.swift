// SPDX-License-Identifier: Apache-2.0

import Figures
import Foundation

/// The picture of docs/training.md about the load balancing loss: two runs that differ in nothing else.
struct BalancePlot: Decodable, Sendable {
    /// One run.
    struct Run: Decodable, Sendable {
        /// The loss's factor; 0 for none.
        var balance: Double
        /// The sparse layers, in their order.
        var layers: [Layer]
    }

    /// One sparse layer of a run.
    struct Layer: Decodable, Sendable {
        /// The layer: `encoder/1`.
        var layer: String
        /// Pairs of a step and the largest share of an expert around it, as a multiple of an even one.
        var peaks: [[Double]]
    }

    /// Steps of each run.
    var steps: Int
    /// Steps in which the learning rate rises.
    var warmUp: Int
    /// The runs.
    var runs: [Run]

    /// The figure: a diagram for each run, with axes that line up.
    var figure: SVGFigure {
        let peaks = self.runs.flatMap(\.layers).flatMap(\.peaks).compactMap { $0.count == 2 ? $0[1] : nil }
        let most = max(2, (peaks.max() ?? 0).rounded(.up))
        return SVGFigure(
            title: "The most used expert of each sparse layer",
            subtitle:
                "the miniature's shape, 8 experts, from scratch; the rate rises for \(self.warmUp) steps; means of 10 steps",
            plots: self.runs.map { run in
                SVGPlot(
                    title: run.balance > 0 ? "balance \(run.balance)" : "no load balancing loss",
                    x: SVGAxis("step", range: 0...Double(max(1, self.steps))),
                    y: SVGAxis("multiple of an even share", range: 0...most),
                    series: run.layers.map { layer in
                        SVGPlot.Series(
                            layer.layer,
                            style: .line,
                            points: layer.peaks.compactMap { $0.count == 2 ? .init($0[0], $0[1]) : nil }
                        )
                    },
                    references: [.init(y: 1.5, label: "1.5")]
                )
            },
            columns: 2
        )
    }
}
