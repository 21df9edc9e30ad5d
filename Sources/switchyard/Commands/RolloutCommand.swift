// SPDX-License-Identifier: Apache-2.0

import ArgumentParser
import CommandKit
import Foundation
import ServiceKit
import SwitchyardClient
import SwitchyardProtos
import SwitchyardTypes

/// `switchyard rollout`: another checkpoint in a running cluster, without a request that fails.
struct RolloutCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "rollout",
        abstract:
            "Change the checkpoint that a running cluster serves: a share of the requests first, then all, or back.",
        discussion: """
            Gateways and hosts that were started with --checkpoints DIR load the checkpoint NAME from DIR/NAME beside the one
            that they serve. A request stays on one checkpoint from its first token to its last; which one a new request gets
            follows from its bytes, so the same request always gets the same one at the same share.

            The new checkpoint begins with --canary of the new requests; running the command again changes the share.
            --promote gives it all of them, waits until no request runs on the old one, and unloads that. --back is the way
            back until then. A gateway or host that dies on the way starts again with the old checkpoint, and with the new
            one after a promotion.

            Name every gateway of the hosts: the old checkpoint is unloaded only when none of them uses it. A gateway takes
            steps from its own machine alone, unless it was started with --remote-rollouts.

            EXAMPLE
              switchyard rollout tuned-2 --canary 5%
              switchyard rollout --status
              switchyard rollout tuned-2 --promote
              switchyard rollout --back
              switchyard rollout tuned-2 --promote --gateway gateway-0:7400 --gateway gateway-1:7400 --tls-ca certs/ca.pem
            """
    )

    @Argument(help: ArgumentHelp("The new checkpoint: the name of a folder among the checkpoints.", valueName: "name"))
    var name: String?

    @Option(
        help: ArgumentHelp(
            "The new checkpoint's share of the new requests, such as 5% or 0.05. (default: 5%)",
            valueName: "share"
        )
    )
    var canary: String?

    @Flag(help: "Give all new requests to the new checkpoint, and unload the old one once nothing runs on it.")
    var promote = false

    @Flag(help: "Give all new requests to the old checkpoint again, and unload the new one once nothing runs on it.")
    var back = false

    @Flag(help: "Show how far the rollout is.")
    var status = false

    @Option(
        help: ArgumentHelp(
            "A gateway's address, once for each gateway of the hosts. (default: --endpoint)",
            valueName: "host:port"
        )
    )
    var gateway: [String] = []

    @Option(
        help: ArgumentHelp(
            "How long to wait for loading, and for requests to end, in seconds. (1 to 86400; default: 600)",
            valueName: "seconds"
        )
    )
    var wait = 600

    @OptionGroup var client: ClientOptions

    func validate() throws {
        let chosen = [("--promote", self.promote), ("--back", self.back), ("--status", self.status)].filter(\.1)
        guard chosen.count <= 1 else {
            throw ValidationError("\(chosen.map(\.0).joined(separator: " and ")) exclude each other; give one of them")
        }
        guard self.status || self.back || self.name != nil else {
            throw ValidationError("no checkpoint is named; give its folder's name, or --status, or --back")
        }
        guard !self.status || self.name == nil, self.canary == nil || !(self.status || self.back) else {
            throw ValidationError("--status and --back take neither a name nor --canary")
        }
        if self.back, self.name != nil {
            throw ValidationError("--back goes back to the checkpoint before; leave out the name")
        }
        guard (1...86_400).contains(self.wait) else {
            throw ValidationError("--wait is \(self.wait); it must be from 1 to 86400 seconds")
        }
        guard self.gateway.isEmpty || self.client.endpoint == nil else {
            throw ValidationError("--gateway and --endpoint both name gateways; use --gateway for all of them")
        }
        _ = try self.share()
    }

    func run() async throws {
        if self.status { return try await self.show() }
        if self.back { return try await self.goBack() }
        guard let name else { return }
        try await self.begin(name)
        guard self.promote else {
            try await self.show()
            return Terminal.print(
                "go on with: switchyard rollout \(name) --promote, or switchyard rollout --back (and the same --gateway)"
            )
        }
        try await self.complete(name)
    }

    // MARK: - Steps

    /// Has every gateway load the checkpoint and give it its share.
    private func begin(_ name: String) async throws {
        for gateway in self.gateways {
            let now = try await self.ask(gateway)
            if now.serving?.checkpoint == name {
                // What is promoted already is completed; anything else would not be what was asked for.
                guard self.promote, now.phase == .steady || now.phase == .leaving else {
                    throw Settings.Failure(
                        "\(Self.words(gateway)) serves \(name) already"
                            + (now.other.map {
                                "; \(Self.words($0)) beside it is completed with --back, or its own --promote"
                            } ?? "")
                    )
                }
                continue
            }
            if let other = now.other, other.checkpoint != name {
                throw Settings.Failure(
                    "\(Self.words(gateway)) is changing to \(Self.words(other)); complete that first with --promote, or --back"
                )
            }
            if now.phase == .leaving {
                throw Settings.Failure(
                    "\(Self.words(gateway)) is going back from \(name); complete that first with --back"
                )
            }
            if now.phase == .steady {
                Terminal.print("\(Self.words(gateway)): loading \(name)")
                _ = try await self.ask(gateway, .rolloutBegin, checkpoint: name, share: try self.share())
            }
        }
        for gateway in self.gateways {
            let reached = try await self.wait(for: gateway, "loading \(name)") { $0.phase != .loading }
            guard reached.other?.checkpoint == name || reached.serving?.checkpoint == name else {
                let others = self.gateways.count > 1 ? "; the other gateways may have it beside until --back" : ""
                throw Settings.Failure("\(Self.words(gateway)): \(reached.detail)\(others)")
            }
            if reached.phase == .canary, self.canary != nil {
                _ = try await self.ask(gateway, .rolloutShare, share: try self.share())
            }
        }
    }

    /// Gives all requests to the new checkpoint and unloads the old one.
    private func complete(_ name: String) async throws {
        for gateway in self.gateways {
            guard try await self.ask(gateway).serving?.checkpoint != name else { continue }
            _ = try await self.ask(gateway, .rolloutPromote)
            Terminal.print("\(Self.words(gateway)): \(name) gets all new requests")
        }
        try await self.finish()
        Terminal.print("\(name) is served")
    }

    private func goBack() async throws {
        var hadOther = false
        for gateway in self.gateways {
            guard try await self.ask(gateway).phase != .steady else { continue }
            hadOther = true
            _ = try await self.ask(gateway, .rolloutBack)
            Terminal.print("\(Self.words(gateway)): the old checkpoint gets all new requests")
        }
        try await self.finish()
        Terminal.print(
            hadOther
                ? "the old checkpoint is served"
                : "no gateway had a second checkpoint; to return to an earlier one, roll it out by its name"
        )
    }

    /// Unloads what gets no requests, on gateways and then on hosts, once none of the gateways uses it.
    private func finish() async throws {
        for gateway in self.gateways {
            _ = try await self.wait(for: gateway, "requests on the checkpoint that leaves") {
                ($0.other?.running ?? 0) == 0
            }
        }
        for gateway in self.gateways where try await self.ask(gateway).phase == .leaving {
            _ = try await self.ask(gateway, .rolloutFinish)
        }
        for gateway in self.gateways { try await self.settle(gateway) }
    }

    /// Has the hosts unload what no gateway uses; they refuse for a second after the last call.
    private func settle(_ gateway: String?) async throws {
        let end = ContinuousClock.now.advanced(by: .seconds(self.wait))
        while true {
            do {
                _ = try await self.ask(gateway, .rolloutSettle)
                return
            } catch let error as GatewayError where error.code == .failedPrecondition && .now < end {
                try await Task.sleep(for: .milliseconds(250))
            }
        }
    }

    private func show() async throws {
        for gateway in self.gateways {
            Terminal.print(RolloutReport.text(of: try await self.ask(gateway), at: Self.words(gateway)))
        }
    }

    // MARK: - Calls

    /// The gateways; nil is the one of `--endpoint`.
    private var gateways: [String?] { self.gateway.isEmpty ? [nil] : self.gateway }

    private func ask(
        _ gateway: String?,
        _ step: RolloutStep = .unspecified,
        checkpoint: String = "",
        share: Float = 0
    ) async throws -> RolloutDescription {
        var options = self.client
        if let gateway { options.endpoint = gateway }
        var answer = RolloutDescription()
        try await options.withClient {
            answer = try await $0.rollout(RolloutRequest(step: step, checkpoint: checkpoint, share: share))
        }
        return answer
    }

    private func wait(
        for gateway: String?,
        _ what: String,
        until isReached: (RolloutDescription) -> Bool
    ) async throws -> RolloutDescription {
        let end = ContinuousClock.now.advanced(by: .seconds(self.wait))
        var shown = ""
        while true {
            let now = try await self.ask(gateway)
            if isReached(now) { return now }
            let line = "\(Self.words(gateway)): \(RolloutReport.progress(of: now))"
            if line != shown { Terminal.print(line) }
            shown = line
            guard .now < end else {
                throw Settings.Failure(
                    "\(Self.words(gateway)): \(what) took more than \(self.wait) seconds; ask again with --status, wait longer with "
                        + "--wait, or go back with --back"
                )
            }
            try await Task.sleep(for: .milliseconds(200))
        }
    }

    private static func words(_ gateway: String?) -> String { gateway ?? "the gateway" }

    private static func words(_ checkpoint: LoadedCheckpoint) -> String {
        checkpoint.checkpoint.isEmpty ? checkpoint.fingerprint.fingerprintText : checkpoint.checkpoint
    }

    /// The share that `--canary` gives.
    private func share() throws -> Float {
        guard let text = self.canary else { return 0.05 }
        guard let share = RequestShare.parse(text) else {
            throw ValidationError("--canary is \"\(text)\"; give a share such as 5% or 0.05")
        }
        guard (0...1).contains(share) else { throw ValidationError("--canary is \(text); it must be from 0% to 100%") }
        return share
    }
}

