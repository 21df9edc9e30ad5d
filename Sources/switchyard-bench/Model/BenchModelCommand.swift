// SPDX-License-Identifier: Apache-2.0

import ArgumentParser
import CommandKit
import Foundation
import SwitchModel
import SwitchyardTypes
import TensorKernels

/// `switchyard-bench model`: tokens per second in this process.
struct BenchModelCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "model",
        abstract: "Tokens per second of a model in this process: encoding and decoding at several batch sizes.",
        discussion: """
            Inputs are random token ids, the same at every run. Every step decodes one token of each sequence; the best
            token is fed back. Prefill takes as many tokens as an input has through the decoder at once, as a score or a
            decoder prefix does. The bytes of a step are those of the weights that it reads, each expert once for all of its
            tokens. The read bandwidth is a plain loop's over memory, measured in turn with the rest.

            EXAMPLE
              switchyard-bench model deploy/models/switch-mini --batch 1 --batch 8 --json model.json
              switchyard-bench model google/switch-base-8 --dtype bfloat16
            """
    )

    @Argument(help: "A folder in Hugging Face layout, or a hub id in the local cache.")
    var model: String

    @OptionGroup var work: BenchWorkOptions

    @Option(help: "Compute threads; all processors when not given.")
    var threads: Int?

    @Option(help: "The name of the figures' system in the file of --json.")
    var name: String = "Switchyard"

    @OptionGroup(title: "Precision") var precision: LocalPrecisionOptions

    @OptionGroup(title: "Output") var output: BenchOutputOptions

    func validate() throws {
        if let threads, !(1...1024).contains(threads) {
            throw ValidationError("--threads is \(threads); set a value from 1 to 1024")
        }
    }

    func run() async throws {
        let start = ContinuousClock.now
        let threads = self.threads ?? Processors.count
        let bench = try ModelBench(
            name: self.model,
            threads: threads,
            inputTokens: self.work.inputTokens,
            newTokens: self.work.newTokens,
            storage: (self.precision.model, self.precision.experts)
        )
        let loaded = start.duration(to: .now)
        if self.work.turns {
            let cases = ["decode", "encode"]
                .flatMap { work in self.work.batches.map { TurnCase(work: work, size: $0) } }
            try await TurnServer(cases: cases)
                .serve { one in
                    let rate = one.work == "decode" ? try bench.decode(one.size) : try bench.encode(one.size)
                    return TurnResult(value: rate, unit: "tokens/s")
                }
            return
        }
        let report = try self.measure(bench, threads: threads)
        Terminal.print(report.conditions)
        Terminal.print(report.machine)
        Terminal.print("loaded in \(Terminal.time(loaded)), \(ProcessMemory.resident(of: getpid()) ?? "?") resident")
        self.output.print(Self.table(report, batches: self.work.batches, system: self.name))
        try report.write(to: self.output.json)
    }

    /// All runs of all batches, taking turns with each other and with the plain read loop.
    private func measure(_ bench: ModelBench, threads: Int) throws -> BenchReport {
        var report = BenchReport(
            title: "A model in one process",
            sizeName: "batch",
            conditions: "in process, \(threads) threads, \(self.work.inputTokens) input tokens, "
                + "\(self.work.newTokens) new tokens, \(self.precision.words), medians of \(self.work.runs) runs"
        )
        let weights = ActiveWeights(bench.transformer.configuration)
        let bandwidth = ReadBandwidth(pool: bench.transformer.pool)
        var bytes: [Int: Double] = [:]
        for size in self.work.batches {
            // Touches everything once before timing starts.
            let experts = try bench.expertsTouched(size)
            bytes[size] = weights.bytes(experts: experts, weightBytes: bench.weightBytes)
        }
        _ = bandwidth.measure()
        var reads: [Double] = []
        for _ in 0..<self.work.runs {
            for size in self.work.batches {
                report.add(try bench.encode(size), to: self.figure("encode", size))
                report.add(try bench.prefill(size), to: self.figure("prefill", size))
                report.add(try bench.decode(size), to: self.figure("decode", size))
            }
            reads.append(bandwidth.measure())
        }
        let limit = median(reads)
        for index in report.figures.indices where report.figures[index].work == "decode" {
            let figure = report.figures[index]
            let step = bytes[figure.size] ?? 0
            let rate = step * figure.median / Double(figure.size) / 1e9
            report.figures[index].details = [
                "bytes_per_step": step, "gb_per_second": rate, "read_gb_per_second": limit,
                "fraction_of_read_bandwidth": limit > 0 ? rate / limit : 0,
            ]
        }
        return report
    }

    private func figure(_ work: String, _ size: Int) -> BenchFigure {
        BenchFigure(work: work, size: size, system: self.name, unit: "tokens/s", values: [])
    }

    /// A row for each batch.
    static func table(_ report: BenchReport, batches: [Int], system: String) -> TextTable {
        var table = TextTable([
            ("batch", .right), ("encode tokens/s", .right), ("prefill tokens/s", .right), ("decode tokens/s", .right),
            ("ms per step", .right), ("MB per step", .right), ("of the read bandwidth", .right),
        ])
        for size in batches {
            guard let encode = report.figure("encode", size, system),
                let prefill = report.figure("prefill", size, system),
                let decode = report.figure("decode", size, system)
            else { continue }
            table.add([
                "\(size)", Self.spread(encode), Self.spread(prefill), Self.spread(decode),
                String(format: "%.2f", decode.median > 0 ? 1000 * Double(size) / decode.median : 0),
                String(format: "%.0f", (decode.details["bytes_per_step"] ?? 0) / 1e6),
                String(
                    format: "%.0f %% of %.1f GB/s",
                    100 * (decode.details["fraction_of_read_bandwidth"] ?? 0),
                    decode.details["read_gb_per_second"] ?? 0
                ),
            ])
        }
        return table
    }

    /// `42.6 (40.1 to 43.9)`.
    static func spread(_ figure: BenchFigure) -> String {
        "\(BenchReport.number(figure.median)) (\(BenchReport.range(figure.values)))"
    }
}

/// The work of models in process and in clusters, the same for both.
struct BenchWorkOptions: ParsableArguments {
    @Option(help: "Batch size; may be given several times. (default: 1, 8 and 32)")
    var batch: [Int] = []

    @Option(help: "Tokens of each input.")
    var inputTokens: Int = 64

    @Option(help: "Tokens to decode for each sequence.")
    var newTokens: Int = 32

    @Option(help: "Runs of each row, taking turns with the others.")
    var runs: Int = 5

    @Flag(
        help: ArgumentHelp(
            "Measure on request from standard input, for `switchyard-bench compare`.",
            visibility: .hidden
        )
    )
    var turns = false

    /// The batch sizes to measure.
    var batches: [Int] { self.batch.isEmpty ? [1, 8, 32] : self.batch }

    func validate() throws {
        for (option, value, limit) in [
            ("--input-tokens", self.inputTokens, 65_536), ("--new-tokens", self.newTokens, 65_536),
            ("--runs", self.runs, 10_000),
        ] + self.batch.map({ ("--batch", $0, 4096) }) where !(1...limit).contains(value) {
            throw ValidationError("\(option) is \(value); set a value from 1 to \(limit)")
        }
    }
}
