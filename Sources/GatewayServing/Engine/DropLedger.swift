// SPDX-License-Identifier: Apache-2.0

internal import Checkpoints
internal import RPCCore
internal import SwitchModel
public import SwitchyardTypes

/// How many dropped tokens a request accepts: tokens to which a sparse layer's experts did not contribute.
public struct DropPolicy: Sendable, Hashable {
    /// Whether the request fails as soon as one of its tokens is dropped for any reason but capacity.
    public var strict: Bool

    /// The largest fraction of its routed tokens that hosts may lose (any reason but capacity); unlimited if it is
    /// missing.
    public var maxDroppedFraction: Float?

    /// Whether the fraction is the gateway's, because the request named none.
    public var isGatewayLimit: Bool

    /// Accepts any number of dropped tokens.
    public static let allow = DropPolicy()

    /// Creates a policy.
    ///
    /// - Parameters:
    ///   - strict: Whether a dropped token ends the request.
    ///   - maxDroppedFraction: The largest fraction of dropped tokens.
    ///   - isGatewayLimit: Whether the fraction is the gateway's own.
    public init(strict: Bool = false, maxDroppedFraction: Float? = nil, isGatewayLimit: Bool = false) {
        self.strict = strict
        self.maxDroppedFraction = maxDroppedFraction
        self.isGatewayLimit = isGatewayLimit
    }
}

extension DropPolicy {
    /// What the limit is called where it is set.
    fileprivate var limitName: String {
        self.isGatewayLimit ? "the gateway's max-dropped-fraction" : "drop_policy.max_dropped_fraction"
    }
}

/// Tokens of one request that were dropped at one sparse layer for one reason.
public struct DroppedTokens: Sendable, Hashable {
    /// The sparse layer.
    public var layer: SparseLayer
    /// Why.
    public var reason: DropReason
    /// How many.
    public var count: Int

    /// Creates an entry.
    ///
    /// - Parameters:
    ///   - layer: The sparse layer.
    ///   - reason: Why.
    ///   - count: How many.
    public init(layer: SparseLayer, reason: DropReason, count: Int) {
        self.layer = layer
        self.reason = reason
        self.count = count
    }
}

/// One request's count of routed and dropped tokens.
struct DropLedger: Sendable, Equatable {
    private struct Place: Hashable {
        let layer: SparseLayer
        let reason: DropReason
    }

    /// Tokens times sparse layers so far.
    private(set) var routed = 0

    private var counts: [Place: Int] = [:]

    /// Drops that the request's own routes asked for: no host lost them, and no policy judges them.
    private var given: [Place: Int] = [:]

    /// Tokens were routed, dropped or not.
    mutating func routed(_ count: Int) {
        self.routed += count
    }

    /// Tokens among those routed were dropped.
    mutating func dropped(_ count: Int, layer: SparseLayer, reason: DropReason) {
        if count > 0 {
            self.counts[Place(layer: layer, reason: reason), default: 0] += count
        }
    }

    /// Tokens among those routed were dropped because the request's routes say so.
    mutating func droppedAsGiven(_ count: Int, layer: SparseLayer, reason: DropReason) {
        self.given[Place(layer: layer, reason: reason), default: 0] += count
    }

    /// Adds what happened to all tokens of a call of the model.
    mutating func add(_ record: RoutingRecord) {
        self.routed(record.routedCount)
        for (drop, count) in record.drops {
            self.dropped(count, layer: drop.layer, reason: drop.reason)
        }
    }

    /// All drops, by layer and then by reason.
    var entries: [DroppedTokens] {
        Self.sorted(self.counts.merging(self.given, uniquingKeysWith: +))
    }

    private static func sorted(_ counts: [Place: Int]) -> [DroppedTokens] {
        counts.map { DroppedTokens(layer: $0.key.layer, reason: $0.key.reason, count: $0.value) }
            .sorted { ($0.layer, $0.reason.rawValue) < ($1.layer, $1.reason.rawValue) }
    }

    /// Tokens that hosts lost so far: dropped for any reason but capacity.
    var lostCount: Int { self.counts.reduce(0) { $1.key.reason == .capacity ? $0 : $0 + $1.value } }

    /// How the request must end if it has broken its policy.
    ///
    /// A fraction may still fall under its limit as more tokens are routed, so it counts as broken only once that is
    /// impossible; at the end it is judged as it stands.
    ///
    /// - Parameters:
    ///   - policy: The request's policy.
    ///   - coming: How many more tokens, times sparse layers, the request may route; 0 at its end.
    /// - Returns: Nil while the policy is kept or still can be.
    func violation(of policy: DropPolicy, coming: Int = 0) -> RPCError? {
        guard let worst = self.worstLoss else {
            return nil
        }
        if policy.strict {
            return Self.strictViolation(at: worst.layer, for: worst.reason)
        }
        let total = self.routed + coming
        guard let limit = policy.maxDroppedFraction, total > 0 else {
            return nil
        }
        let fraction = Float(self.lostCount) / Float(total)
        guard fraction > limit else {
            return nil
        }
        return RPCError(
            worst.reason.statusCode,
            "\(self.lostCount) of \(coming > 0 ? "at most " : "")\(total) routed tokens were lost by expert hosts; "
                + "the fraction \(fraction) exceeds \(policy.limitName) \(limit); "
                + "most often: \(worst.count) at \(worst.layer.words) for \(worst.reason); try again, or accept a larger "
                + "fraction\(policy.isGatewayLimit ? " with drop_policy.max_dropped_fraction" : "")"
        )
    }

    /// The end of a request under a strict policy that lost tokens.
    static func strictViolation(at layer: SparseLayer, for reason: DropReason) -> RPCError {
        RPCError(
            reason.statusCode,
            "a token was dropped at \(layer.words) for \(reason) and drop_policy.strict is set; "
                + "try again, or leave it unset to accept a degraded answer"
        )
    }

    /// Where most tokens were lost to hosts.
    private var worstLoss: DroppedTokens? {
        // The first of equals: the order of the entries is fixed, so the message is too.
        Self.sorted(self.counts).filter { $0.reason != .capacity }
            .reduce(nil) { best, entry in
                guard let best, best.count >= entry.count else {
                    return entry
                }
                return best
            }
    }
}

extension SparseLayer {
    /// The layer's name in messages.
    var words: String { "\(self.stack) layer \(self.block)" }
}

extension DropReason {
    /// The status of a request that its policy ends for this reason.
    var statusCode: Status.Code {
        switch self {
        case .timeout: .deadlineExceeded
        case .capacity: .resourceExhausted
        case .unavailable, .overloaded, .badReply: .unavailable
        }
    }
}
