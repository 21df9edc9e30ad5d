// SPDX-License-Identifier: Apache-2.0

internal import Foundation
internal import SwitchyardClient

/// Rows in which what a process logs is not read.
enum OutputRows {
    static var rows: [FaultRow] {
        [
            FaultRow(
                name: "stderr-gateway",
                title: "Gateway's stderr is full, then SIGTERM",
                variant: .replica,
                isHostile: true,
                play: Self.gateway
            )
        ]
            + FaultVariant.allCases.map { variant in
                FaultRow(
                    name: "stderr-host",
                    title: "Host's stderr is full, then SIGTERM",
                    variant: variant,
                    isHostile: true
                ) { try await Self.host($0, variant) }
            }
    }

    /// A host is killed and comes back, which the gateway wants to log; clients notice nothing.
    private static func gateway(_ context: RowContext) async throws -> RowReport {
        let pipe = try UnreadPipe(in: context.workspace.folder)
        return try await context.withHosts(pools: 2, replicas: 2) { cluster in
            let gateway = try await cluster.startGateway(wrapper: pipe.wrapper)
            let findings = Findings()
            let outcome = try await Story.run(
                context,
                at: gateway.listening(within: .seconds(300)),
                time: context.timing.hostile,
                gateway: gateway
            ) { story in
                findings.note("the pipe took \(try pipe.fill()) bytes")
                let victim = try cluster.firstHost
                for _ in 0..<2 {
                    try victim.process.signal(SIGKILL)
                    try await Task.sleep(for: context.timing.hostile / 8)
                    try await cluster.restart(victim)
                    let time = try? await story.watch.wait(for: victim.address, within: .seconds(20)) {
                        $0?.state == .ready
                    }
                    findings.require(
                        "a restarted host is connected again",
                        time != nil,
                        found: time.map { Figure.seconds($0.seconds) } ?? "never"
                    )
                }
            }
            var report = RowReport(outcome)
            report.requireUnnoticed()
            report.requireStall(FaultLimits.stall)
            await findings.requireFarewell(of: gateway)
            findings.add(to: &report)
            return report
        }
    }

    /// A host whose output is blocked is told to leave, and comes back with one that is read.
    private static func host(_ context: RowContext, _ variant: FaultVariant) async throws -> RowReport {
        let pipe = try UnreadPipe(in: context.workspace.folder)
        return try await context.withHosts(pools: 0, replicas: 0, named: 2) { cluster in
            let muted = try await cluster.startHost(pool: 0, wrapper: pipe.wrapper)
            if variant == .replica { try await cluster.startHost(pool: 0) }
            try await cluster.startHost(pool: 1)
            var (report, outcome) = try await cluster.playReturn(of: muted, context, variant) { story, findings in
                findings.note("the pipe took \(try pipe.fill()) bytes")
                try await Task.sleep(for: context.timing.hostile / 8)
                await findings.requireFarewell(of: muted.process)
                try await story.missHost(variant)
            }
            switch variant {
            case .replica:
                report.requireUnnoticed()
                report.requireStall(FaultLimits.stall)
            case .alone:
                report.requireHonest(reasons: [.timeout, .unavailable])
                report.requireWhole(outcome, after: FaultLimits.healing)
            }
            return report
        }
    }
}

extension Findings {
    /// A process that is told to leave does so in time, with status 0; one that does not is killed.
    func requireFarewell(of process: KeptProcess) async {
        let begin = ContinuousClock.now
        try? process.signal(SIGTERM)
        let exit = try? await process.ended(within: .seconds(FaultLimits.farewell))
        self.require(
            "exit 0 after SIGTERM",
            exit?.code == 0,
            found: "\(exit.map { "\($0)" } ?? "still runs") after \(Figure.seconds(begin.duration(to: .now).seconds))"
        )
        if exit == nil {
            try? process.signal(SIGKILL)
            _ = try? await process.ended(within: .seconds(300))
        }
    }
}

extension RowReport {
    /// No client waited longer for a token than this.
    mutating func requireStall(_ limit: Double) {
        self.require(
            "stall <= \(Figure.seconds(limit))",
            self.figures.longestStall <= limit,
            found: Figure.seconds(self.figures.longestStall),
            speed: true
        )
    }
}
