// SPDX-License-Identifier: Apache-2.0

import Figures
import Foundation

/// A benchmark's report as a figure: a diagram for each work, a line for each system, error bars over the runs.
struct BenchPlot {
    var report: BenchReport
    /// Only these works, in this order; all when empty.
    var works: [String] = []
    /// Only these systems; all when empty.
    var systems: [String] = []

    /// The figure; it can be drawn whatever the report holds.
    var figure: SVGFigure {
        var works = self.works
        if works.isEmpty {
            for figure in self.report.figures where !works.contains(figure.work) { works.append(figure.work) }
        }
        let plots = works.map { work in
            self.plot(work, self.report.figures.filter { $0.work == work && self.shows($0.system) })
        }
        return SVGFigure(
            title: self.report.title,
            subtitle: self.report.conditions,
            plots: plots,
            columns: plots.count > 1 ? 2 : 1,
            plotWidth: plots.count > 1 ? 440 : 620
        )
    }

    private func shows(_ system: String) -> Bool { self.systems.isEmpty || self.systems.contains(system) }

    private func plot(_ work: String, _ figures: [BenchFigure]) -> SVGPlot {
        var systems: [String] = []
        for figure in figures where !systems.contains(figure.system) { systems.append(figure.system) }
        let sizes = Set(figures.map(\.size)).sorted()
        let unit = figures.first?.unit ?? ""
        let looks = self.looks
        return SVGPlot(
            title: work,
            x: SVGAxis(
                self.report.sizeName,
                scale: .logarithmic,
                ticks: sizes.isEmpty ? nil : Self.spaced(sizes.map(Double.init))
            ),
            y: SVGAxis(unit, scale: .logarithmic),
            series: systems.enumerated()
                .map { index, system in
                    SVGPlot.Series(
                        system,
                        points: figures.filter { $0.system == system }.sorted { $0.size < $1.size }.map(Self.point),
                        shift: 3 * (Double(index) - Double(systems.count - 1) / 2),
                        look: looks[system]
                    )
                }
        )
    }

    /// How each system is drawn.
    ///
    /// Where names are of the form `family, kind`, such as `Switchyard, int8`, families have colours, and kinds have marks
    /// and dashes, so that eight systems need four colours.
    private var looks: [String: SVGPlot.Look] {
        var systems: [String] = []
        for figure in self.report.figures where self.shows(figure.system) && !systems.contains(figure.system) {
            systems.append(figure.system)
        }
        let parts = systems.map { $0.split(separator: ", ", maxSplits: 1).map(String.init) }
        guard parts.contains(where: { $0.count == 2 }) else { return [:] }
        var families: [String] = []
        var kinds: [String] = []
        for part in parts {
            if let family = part.first, !families.contains(family) { families.append(family) }
            let kind = part.count == 2 ? part[1] : ""
            if !kinds.contains(kind) { kinds.append(kind) }
        }
        let looks = parts.map { part in
            let kind = kinds.firstIndex(of: part.count == 2 ? part[1] : "") ?? 0
            return SVGPlot.Look(colour: families.firstIndex(of: part.first ?? "") ?? 0, mark: kind, dash: kind)
        }
        return Dictionary(zip(systems, looks)) { first, _ in first }
    }

    private static func point(_ figure: BenchFigure) -> SVGPlot.Point {
        let low = figure.values.min() ?? 0
        let high = figure.values.max() ?? 0
        return SVGPlot.Point(Double(figure.size), figure.median, range: low < high ? low...high : nil)
    }

    /// Marks that are far enough apart for their numbers: at least a fifteenth of the axis away from the previous mark.
    private static func spaced(_ values: [Double]) -> [Double] {
        guard let first = values.first, let last = values.last, first > 0, last > first else { return values }
        let least = log(last / first) / 15
        var marks: [Double] = []
        for value in values where marks.last.map({ log(value / $0) >= least }) ?? true { marks.append(value) }
        return marks
    }
}
