// SPDX-License-Identifier: Apache-2.0

import ArgumentParser
import CommandKit
import Foundation
import SwitchyardTypes
import TensorKernels

/// `switchyard-bench kernels`: products with weights that are in no cache.
struct BenchKernelsCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "kernels",
        abstract: "Products of few and many rows with cold weights, compared with a plain read loop and OpenBLAS.",
        discussion: """
            Weights are copied until they overflow the caches, and each product takes the next copy. GB/s are bytes of
            weights; the plain loop reads the same memory. OpenBLAS computes with float32 weights, each thread a part of the
            outputs, by sgemv for one row and by sgemm for more. All of a table's rows are measured in turn; medians.

            EXAMPLES
              switchyard-bench kernels --markdown --json kernels.json
              switchyard-bench kernels --shape 3072x768 --rows 1 --rows 8 --threads 1 --dtype bfloat16
            """
    )

    @Option(
        help: ArgumentHelp(
            "Outputs and inputs of the weights. (default: 768x768 3072x768 768x3072 32128x768)",
            valueName: "NxK"
        )
    )
    var shape: [String] = []

    @Option(help: "Rows of activations; may be given several times. (default: 1 2 4 8 16 32 64 128 512)")
    var rows: [Int] = []

    @Option(
        help:
            "Type of the weights; may be given several times. (default: \(DType.packed.map(\.description).joined(separator: " ")))"
    )
    var dtype: [String] = []

    @Option(help: "Compute threads; may be given several times. (default: 1, and all processors)")
    var threads: [Int] = []

    @Option(help: "Runs of each row, taking turns with the others.")
    var runs: Int = 5

    @Option(help: "Minimum seconds per run.")
    var seconds: Double = 0.05

    @Option(help: ArgumentHelp("Weights of each type; several times the last-level cache.", valueName: "MiB"))
    var workingSet: Int = 256

    @OptionGroup(title: "Output") var output: BenchOutputOptions

    private var types: [DType] {
        self.dtype.isEmpty ? DType.packed : self.dtype.compactMap { DType(rawValue: $0) }
    }

    func validate() throws {
        for text in self.shape where Self.shape(text) == nil {
            throw ValidationError("--shape is \(text); write OUTPUTSxINPUTS, each from 1 to 65536, such as 3072x768")
        }
        for text in self.dtype where DType(rawValue: text)?.isPacked != true {
            let known = DType.packed.map(\.description).joined(separator: ", ")
            throw ValidationError("--dtype is \(text); choose among \(known)")
        }
        for type in self.types {
            for (outputs, inputs) in self.shape.compactMap(Self.shape) where inputs > type.mostInputs {
                throw ValidationError(
                    "--shape is \(outputs)x\(inputs), but \(type.description) weights have \(type.mostInputs) inputs at most; "
                        + "choose fewer, or another --dtype"
                )
            }
        }
        for rows in self.rows where !(1...65_536).contains(rows) {
            throw ValidationError("--rows is \(rows); set a value from 1 to 65536")
        }
        for threads in self.threads where !(1...1024).contains(threads) {
            throw ValidationError("--threads is \(threads); set a value from 1 to 1024")
        }
        guard (1...1000).contains(self.runs) else {
            throw ValidationError("--runs is \(self.runs); set a value from 1 to 1000")
        }
        guard (0...60).contains(self.seconds) else {
            throw ValidationError("--seconds is \(self.seconds); set a value from 0 to 60")
        }
        guard (1...65_536).contains(self.workingSet) else {
            throw ValidationError("--working-set is \(self.workingSet); set a value from 1 to 65536")
        }
    }

    /// Reads `3072x768`.
    static func shape(_ text: String) -> (outputs: Int, inputs: Int)? {
        let parts = text.split(separator: "x", omittingEmptySubsequences: false).map { Int($0) }
        guard parts.count == 2, let outputs = parts[0], let inputs = parts[1],
            (1...65_536).contains(outputs), (1...65_536).contains(inputs)
        else { return nil }
        return (outputs, inputs)
    }

    func run() async throws {
        let shapes = (self.shape.isEmpty ? ["768x768", "3072x768", "768x3072", "32128x768"] : self.shape)
            .compactMap(Self.shape)
        let rows = self.rows.isEmpty ? [1, 2, 4, 8, 16, 32, 64, 128, 512] : self.rows
        let types = self.types
        let all = Processors.count
        let threads = self.threads.isEmpty ? (all > 1 ? [1, all] : [1]) : self.threads
        var report = BenchReport(
            title: "Products with cold weights",
            sizeName: "rows",
            conditions:
                "weights of \(self.workingSet) MiB and more of each type, used in turn; medians of \(self.runs) runs"
        )
        report.versions["OpenBLAS"] = "\(OpenBLAS.kernels), 1 thread for each part"
        Terminal.print(report.machine)
        for (system, version) in report.versions { Terminal.print("\(system): \(version)") }
        Terminal.print(report.conditions)
        var table = TextTable([
            ("weights", .left), ("type", .left), ("threads", .right), ("rows", .right), ("GB/s", .right),
            ("of the read loop", .right), ("GFLOP/s", .right), ("OpenBLAS GFLOP/s", .right), ("x OpenBLAS", .right),
        ])
        let pools = threads.map { WorkPool(threads: $0) }
        for (outputs, inputs) in shapes {
            let weights = ColdWeights(
                outputs: outputs,
                inputs: inputs,
                types: types,
                workingSet: self.workingSet << 20,
                pool: pools.last ?? WorkPool(threads: 1)
            )
            for pool in pools {
                self.measure(weights, rows: rows, types: types, pool: pool, into: &report, &table)
            }
        }
        self.output.print(table)
        try report.write(to: self.output.json)
    }

    private func measure(
        _ weights: ColdWeights,
        rows: [Int],
        types: [DType],
        pool: WorkPool,
        into report: inout BenchReport,
        _ table: inout TextTable
    ) {
        let shape = "\(weights.outputs)x\(weights.inputs)"
        let place = "\(shape), \(pool.threadCount) \(pool.threadCount == 1 ? "thread" : "threads")"
        let timers = rows.map { KernelTimer(weights: weights, pool: pool, rows: $0, seconds: self.seconds) }
        var reads: [DType: [Double]] = [:]
        // The first round is discarded: it touches memory and wakes processors.
        for round in 0...self.runs {
            for type in types {
                guard let timer = timers.first else { continue }
                let rate = Double(weights.byteCount(type)) / timer.read(type) / 1e9
                if round > 0 { reads[type, default: []].append(rate) }
            }
            for timer in timers {
                for type in types {
                    let time = timer.product(type)
                    guard round > 0 else { continue }
                    let bytes = Double(weights.byteCount(type))
                    report.add(
                        timer.operations / time / 1e9,
                        to: Self.figure(place, timer.rows, type.description, ["bytes": bytes])
                    )
                }
                let time = timer.openBLAS()
                if round > 0 {
                    report.add(timer.operations / time / 1e9, to: Self.figure(place, timer.rows, "OpenBLAS", [:]))
                }
            }
        }
        for type in types {
            let read = median(reads[type] ?? [])
            for timer in timers {
                guard
                    let index = report.figures.firstIndex(where: {
                        $0.work == place && $0.size == timer.rows && $0.system == type.description
                    })
                else { continue }
                let figure = report.figures[index]
                let gigabytes = figure.median / timer.operations * Double(weights.byteCount(type))
                report.figures[index].details["read_gb_per_second"] = read
                report.figures[index].details["gb_per_second"] = gigabytes
                let other = report.figure(place, timer.rows, "OpenBLAS")
                table.add([
                    shape, type.description, "\(pool.threadCount)", "\(timer.rows)", String(format: "%.1f", gigabytes),
                    String(format: "%.0f %% of %.1f", 100 * gigabytes / read, read), BenchReport.number(figure.median),
                    BenchReport.number(other?.median ?? 0),
                    other.flatMap { figure.speed(against: $0) }.map { String(format: "%.2f", $0) } ?? "-",
                ])
            }
        }
    }

    private static func figure(
        _ place: String,
        _ rows: Int,
        _ system: String,
        _ details: [String: Double]
    ) -> BenchFigure {
        BenchFigure(work: place, size: rows, system: system, unit: "GFLOP/s", values: [], details: details)
    }
}
