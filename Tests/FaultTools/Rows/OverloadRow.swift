// SPDX-License-Identifier: Apache-2.0

internal import SwitchyardClient
internal import Synchronization

/// The row in which ten times as many calls come as can be served.
enum OverloadRow {
    static let row = FaultRow(name: "overload", title: "10x overload", variant: .replica, play: Self.overloaded)

    /// Calls that may be in flight at once on this side; more would only measure this side.
    private static let mostOpenCalls = 4096

    private static func overloaded(_ context: RowContext) async throws -> RowReport {
        try await context.withHosts(pools: 2, replicas: 2) { cluster in
            let gateway = try await cluster.startGateway()
            let address = try await gateway.listening(within: .seconds(300))
            // A connection carries a hundred calls at once.
            let configuration = GatewayClientConfiguration(connections: 16)
            let requests = context.requests.filter { $0.tokens != nil }
            return try await GatewayClient.with(endpoint: Endpoint(parsing: address), configuration: configuration) {
                client in
                let references = try await Load.references(requests, client: client)
                let peak = try await Self.peak(context, requests, references, client)
                let sizes = ResidentSizes()
                let record = LoadRecord()
                let sent = await withTaskGroup(of: Void.self, returning: Int.self) { group in
                    group.addTask { await sizes.watch(gateway) }
                    let sent = await Self.arrivals(
                        context,
                        rate: peak.calls * 10,
                        requests,
                        references,
                        client,
                        record
                    )
                    group.cancelAll()
                    return sent
                }
                return Self.report(context, record, peak: peak, sent: sent, sizes: sizes)
            }
        }
    }

    /// The cluster's peak per second: enough clients to fill its batch and its queue call without a pause.
    private static func peak(
        _ context: RowContext,
        _ requests: [LoadRequest],
        _ references: [[UInt32]],
        _ client: GatewayClient
    ) async throws -> (calls: Double, tokens: Double) {
        let record = LoadRecord()
        let load = Load(Load.Plan(requests: requests, references: references, clients: 64), record: record)
        return try await withThrowingTaskGroup(of: Void.self) { group in
            group.addTask { await load.run(client, streams: false) }
            try await Task.sleep(for: context.timing.overload / 20)
            let from = record.now
            try await Task.sleep(for: context.timing.overload / 6)
            let to = record.now
            load.stop()
            try await group.waitForAll()
            let calls = record.contents.calls.filter { $0.end >= from && $0.end < to }
            guard !calls.isEmpty else { throw FaultError("no call ended while the peak was measured") }
            let seconds = (to - from).seconds
            return (Double(calls.count) / seconds, Double(calls.reduce(0) { $0 + $1.tokens }) / seconds)
        }
    }

    /// Calls arrive whether or not earlier ones have ended.
    private static func arrivals(
        _ context: RowContext,
        rate: Double,
        _ requests: [LoadRequest],
        _ references: [[UInt32]],
        _ client: GatewayClient,
        _ record: LoadRecord
    ) async -> Int {
        let open = OpenCalls()
        return await withDiscardingTaskGroup { group in
            let begin = ContinuousClock.now
            var sent = 0
            while true {
                let elapsed = begin.duration(to: .now)
                guard elapsed < context.timing.overload else { break }
                let due = Int(elapsed.seconds * rate)
                while sent < due, open.count < Self.mostOpenCalls {
                    let index = sent % requests.count
                    sent += 1
                    open.add(1)
                    group.addTask {
                        await Load.unary(requests[index], reference: references[index], client: client, record: record)
                        open.add(-1)
                    }
                }
                try? await Task.sleep(for: .milliseconds(4))
            }
            return sent
        }
    }

    private static func report(
        _ context: RowContext,
        _ record: LoadRecord,
        peak: (calls: Double, tokens: Double),
        sent: Int,
        sizes: ResidentSizes
    ) -> RowReport {
        var report = RowReport()
        let seconds = context.timing.overload.seconds
        let calls = record.contents.calls
        var refused = 0
        var withoutHint = 0
        var others: [String: Int] = [:]
        var answered = 0
        var tokens = 0
        for call in calls {
            switch call.outcome {
            case .answered:
                answered += 1
                if call.end.seconds <= seconds { tokens += call.tokens }
            case .failed(.resourceExhausted, _):
                refused += 1
                if !call.hasRetryHint { withoutHint += 1 }
            case .failed(let code, let message): others["\(code): \(message)", default: 0] += 1
            }
        }
        var load = record.summary
        load.failed -= refused
        load.statuses = others
        report.figures.load = load
        let goodput = Double(tokens) / seconds / max(peak.tokens, 1)
        let factor = Double(sent) / seconds / peak.calls
        report.require("refusals only", others.isEmpty, found: "\(refused) refused, others \(others)")
        report.require("refusals say when to come back", withoutHint == 0, found: "\(withoutHint) of \(refused) do not")
        report.require("no other ids", load.otherIDs == 0, found: "\(load.otherIDs) of \(answered)")
        report.require("calls arrive at 10x the peak", factor >= 9, found: "\(Figure.decimal(factor, 1))x", speed: true)
        report.require(
            "goodput >= 90 % of the peak",
            goodput >= FaultLimits.goodput,
            found: Figure.percent(goodput),
            speed: true
        )
        report.require(
            "memory grows by <= 256 MiB",
            sizes.growth <= FaultLimits.growth,
            found: "\(sizes.growth >> 20) MiB"
        )
        report.figures.quietRate = peak.tokens
        report.figures.throughputLost = 1 - goodput
        report.notes.append(
            "peak \(Figure.decimal(peak.calls, 0)) calls/s, \(Figure.decimal(peak.tokens, 0)) tokens/s; \(sent) sent, "
                + "\(answered) answered, \(refused) refused; gateway \(sizes.first >> 20) -> \(sizes.most >> 20) MiB"
        )
        return report
    }
}

/// How many calls are in flight.
private final class OpenCalls: Sendable {
    private let open = Mutex(0)

    var count: Int { self.open.withLock { $0 } }

    func add(_ calls: Int) { self.open.withLock { $0 += calls } }
}

/// The resident memory of a process over some time.
final class ResidentSizes: Sendable {
    private let sizes = Mutex<(first: Int, most: Int)?>(nil)

    /// Samples five times per second until the task is cancelled.
    func watch(_ process: KeptProcess) async {
        while !Task.isCancelled {
            if let bytes = process.residentBytes {
                self.sizes.withLock { $0 = ($0?.first ?? bytes, max($0?.most ?? 0, bytes)) }
            }
            try? await Task.sleep(for: .milliseconds(200))
        }
    }

    var first: Int { self.sizes.withLock { $0?.first ?? 0 } }
    var most: Int { self.sizes.withLock { $0?.most ?? 0 } }
    var growth: Int { self.most - self.first }
}
