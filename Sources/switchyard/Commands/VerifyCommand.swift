// SPDX-License-Identifier: Apache-2.0

import ArgumentParser
import CommandKit
import Foundation
import GatewayServing
import Logging
import Receipts
import ServiceKit
import SwitchyardProtos

/// `switchyard verify`: computes the requests of receipts again and compares every bit.
struct VerifyCommand: AsyncParsableCommand, ThreadedCommand {
    static let configuration = CommandConfiguration(
        commandName: "verify",
        abstract: "Compute the answers of receipts again, with the whole model in this process, and compare every bit.",
        discussion: """
            A receipt that `generate --receipt` wrote says what an answer was computed from: the model, the request and the rows that
            hosts lost. This command does it again, on any processor. It prints `verified`, or the first thing that differs, and
            exits with status 1 if a receipt is not verified. A receipt is no signature: it does not say who made it.

            EXAMPLES
              switchyard generate --receipt answer.json "A horse! a horse! my <extra_id_0> for a horse!"
              switchyard verify answer.json --model deploy/models/switch-mini
              switchyard verify receipts/*.json --model google/switch-base-8 --json
            """
    )

    @Argument(help: "Files that `generate --receipt` wrote.")
    var receipts: [String]

    @Option(help: "The whole checkpoint: a folder in Hugging Face layout, or a hub id in the local cache.")
    var model: String

    @Option(help: ArgumentHelp("Override a value in config.json; may be given several times.", valueName: "key=value"))
    var override: [String] = []

    @Option(
        help: ArgumentHelp(
            "Merge this LoRA adapter into the weights: a folder, or a hub id in the local cache.",
            valueName: "dir"
        )
    )
    var mergeAdapter: String?

    @Option(help: "Compute threads. (default: all processors)")
    var threads: Int?

    @Flag(help: "Print JSON.")
    var json = false

    func validate() throws {
        if let threads, !(1...1_024).contains(threads) {
            throw ValidationError("--threads is \(threads), but must be from 1 to 1024")
        }
    }

    func run() async throws {
        var results = [Result?](repeating: nil, count: self.receipts.count)
        var groups: [(model: ReceiptModel, files: [Int])] = []
        for (index, file) in self.receipts.enumerated() {
            do {
                // Only what it says of the model is kept: there may be many files, and large ones.
                guard let model = try Self.read(file).model else { continue }
                if let group = groups.firstIndex(where: { $0.model == model }) {
                    groups[group].files.append(index)
                } else {
                    groups.append((model, [index]))
                }
            } catch {
                results[index] = Result(file: file, verdict: .unusable("\(error)"))
            }
        }
        for group in groups {
            for (index, result) in zip(group.files, try await self.verify(group.files, of: group.model)) {
                results[index] = result
            }
        }
        let all = results.compactMap { $0 }
        if self.json {
            Terminal.print(try Result.json(all))
        } else {
            for result in all { Terminal.print(result.line) }
        }
        guard all.allSatisfy(\.verified) else { throw ExitCode.failure }
    }

    /// Verifies receipts of one model.
    private func verify(_ files: [Int], of model: ReceiptModel) async throws -> [Result] {
        var configuration = LocalGatewayConfiguration(modelDirectory: try ModelSettings.directory(self.model))
        configuration.modelOverrides = try ModelSettings.overrides(self.override)
        configuration.adapterDirectory = try self.mergeAdapter.map(ModelSettings.directory)
        configuration.threads = self.threads ?? Processors.count
        let bar = ProgressBar()
        let logger = Logger(label: "switchyard") { _ in SwiftLogNoOpLogHandler() }
        let replay: ReceiptReplay
        do {
            replay = try ReceiptReplay(model, configuration: configuration, logger: logger) { bar.show($0) }
        } catch {
            return files.map { Result(file: self.receipts[$0], verdict: .unusable("\(error)")) }
        }
        return try await replay.whileRunning {
            var results: [Result] = []
            for index in files {
                let file = self.receipts[index]
                do {
                    let receipt = try Self.read(file)
                    results.append(Result(file: file, verdict: await replay.verify(receipt), receipt))
                } catch {
                    results.append(Result(file: file, verdict: .unusable("\(error)")))
                }
            }
            return results
        }
    }

    /// Reads a receipt, and no more of the file than a receipt may have.
    private static func read(_ file: String) throws -> Receipt {
        guard let handle = FileHandle(forReadingAtPath: file) else {
            throw ReceiptError("", "\(file) cannot be opened; name a file that `generate --receipt` wrote")
        }
        defer { try? handle.close() }
        let data = try handle.read(upToCount: ReceiptFile.maxBytes + 1) ?? Data()
        return try ReceiptFile.receipt(Array(data))
    }
}

extension VerifyCommand {
    /// What is known about one file.
    struct Result: Encodable {
        struct Difference: Encodable {
            var field: String
            var place: String
            var expected: String
            var got: String
        }

        var file: String
        var verified: Bool
        /// The first thing that differs.
        var difference: Difference?
        /// Why it could not be replayed.
        var reason: String?
        /// What was computed.
        var summary: String?

        init(file: String, verdict: ReceiptVerdict, _ receipt: Receipt? = nil) {
            self.file = file
            self.verified = verdict == .verified
            switch verdict {
            case .verified: self.summary = receipt.map(Self.summary)
            case .unusable(let reason): self.reason = reason
            case .differs(let found):
                self.difference = Difference(
                    field: found.field,
                    place: found.place,
                    expected: found.expected,
                    got: found.got
                )
            }
        }

        /// One line for people.
        var line: String {
            if self.verified { return "\(self.file): verified: \(self.summary ?? "")" }
            if let reason { return "\(self.file): NOT verified: \(reason)" }
            guard let difference else { return "\(self.file): NOT verified" }
            let place = difference.place.isEmpty ? "" : " (\(difference.place))"
            return
                "\(self.file): NOT verified: \(difference.field)\(place): expected \(difference.expected), got \(difference.got)"
        }

        /// `14 tokens in 1 answer; 3 of 64 rows dropped as recorded (encoder 1 TIMEOUT: 3)`.
        private static func summary(_ receipt: Receipt) -> String {
            let tokens = receipt.generations.reduce(0) { $0 + $1.tokenIDs.count }
            let rows = (receipt.routes?.encoder?.experts.count ?? 0) + (receipt.routes?.decoder?.experts.count ?? 0)
            var counts: [(place: String, count: Int)] = []
            for drop in receipt.drops {
                let place = "\(drop.stack) \(drop.layer) \(GenerationReport.protocolName(drop.reason))"
                if let index = counts.firstIndex(where: { $0.place == place }) {
                    counts[index].count += 1
                } else {
                    counts.append((place, 1))
                }
            }
            let answers = receipt.generations.count
            let text = "\(tokens) tokens in \(answers) answer\(answers == 1 ? "" : "s"), \(rows) routed rows"
            guard !receipt.drops.isEmpty else { return text }
            let places = counts.map { "\($0.place): \($0.count)" }.joined(separator: ", ")
            return "\(text), \(receipt.drops.count) of them dropped as recorded (\(places))"
        }

        /// A list of results as JSON.
        static func json(_ results: [Result]) throws -> String {
            let encoder = JSONEncoder()
            encoder.keyEncodingStrategy = .convertToSnakeCase
            encoder.outputFormatting = [.prettyPrinted, .sortedKeys, .withoutEscapingSlashes]
            return String(decoding: try encoder.encode(results), as: UTF8.self)
        }
    }
}
