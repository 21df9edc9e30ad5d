// SPDX-License-Identifier: Apache-2.0

import Figures
import PoolSimulation

/// The fraction of the steps that took at least a time: a diagram per scenario, a line per variant.
///
/// Both axes are logarithmic: to the right slower, downwards rarer. A line that ends far to the right is a long tail.
struct SimulationPlot {
    var records: [SimulationRecord]

    /// The figure; all diagrams have the same axes.
    var figure: SVGFigure {
        let scenarios = SimulationScenario.allCases.map(\.rawValue)
            .filter { name in
                self.records.contains { $0.scenario == name }
            }
        let times = self.records.flatMap(\.curve).map(\.milliseconds)
        let steps = Double(self.records.map(\.steps).max() ?? 1)
        let plots = scenarios.map { scenario in
            SVGPlot(
                title: scenario,
                x: SVGAxis(
                    "time of a step",
                    scale: .logarithmic,
                    range: max(0.001, (times.min() ?? 1) * 0.8)...max(0.01, (times.max() ?? 1) * 1.2),
                    format: .milliseconds
                ),
                y: SVGAxis(
                    "steps that took this long",
                    scale: .logarithmic,
                    range: Self.rarest(of: steps)...100,
                    ticks: [0.01, 0.1, 1, 10, 100],
                    format: .number(suffix: " %")
                ),
                series: self.records.filter { $0.scenario == scenario }
                    .map { record in
                        SVGPlot.Series(
                            record.variant,
                            style: .line,
                            points: record.curve.map { .init($0.milliseconds, $0.fraction * 100) },
                            look: Self.look(record.variant)
                        )
                    }
            )
        }
        return SVGFigure(
            title: "Which part of the steps took how long",
            subtitle: "simulated clusters under faults, and what happens without one of the gateway's defences",
            plots: plots,
            columns: 2,
            plotWidth: 440,
            plotHeight: 270,
            legend: .lastCell(
                note:
                    "Each line says which part of the steps took at least so long: further right is slower, further down is "
                    + "rarer. Where lines coincide, dashes tell them apart."
            )
        )
    }

    /// The largest power of ten, in percent, that one step of this many is not below.
    private static func rarest(of steps: Double) -> Double {
        var percent = 10.0
        while percent * steps > 100.5, percent > 1e-6 { percent /= 10 }
        return percent
    }

    /// The same look for a variant in every diagram, and dashes for what another line may cover.
    private static func look(_ variant: String) -> SVGPlot.Look? {
        switch SimulationVariant(rawValue: variant) {
        case .everything: .init(colour: 0, mark: 0, dash: 0)
        case .noHedges: .init(colour: 1, mark: 0, dash: 1)
        case .noEjection: .init(colour: 2, mark: 0, dash: 0)
        case .neither: .init(colour: 3, mark: 0, dash: 2)
        case .oneReplica: .init(colour: 4, mark: 0, dash: 3)
        case .noPlan: .init(colour: 5, mark: 0, dash: 1)
        case .noAffinity: .init(colour: 6, mark: 0, dash: 2)
        case nil: nil
        }
    }
}
