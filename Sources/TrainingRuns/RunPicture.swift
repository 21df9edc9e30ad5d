// SPDX-License-Identifier: Apache-2.0

internal import Figures

/// The figure of a run: its losses, and how evenly its experts are used.
public struct RunPicture: Sendable {
    /// The figure's file in a run's folder.
    public static let name = "training.svg"

    /// The run's reports, in the order of steps.
    public var reports: [RunReport]

    /// Draws a run.
    ///
    /// - Parameter reports: Its reports, in the order of steps.
    public init(_ reports: [RunReport]) {
        self.reports = reports
    }

    /// The figure as SVG; nil where nothing was reported.
    public var svg: String? {
        guard let last = self.reports.last else { return nil }
        var plots = [
            self.plot(
                "Cross-entropy",
                "nats per token",
                [
                    ("training", .training, \.crossEntropy), ("evaluation", .evaluation, \.crossEntropy),
                ]
            )
        ]
        if self.reports.contains(where: { $0.divergence != nil }) {
            plots.append(
                self.plot(
                    "Divergence from the teacher",
                    "nats per token",
                    [("training", .training, { $0.divergence ?? .nan })]
                )
            )
        }
        if !last.layers.isEmpty || self.reports.contains(where: { !$0.layers.isEmpty }) {
            plots.append(self.peaks)
            plots.append(
                self.plot(
                    "Experts' shares in all sparse layers",
                    "share of a layer's tokens",
                    [
                        ("largest", .training, { $0.shareRange?.greatest ?? .nan }),
                        ("smallest", .training, { $0.shareRange?.least ?? .nan }),
                        ("deviation", .training, { $0.shareRange?.deviation ?? .nan }),
                    ]
                )
            )
            if self.reports.contains(where: { $0.certainty != nil }) {
                plots.append(
                    self.plot(
                        "Probability of the chosen expert",
                        "mean over tokens and layers",
                        [("training", .training, { $0.certainty ?? .nan })]
                    )
                )
            }
            plots.append(
                self.plot(
                    "Dropped tokens",
                    "% of sparse layers' tokens",
                    [
                        ("training", .training, { ($0.dropped ?? 0) * 100 })
                    ]
                )
            )
        }
        plots.append(self.plot("Gradient norm", "before clipping", [("training", .training, { $0.gradientNorm ?? 0 })]))
        return SVGFigure(
            title: "Training to step \(last.step)",
            subtitle: "after \(RunLine.time(last.seconds))",
            plots: plots,
            columns: 2
        )
        .svg
    }

    private typealias Line = (name: String, kind: RunReport.Kind, value: (RunReport) -> Double)

    private func plot(_ title: String, _ label: String, _ lines: [Line]) -> SVGPlot {
        SVGPlot(
            title: title,
            x: SVGAxis("step"),
            y: SVGAxis(label),
            series: lines.compactMap { line in
                let points = self.reports.filter { $0.kind == line.kind }
                    .map { SVGPlot.Point(Double($0.step), line.value($0)) }
                    .filter { $0.y.isFinite }
                guard !points.isEmpty else { return nil }
                return SVGPlot.Series(line.name, style: points.count > 40 ? .line : .linePoints, points: points)
            }
        )
    }

    /// Each layer's most used expert.
    private var peaks: SVGPlot {
        let training = self.reports.filter { $0.kind == .training }
        let layers = training.last?.layers.map(\.layer) ?? []
        return SVGPlot(
            title: "Most used expert of each sparse layer",
            x: SVGAxis("step"),
            y: SVGAxis("multiple of an even share"),
            series: layers.map { name in
                SVGPlot.Series(
                    name,
                    style: .line,
                    points: training.compactMap { report in
                        report.layers.first { $0.layer == name }.map { .init(Double(report.step), $0.peak) }
                    }
                )
            },
            references: [.init(y: 1, label: "even")]
        )
    }
}
