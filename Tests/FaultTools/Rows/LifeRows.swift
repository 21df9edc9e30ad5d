// SPDX-License-Identifier: Apache-2.0

internal import Foundation
internal import SwitchyardClient

/// Rows in which hosts come and go as their operator wants.
enum LifeRows {
    static var rows: [FaultRow] {
        [
            FaultRow(
                name: "rolling",
                title: "Rolling restart of every host, one by one",
                variant: .replica,
                play: Self.rolling
            ),
            FaultRow(
                name: "scale",
                title: "Scale one pool 1 -> 3 -> 1 under load",
                variant: .replica,
                play: Self.scaled
            ),
        ]
    }

    private static func rolling(_ context: RowContext) async throws -> RowReport {
        try await context.withHosts(pools: 2, replicas: 2) { cluster in
            let gateway = try await cluster.startGateway()
            let findings = Findings()
            let slowest = Kept<Duration>()
            let outcome = try await Story.run(
                context,
                at: gateway.listening(within: .seconds(300)),
                time: context.timing.measured
            ) { story in
                for host in cluster.hosts {
                    let begin = ContinuousClock.now
                    try host.process.signal(SIGTERM)
                    let exit = try await host.process.ended(within: .seconds(30))
                    findings.require("\(host.name) drains and leaves with 0", exit.code == 0, found: "\(exit)")
                    try await cluster.restart(host)
                    try await story.watch.wait(for: host.address, within: .seconds(30)) { $0?.state == .ready }
                    slowest.set(max(slowest.value ?? .zero, begin.duration(to: .now)))
                }
            }
            var report = RowReport(outcome)
            report.requireUnnoticed()
            report.figures.recovery = slowest.value?.seconds
            findings.add(to: &report)
            return report
        }
    }

    // MARK: - Scaling

    private static func scaled(_ context: RowContext) async throws -> RowReport {
        try await context.withHosts(pools: 2, replicas: 1) { cluster in
            let first = try cluster.firstHost
            try cluster.writeTargets(of: "pool-0")
            let list = cluster.targetsFile(of: "pool-0")
            let gateway = try await cluster.startGateway(targets: ["pool-0": ["file://\(list)"]])
            let findings = Findings()
            let spread = Stopwatch()
            let outcome = try await Story.run(
                context,
                at: gateway.listening(within: .seconds(300)),
                time: context.timing.measured
            ) { story in
                let added = [try await cluster.startHost(pool: 0), try await cluster.startHost(pool: 0)]
                let begin = ContinuousClock.now
                try cluster.writeTargets(of: "pool-0")
                for host in added {
                    try await story.watch.wait(for: host.address, within: .seconds(20)) { ($0?.rows ?? 0) > 0 }
                }
                spread.set(begin.duration(to: .now))
                await Self.requireEvenLoad(story, hosts: ([first] + added).map(\.address), findings)
                try await Task.sleep(for: context.timing.fault)
                try cluster.writeTargets(of: "pool-0", hosts: [first])
                for host in added {
                    let time = try await story.watch.wait(for: host.address, within: .seconds(20)) { replica in
                        replica == nil
                    }
                    findings.require(
                        "\(host.name) leaves the gateway's list",
                        time.seconds <= FaultLimits.leaving,
                        found: Figure.seconds(time.seconds),
                        speed: true
                    )
                    try host.process.signal(SIGTERM)
                    let exit = try await host.process.ended(within: .seconds(30))
                    findings.require("\(host.name) leaves with 0", exit.code == 0, found: "\(exit)")
                }
            }
            var report = RowReport(outcome)
            report.requireUnnoticed()
            report.figures.recovery = spread.seconds
            report.require(
                "load spreads within 2 s",
                (spread.seconds ?? .infinity) <= FaultLimits.spreading,
                found: Figure.seconds(spread.seconds ?? 0),
                speed: true
            )
            findings.add(to: &report)
            return report
        }
    }

    /// In the second after a new host's first rows, none of the hosts takes less than half of an even share.
    private static func requireEvenLoad(_ story: Story, hosts: [String], _ findings: Findings) async {
        let before = hosts.map { story.watch.replica($0)?.rows ?? 0 }
        try? await Task.sleep(for: .seconds(1))
        let after = hosts.map { story.watch.replica($0)?.rows ?? 0 }
        let rows = zip(before, after).map { $1 >= $0 ? $1 - $0 : 0 }
        let total = rows.reduce(0, +)
        let least = rows.min() ?? 0
        let isEven = total > 0 && Double(least) >= 0.5 * Double(total) / Double(hosts.count)
        findings.require(
            "every host takes its part of the load",
            isEven,
            found: "\(rows) rows in a second",
            speed: true
        )
    }
}
