// SPDX-License-Identifier: Apache-2.0

internal import Foundation
internal import Receipts
internal import Subprocess
internal import SwitchyardClient
internal import SystemPackage

/// Receipts of a cluster of two hosts, made with one instruction set and verified with another, and tampered ones.
package struct ReceiptTrial: Sendable {
    /// One kind of cluster and the level that its receipts are verified with.
    struct Setting: Sendable {
        /// The type of all weights: what `--dtype` takes.
        var weights: String
        /// What `--wire-dtype` takes.
        var rows = "float32"
        /// The levels of the gateway and of the two hosts.
        var makers: [String]
        /// The level that verifies.
        var verifier: String
        /// Whether a host is stopped halfway, so that rows are lost.
        var losesHost = false
    }

    /// What was found.
    package struct Outcome: Sendable {
        /// One line for each setting, and for each kind of tampering.
        package var lines: [String] = []
        /// Receipts that were made.
        package var receipts = 0
        /// Receipts with rows that hosts lost.
        package var withDrops = 0
        /// Receipts that were not verified, with the reasons.
        package var mismatches: [String] = []
        /// Tampered receipts.
        package var tampered = 0
        /// Tampered receipts that were verified nevertheless.
        package var missed: [String] = []
    }

    private let workspace: FaultWorkspace
    private let tell: @Sendable (String) -> Void

    /// Creates a trial.
    ///
    /// - Parameters:
    ///   - workspace: Programs and models, and a folder to write to.
    ///   - tell: Receives progress messages.
    package init(_ workspace: FaultWorkspace, tell: @escaping @Sendable (String) -> Void) {
        self.workspace = workspace
        self.tell = tell
    }

    /// Makes receipts, verifies them, tampers with some and verifies those.
    ///
    /// - Parameters:
    ///   - count: How many receipts, over all settings.
    ///   - tamperings: How many changes.
    ///   - weights: The types of weights; nil for all.
    /// - Returns: What was found.
    /// - Throws: ``FaultError`` where a process does not start; what a call threw.
    package func run(count: Int, tamperings: Int, weights: [String]? = nil) async throws -> Outcome {
        let levels = try await self.levels()
        let settings = Self.settings(levels).filter { weights?.contains($0.weights) ?? true }
        var outcome = Outcome()
        var kept: [Receipt] = []
        for (index, setting) in settings.enumerated() {
            let share = count * (index + 1) / settings.count - count * index / settings.count
            let receipts = try await self.made(setting, first: outcome.receipts, count: share)
            let failures =
                try await self.verify(
                    receipts.map { Array(ReceiptFile.text($0).utf8) },
                    level: setting.verifier
                )
                .compactMap { $0.verified ? nil : $0.words }
            outcome.receipts += receipts.count
            outcome.withDrops += receipts.count { !$0.drops.isEmpty }
            outcome.mismatches += failures
            let makers = Set(setting.makers).count == 1 ? setting.makers[0] : setting.makers.joined(separator: ", ")
            outcome.lines.append(
                "| \(setting.weights) | \(setting.rows) | \(makers) | \(setting.verifier) | \(receipts.count) | "
                    + "\(receipts.count { !$0.drops.isEmpty }) | \(failures.count) |"
            )
            self.tell(outcome.lines.last ?? "")
            kept += receipts.prefix(40) + receipts.suffix(20)
        }
        try await self.tamper(kept, count: tamperings, level: levels.last ?? "portable", &outcome)
        return outcome
    }

    private static func settings(_ levels: [String]) -> [Setting] {
        guard let least = levels.first, let best = levels.last else { return [] }
        let middle = levels[levels.count / 2]
        return [
            Setting(weights: "float32", makers: [least, least, least], verifier: best),
            Setting(weights: "float32", makers: [best, best, best], verifier: middle, losesHost: true),
            Setting(weights: "bfloat16", makers: [middle, middle, middle], verifier: least),
            Setting(weights: "bfloat16", rows: "bfloat16", makers: [best, least, middle], verifier: middle),
            Setting(weights: "int8", makers: [best, best, best], verifier: middle),
            Setting(weights: "int8", rows: "bfloat16", makers: [least, middle, best], verifier: best, losesHost: true),
        ]
    }

    /// The levels that this machine can run, the portable one first.
    private func levels() async throws -> [String] {
        var levels: [String] = []
        for level in ["portable", "avx2", "avx512", "neon"] {
            let result = try? await Tool.run(
                "env",
                ["SWITCHYARD_KERNELS=\(level)", self.workspace.executable, "--version"]
            )
            if result != nil { levels.append(level) }
        }
        guard levels.count > 1 else { throw FaultError("this processor has no level but the portable one to compare") }
        return levels
    }

    // MARK: - Making

    private func made(_ setting: Setting, first: Int, count: Int) async throws -> [Receipt] {
        let shards = try await self.workspace.shards(pools: 2)
        let texts = try LoadRequest.all(model: self.workspace.model, passageTokens: 8).map(\.text)
        return try await ProcessKeeper.with { keeper in
            let cluster = try FaultCluster(
                workspace: self.workspace,
                shards: shards,
                pools: 2,
                lab: nil,
                keeper: keeper
            )
            func wrapper(_ place: Int) -> [String] {
                [Tool.path("env") ?? "/usr/bin/env", "SWITCHYARD_KERNELS=\(setting.makers[place])"]
            }
            for pool in 0..<2 {
                try await cluster.startHost(
                    pool: pool,
                    arguments: ["--dtype", setting.weights],
                    wrapper: wrapper(1 + pool)
                )
            }
            let gateway = try await cluster.startGateway(
                // A row is lost only where a host is.
                arguments: [
                    "--dtype", setting.weights, "--wire-dtype", setting.rows, "--encoder-deadline-ms", "60000",
                    "--decoder-deadline-ms", "60000",
                ],
                wrapper: wrapper(0)
            )
            let endpoint = try Endpoint(parsing: try await gateway.listening(within: .seconds(300)))
            return try await GatewayClient.with(endpoint: endpoint) { client in
                let half = setting.losesHost ? count / 2 : count
                var receipts = try await Self.receipts(first..<(first + half), texts: texts, client: client)
                guard half < count else { return receipts }
                try cluster.hosts[0].process.signal(SIGKILL)
                _ = try await cluster.hosts[0].process.ended(within: .seconds(60))
                receipts += try await Self.receipts((first + half)..<(first + count), texts: texts, client: client)
                return receipts
            }
        }
    }

    /// Receipts of requests of which four run side by side.
    private static func receipts(_ numbers: Range<Int>, texts: [String], client: GatewayClient) async throws
        -> [Receipt]
    {
        try await withThrowingTaskGroup(of: [(Int, Receipt)].self) { group in
            for caller in 0..<4 {
                group.addTask {
                    var own: [(Int, Receipt)] = []
                    for number in numbers where number % 4 == caller {
                        let request = ReceiptRequests.request(number, texts: texts).request
                        let response = try await client.generate(request, timeout: .seconds(300))
                        guard let receipt = response.receipt else { throw FaultError("an answer has no receipt") }
                        own.append((number, receipt))
                    }
                    return own
                }
            }
            var all: [(Int, Receipt)] = []
            for try await own in group { all += own }
            return all.sorted { $0.0 < $1.0 }.map(\.1)
        }
    }

    // MARK: - Verifying

    /// What `switchyard verify --json` says of a file.
    struct Verdict: Decodable {
        struct Difference: Decodable {
            var field: String
            var expected: String
            var got: String
        }

        var verified: Bool
        var difference: Difference?
        var reason: String?

        var words: String {
            self.difference.map { "\($0.field): expected \($0.expected), got \($0.got)" } ?? self.reason ?? "verified"
        }
    }

    /// Verifies files with the real program, at a level.
    func verify(_ files: [[UInt8]], level: String) async throws -> [Verdict] {
        let folder = "\(self.workspace.folder)/receipts-\(UUID().uuidString)"
        try FileManager.default.createDirectory(atPath: folder, withIntermediateDirectories: true)
        defer { try? FileManager.default.removeItem(atPath: folder) }
        var names: [String] = []
        for (index, bytes) in files.enumerated() {
            names.append("\(folder)/\(index).json")
            try Data(bytes).write(to: URL(fileURLWithPath: names[index]))
        }
        let result = try await Subprocess.run(
            .path(FilePath(Tool.path("env") ?? "/usr/bin/env")),
            arguments: Arguments(
                ["SWITCHYARD_KERNELS=\(level)", self.workspace.executable, "verify", "--model", self.workspace.model]
                    + ["--threads", "1", "--json"] + names
            ),
            output: .string(limit: 64 << 20),
            error: .string(limit: 1 << 20)
        )
        let decoder = JSONDecoder()
        decoder.keyDecodingStrategy = .convertFromSnakeCase
        guard let verdicts = try? decoder.decode([Verdict].self, from: Data(result.standardOutput.utf8)),
            verdicts.count == files.count
        else {
            throw FaultError("switchyard verify ended with \(result.terminationStatus): \(result.standardError)")
        }
        // The status says whether all are verified.
        let isGood = verdicts.allSatisfy(\.verified)
        guard result.terminationStatus == .exited(isGood ? 0 : 1) else {
            throw FaultError(
                "switchyard verify ended with \(result.terminationStatus) although its verdicts say otherwise"
            )
        }
        return verdicts
    }

    private func tamper(_ receipts: [Receipt], count: Int, level: String, _ outcome: inout Outcome) async throws {
        let cases = try ReceiptTampering.cases(of: receipts, count: count)
        let verdicts = try await self.verify(cases.map(\.bytes), level: level)
        outcome.tampered = cases.count
        var found: [(name: String, count: Int, first: String)] = []
        for (tampering, verdict) in zip(cases, verdicts) {
            let name = "\(tampering.name)\(tampering.isForged ? ", digests computed anew" : "")"
            if verdict.verified { outcome.missed.append(name) }
            if let index = found.firstIndex(where: { $0.name == name }) {
                found[index].count += 1
            } else {
                found.append((name, 1, String(verdict.words.prefix(160))))
            }
        }
        for entry in found { outcome.lines.append("\(entry.name) x \(entry.count): \(entry.first)") }
    }
}
