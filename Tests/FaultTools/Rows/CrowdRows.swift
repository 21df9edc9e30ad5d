// SPDX-License-Identifier: Apache-2.0

internal import Foundation
internal import SwitchyardClient

/// Rows in which one client holds connections, descriptors or memory.
enum CrowdRows {
    static var rows: [FaultRow] {
        [
            FaultRow(
                name: "idle",
                title: "1,000 idle connections, 64 silent ones on the admin port",
                variant: .replica,
                isHostile: true,
                play: Self.idle
            ),
            FaultRow(
                name: "descriptors",
                title: "1,100 connections where 1,024 files may be open",
                variant: .replica,
                isHostile: true,
                play: Self.descriptors
            ),
            FaultRow(
                name: "partial",
                title: "128 messages of 4 MiB less a byte, on 1 and on 4 connections",
                variant: .replica,
                isHostile: true
            ) { context in
                try await Self.unfinished(
                    context,
                    "/switchyard.v1.Gateway/Generate",
                    limits: FaultLimits.unfinishedGrowth
                )
            },
            FaultRow(
                name: "partial-health",
                title: "The same to `Health/Check` without a token, where tokens are asked for",
                variant: .replica,
                isHostile: true
            ) { context in
                try await Self.unfinished(
                    context,
                    "/grpc.health.v1.Health/Check",
                    tokens: true,
                    limits: (FaultLimits.smallGrowth, FaultLimits.smallGrowth)
                )
            },
        ]
    }

    // MARK: - Connections

    /// New callers, and the admin port's.
    private static func idle(_ context: RowContext) async throws -> RowReport {
        FileLimit.raise()
        let admin = AdminPort(in: context.workspace.folder)
        return try await context.withHosts(pools: 2, replicas: 1) { cluster in
            let gateway = try await cluster.startGateway(arguments: admin.arguments)
            let address = try await gateway.listening(within: .seconds(300))
            let findings = Findings()
            let outcome = try await Story.run(
                context,
                at: address,
                time: context.timing.hostile,
                gateway: gateway
            ) { story in
                try await HostileConnections.with { crowd in
                    let idle = try await crowd.idle(1000, to: address)
                    let silent = try await crowd.silent(64, to: admin.address)
                    findings.note("\(idle) idle connections and \(silent) silent ones were opened")
                    try await Self.requireNewCallers(context, address, admin, findings)
                    findings.note("\(crowd.count) of them are still open at the end")
                }
            }
            var report = RowReport(outcome)
            report.requireUnnoticed()
            report.requireStall(FaultLimits.stall)
            findings.add(to: &report)
            return report
        }
    }

    /// Callers that come while the crowd is there are answered, and so is `/livez`.
    private static func requireNewCallers(
        _ context: RowContext,
        _ address: String,
        _ admin: AdminPort,
        _ findings: Findings
    ) async throws {
        let endpoint = try Endpoint(parsing: address)
        let end = ContinuousClock.now.advanced(by: context.timing.hostile / 2)
        var callers = 0
        var answered = 0
        var alive = 0
        var longest = 0.0
        var failure = ""
        repeat {
            let begin = ContinuousClock.now
            callers += 1
            do {
                let request = context.requests[0]
                let response = try await GatewayClient.with(endpoint: endpoint) { client in
                    try await client.generate(request.message(strict: false), timeout: .seconds(20))
                }
                if response.generations.first?.tokenIDs.isEmpty == false { answered += 1 }
            } catch {
                failure = "\(error)"
            }
            longest = max(longest, begin.duration(to: .now).seconds)
            if await admin.status("/livez", within: .seconds(5)) == 200 { alive += 1 }
            try await Task.sleep(for: .milliseconds(100))
        } while ContinuousClock.now < end
        findings.require(
            "new callers are answered",
            answered == callers,
            found: "\(answered) of \(callers)\(failure.isEmpty ? "" : ": \(failure.prefix(200))")"
        )
        findings.require("/livez answers", alive == callers, found: "\(alive) of \(callers)")
        findings.require(
            "a new caller's answer in <= \(Figure.seconds(FaultLimits.newCaller))",
            longest <= FaultLimits.newCaller,
            found: Figure.seconds(longest),
            speed: true
        )
    }

    // MARK: - Descriptors

