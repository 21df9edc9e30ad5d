// SPDX-License-Identifier: Apache-2.0

internal import Figures
internal import Synchronization

/// The resident memory of processes over time.
package final class MemoryLog: Sendable {
    /// The memory of one process at one moment.
    package struct Sample: Sendable, Hashable {
        /// Seconds since the log began.
        package var time: Double
        /// Resident bytes.
        package var bytes: Int
    }

    /// One process, from its start to its end.
    package struct Series: Sendable, Hashable {
        /// `gateway`, `pool-0/1`; a process that replaces another has the same name.
        package var name: String
        /// The process identifier.
        package var identifier: Int32
        /// Its samples, in order.
        package var samples: [Sample]

        /// How much larger the process was at the end of its life than after warming up, as a fraction.
        ///
        /// Medians of a tenth of its life are compared: the second one and the last one.
        package var growth: Double {
            let tenth = max(1, self.samples.count / 10)
            guard self.samples.count >= 3 * tenth else { return 0 }
            let early = Self.median(self.samples[tenth..<2 * tenth])
            let late = Self.median(self.samples.suffix(tenth))
            return early > 0 ? Double(late) / Double(early) - 1 : 0
        }

        private static func median(_ samples: ArraySlice<Sample>) -> Int {
            let sorted = samples.map(\.bytes).sorted()
            return sorted.isEmpty ? 0 : sorted[sorted.count / 2]
        }
    }

    private let series = Mutex<[Series]>([])

    /// Creates an empty log.
    package init() {}

    /// Every observed process.
    package var all: [Series] { self.series.withLock { $0 } }

    func add(name: String, identifier: Int32, _ sample: Sample) {
        self.series.withLock { series in
            if let index = series.lastIndex(where: { $0.name == name && $0.identifier == identifier }) {
                series[index].samples.append(sample)
            } else {
                series.append(Series(name: name, identifier: identifier, samples: [sample]))
            }
        }
    }

    /// The samples as comma-separated values.
    package var csv: String {
        let lines = self.all.flatMap { series in
            series.samples.map { sample in
                "\(Figure.decimal(sample.time, 1)),\(series.name),\(series.identifier),\(sample.bytes)\n"
            }
        }
        return "seconds,process,identifier,resident_bytes\n" + lines.joined()
    }

    /// A drawing: one line for each process, time to the right, memory upwards from nothing.
    package var svg: String {
        let processes = self.all.map { series in
            ResidentMemoryPlot.Process(
                name: series.name,
                samples: series.samples.map { (seconds: $0.time, bytes: Double($0.bytes)) }
            )
        }
        return ResidentMemoryPlot(processes: processes).figure.svg
    }
}
