// SPDX-License-Identifier: Apache-2.0

internal import SwitchyardClient

/// Rows in which a host's answers are wrong, or a host is the wrong one.
enum ReplyRows {
    private static let lies: [(name: String, title: String, lies: [Lie])] = [
        ("nan", "Host returns NaN or infinity", [.nan, .infinity]),
        ("shape", "Host returns wrong shapes", [.shape]),
        ("rows", "Host returns wrong rows, or no message", [.rows, .noMessage]),
    ]

    static var rows: [FaultRow] {
        self.lies.flatMap { entry in
            FaultVariant.allCases.map { variant in
                FaultRow(name: entry.name, title: entry.title, variant: variant) { context in
                    try await Self.lied(context, entry.lies, variant)
                }
            }
        } + [
            FaultRow(name: "garbage", title: "Host sends garbage frames", variant: .replica) {
                try await Self.garbled($0, .replica)
            },
            FaultRow(name: "garbage", title: "Host sends garbage frames", variant: .alone) {
                try await Self.garbled($0, .alone)
            },
            FaultRow(
                name: "checkpoint",
                title: "Host with another checkpoint",
                variant: .replica,
                play: Self.otherCheckpointBesideTrueOne
            ),
            FaultRow(
                name: "checkpoint",
                title: "Host with another checkpoint",
                variant: .alone,
                play: Self.otherCheckpointAlone
            ),
        ]
    }

    // MARK: - Lies

    static func lied(_ context: RowContext, _ lies: [Lie], _ variant: FaultVariant) async throws -> RowReport {
        try await context.withHosts(pools: 2, replicas: 1) { cluster in
            let honest = try cluster.firstHost.address
            return try await LyingHost.with(before: try await Self.behindLiar(cluster, variant)) { liar in
                let report = try await Self.story(context, cluster, honest, liar.address, variant) {
                    for lie in lies {
                        liar.tell(lie)
                        try await Task.sleep(for: context.timing.fault / lies.count)
                    }
                } truth: {
                    liar.tell(nil)
                }
                var told = report
                told.require("lies were told", liar.told > 0, found: "\(liar.told)")
                return told
            }
        }
    }

    private static func garbled(_ context: RowContext, _ variant: FaultVariant) async throws -> RowReport {
        try await context.withHosts(pools: 2, replicas: 1) { cluster in
            let honest = try cluster.firstHost.address
            return try await GarbageRelay.with(before: try await Self.behindLiar(cluster, variant)) { relay in
                let report = try await Self.story(context, cluster, honest, relay.address, variant, .frames) {
                    relay.speakGarbage(true)
                    try await Task.sleep(for: context.timing.fault)
                } truth: {
                    relay.speakGarbage(false)
                }
                var told = report
                told.require("garbage was sent", relay.drawn > 0, found: "\(relay.drawn) bytes")
                return told
            }
        }
    }

    /// The host that a liar stands before: one of its own beside a true one, since two addresses of one process are one
    /// replica.
    ///
    /// - Returns: Its address.
    static func behindLiar(_ cluster: FaultCluster, _ variant: FaultVariant) async throws -> String {
        switch variant {
        case .replica: try await cluster.startHost(pool: 0).address
        case .alone: try cluster.firstHost.address
        }
    }

    /// What is wrong with a host's connection.
    enum Wrong {
        /// Its answers.
        case replies
        /// Its frames.
        case frames
        /// It says nothing.
        case silence
    }

    /// A story in which a pool's host, or one of two, cannot be trusted for a while.
    static func story(
        _ context: RowContext,
        _ cluster: FaultCluster,
        _ honest: String,
        _ liar: String,
        _ variant: FaultVariant,
        _ wrong: Wrong = .replies,
        lie: @Sendable () async throws -> Void,
        truth: @Sendable () -> Void
    ) async throws -> RowReport {
        let targets = ["pool-0": variant == .replica ? [honest, liar] : [liar]]
        let arguments = variant == .alone ? HostRows.deadlines : []
        let gateway = try await cluster.startGateway(targets: targets, arguments: arguments)
        let recovery = Stopwatch()
        let findings = Findings()
        let seen = Kept<Set<ReplicaState>>()
        let outcome = try await Story.run(
            context,
            at: gateway.listening(within: .seconds(300)),
            time: context.timing.short,
            strictClients: variant == .alone ? 1 : 0,
            gateway: gateway
        ) { story in
            try await lie()
            // On a slow machine, until the lies have had a consequence.
            let patience = ContinuousClock.now.advanced(by: .seconds(60))
            while ContinuousClock.now < patience, !Self.hasConsequence(story, liar, variant, wrong) {
                try await Task.sleep(for: .milliseconds(5))
            }
            truth()
            seen.set(story.watch.states(of: liar))
            // How long a host that lied stays ejected is the gateway's choice; without another one it cannot be long.
            let limit: Duration = variant == .alone ? .seconds(300) : max(story.time / 4, .seconds(1))
            do {
                recovery.set(try await story.watch.wait(for: liar, within: limit) { $0?.state == .ready })
            } catch  where variant == .replica {
                findings.note("still ejected \(Figure.seconds(limit.seconds)) after its last lie")
            }
        }
        var report = RowReport(outcome)
        let states = seen.value ?? []
        switch variant {
        case .replica:
            report.requireUnnoticed()
            let isEjected = Self.isEjected(states, wrong)
            // It takes a probe's time to see that a frame announced by random bytes never ends.
            report.require("the host is ejected", isEjected, found: "seen \(states.words)", speed: wrong == .frames)
        case .alone:
            switch wrong {
            case .replies: report.requireHonest(reasons: [.badReply, .unavailable], sureReason: .badReply)
            // Random bytes may look like the beginning of a long frame, whose end never comes.
            case .frames: report.requireHonest(reasons: [.badReply, .unavailable, .timeout])
            case .silence: report.requireHonest(reasons: [.unavailable, .timeout])
            }
            report.requireWhole(outcome, after: FaultLimits.healing)
        }
        report.figures.recovery = recovery.seconds
        findings.add(to: &report)
        return report
    }

