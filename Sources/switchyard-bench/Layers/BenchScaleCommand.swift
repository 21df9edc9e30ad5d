// SPDX-License-Identifier: Apache-2.0

import ArgumentParser
import Checkpoints
import CommandKit
import Foundation
import SwitchModel
import SwitchyardTypes
import TensorKernels

/// `switchyard-bench scale`: what a token costs with more and more experts.
struct BenchScaleCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "scale",
        abstract: "What a decoded token costs from 8 to 2,048 experts, router included.",
        discussion: """
            A random decoder of switch-base's shape (12 blocks, every other one sparse, attention, projection onto the
            vocabulary), with routers for as many experts as asked for. Routers are whole and real; the experts' weights are
            not: expert e of a layer computes with the weights of expert e % --weights, so that 2,048 experts fit into memory.

            With more experts, a step's tokens go to more of them, and each has to be read. So batches are measured
            twice: with each expert reading its weights as if they were its own, and with experts that share weights
            computed as one, which reads what a step with the fewest experts reads. The rest is the cost of router, dispatch
            and combine.

            EXAMPLE
              switchyard-bench scale --experts 8 --experts 2048 --batch 1 --json scale.json
            """
    )

    @Option(help: "Experts of each sparse layer; may be given several times. (default: 8 32 128 512 2048)")
    var experts: [Int] = []

    @Option(help: "Experts of each sparse layer that have weights.")
    var weights: Int = 8

    @Option(help: "Batch size; may be given several times. (default: 1 and 32)")
    var batch: [Int] = []

    @Option(help: "Decoder blocks; every other one is sparse.")
    var blocks: Int = 12

    @Option(help: "Elements of a token.")
    var width: Int = 768

    @Option(help: "Elements between the two matrices of a feed-forward network.")
    var inner: Int = 3072

    @Option(help: "Attention heads, of 64 elements each.")
    var heads: Int = 12

    @Option(help: "Tokens of the vocabulary.")
    var vocabulary: Int = 32_128

    @Option(help: "Type of the stored weights: float32 or bfloat16.")
    var dtype: String = "float32"

    @Option(help: "Steps of each run.")
    var steps: Int = 16

    @Option(help: "Runs of each row, taking turns with the others.")
    var runs: Int = 5

    @Option(help: "Compute threads; all processors when not given.")
    var threads: Int?

    @OptionGroup(title: "Output") var output: BenchOutputOptions

    func validate() throws {
        let checks: [(String, Int, ClosedRange<Int>)] =
            [
                ("--weights", self.weights, 1...65_536), ("--blocks", self.blocks, 2...1024),
                ("--width", self.width, 1...65_536), ("--inner", self.inner, 1...65_536),
                ("--heads", self.heads, 1...1024), ("--vocabulary", self.vocabulary, 4...1_000_000),
                ("--steps", self.steps, 1...65_536), ("--runs", self.runs, 1...10_000),
                ("--threads", self.threads ?? 1, 1...1024),
            ] + self.experts.map { ("--experts", $0, self.weights...65_536) }
            + self.batch.map { ("--batch", $0, 1...4096) }
        for (option, value, limit) in checks where !limit.contains(value) {
            throw ValidationError("\(option) is \(value); set a value from \(limit.lowerBound) to \(limit.upperBound)")
        }
        guard ["float32", "bfloat16"].contains(self.dtype) else {
            throw ValidationError("--dtype is \(self.dtype); choose float32 or bfloat16")
        }
    }

    /// A loaded model with a number of experts.
    private struct Candidate {
        let experts: Int
        let reading: AliasedExperts.Reading
        let executor: AliasedExperts
        let bench: ModelBench
    }

    func run() async throws {
        let folder = try BenchFolder()
        defer { folder.remove() }
        let counts = Set(self.experts.isEmpty ? [8, 32, 128, 512, 2048] : self.experts).sorted()
        let batches = self.batch.isEmpty ? [1, 32] : self.batch
        let pool = WorkPool(threads: self.threads ?? Processors.count)
        let candidates = try self.candidates(counts, folder: folder.path, pool: pool)
        var report = BenchReport(
            title: "What a token costs with more experts",
            sizeName: "experts",
            conditions: "decoder of \(self.blocks) blocks of \(self.width)-\(self.inner)-\(self.width), "
                + "\(self.blocks / 2) sparse, \(self.dtype), weights for \(self.weights) experts per layer, "
                + "\(pool.threadCount) threads, medians of \(self.runs) runs of \(self.steps) steps"
        )
        for run in 0...self.runs {
            for batch in batches {
                // A single token goes to one expert, so both ways of reading are the same.
                for candidate in candidates where batch > 1 || candidate.reading == .own {
                    let rate = try candidate.bench.decode(batch)
                    let (seconds, touched) = candidate.executor.takeSpent()
                    // The first round is discarded: it touches memory and wakes processors.
                    guard run > 0 else { continue }
                    let token = 1e6 / rate
                    // One more step than those timed: the first.
                    let inExperts = 1e6 * seconds / Double((self.steps + 1) * batch)
                    report.add(
                        token,
                        to: BenchFigure(
                            work: Self.work(batch),
                            size: candidate.experts,
                            system: candidate.reading.rawValue,
                            unit: "us",
                            values: [],
                            details: [
                                "experts_us": inExperts, "rest_us": token - inExperts, "experts_touched": touched,
                            ]
                        )
                    )
                }
            }
        }
        Terminal.print(report.conditions)
        Terminal.print(report.machine)
        self.output.print(Self.table(report, batches: batches, fewest: counts[0]))
        try report.write(to: self.output.json)
    }

    private static func work(_ batch: Int) -> String { "a token at batch \(batch)" }

    /// A row for each batch, reading and number of experts.
    static func table(_ report: BenchReport, batches: [Int], fewest: Int) -> TextTable {
        var table = TextTable([
            ("batch", .right), ("weights read", .left), ("experts", .right), ("us a token", .right),
            ("x \(fewest) experts", .right), ("in experts", .right), ("in the rest", .right),
            ("experts per layer and step", .right),
        ])
        for batch in batches {
            for reading in AliasedExperts.Reading.allCases {
                let figures = report.figures.filter { $0.work == Self.work(batch) && $0.system == reading.rawValue }
                let base = figures.first { $0.size == fewest }?.median ?? 0
                for figure in figures.sorted(by: { $0.size < $1.size }) {
                    table.add([
                        "\(batch)", reading.rawValue, "\(figure.size)", BenchModelCommand.spread(figure),
                        base > 0 ? String(format: "%.2f", figure.median / base) : "-",
                        BenchReport.number(figure.details["experts_us"] ?? 0),
                        BenchReport.number(figure.details["rest_us"] ?? 0),
                        BenchReport.number(figure.details["experts_touched"] ?? 0),
                    ])
                }
            }
        }
        return table
    }

    /// Writes one checkpoint, links the others to it, and loads them; they share the experts.
    private func candidates(_ counts: [Int], folder: String, pool: WorkPool) throws -> [Candidate] {
        let first = self.checkpoint(experts: counts[0])
        var experts: LocalExperts?
        var candidates: [Candidate] = []
        for count in counts {
            let path = "\(folder)/\(count)"
            if count == counts[0] {
                try first.write(to: path)
            } else {
                try self.checkpoint(experts: count).write(to: path, linking: first, in: "\(folder)/\(counts[0])")
            }
            let checkpoint = try Checkpoint.open(path)
            let transformer = try SwitchTransformer(checkpoint: checkpoint, pool: pool)
            let held = try experts ?? LocalExperts(checkpoint: checkpoint, pool: pool)
            experts = held
            for reading in AliasedExperts.Reading.allCases {
                let executor = AliasedExperts(held, count: self.weights, reading: reading)
                let bench = ModelBench(
                    transformer: transformer,
                    experts: executor,
                    weightBytes: (4, 4),
                    inputTokens: 16,
                    newTokens: self.steps
                )
                candidates.append(Candidate(experts: count, reading: reading, executor: executor, bench: bench))
            }
        }
        return candidates
    }

    private func checkpoint(experts: Int) -> SyntheticCheckpoint {
        SyntheticCheckpoint(
            configuration: ModelConfiguration(
                vocabularySize: self.vocabulary,
                modelWidth: self.width,
                keyWidth: 64,
                feedForwardWidth: self.inner,
                headCount: self.heads,
                encoderBlocks: 1,
                decoderBlocks: self.blocks,
                encoderSparseStep: 0,
                decoderSparseStep: 2,
                expertCount: experts
            ),
            experts: 0..<self.weights,
            dtype: self.dtype == "bfloat16" ? .bfloat16 : .float32
        )
    }
}
