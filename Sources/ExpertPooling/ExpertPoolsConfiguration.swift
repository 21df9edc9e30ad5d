// SPDX-License-Identifier: Apache-2.0

public import SwitchyardTypes

/// The limits by which replicas are chosen, hedged, ejected and probed, and by which layers give up.
public struct ExpertPoolsConfiguration: Sendable, Equatable {
    // MARK: Choice

    /// How the replica is chosen that gets a call.
    public var replicaChoice = ReplicaChoice.affinity
    /// How many times its fair share of a pool's work a replica may get before experts' preference for it yields; at least 1.
    public var affinityBound = 1.25
    /// How many times as long as its fastest sibling's a replica's calls must take for preferences to heed it.
    public var slownessToYield = 1.5
    /// How much longer than its fastest sibling's they must also take.
    public var slownessToYieldMargin: Duration = .microseconds(250)
    /// Calls that may be in flight to one replica.
    public var outstandingPerReplica = 64
    /// The zone whose replicas are preferred while one of them is free; nil prefers none.
    public var zone: String?
    /// Whether replicas of one pool may store weights in different types, so that answers depend on the replica.
    public var allowsMixedWeightTypes = false
    /// The types in which replicas may keep weights; nil for any.
    public var weightTypes: Set<DType>?
    /// The type of token rows that is sent; a replica that does not accept it is mismatched.
    public var rowType = DType.float32

    // MARK: Layers

    /// How long the encoder's layers wait, and how often they try.
    ///
    /// A token that is dropped there is missing in every later step, through cross-attention, so these layers try more.
    public var encoder = LayerPolicy(deadline: .seconds(5), attempts: 4, patience: .milliseconds(500))
    /// How long the decoder's layers wait, and how often they try.
    public var decoder = LayerPolicy(deadline: .seconds(2), attempts: 3, patience: .milliseconds(50))
    /// The longest deadlines of single layers, which override their stack's.
    public var layerDeadlines: [SparseLayer: Duration] = [:]

    // MARK: Hedges

    /// The fraction of calls that may be sent to a second replica while the first one is silent; 0 turns hedging off.
    public var hedgeFraction = 0.05
    /// Hedges that may be sent in a burst after a quiet time.
    public var hedgeBurst = 16.0
    /// The shortest time before a call is hedged, however fast the pool is.
    public var shortestHedgeDelay: Duration = .microseconds(500)
    /// The time before a call is hedged until enough similar calls have been seen.
    public var unknownHedgeDelay: Duration = .milliseconds(100)
    /// Similar calls that must have been seen before their percentiles are used.
    public var samplesToBelieve = 20

    // MARK: Retries

    /// Tokens of each pool's `RetryBudget`: a failure takes one, a success returns a tenth, and retries pause while
    /// half of them or fewer are left.
    public var retryTokens = 100.0
    /// The wait before a call is retried on the replica on which it failed; it doubles with each attempt.
    public var retryDelay: Duration = .milliseconds(5)

    // MARK: Audits

    /// The fraction of calls whose answers are compared with a second opinion, 0 to 1; 0 turns audits off.
    public var auditFraction = 0.01
    /// Calls in a row that a caught replica must answer with the right bits before it serves again; at least 1.
    public var proofsToServe = 20

    // MARK: Ejection

    /// Failures in a row that eject a replica.
    public var failuresToEject = 3
    /// Bad replies in a row that eject a replica.
    public var badRepliesToEject = 1
    /// Calls in a row that a replica sheds, without an answer in between, that eject it.
    public var shedsToEject = 20
    /// Calls in a row that another replica answered first, after a hedge, that eject a replica.
    public var overtakesToEject = 5
    /// How many times as long as its fastest sibling's a replica's calls must take for an ejection; 0 turns this off.
    public var slownessToEject = 3.0
    /// How much longer than its fastest sibling's they must also take.
    public var slownessMargin: Duration = .milliseconds(2)
    /// How long the first ejection lasts; each following one lasts twice as long.
    public var firstEjection: Duration = .milliseconds(500)
    /// How long an ejection lasts at most.
    public var longestEjection: Duration = .seconds(30)
    /// How long an ejection of a pool's last replica lasts at most, if it answers probes but misses the calls that follow.
    public var longestLastEjection: Duration = .seconds(10)
    /// Longest time between probes of a replica that does not answer, or whose pool has no other replica.
    public var longestProbeInterval: Duration = .seconds(2)
    /// Answered calls in a row after which earlier ejections are forgotten, so that the next one is short again.
    public var successesToForgive = 100
    /// Time before a replica that failed to describe itself is asked again; it doubles up to ``longestProbeInterval``.
    public var describeRetry: Duration = .milliseconds(500)

    /// The default values.
    public static let defaults = ExpertPoolsConfiguration()

    /// Creates the default configuration.
    public init() {}

    /// How long a layer waits, and how often it tries.
    ///
    /// - Parameter layer: The layer.
    /// - Returns: The policy of its stack, with the layer's own deadline if it has one.
    public func policy(of layer: SparseLayer) -> LayerPolicy {
        var policy = layer.stack == .decoder ? self.decoder : self.encoder
        if let deadline = self.layerDeadlines[layer] { policy.deadline = deadline }
        return policy
    }
}

/// How long the layers of a stack wait for their experts, and how often they try in that time.
public struct LayerPolicy: Sendable, Equatable {
    /// The longest time from a layer's dispatch to its combination.
    public var deadline: Duration
    /// A shorter deadline that follows observed times; nil always uses ``deadline``.
    public var adaptive: AdaptiveDeadline?
    /// How often a call is sent in total, not counting hedges.
    public var attempts: Int
    /// How long calls wait for a pool that has just lost its last ready replica, counted from the loss; after that they
    /// are dropped at once.
    public var patience: Duration

    /// Creates a policy.
    ///
    /// - Parameters:
    ///   - deadline: The longest time from a layer's dispatch to its combination.
    ///   - adaptive: A shorter deadline that follows observed times.
    ///   - attempts: How often a call is sent in total.
    ///   - patience: How long calls wait for a pool that has lost its last replica.
    public init(deadline: Duration, adaptive: AdaptiveDeadline? = nil, attempts: Int = 3, patience: Duration = .zero) {
        self.deadline = deadline
        self.adaptive = adaptive
        self.attempts = attempts
        self.patience = patience
    }
}

/// A deadline that is a multiple of the 99th percentile of the calls' times.
///
/// A call that misses it counts with the time that it had, so if all calls become slow the deadline grows with them,
/// up to the policy's own.
public struct AdaptiveDeadline: Sendable, Equatable {
    /// The factor on the 99th percentile.
    public var multiple: Double
    /// The shortest deadline, however fast the pools are.
    public var shortest: Duration

    /// Creates an adaptive deadline.
    ///
    /// - Parameters:
    ///   - multiple: The factor on the 99th percentile.
    ///   - shortest: The shortest deadline.
    public init(multiple: Double, shortest: Duration = .milliseconds(20)) {
        self.multiple = multiple
        self.shortest = shortest
    }
}
