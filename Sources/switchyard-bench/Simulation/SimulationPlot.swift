// SPDX-License-Identifier: Apache-2.0

import ExpertPooling
import Foundation
import PoolSimulation

/// How many steps took longer than how long, a panel a scenario and a line a variant, as SVG.
///
/// Both axes are logarithmic: to the right slower, downwards rarer. A line that ends far to the right is a long tail.
struct SimulationPlot {
    private static let panelWidth = 400.0
    private static let panelHeight = 220.0
    private static let margin = (left: 52.0, top: 30.0, right: 16.0, bottom: 34.0)
    // Colours that people with any kind of colour vision can tell apart (M. Okabe, K. Ito, 2008).
    private static let colours: [SimulationVariant: String] = [
        .everything: "#0072b2", .noHedges: "#e69f00", .noEjection: "#009e73", .neither: "#d55e00",
        .oneReplica: "#cc79a7", .noPlan: "#e69f00",
    ]

    var reports: [SimulationReport]

    /// The drawing.
    var svg: String {
        let scenarios = SimulationScenario.allCases.filter { scenario in
            self.reports.contains { $0.scenario == scenario }
        }
        let columns = min(2, max(1, scenarios.count))
        let rows = (scenarios.count + columns - 1) / columns
        let width = Double(columns) * Self.panelWidth
        let height = Double(rows) * Self.panelHeight
        let panels = scenarios.enumerated()
            .map { index, scenario in
                self.panel(
                    scenario,
                    x: Double(index % columns) * Self.panelWidth,
                    y: Double(index / columns) * Self.panelHeight
                )
            }
        return """
            <!-- SPDX-License-Identifier: Apache-2.0 -->
            <svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 \(Self.number(width)) \(Self.number(height))" \
            font-family="sans-serif" font-size="11">
            <rect width="100%" height="100%" fill="#ffffff"/>
            \(panels.joined(separator: "\n"))
            </svg>

            """
    }

    private func panel(_ scenario: SimulationScenario, x: Double, y: Double) -> String {
        let reports = self.reports.filter { $0.scenario == scenario && !$0.stepTimes.isEmpty }
        let slowest = reports.map { $0.step(1) }.max() ?? 1
        let fastest = reports.map { $0.step(0) }.min() ?? 0.001
        let low = Foundation.log10(max(fastest, 1e-6) * 0.9)
        let high = max(Foundation.log10(max(slowest, 1e-6) * 1.2), low + 0.3)
        let steps = reports.map(\.stepTimes.count).max() ?? 1
        let rarest = -Foundation.log10(Double(max(steps, 10)))
        let left = x + Self.margin.left
        let top = y + Self.margin.top
        let width = Self.panelWidth - Self.margin.left - Self.margin.right
        let height = Self.panelHeight - Self.margin.top - Self.margin.bottom
        func across(_ seconds: Double) -> Double {
            left + (Foundation.log10(max(seconds, 1e-9)) - low) / (high - low) * width
        }
        func down(_ fraction: Double) -> Double { top + Foundation.log10(fraction) / rarest * height }

        var parts = [
            "<text x=\"\(Self.number(left))\" y=\"\(Self.number(y + 18))\" font-weight=\"bold\">\(scenario.rawValue)</text>",
            "<rect x=\"\(Self.number(left))\" y=\"\(Self.number(top))\" width=\"\(Self.number(width))\" "
                + "height=\"\(Self.number(height))\" fill=\"none\" stroke=\"#888888\"/>",
        ]
        for milliseconds in [1.0, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10_000] {
            let place = across(milliseconds / 1000)
            guard place >= left, place <= left + width else { continue }
            let name = milliseconds < 1000 ? "\(Int(milliseconds)) ms" : "\(Int(milliseconds / 1000)) s"
            parts.append(Self.line([(place, top), (place, top + height)], "#dddddd", 1))
            parts.append(Self.label(name, place, top + height + 14, "middle"))
        }
        for (fraction, name) in [(0.1, "10 %"), (0.01, "1 %"), (0.001, "0.1 %")] {
            let place = down(fraction)
            guard place <= top + height else { continue }
            parts.append(Self.line([(left, place), (left + width, place)], "#dddddd", 1))
            parts.append(Self.label(name, left - 5, place + 4, "end"))
        }
        for (index, report) in reports.enumerated() {
            let colour = Self.colours[report.variant] ?? "#000000"
            let count = Double(report.stepTimes.count)
            // Points that are closer than a pixel say nothing.
            var points: [(Double, Double)] = []
            for (rank, time) in report.stepTimes.enumerated() {
                let point = (across(Double(time) * 1e-9), down(1 - Double(rank) / count))
                if let last = points.last, abs(last.0 - point.0) + abs(last.1 - point.1) < 1 { continue }
                points.append(point)
            }
            parts.append(Self.line(points, colour, 1.6))
            let row = top + 14 + Double(index) * 14
            parts.append(
                "<text x=\"\(Self.number(left + width - 6))\" y=\"\(Self.number(row))\" text-anchor=\"end\" "
                    + "fill=\"\(colour)\">\(report.variant.rawValue)</text>"
            )
        }
        return parts.joined(separator: "\n")
    }

    private static func line(_ points: [(Double, Double)], _ colour: String, _ width: Double) -> String {
        let list = points.map { "\(Self.number($0.0)),\(Self.number($0.1))" }.joined(separator: " ")
        return "<polyline points=\"\(list)\" fill=\"none\" stroke=\"\(colour)\" stroke-width=\"\(width)\"/>"
    }

    private static func label(_ text: String, _ x: Double, _ y: Double, _ anchor: String) -> String {
        "<text x=\"\(Self.number(x))\" y=\"\(Self.number(y))\" text-anchor=\"\(anchor)\" fill=\"#555555\">\(text)</text>"
    }

    private static func number(_ value: Double) -> String { String(format: "%.1f", value) }
}
