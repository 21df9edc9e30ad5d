// SPDX-License-Identifier: Apache-2.0

import ArgumentParser
import Checkpoints
import Foundation
import ServiceKit
import SwitchModel
import TensorKernels

/// `switchyard bench model`: tokens a second in this process.
struct BenchModelCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "model",
        abstract: "Tokens a second of a model in this process: encoding and decoding at several batch sizes.",
        discussion: """
            Inputs are random token ids, the same at every run. Every step decodes one token of each sequence; the best
            token is fed back. Medians of the runs.

            EXAMPLE
              switchyard bench model deploy/models/switch-mini --batch 1 --batch 8
              switchyard bench model google/switch-base-8 --dtype bfloat16
            """
    )

    @Argument(help: "A folder in Hugging Face layout, or a hub id in the local cache.")
    var model: String

    @Option(help: "Batch size; may be given several times. (default: 1, 8 and 32)")
    var batch: [Int] = []

    @Option(help: "Tokens of each input.")
    var inputTokens: Int = 64

    @Option(help: "Tokens to decode for each sequence.")
    var newTokens: Int = 32

    @Option(help: "Runs of each row.")
    var runs: Int = 3

    @Option(help: "Compute threads; all processors when not given.")
    var threads: Int?

    @OptionGroup(title: "Precision") var precision: LocalPrecisionOptions

    @Flag(help: "Print the table as Markdown.")
    var markdown = false

    func run() async throws {
        let start = ContinuousClock.now
        let bar = ProgressBar()
        let checkpoint = try Checkpoint.open(try ModelSettings.directory(self.model))
        let pool = WorkPool(threads: self.threads ?? Processors.count)
        let transformer = try SwitchTransformer(checkpoint: checkpoint, pool: pool, storage: self.precision.model) {
            progress in bar.show(progress)
        }
        let experts = try LocalExperts(checkpoint: checkpoint, pool: pool, storage: self.precision.experts)
        let loaded = start.duration(to: .now)

        var table = TextTable([
            ("batch", .right), ("encode tokens/s", .right), ("decode tokens/s", .right), ("ms a step", .right),
        ])
        for size in self.batch.isEmpty ? [1, 8, 32] : self.batch {
            var encodes: [Double] = []
            var decodes: [Double] = []
            for _ in 0..<max(1, self.runs) {
                let run = try self.measure(size, transformer: transformer, experts: experts)
                encodes.append(run.encode)
                decodes.append(run.decode)
            }
            let decode = median(decodes)
            table.add([
                "\(size)", String(format: "%.0f", median(encodes)), String(format: "%.1f", decode),
                String(format: "%.2f", 1000 * Double(size) / decode),
            ])
        }
        Terminal.print(
            "in process, \(pool.threadCount) threads, \(self.inputTokens) input tokens, "
                + "\(self.newTokens) new tokens, \(self.precision.words), median of \(self.runs)"
        )
        Terminal.print(BenchCommand.machine)
        Terminal.print("loaded in \(Terminal.time(loaded)), \(ProcessMemory.resident(of: getpid()) ?? "?") resident")
        Terminal.print(self.markdown ? table.markdown : table.text)
    }

    private func measure(
        _ size: Int,
        transformer: SwitchTransformer,
        experts: LocalExperts
    ) throws -> (encode: Double, decode: Double) {
        let inputs = BenchInputs.sequences(
            count: size,
            tokens: self.inputTokens,
            vocabulary: transformer.configuration.vocabularySize
        )
        var record = RoutingRecord()
        let start = ContinuousClock.now
        let encoded = try transformer.encode(inputs, experts: experts, record: &record)
        let encodeTime = start.duration(to: .now).inSeconds

        let caches = encoded.map { DecoderCache($0) }
        var tokens = [Int32](repeating: Int32(transformer.configuration.decoderStartTokenID), count: size)
        let decodeStart = ContinuousClock.now
        for _ in 0..<self.newTokens {
            let rows = zip(caches, tokens).map { DecoderInput(cache: $0, tokens: [$1]) }
            let logits = try transformer.decode(rows, experts: experts, record: &record)
            for row in 0..<size {
                let values = logits.row(row)
                tokens[row] = Int32(values.indices.max { values[$0] < values[$1] } ?? 0)
            }
        }
        let decodeTime = decodeStart.duration(to: .now).inSeconds
        return (Double(size * self.inputTokens) / encodeTime, Double(size * self.newTokens) / decodeTime)
    }
}

/// Inputs that every benchmark and every run shares.
enum BenchInputs {
    /// Random token ids, the last of each sequence the end-of-sequence token.
    ///
    /// - Parameters:
    ///   - count: Number of sequences.
    ///   - tokens: Length of each.
    ///   - vocabulary: Number of token ids.
    /// - Returns: The sequences, the same at every call.
    static func sequences(count: Int, tokens: Int, vocabulary: Int) -> [[Int32]] {
        var state: UInt64 = 42
        return (0..<count)
            .map { _ in
                (0..<max(1, tokens))
                    .map { index in
                        guard index < tokens - 1 else { return 1 }
                        // A 64-bit linear congruential generator (Knuth, MMIX) is random enough to pick token ids.
                        state = state &* 6_364_136_223_846_793_005 &+ 1_442_695_040_888_963_407
                        return Int32(3 + (state >> 33) % UInt64(max(1, vocabulary - 3)))
                    }
            }
    }
}

/// Memory of processes.
enum ProcessMemory {
    /// The resident memory of a process: `812 MB`.
    ///
    /// - Parameter process: Its identifier.
    /// - Returns: Nil where the system does not say.
    static func resident(of process: Int32) -> String? {
        guard let status = try? String(contentsOfFile: "/proc/\(process)/status", encoding: .utf8),
            let line = status.split(separator: "\n").first(where: { $0.hasPrefix("VmRSS:") }),
            let kilobytes = line.split(separator: " ").compactMap({ Double($0) }).first
        else { return nil }
        return String(format: "%.0f MB", kilobytes * 1024 / 1e6)
    }
}
