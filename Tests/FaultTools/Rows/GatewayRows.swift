// SPDX-License-Identifier: Apache-2.0

internal import Foundation
internal import SwitchyardClient
internal import Synchronization

/// Rows in which the gateway itself leaves or dies.
enum GatewayRows {
    static var rows: [FaultRow] {
        [
            FaultRow(
                name: "gateway-sigterm",
                title: "Gateway SIGTERM under load",
                variant: .replica,
                play: Self.drained
            ),
            FaultRow(
                name: "gateway-sigkill",
                title: "Gateway SIGKILL, restart",
                variant: .replica,
                play: Self.killed
            ),
        ]
    }

    // MARK: - SIGTERM

    private static let streams = 8

    private static func drained(_ context: RowContext) async throws -> RowReport {
        try await context.withHosts(pools: 2, replicas: 1) { cluster in
            let gateway = try await cluster.startGateway()
            let address = try await gateway.listening(within: .seconds(300))
            let endpoint = try Endpoint(parsing: address)
            // Long answers, so that all of them are in flight when the signal comes.
            let requests = context.requests.prefix(Self.streams)
                .map { LoadRequest(text: $0.text, tokens: context.timing.streamTokens, expected: nil) }
            return try await GatewayClient.with(endpoint: endpoint) { client in
                let references = try await Load.references(requests, client: client)
                let record = LoadRecord()
                var report = RowReport()
                let findings = Findings()
                try await withThrowingTaskGroup(of: Void.self) { group in
                    for (request, reference) in zip(requests, references) {
                        group.addTask {
                            let plan = Load.Plan(requests: [request], references: [reference], clients: 1)
                            await Load(plan, record: record).runOnce(client)
                        }
                    }
                    try await Self.waitUntilAllStream(record, count: requests.count)
                    let begin = ContinuousClock.now
                    try gateway.signal(SIGTERM)
                    try await Self.requireRefusals(endpoint, client, requests[0], findings)
                    try await group.waitForAll()
                    let exit = try await gateway.ended(within: .seconds(300))
                    findings.require("exit 0", exit.code == 0, found: "\(exit)")
                    findings.note("left \(Figure.seconds(begin.duration(to: .now).seconds)) after the signal")
                }
                report.figures.load = record.summary
                let load = report.figures.load
                report.figures.longestStall = load.longestGap
                report.require(
                    "in-flight calls finish",
                    load.failed == 0 && load.calls == requests.count,
                    found: "\(load.failed) of \(load.calls) fail"
                )
                report.require("identical ids", load.otherIDs == 0, found: "\(load.otherIDs) differ")
                report.notes += load.statuses.map { "\($0.value) x \($0.key)" }
                findings.add(to: &report)
                return report
            }
        }
    }

    private static func waitUntilAllStream(_ record: LoadRecord, count: Int) async throws {
        let deadline = ContinuousClock.now.advanced(by: .seconds(300))
        while record.contents.samples.count(where: \.isFirst) < count {
            guard ContinuousClock.now < deadline else { throw FaultError("not every call streams after 300 s") }
            try await Task.sleep(for: .milliseconds(2))
        }
    }

    /// New calls are refused, on the connection that exists and on new ones, as soon as the gateway reports that it is
    /// draining.
    private static func requireRefusals(
        _ endpoint: Endpoint,
        _ client: GatewayClient,
        _ request: LoadRequest,
        _ findings: Findings
    ) async throws {
        // A signal takes a moment to be noticed; a call that comes before that does not count as new.
        var refusal: GatewayError?
        let begin = ContinuousClock.now
        while refusal == nil, begin.duration(to: .now) < .seconds(300) {
            do {
                _ = try await client.describeModel(timeout: .seconds(120))
            } catch {
                refusal = error
            }
        }
        findings.require(
            "new calls are refused on the connection",
            refusal?.code == .unavailable,
            found: "\(refusal?.description ?? "accepted"), \(Figure.seconds(begin.duration(to: .now).seconds))"
        )
        let fresh = await Result {
            try await GatewayClient.with(endpoint: endpoint) { other in
                try await other.generate(request.message(strict: false), timeout: .seconds(120))
            }
        }
        var code: Status.Code?
        if case .failure(let error) = fresh { code = (error as? GatewayError)?.code }
        findings.require(
            "new connections are refused",
            code == .unavailable,
            found: code.map { "\($0)" } ?? "accepted"
        )
    }

    // MARK: - SIGKILL

    private static func killed(_ context: RowContext) async throws -> RowReport {
        try await context.withHosts(pools: 2, replicas: 1) { cluster in
            let gateway = try await cluster.startGateway()
            let address = try await gateway.listening(within: .seconds(300))
            let before = cluster.hosts.map { $0.process.identifier }
            let findings = Findings()
            let recovery = Stopwatch()
            let outcome = try await Story.run(context, at: address, time: context.timing.short) { story in
                try gateway.signal(SIGKILL)
                _ = try await gateway.ended(within: .seconds(300))
                let begin = ContinuousClock.now
                try await cluster.startGateway(listen: address)
                try await Self.waitForAnswer(context.requests[0], at: Endpoint(parsing: address), since: begin)
                recovery.set(begin.duration(to: .now))
                let after = cluster.hosts.map { $0.process.identifier }
                findings.require("hosts unaffected", before == after, found: "\(after.count) processes go on")
                for host in cluster.hosts {
                    try await story.watch.wait(for: host.address, within: .seconds(300)) { $0?.state == .ready }
                }
            }
            var report = RowReport(outcome)
            let load = report.figures.load
            report.figures.recovery = recovery.seconds
            report.figures.throughputLost = nil
            report.require(
                "serves in <= 3 s",
                (recovery.seconds ?? .infinity) <= FaultLimits.gatewayStart,
                found: Figure.seconds(recovery.seconds ?? 0),
                speed: true
            )
            report.require("no other ids", load.otherIDs == 0, found: "\(load.otherIDs)")
            let others = outcome.calls.filter { call in
                if case .failed(let code, _) = call.outcome { return code != .unavailable }
                return false
            }
            report.require("failed calls end with UNAVAILABLE", others.isEmpty, found: "\(load.failed) failed")
            report.requireWhole(outcome, after: 1)
            findings.add(to: &report)
            return report
        }
    }

    static func waitForAnswer(
        _ request: LoadRequest,
        at endpoint: Endpoint,
        since begin: ContinuousClock.Instant
    ) async throws {
        while begin.duration(to: .now) < .seconds(300) {
            let answer = try? await GatewayClient.with(endpoint: endpoint) { client in
                try await client.generate(request.message(strict: true), timeout: .seconds(120))
            }
            if answer != nil { return }
            try await Task.sleep(for: .milliseconds(5))
        }
        throw FaultError("the gateway does not answer 30 s after it was started again")
    }
}

extension Result where Success: Sendable, Failure == any Error {
    /// What an asynchronous body returns or throws.
    fileprivate init(_ body: () async throws -> Success) async {
        do {
            self = .success(try await body())
        } catch {
            self = .failure(error)
        }
    }
}
