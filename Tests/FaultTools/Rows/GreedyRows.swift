// SPDX-License-Identifier: Apache-2.0

internal import SwitchyardClient
internal import Synchronization

/// Rows in which one caller's requests cost far more than others'.
enum GreedyRows {
    static var rows: [FaultRow] {
        [
            FaultRow(
                name: "ligature",
                title: "256 KiB of the ligature U+FDFA from eight callers",
                variant: .replica,
                isHostile: true,
                play: Self.ligatures
            ),
            FaultRow(
                name: "beams",
                title: "Four calls of 32 beams and 1,024 tokens from one caller",
                variant: .replica,
                isHostile: true,
                play: Self.beams
            ),
        ]
    }

    // MARK: - Texts

    private static func ligatures(_ context: RowContext) async throws -> RowReport {
        try await context.withHosts(pools: 2, replicas: 1) { cluster in
            let gateway = try await cluster.startGateway()
            let address = try await gateway.listening(within: .seconds(300))
            let endpoint = try Endpoint(parsing: address)
            let endings = Endings()
            let outcome = try await Story.run(
                context,
                at: address,
                time: context.timing.hostile,
                gateway: gateway
            ) { _ in
                let end = ContinuousClock.now.advanced(by: context.timing.hostile * 3 / 4)
                // Three bytes each.
                let text = String(repeating: "\u{FDFA}", count: (256 << 10) / 3)
                try await withThrowingTaskGroup(of: Void.self) { group in
                    for _ in 0..<8 {
                        group.addTask {
                            try await GatewayClient.with(endpoint: endpoint) { client in
                                repeat {
                                    await endings.note { () async throws(GatewayError) in
                                        _ = try await client.generate(GenerateRequest(input: .text(text)))
                                    }
                                } while ContinuousClock.now < end
                            }
                        }
                    }
                    try await group.waitForAll()
                }
            }
            var report = RowReport(outcome)
            report.requireUnnoticed()
            report.requireStall(FaultLimits.fairStall)
            let others = endings.counts.filter { $0.key != "\(Status.Code.resourceExhausted)" }
            report.require("such texts are refused", others.isEmpty, found: endings.words)
            report.require(
                "memory grows by <= 256 MiB",
                (report.figures.toll?.growth ?? .max) <= FaultLimits.growth,
                found: "\((report.figures.toll?.growth ?? 0) >> 20) MiB"
            )
            return report
        }
    }

    // MARK: - Beams

    private static let calls = 4

    /// Each call takes every batch slot; another caller's turn comes after one of them at most.
    private static func beams(_ context: RowContext) async throws -> RowReport {
        let tokens = try TokenFile(in: context.workspace.folder)
        return try await context.withHosts(pools: 2, replicas: 1) { cluster in
            let gateway = try await cluster.startGateway(arguments: tokens.arguments)
            let address = try await gateway.listening(within: .seconds(300))
            let endpoint = try Endpoint(parsing: address)
            let endings = Endings()
            let count = context.timing.beamTokens
            let greedy = try tokens.configuration(of: .greedy)
            let text = context.requests[0].text
            let outcome = try await Story.run(
                context,
                at: address,
                time: context.timing.hostile,
                gateway: gateway,
                configuration: tokens.configuration(of: .good)
            ) { _ in
                try await GatewayClient.with(endpoint: endpoint, configuration: greedy) { client in
                    await withDiscardingTaskGroup { group in
                        for _ in 0..<Self.calls {
                            group.addTask {
                                await endings.note { () async throws(GatewayError) in
                                    var parameters = GenerationParameters(maxNewTokens: count, minNewTokens: count)
                                    parameters.numBeams = 32
                                    let request = GenerateRequest(input: .text(text), parameters: parameters)
                                    _ = try await client.generate(request, timeout: .seconds(60))
                                }
                            }
                        }
                    }
                }
            }
            var report = RowReport(outcome)
            report.requireUnnoticed()
            let all = (outcome.fault.to - outcome.fault.from).seconds
            let stall = report.figures.longestStall
            report.require(
                "the next caller waits for one of the four calls at most",
                stall <= all / Double(Self.calls) * 1.25,
                found: "\(Figure.seconds(stall)); the four took \(Figure.seconds(all))",
                speed: true
            )
            report.notes.append("the greedy calls ended so: \(endings.words)")
            return report
        }
    }
}

/// How a hostile caller's calls ended.
private final class Endings: Sendable {
    private let state = Mutex<[String: Int]>([:])

    /// Makes a call and notes its status.
    func note(_ call: () async throws(GatewayError) -> Void) async {
        var word = "OK"
        do throws(GatewayError) {
            try await call()
        } catch {
            word = "\(error.code)"
        }
        self.state.withLock { $0[word, default: 0] += 1 }
    }

    var counts: [String: Int] { self.state.withLock { $0 } }

    var words: String {
        self.counts.sorted { $0.key < $1.key }.map { "\($0.value) x \($0.key)" }.joined(separator: ", ")
    }
}
