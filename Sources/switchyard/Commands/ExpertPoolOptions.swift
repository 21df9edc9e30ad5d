// SPDX-License-Identifier: Apache-2.0

import ArgumentParser
import ExpertPooling
import GatewayServing
import ServiceKit
import SwitchyardTypes

/// How a gateway uses its expert pools: deadlines, hedges, retries, zones.
struct ExpertPoolOptions: ParsableArguments {
    /// The settings' keys.
    static let keys = [
        "encoder-deadline-ms", "decoder-deadline-ms", "layer-deadline", "encoder-deadline-multiple",
        "decoder-deadline-multiple", "shortest-deadline-ms", "encoder-patience-ms", "decoder-patience-ms", "attempts",
        "hedge-percent", "calls-per-replica", "zone", "mixed-weight-types", "lookup-seconds", "replicate-hot-experts",
    ]

    @Option(help: ArgumentHelp("How long an encoder layer waits for its experts. (default: 5000)", valueName: "ms"))
    var encoderDeadlineMs: String?

    @Option(help: ArgumentHelp("How long a decoder layer waits for its experts. (default: 2000)", valueName: "ms"))
    var decoderDeadlineMs: String?

    @Option(
        help: ArgumentHelp("Another deadline for one layer; may be given several times.", valueName: "encoder:1=ms")
    )
    var layerDeadline: [String] = []

    @Option(
        help: ArgumentHelp(
            "Let the encoder's deadlines follow the 99th percentile of the calls, times this; 0 keeps them. (default: 0)",
            valueName: "factor"
        )
    )
    var encoderDeadlineMultiple: String?

    @Option(help: ArgumentHelp("The same for the decoder. (default: 0)", valueName: "factor"))
    var decoderDeadlineMultiple: String?

    @Option(help: ArgumentHelp("Shortest deadline that follows the calls. (default: 20)", valueName: "ms"))
    var shortestDeadlineMs: String?

    @Option(
        help: ArgumentHelp(
            "How long the encoder waits for a pool that lost its last host. (default: 500)",
            valueName: "ms"
        )
    )
    var encoderPatienceMs: String?

    @Option(help: ArgumentHelp("The same for the decoder. (default: 50)", valueName: "ms"))
    var decoderPatienceMs: String?

    @Option(help: "Attempts of one call, hedges not counted. (default: 4 in the encoder, 3 in the decoder)")
    var attempts: String?

    @Option(help: "Calls in a hundred that may be hedged; 0 hedges none. (default: 5)")
    var hedgePercent: String?

    @Option(help: "Calls that may be out to one host. (default: 64)")
    var callsPerReplica: String?

    @Option(help: "This gateway's zone: hosts of the same zone are preferred.")
    var zone: String?

    @Flag(help: "Let hosts of one pool store weights in different types.")
    var mixedWeightTypes = false

    @Flag(help: "Place hot experts on further pools whose hosts hold them as spares; see `switchyard plan`.")
    var replicateHotExperts = false

    @Option(help: "Seconds between two lookups of a dns:/// target. (default: 5)")
    var lookupSeconds: String?

    /// The flags that were given.
    var flags: [String: String] {
        [
            "encoder-deadline-ms": self.encoderDeadlineMs, "decoder-deadline-ms": self.decoderDeadlineMs,
            "layer-deadline": self.layerDeadline.isEmpty ? nil : self.layerDeadline.joined(separator: ";"),
            "encoder-deadline-multiple": self.encoderDeadlineMultiple,
            "decoder-deadline-multiple": self.decoderDeadlineMultiple,
            "shortest-deadline-ms": self.shortestDeadlineMs, "encoder-patience-ms": self.encoderPatienceMs,
            "decoder-patience-ms": self.decoderPatienceMs, "attempts": self.attempts,
            "hedge-percent": self.hedgePercent, "calls-per-replica": self.callsPerReplica, "zone": self.zone,
            "mixed-weight-types": self.mixedWeightTypes ? "true" : nil, "lookup-seconds": self.lookupSeconds,
            "replicate-hot-experts": self.replicateHotExperts ? "true" : nil,
        ]
        .compactMapValues { $0 }
    }

