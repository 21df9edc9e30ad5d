// SPDX-License-Identifier: Apache-2.0

/// Whether the pool that the fault hits has a second host.
package enum FaultVariant: String, Sendable, Codable, CaseIterable {
    /// It has.
    case replica
    /// It has none.
    case alone
}

/// One thing that must hold.
package struct FaultCheck: Sendable, Codable, Hashable {
    /// What must hold.
    package var name: String
    /// Whether it does.
    package var holds: Bool
    /// What was found.
    package var found: String
    /// Whether it is about times: a busy machine may fail it.
    package var isAboutSpeed: Bool
}

/// What a row showed, in figures.
package struct FaultFigures: Sendable, Codable, Hashable {
    /// Calls and how they ended, over the whole row.
    package var load = LoadSummary()
    /// The longest wait of a client for its next token in the stretch with the fault, in seconds.
    package var longestStall = 0.0
    /// The same without a fault.
    package var quietStall = 0.0
    /// The 99th percentile of the time between two tokens, without a fault and with it, in seconds.
    package var quietStep = 0.0
    package var faultStep = 0.0
    /// Tokens per second without a fault.
    package var quietRate = 0.0
    /// The fraction of the throughput that was lost during the fault.
    package var throughputLost: Double?
    /// How long the cluster took to recover once the fault ended, in seconds.
    package var recovery: Double?
    /// How long after the fault's beginning the last wrong answer ended, in seconds; nil where none was wrong.
    package var wrongFor: Double?
    /// What the fault cost the gateway; nil where that was not measured.
    package var toll: GatewayToll?
}

/// A row's result.
package struct FaultResult: Sendable, Codable {
    /// Whether the row was run.
    package enum Verdict: String, Sendable, Codable {
        case passed
        case failed
        case skipped
    }

    /// The row's name.
    package var name: String
    /// The fault in words.
    package var title: String
    /// Whether there was a second host.
    package var variant: FaultVariant
    /// Whether somebody or something is hostile, so that the gateway's toll matters.
    package var isHostile = false
    /// How it went.
    package var verdict: Verdict
    /// Why it was skipped or could not be completed.
    package var reason = ""
    /// What had to hold.
    package var checks: [FaultCheck] = []
    /// What was measured; nil where nothing was.
    package var figures: FaultFigures?
    /// What else was seen.
    package var notes: [String] = []
    /// How long the row took, in seconds.
    package var seconds = 0.0
}

/// The sum of a row's story: checks, figures, notes.
package struct RowReport: Sendable {
    /// What had to hold.
    package var checks: [FaultCheck] = []
    /// What was measured.
    package var figures = FaultFigures()
    /// What else was seen.
    package var notes: [String] = []

    mutating func require(_ name: String, _ holds: Bool, found: String, speed: Bool = false) {
        self.checks.append(FaultCheck(name: name, holds: holds, found: found, isAboutSpeed: speed))
    }
}

/// What rows need from their surroundings.
package struct RowContext: Sendable {
    /// Programs, models, a folder to write to.
    package let workspace: FaultWorkspace
    /// How long everything takes.
    package var timing: FaultTiming
    /// The load.
    package let requests: [LoadRequest]
    /// The network of hosts; nil where there is none.
    package let lab: NetworkLab?

    /// Creates a context.
    ///
    /// - Parameters:
    ///   - workspace: Programs, models, a folder to write to.
    ///   - timing: How long everything takes.
    ///   - lab: The network of hosts; nil where there is none.
    ///   - requestLimit: The maximum number of different requests in the load.
    ///   - passageTokens: How many tokens are generated for a passage.
    /// - Throws: What keeps the requests from being read.
    package init(
        workspace: FaultWorkspace,
        timing: FaultTiming,
        lab: NetworkLab? = nil,
        requestLimit: Int = .max,
        passageTokens: UInt32 = 48
    ) throws {
        self.workspace = workspace
        self.timing = timing
        self.lab = lab
        let all = try LoadRequest.all(model: workspace.model, passageTokens: passageTokens)
        // Evenly from prompts and passages.
        let stride = max(1, all.count / max(1, min(requestLimit, all.count)))
        self.requests = all.enumerated().filter { $0.offset % stride == 0 }.map(\.element)
    }
}

/// A line of the table: a fault, and what must hold while it lasts and after it.
package struct FaultRow: Sendable {
    /// The name to select it by.
    package let name: String
    /// The fault in words.
    package let title: String
    /// Whether the pool that it hits has a second host.
    package let variant: FaultVariant
    /// Whether hosts need their own network.
    package var needsLab = false
    /// Whether somebody or something is hostile, so that the gateway's toll matters.
    package var isHostile = false
    let play: @Sendable (RowContext) async throws -> RowReport

    /// Runs the row.
    ///
    /// - Parameters:
    ///   - context: Where and how long.
    ///   - labProblem: Why there is no network, if there is none.
    /// - Returns: Its result; a row that could not be run has failed.
    package func run(_ context: RowContext, labProblem: String? = nil) async -> FaultResult {
        var result = FaultResult(name: self.name, title: self.title, variant: self.variant, verdict: .failed)
        result.isHostile = self.isHostile
        if self.needsLab, context.lab == nil {
            result.verdict = .skipped
            result.reason = labProblem ?? "needs root"
            return result
        }
        let start = ContinuousClock.now
        do {
            let report = try await self.play(context)
            result.checks = report.checks
            result.figures = report.figures
            result.notes = report.notes
            result.verdict = report.checks.allSatisfy(\.holds) ? .passed : .failed
        } catch {
            result.reason = "\(error)"
        }
        result.seconds = start.duration(to: .now).seconds
        return result
    }
}

extension RowContext {
    /// The same with everything as long as in a hostile row.
    var hostile: RowContext {
        var context = self
        context.timing.short = self.timing.hostile
        context.timing.fault = self.timing.hostile / 2
        return context
    }

    /// Starts hosts, and gives them to a body that starts the gateway.
    ///
    /// - Parameters:
    ///   - pools: Pools whose hosts are started.
    ///   - replicas: Hosts of each.
    ///   - named: Pools that the gateway knows, where those are more than the started ones.
    ///   - inLab: Whether each host has its own network namespace.
    ///   - hostArguments: Further arguments of each host.
    ///   - body: Gets the cluster.
    /// - Returns: What the body returns.
    /// - Throws: ``FaultError`` where a host does not start; what the body throws.
    func withHosts(
        pools: Int,
        replicas: Int,
        named: Int? = nil,
        inLab: Bool = false,
        hostArguments: [String] = [],
        _ body: @Sendable (FaultCluster) async throws -> RowReport
    ) async throws -> RowReport {
        let shards = try await self.workspace.shards(pools: named ?? pools)
        return try await ProcessKeeper.with { keeper in
            let cluster = try FaultCluster(
                workspace: self.workspace,
                shards: shards,
                pools: named ?? pools,
                lab: inLab ? self.lab : nil,
                keeper: keeper
            )
            for pool in 0..<pools {
                for _ in 0..<replicas { try await cluster.startHost(pool: pool, arguments: hostArguments) }
            }
            return try await body(cluster)
        }
    }
}
