// SPDX-License-Identifier: Apache-2.0

package import SwitchyardClient

/// A cluster under load from before a fault until after it.
package struct Story: Sendable {
    /// Calls the gateway.
    package let client: GatewayClient
    /// How the gateway sees its hosts.
    package let watch: ClusterWatch
    /// What the clients saw.
    package let record: LoadRecord
    /// How long the load runs undisturbed, half of it before the fault and half of it after.
    let time: Duration
    /// What the fault costs the gateway; nil where that is not measured.
    var meter: TollMeter?
}

/// How long the parts of a row take and how much load there is.
package struct FaultTiming: Sendable {
    /// The length of the stretch with the fault, and of the one without, whose throughput is compared.
    package var measured: Duration
    /// The same where it is not.
    package var short: Duration
    /// How long a temporary fault lasts.
    package var fault: Duration
    /// The length of the stretch in which a client, a file or a host is hostile.
    package var hostile: Duration
    /// How long the overload lasts.
    package var overload: Duration
    /// Number of concurrent clients.
    package var clients: Int
    /// The load as a fraction of what the clients could make without pauses; 1 is all of it.
    ///
    /// Below 1 the cluster has processor time to spare, and what is lost is lost to the fault: everything here runs on
    /// one machine, where a restarting process takes time from all others.
    package var share: Double
    /// Tokens of a call that is to be in flight when the gateway is told to leave.
    package var streamTokens: UInt32 = 200
    /// Tokens of a call with as many beams as there are batch slots.
    package var beamTokens: UInt32 = 1024

    /// What the table of `docs/reliability.md` is measured with, over a number of seconds.
    package init(seconds: Int, clients: Int = 4, share: Double = 0.6) {
        self.measured = .seconds(seconds)
        self.short = .seconds(max(6, seconds / 3))
        self.fault = .milliseconds(max(2000, seconds * 1000 / 4))
        self.hostile = .milliseconds(max(4000, seconds * 200))
        self.overload = .seconds(seconds * 2)
        self.clients = clients
        self.share = share
    }

    /// As short as possible, for tests that only check behaviour.
    package static let brief: FaultTiming = {
        var timing = FaultTiming(seconds: 1, clients: 2, share: 1)
        timing.streamTokens = 40
        timing.short = .milliseconds(800)
        timing.measured = .milliseconds(800)
        timing.fault = .milliseconds(500)
        timing.hostile = .milliseconds(800)
        timing.beamTokens = 24
        return timing
    }()
}

/// A story's result.
struct StoryOutcome: Sendable {
    var quiet: LoadWindow
    var disturbed: LoadWindow
    var summary: LoadSummary
    var calls: [LoadCall]
    var samples: [TokenSample]
    /// From where to where the fault lasted, since the record began.
    var fault: (from: Duration, to: Duration)
    /// The longest wait for a token that lies in the stretch with the fault or begins in it, in seconds.
    var longestStall: Double
    /// What it cost the gateway, where that was asked.
    var toll: GatewayToll?

    /// The fraction of the undisturbed throughput that was lost during the fault; negative where it rose.
    var throughputLost: Double {
        self.quiet.rate > 0 ? 1 - self.disturbed.rate / self.quiet.rate : 0
    }
}

extension Story {
    /// Runs the load, a fault in the middle of it.
    ///
    /// - Parameters:
    ///   - context: Models, timing.
    ///   - address: Where the gateway listens.
    ///   - time: How long the stretch with the fault is, and the one without.
    ///   - strictClients: Additional clients whose calls accept no lost token.
    ///   - gateway: The gateway's process, if the fault's cost to it is to be measured.
    ///   - configuration: How the clients call.
    ///   - known: For each checkpoint that may answer, the ids that it gives; empty where one does.
    ///   - fault: Does something to the cluster; returns when the cluster, or the rest of it, has recovered.
    /// - Returns: What the clients saw.
    /// - Throws: What the fault throws; ``FaultError`` where the cluster is unhealthy from the start.
    static func run(
        _ context: RowContext,
        at address: String,
        time: Duration,
        strictClients: Int = 0,
        gateway: KeptProcess? = nil,
        configuration: GatewayClientConfiguration = .defaults,
        known: [UInt64: [[UInt32]]] = [:],
        fault: @Sendable (Story) async throws -> Void
    ) async throws -> StoryOutcome {
        let requests = context.requests
        let endpoint = try Endpoint(parsing: address)
        return try await GatewayClient.with(endpoint: endpoint, configuration: configuration) { client in
            let references = try await Load.references(requests, client: client)
            let watch = ClusterWatch()
            var plan = Load.Plan(
                requests: requests,
                references: references,
                clients: context.timing.clients,
                strictClients: strictClients
            )
            plan.known = known
            if context.timing.share < 1 {
                plan.interval = try await Load.shortestInterval(plan, client: client) / context.timing.share
            }
            let record = LoadRecord()
            let meter = gateway.map(TollMeter.init)
            let story = Story(client: client, watch: watch, record: record, time: time, meter: meter)
            let load = Load(plan, record: record)
            return try await withThrowingTaskGroup(of: Void.self) { group in
                group.addTask { await load.run(client) }
                group.addTask { await watch.run(client) }
                let windows: [(from: Duration, to: Duration)]
                do {
                    windows = try await story.play(fault)
                } catch {
                    group.cancelAll()
                    throw error
                }
                load.stop()
                watch.stop()
                try await group.waitForAll()
                return Self.outcome(record, windows, meter?.toll)
            }
        }
    }

    /// Lets the load run, disturbs it, lets it run again.
    private func play(
        _ fault: @Sendable (Story) async throws -> Void
    ) async throws -> [(from: Duration, to: Duration)] {
        // The first calls fill caches and buffers.
        try await Task.sleep(for: min(.seconds(1), self.time / 4))
        let before = self.record.now
        self.meter?.beginQuiet()
        try await Task.sleep(for: self.time / 2)
        let beginning = self.record.now
        try await Task.sleep(for: self.time / 20)
        let faultBegins = self.record.now
        self.meter?.beginFault()
        try await fault(self)
        self.meter?.endFault()
        let faultEnds = self.record.now
        let end = max(beginning + self.time, faultEnds)
        try await Task.sleep(for: end - faultEnds)
        let rest = self.record.now
        try await Task.sleep(for: self.time / 2)
        self.meter?.end()
        return [
            (before, beginning), (beginning, rest), (rest, self.record.now), (faultBegins, faultEnds),
        ]
    }

    private static func outcome(
        _ record: LoadRecord,
        _ times: [(from: Duration, to: Duration)],
        _ toll: GatewayToll?
    ) -> StoryOutcome {
        let (calls, samples) = record.contents
        let windows = times.map { LoadWindow(samples, from: $0.from, to: $0.to) }
        let quiet = windows[0].joined(windows[2])
        return StoryOutcome(
            quiet: quiet,
            disturbed: windows[1],
            summary: record.summary,
            calls: calls,
            samples: samples,
            fault: times[3],
            longestStall: LoadWindow.longestWait(samples, from: times[1].from, to: times[1].to),
            toll: toll
        )
    }
}

extension LoadWindow {
    /// Two stretches taken as one; percentiles are the larger ones of the two.
    func joined(_ other: LoadWindow) -> LoadWindow {
        var joined = self
        joined.tokens += other.tokens
        joined.seconds += other.seconds
        joined.longestGap = max(self.longestGap, other.longestGap)
        joined.medianGap = max(self.medianGap, other.medianGap)
        joined.highGap = max(self.highGap, other.highGap)
        return joined
    }
}