    /// Puts the settings into a gateway's configuration.
    ///
    /// - Parameters:
    ///   - settings: Flags, environment and file.
    ///   - configuration: What to change.
    /// - Throws: `Settings.Failure` naming the setting that is wrong.
    static func apply(_ settings: Settings, to configuration: inout GatewayConfiguration) throws {
        var choice = configuration.cluster.choice
        choice.encoder.deadline = try Self.milliseconds("encoder-deadline-ms", settings, 1, choice.encoder.deadline)
        choice.decoder.deadline = try Self.milliseconds("decoder-deadline-ms", settings, 1, choice.decoder.deadline)
        choice.encoder.patience = try Self.milliseconds("encoder-patience-ms", settings, 0, choice.encoder.patience)
        choice.decoder.patience = try Self.milliseconds("decoder-patience-ms", settings, 0, choice.decoder.patience)
        let shortest = try Self.milliseconds("shortest-deadline-ms", settings, 1, .milliseconds(20))
        choice.encoder.adaptive = try Self.adaptive("encoder-deadline-multiple", settings, shortest)
        choice.decoder.adaptive = try Self.adaptive("decoder-deadline-multiple", settings, shortest)
        for text in try settings.strings("layer-deadline") ?? [] {
            let (layer, deadline) = try Self.layerDeadline(text)
            choice.layerDeadlines[layer] = deadline
        }
        choice.encoder.attempts = try settings.int("attempts", in: 1...16, default: choice.encoder.attempts)
        choice.decoder.attempts = try settings.int("attempts", in: 1...16, default: choice.decoder.attempts)
        choice.hedgeFraction = Double(try settings.int("hedge-percent", in: 0...100, default: 5)) / 100
        choice.outstandingPerReplica = try settings.int(
            "calls-per-replica",
            in: 1...4096,
            default: choice.outstandingPerReplica
        )
        choice.zone = try settings.string("zone")
        choice.allowsMixedWeightTypes = try settings.bool("mixed-weight-types")
        configuration.cluster.choice = choice
        configuration.cluster.replicatesHotExperts = try settings.bool("replicate-hot-experts")
        configuration.cluster.lookupInterval = .seconds(try settings.int("lookup-seconds", in: 1...86_400, default: 5))
    }

    private static func milliseconds(
        _ key: String,
        _ settings: Settings,
        _ least: Int,
        _ value: Duration
    ) throws -> Duration {
        let (seconds, attoseconds) = value.components
        let whole = Int(seconds) * 1000 + Int(attoseconds / 1_000_000_000_000_000)
        return .milliseconds(try settings.int(key, in: least...3_600_000, default: whole))
    }

    private static func adaptive(_ key: String, _ settings: Settings, _ shortest: Duration) throws -> AdaptiveDeadline?
    {
        let text = try settings.string(key, default: "0")
        guard let multiple = Double(text), multiple == 0 || (1...1000).contains(multiple) else {
            throw Settings.Failure("\(key) is \"\(text)\"; it must be 0, or from 1 to 1000, such as 4")
        }
        return multiple == 0 ? nil : AdaptiveDeadline(multiple: multiple, shortest: shortest)
    }

    /// Reads `encoder:1=500`.
    static func layerDeadline(_ text: String) throws -> (SparseLayer, Duration) {
        let failure = Settings.Failure(
            "layer-deadline is \"\(text)\"; it must be STACK:BLOCK=MILLISECONDS, such as decoder:3=500"
        )
        let sides = text.split(separator: "=", omittingEmptySubsequences: false)
        guard sides.count == 2, let milliseconds = Int(sides[1]), (1...3_600_000).contains(milliseconds) else {
            throw failure
        }
        let parts = sides[0].split(separator: ":", omittingEmptySubsequences: false)
        guard parts.count == 2, let stack = Stack(name: parts[0]), let block = Int(parts[1]), block >= 0 else {
            throw failure
        }
        return (SparseLayer(stack: stack, block: block), .milliseconds(milliseconds))
    }
}
