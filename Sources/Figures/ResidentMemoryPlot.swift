// SPDX-License-Identifier: Apache-2.0

/// The resident memory of processes over time: those that lived throughout as lines, the others as thin ones.
package struct ResidentMemoryPlot: Sendable {
    /// The memory of one process.
    package struct Process: Sendable {
        /// `gateway`, or the name of an expert host.
        package var name: String
        /// Seconds from the beginning, and resident bytes.
        package var samples: [(seconds: Double, bytes: Double)]

        /// Describes a process.
        ///
        /// - Parameters:
        ///   - name: `gateway`, or the name of an expert host.
        ///   - samples: Seconds from the beginning, and resident bytes.
        package init(name: String, samples: [(seconds: Double, bytes: Double)]) {
            self.name = name
            self.samples = samples
        }

        /// How long it was observed.
        var span: Double { (self.samples.last?.seconds ?? 0) - (self.samples.first?.seconds ?? 0) }
    }

    /// Every observed process.
    package var processes: [Process]

    /// Draws processes.
    ///
    /// - Parameter processes: Every observed process.
    package init(processes: [Process]) {
        self.processes = processes
    }

    /// Reads what the soak writes with `--csv`; nil where a line is something else.
    ///
    /// - Parameter csv: Lines of seconds, name, process identifier and bytes, below a line of titles; lines that begin with
    ///   `#` are comments.
    package init?(csv: String) {
        var processes: [String: Process] = [:]
        var order: [String] = []
        let lines = csv.split(separator: "\n").filter { !$0.hasPrefix("#") }
        guard lines.first == "seconds,process,identifier,resident_bytes" else { return nil }
        for line in lines.dropFirst() {
            let cells = line.split(separator: ",", omittingEmptySubsequences: false)
            guard cells.count == 4, let seconds = Double(cells[0]), let bytes = Double(cells[3]), bytes.isFinite else {
                return nil
            }
            let key = "\(cells[1]) \(cells[2])"
            if processes[key] == nil { order.append(key) }
            processes[key, default: Process(name: String(cells[1]), samples: [])].samples.append((seconds, bytes))
        }
        self.init(processes: order.compactMap { processes[$0] })
    }

    /// The figure.
    package var figure: SVGFigure {
        let longest = self.processes.map(\.span).max() ?? 0
        let last = self.processes.compactMap { $0.samples.last?.seconds }.max() ?? 0
        let isLong = { (process: Process) in process.span >= 0.95 * longest }
        let inMinutes = last > 300
        let series = self.processes.filter { $0.samples.count > 1 || isLong($0) }
            .map { process in
                let kind: (name: String, style: SVGPlot.Series.Style, colour: Int)
                switch (process.name == "gateway", isLong(process)) {
                case (true, _): kind = ("gateway", .line, 0)
                case (false, true): kind = ("expert hosts that lived all the time", .line, 1)
                case (false, false): kind = ("expert hosts that came and went", .fineLine, 4)
                }
                return SVGPlot.Series(
                    kind.name,
                    style: kind.style,
                    points: process.samples.map { .init($0.seconds / (inMinutes ? 60 : 1), $0.bytes / 1_048_576) },
                    look: .init(colour: kind.colour, mark: 0, dash: 0)
                )
            }
        // The longest-lived first, so that they are on top.
        let rank = ["gateway": 0, "expert hosts that lived all the time": 1]
        let sorted = series.enumerated()
            .sorted { (rank[$0.element.name] ?? 2, $0.offset) < (rank[$1.element.name] ?? 2, $1.offset) }
        let most = self.processes.flatMap(\.samples).map(\.bytes).max() ?? 0
        let ceiling = SVGAxis("").ruler(for: [0, most / 1_048_576], length: 270, direction: .vertical).high
        return SVGFigure(
            title: "Resident memory of every process under drawn faults",
            subtitle: "one gateway and the expert hosts of two pools, under load all the time",
            plots: [
                SVGPlot(
                    title: "",
                    x: SVGAxis(
                        inMinutes ? "time, minutes" : "time, seconds",
                        range: 0...max(1, inMinutes ? last / 60 : last)
                    ),
                    y: SVGAxis("resident memory, MiB", range: 0...max(1, ceiling)),
                    series: sorted.map(\.element)
                )
            ],
            plotWidth: 900,
            plotHeight: 350
        )
    }
}
