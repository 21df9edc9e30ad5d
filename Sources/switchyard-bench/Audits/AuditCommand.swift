// SPDX-License-Identifier: Apache-2.0

import ArgumentParser
import Checkpoints
import CommandKit
import Foundation
import SwitchModel
import SwitchyardTypes
import TensorKernels

/// `switchyard-bench audit`: what audits find, and what they must not find.
struct AuditCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "audit",
        abstract: "Flip bits in an expert host's memory and see what is used; count false alarms.",
        discussion: """
            Two expert hosts of one pool run as processes. One bit of the mantissa of one random weight is flipped in the memory of
            one of them; calls follow until it is caught; the bit is flipped back, and the host proves itself. That is repeated, with
            all calls audited, with one in a hundred, and with none. Afterwards hosts with different kernels answer, all calls
            audited, until --rows rows have been compared.

            EXAMPLE
              switchyard-bench audit --draws 1000 --rows 10000000
            """
    )

    @Argument(help: "A folder in Hugging Face layout, or a hub id in the local cache.")
    var model: String = "deploy/models/switch-mini"

    @Option(help: "Bits to flip with all calls audited; a tenth as many with one in a hundred, and with none.")
    var draws: Int = 100

    @Option(help: "Rows to compare for false alarms, in all; 0 leaves that out.")
    var rows: Int = 100_000

    @Option(help: "Calls after which a flipped bit is given up.")
    var calls: Int = 2000

    @Option(help: "Seed of all choices.")
    var seed: UInt64 = 1

    func validate() throws {
        guard (0...1_000_000).contains(self.draws), self.rows >= 0, self.calls > 0 else {
            throw ValidationError("--draws must be from 0 to 1000000, --rows at least 0 and --calls at least 1")
        }
    }

    func run() async throws {
        Terminal.print(SwitchyardBench.machine)
        if self.draws > 0 { try await self.damage() }
        if self.rows > 0 { try await self.alarms() }
    }

    private func workspace(_ storage: WeightStorage) throws -> ShardWorkspace {
        try ShardWorkspace.prepare(model: self.model, pools: 1, folder: nil, packing: storage)
    }

    private func damage() async throws {
        let workspace = try self.workspace(.float32)
        defer { workspace.discard() }
        let checkpoint = try Checkpoint.open(try ModelSettings.directory(self.model))
        var table = TextTable([
            ("calls audited", .left), ("bits flipped", .right), ("without effect", .right), ("caught", .right),
            ("in the first audited call that differs", .right), ("wrong rows used of compared calls", .right),
            ("of all", .right), ("rows", .right),
            ("by bit: median", .right), ("most", .right), ("longest to quarantine", .right), ("longest return", .right),
        ])
        for (words, fraction, draws) in [
            ("all", 1, self.draws), ("1 %", 0.01, max(1, self.draws / 10)), ("none", 0, max(1, self.draws / 10)),
        ] {
            let damage = AuditDamage(
                checkpoint: checkpoint,
                shards: "\(workspace.folder)/pool-0",
                rows: 8,
                callLimit: fraction == 0 ? min(self.calls, 100) : self.calls
            )
            let result = try await damage.run(draws: draws, fraction: fraction, seed: self.seed) { result in
                if result.draws % 10 == 0 { Terminal.printError("\(words): \(result.draws) of \(draws) bits") }
            }
            try Self.check(result, isAuditedWhole: fraction == 1)
            let wrong = result.wrongByDraw.sorted()
            table.add([
                words, "\(result.draws)", "\(result.silent)", "\(result.caught)", "\(result.caughtAtOnce)",
                "\(result.wrongAuditedRows)", "\(result.wrongRows)", "\(result.rows)", "\(wrong[wrong.count / 2])",
                "\(wrong.last ?? 0)",
                "\(result.longestDelay)", "\(result.longestReturn)",
            ])
        }
        Terminal.print(table.text)
    }

    /// What must hold whatever was drawn.
    private static func check(_ result: DamageResult, isAuditedWhole: Bool) throws {
        guard result.wrongAuditedRows == 0, result.caught == result.caughtAtOnce else {
            throw BenchError(
                "\(result.wrongAuditedRows) wrong rows of compared calls were used, and \(result.caught - result.caughtAtOnce) hosts were "
                    + "caught later than in the first compared call that differed"
            )
        }
        guard !isAuditedWhole || result.caught + result.silent >= result.draws else {
            throw BenchError(
                "\(result.draws - result.caught - result.silent) flipped bits changed outputs and were not found"
            )
        }
    }

    private func alarms() async throws {
        let checkpoint = try Checkpoint.open(try ModelSettings.directory(self.model))
        let levels = KernelLevel.available + [.best]
        let kernels = levels.map { $0.name.lowercased().replacing("-", with: "") }
        var table = TextTable([
            ("weights", .left), ("rows on the wire", .left), ("rows compared", .right), ("false alarms", .right),
            ("disputes", .right),
        ])
        Terminal.print(
            "\nKernels of the hosts: \(kernels.joined(separator: ", ")); the gateway's: \(KernelLevel.best.name)"
        )
        for storage in [WeightStorage.float32, .bfloat16, .int8] {
            let workspace = try self.workspace(storage)
            defer { workspace.discard() }
            for wire in [DType.float32, .bfloat16] {
                let alarms = AuditAlarms(
                    checkpoint: checkpoint,
                    shards: "\(workspace.folder)/pool-0",
                    kernels: kernels
                )
                let result = try await alarms.run(weights: storage, wire: wire, rows: UInt64(self.rows / 6)) { result in
                    if result.audited % 7 == 0 { Terminal.printError("\(storage), \(wire): \(result.audited) rows") }
                }
                guard result.alarms == 0, result.disputes == 0 else {
                    throw BenchError(
                        "\(result.alarms) hosts that are sound were caught, and \(result.disputes) calls disputed: \(result)"
                    )
                }
                table.add(["\(storage)", "\(wire)", "\(result.audited)", "\(result.alarms)", "\(result.disputes)"])
            }
        }
        Terminal.print(table.text)
    }
}