    /// Calls in flight, the connections to hosts and the probes do not suffer, and nothing spins.
    private static func descriptors(_ context: RowContext) async throws -> RowReport {
        FileLimit.raise()
        let admin = AdminPort(in: context.workspace.folder)
        return try await context.withHosts(pools: 2, replicas: 2) { cluster in
            let gateway = try await cluster.startGateway(arguments: admin.arguments, wrapper: FileLimit.wrapper(1024))
            let address = try await gateway.listening(within: .seconds(300))
            let endpoint = try Endpoint(parsing: address)
            let findings = Findings()
            let outcome = try await Story.run(
                context,
                at: address,
                time: context.timing.hostile,
                gateway: gateway
            ) { story in
                try await HostileConnections.with { crowd in
                    let opened = try await crowd.idle(1100, to: address)
                    findings.note("\(opened) connections were opened")
                    let victim = try cluster.firstHost
                    try victim.process.signal(SIGKILL)
                    try await cluster.restart(victim)
                    let back = try? await story.watch.wait(for: victim.address, within: .seconds(20)) {
                        $0?.state == .ready
                    }
                    let found = back.map { Figure.seconds($0.seconds) } ?? "never"
                    findings.require("a restarted host is connected again", back != nil, found: found)
                    let status = await admin.status("/readyz", within: .seconds(5))
                    findings.require("/readyz answers", status == 200, found: status.map { "\($0)" } ?? "nothing")
                    try await Task.sleep(for: context.timing.hostile / 2)
                    findings.note("\(crowd.count) of them are still open at the end")
                }
                let begin = ContinuousClock.now
                try await GatewayRows.waitForAnswer(context.requests[0], at: endpoint, since: begin)
                findings.note("a new caller was answered \(Figure.seconds(begin.duration(to: .now).seconds)) after it")
            }
            var report = RowReport(outcome)
            report.requireUnnoticed()
            report.requireStall(FaultLimits.stall)
            let toll = report.figures.toll
            let more = (toll?.processors ?? .infinity) - (toll?.quietProcessors ?? 0)
            report.require(
                "no more than \(FaultLimits.spinning) of a processor more",
                more <= FaultLimits.spinning,
                found: Figure.decimal(more, 2),
                speed: true
            )
            findings.add(to: &report)
            return report
        }
    }

    // MARK: - Memory

    private static func unfinished(
        _ context: RowContext,
        _ path: String,
        tokens: Bool = false,
        limits: (one: Int, four: Int)
    ) async throws -> RowReport {
        let tokenFile = try TokenFile(in: context.workspace.folder)
        return try await context.withHosts(pools: 2, replicas: 1) { cluster in
            let gateway = try await cluster.startGateway(arguments: tokens ? tokenFile.arguments : [])
            let address = try await gateway.listening(within: .seconds(300))
            let findings = Findings()
            let outcome = try await Story.run(
                context,
                at: address,
                time: context.timing.hostile,
                gateway: gateway,
                configuration: tokens ? tokenFile.configuration(of: .good) : .defaults
            ) { story in
                let before = gateway.residentBytes ?? 0
                for (connections, limit) in [(1, limits.one), (4, limits.four)] {
                    try await HostileConnections.with { crowd in
                        let messages = UnfinishedMessages(streams: 128, messageBytes: 4 << 20, path: path)
                        var counts: [UnfinishedCounts] = []
                        for _ in 0..<connections {
                            if let one = try await crowd.unfinished(messages, to: address) { counts.append(one) }
                        }
                        try await Task.sleep(for: context.timing.hostile / 2)
                        // On a slow machine, until something was sent.
                        try await Wait.until(within: .seconds(60)) { counts.contains { $0.sent > 0 || $0.isOver } }
                        let growth = (gateway.peakResidentBytes ?? .max) - before
                        findings.require(
                            "grows by <= \(limit >> 20) MiB with \(connections) of them",
                            growth <= limit,
                            found: "\(growth >> 20) MiB"
                        )
                        let sent = counts.reduce(0) { $0 + $1.sent }
                        findings.require(
                            "messages were begun on \(connections) of them",
                            sent > 0,
                            found: "\(sent >> 20) MiB were taken; \(counts.reduce(0) { $0 + $1.ended }) streams and "
                                + "\(counts.count(where: \.isOver)) connections were ended"
                        )
                    }
                }
            }
            var report = RowReport(outcome)
            report.requireUnnoticed()
            report.requireStall(FaultLimits.fairStall)
            findings.add(to: &report)
            return report
        }
    }
}
