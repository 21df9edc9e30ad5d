// SPDX-License-Identifier: Apache-2.0

import ArgumentParser
import BatchScheduling
import CommandKit
import GatewayServing
import ServiceKit

/// How a gateway schedules requests and computes.
struct SchedulingOptions: ParsableArguments {
    /// The settings' keys.
    static let keys = [
        "threads", "pin-threads", "batch-slots", "queue-limit", "encode-tokens", "encode-ms-per-step", "overlap",
    ]

    @Option(help: "Compute threads. (default: all processors)")
    var threads: String?

    @Flag(help: "Keep each compute thread on a processor of its own, where nothing else computes on them.")
    var pinThreads = false

    @Option(help: "Decoder rows that run at once. (default: 32)")
    var batchSlots: String?

    @Option(help: "Requests that may wait; one more is refused. (default: 64)")
    var queueLimit: String?

    @Option(help: "Input tokens that join in one step. (default: 2048)")
    var encodeTokens: String?

    @Option(
        help: ArgumentHelp(
            "By how much encoding new requests may lengthen a step while others decode. (default: 50)",
            valueName: "ms"
        )
    )
    var encodeMsPerStep: String?

    @Option(
        help: ArgumentHelp(
            "Let two halves of a decoder step take turns, to hide the wait for experts: auto, on or off. (default: auto)",
            valueName: "mode"
        )
    )
    var overlap: String?

    /// The flags that were given.
    var flags: [String: String?] {
        [
            "threads": self.threads, "pin-threads": self.pinThreads ? "true" : nil, "batch-slots": self.batchSlots,
            "queue-limit": self.queueLimit,
            "encode-tokens": self.encodeTokens, "encode-ms-per-step": self.encodeMsPerStep, "overlap": self.overlap,
        ]
    }

    /// Puts the settings into a configuration.
    ///
    /// - Parameters:
    ///   - settings: Flags, environment and file.
    ///   - configuration: What to change.
    /// - Throws: ``Settings/Failure`` for a value that is none or out of bounds.
    static func apply(_ settings: Settings, to configuration: inout GatewayConfiguration) throws {
        configuration.threads = try settings.int("threads", in: 1...1024, default: Processors.count)
        configuration.pinsThreads = try settings.bool("pin-threads")
        var engine = configuration.engine
        engine.scheduler.batchSlots = try settings.int(
            "batch-slots",
            in: 1...4096,
            default: engine.scheduler.batchSlots
        )
        engine.scheduler.queueLimit = try settings.int(
            "queue-limit",
            in: 1...1_000_000,
            default: engine.scheduler.queueLimit
        )
        engine.scheduler.encodeTokensPerStep = try settings.int(
            "encode-tokens",
            in: 1...1_000_000,
            default: engine.scheduler.encodeTokensPerStep
        )
        engine.encodeTimePerStep = .milliseconds(
            try settings.int("encode-ms-per-step", in: 0...60_000, default: 50)
        )
        let text = try settings.string("overlap", default: engine.overlap.rawValue)
        guard let overlap = EngineConfiguration.Overlap(rawValue: text) else {
            throw Settings.Failure("overlap is \"\(text)\"; give auto, on or off")
        }
        engine.overlap = overlap
        configuration.engine = engine
    }
}