/// A gateway's rollout for people.
enum RolloutReport {
    /// One line for each checkpoint, and what is waited for.
    static func text(of rollout: RolloutDescription, at gateway: String) -> String {
        let share = rollout.phase == .canary ? Double(rollout.share) : 0
        var lines = ["\(gateway): \(Self.name(of: rollout.phase))"]
        if let serving = rollout.serving { lines.append("  serves  \(Self.line(serving, share: 1 - share))") }
        if let other = rollout.other {
            lines.append(
                "  beside  \(Self.line(other, share: share)), on \(rollout.readyHosts) of \(rollout.hosts) hosts"
            )
        }
        if !rollout.detail.isEmpty { lines.append("  \(rollout.detail)") }
        return lines.joined(separator: "\n")
    }

    /// What a rollout waits for.
    static func progress(of rollout: RolloutDescription) -> String {
        switch rollout.phase {
        case .loading:
            rollout.detail.isEmpty ? "loading" : "loading, \(rollout.detail)"
        case .unspecified, .steady, .canary, .leaving:
            "\(rollout.other?.running ?? 0) requests run on the checkpoint that leaves"
        }
    }

    private static func line(_ checkpoint: LoadedCheckpoint, share: Double) -> String {
        let name = checkpoint.checkpoint.isEmpty ? "(as started)" : checkpoint.checkpoint
        let percent = (share * 1000).rounded() / 10
        return
            "\(name)  \(checkpoint.fingerprint.fingerprintText)  \(percent)% of new requests, \(checkpoint.running) running, "
            + "\(checkpoint.taken) taken"
    }

    private static func name(of phase: RolloutPhase) -> String {
        switch phase {
        case .unspecified: "unknown"
        case .steady: "no rollout"
        case .loading: "loading"
        case .canary: "canary"
        case .leaving: "leaving"
        }
    }
}