    /// A connection that breaks with every frame, or that its host leaves, is given up as a connection.
    private static func isEjected(_ states: Set<ReplicaState>, _ wrong: Wrong) -> Bool {
        states.contains(.ejected) || wrong != .replies && states.contains(.disconnected)
    }

    /// The required consequence of lies has come: the host is ejected, or strict calls were refused.
    private static func hasConsequence(
        _ story: Story,
        _ liar: String,
        _ variant: FaultVariant,
        _ wrong: Wrong
    ) -> Bool {
        switch variant {
        case .replica: self.isEjected(story.watch.states(of: liar), wrong)
        case .alone: story.record.summary.strictRefusals > 0
        }
    }

    // MARK: - Another checkpoint

    private static func otherCheckpointBesideTrueOne(_ context: RowContext) async throws -> RowReport {
        let other = try await context.workspace.otherShards(pools: 2)
        return try await context.withHosts(pools: 2, replicas: 1) { cluster in
            let stranger = try await cluster.startHost(pool: 0, shard: "\(other)/pool-0")
            let gateway = try await cluster.startGateway()
            let findings = Findings()
            let outcome = try await Story.run(
                context,
                at: gateway.listening(within: .seconds(300)),
                time: context.timing.short
            ) { story in
                try await story.watch.wait(for: stranger.address, within: .seconds(300)) { $0?.state == .mismatched }
                try await Task.sleep(for: context.timing.fault)
                let states = story.watch.states(of: stranger.address)
                let rows = story.watch.replica(stranger.address)?.rows ?? 0
                findings.require(
                    "never used",
                    rows == 0 && !states.contains(.ready),
                    found: "\(rows) rows, seen \(states.words)"
                )
                findings.requireReason(story.watch.replica(stranger.address), gateway)
            }
            var report = RowReport(outcome)
            report.requireUnnoticed()
            findings.add(to: &report)
            return report
        }
    }

    private static func otherCheckpointAlone(_ context: RowContext) async throws -> RowReport {
        let other = try await context.workspace.otherShards(pools: 2)
        return try await context.withHosts(pools: 0, replicas: 0, named: 2) { cluster in
            let stranger = try await cluster.startHost(pool: 0, shard: "\(other)/pool-0")
            try await cluster.startHost(pool: 1)
            let gateway = try await cluster.startGateway(arguments: ["--startup-wait-seconds", "1"])
            let address = try await gateway.listening(within: .seconds(300))
            let findings = Findings()
            var report = RowReport()
            let requests = Array(context.requests.prefix(6))
            report.figures.load = try await GatewayClient.with(endpoint: Endpoint(parsing: address)) { client in
                let description = try await client.describeCluster()
                let replica = description.pools.flatMap(\.replicas).first { $0.address == stranger.address }
                findings.require("never used", replica?.rows == 0, found: "\(replica?.rows ?? 0) rows")
                findings.requireReason(replica, gateway)
                return await Load.once(requests, client: client, isStrict: false)
                    .joined(await Load.once(requests, client: client, isStrict: true))
            }
            report.requireHonest(reasons: [.unavailable], sureReason: .unavailable)
            findings.add(to: &report)
            return report
        }
    }
}

extension Findings {
    /// The gateway says why it does not use a host, in its status and in its log.
    fileprivate func requireReason(_ replica: ReplicaDescription?, _ gateway: KeptProcess) {
        let detail = replica?.detail ?? ""
        let isClear = replica?.state == .mismatched && detail.contains("checkpoint")
        self.require("clear error in status", isClear, found: detail)
        let line = gateway.lines.first { $0.contains("an expert host is mismatched") }
        self.require("clear error in the log", line != nil, found: line ?? "no line")
    }
}

extension Set<ReplicaState> {
    /// The states' names.
    var words: String {
        let names: [ReplicaState: String] = [
            .unspecified: "unspecified", .disconnected: "disconnected", .unverified: "unverified", .ready: "ready",
            .ejected: "ejected", .draining: "draining", .mismatched: "mismatched",
        ]
        return self.compactMap { names[$0] }.sorted().joined(separator: ", ")
    }
}

extension FaultCluster {
    /// The host that was started first.
    var firstHost: HostProcess {
        get throws {
            guard let host = self.hosts.first else { throw FaultError("no host was started") }
            return host
        }
    }
}
