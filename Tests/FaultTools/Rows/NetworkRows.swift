// SPDX-License-Identifier: Apache-2.0

internal import SwitchyardClient

/// Rows in which packets come late or not at all.
enum NetworkRows {
    static var rows: [FaultRow] {
        [
            FaultRow(
                name: "delay",
                title: "50 ms delay on one host",
                variant: .replica,
                needsLab: true,
                play: Self.hedged
            ),
            FaultRow(
                name: "delay",
                title: "50 ms delay on one host, default deadlines",
                variant: .alone,
                needsLab: true,
                play: Self.waited
            ),
            FaultRow(
                name: "delay-deadline",
                title: "50 ms delay on one host, deadlines of 40 ms",
                variant: .alone,
                needsLab: true,
                play: Self.dropped
            ),
            FaultRow(name: "loss", title: "1 % packet loss", variant: .replica, needsLab: true) {
                try await Self.lossy($0, replicas: 2)
            },
            FaultRow(name: "loss", title: "1 % packet loss", variant: .alone, needsLab: true) {
                try await Self.lossy($0, replicas: 1)
            },
        ]
    }

    private static let delay = Duration.milliseconds(50)

    private static func delayed(
        _ context: RowContext,
        replicas: Int,
        arguments: [String] = [],
        strictClients: Int = 0
    ) async throws -> StoryOutcome {
        let kept = Kept<StoryOutcome>()
        _ = try await context.withHosts(pools: 2, replicas: replicas, inLab: true) { cluster in
            let gateway = try await cluster.startGateway(arguments: arguments)
            let outcome = try await Story.run(
                context,
                at: gateway.listening(within: .seconds(300)),
                time: context.timing.short * 2,
                strictClients: strictClients
            ) { story in
                guard let place = cluster.hosts.first?.place else { throw FaultError("the host has no namespace") }
                try await PacketDelay.with(place, by: Self.delay) {
                    try await Task.sleep(for: story.time * 9 / 10)
                }
            }
            kept.set(outcome)
            return RowReport(outcome)
        }
        guard let outcome = kept.value else { throw FaultError("the story had no end") }
        return outcome
    }

    private static func hedged(_ context: RowContext) async throws -> RowReport {
        let outcome = try await Self.delayed(context, replicas: 2)
        var report = RowReport(outcome)
        report.requireUnnoticed()
        let ratio = report.figures.faultStep / max(report.figures.quietStep, 1e-6)
        report.require(
            "p99 step <= 2x the undisturbed",
            ratio <= FaultLimits.slowStep,
            found: "\(Figure.decimal(ratio, 2))x, \(Figure.seconds(report.figures.faultStep))",
            speed: true
        )
        return report
    }

    /// Nothing is dropped while the deadlines are far away; every step waits twice, once per sparse layer of the
    /// decoder.
    private static func waited(_ context: RowContext) async throws -> RowReport {
        let outcome = try await Self.delayed(context, replicas: 1)
        var report = RowReport(outcome)
        let load = report.figures.load
        report.require("no call fails", load.failed == 0, found: "\(load.failed) of \(load.calls)")
        report.require("no wrong answer without a lost token", load.wrongIDs == 0, found: "\(load.wrongIDs)")
        let limit = report.figures.quietStep + 4 * Self.delay.seconds * 1.5
        report.require(
            "p99 step <= undisturbed and four delays",
            report.figures.faultStep <= limit,
            found: Figure.seconds(report.figures.faultStep),
            speed: true
        )
        return report
    }

    private static func dropped(_ context: RowContext) async throws -> RowReport {
        let arguments = ["--encoder-deadline-ms", "40", "--decoder-deadline-ms", "40"]
        let outcome = try await Self.delayed(context, replicas: 1, arguments: arguments, strictClients: 1)
        var report = RowReport(outcome)
        report.requireHonest(reasons: [.timeout, .unavailable], sureReason: .timeout)
        let limit = report.figures.quietStep + 4 * 0.04 * 1.5
        report.require(
            "p99 step <= undisturbed and four deadlines",
            report.figures.faultStep <= limit,
            found: Figure.seconds(report.figures.faultStep),
            speed: true
        )
        return report
    }

    private static func lossy(_ context: RowContext, replicas: Int) async throws -> RowReport {
        try await context.withHosts(pools: 2, replicas: replicas, inLab: true) { cluster in
            let gateway = try await cluster.startGateway()
            let outcome = try await Story.run(
                context,
                at: gateway.listening(within: .seconds(300)),
                time: context.timing.short * 2
            ) { story in
                let places = cluster.hosts.compactMap(\.place)
                try await cluster.lab?.lose(perMille: 10, between: places)
                try await Task.sleep(for: story.time * 9 / 10)
                try await cluster.lab?.loseNothing(between: places)
            }
            var report = RowReport(outcome)
            let load = report.figures.load
            if replicas > 1 {
                report.requireUnnoticed()
            } else {
                report.require("no call fails", load.failed == 0, found: "\(load.failed) of \(load.calls)")
                report.require("no wrong answer without a lost token", load.wrongIDs == 0, found: "\(load.wrongIDs)")
            }
            return report
        }
    }
}
