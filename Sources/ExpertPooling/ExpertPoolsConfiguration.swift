// SPDX-License-Identifier: Apache-2.0

/// The bounds by which replicas are chosen, hedged, ejected and asked again, and by which layers give up.
public struct ExpertPoolsConfiguration: Sendable, Equatable {
    // MARK: Choice

    /// Calls that may be out to one replica.
    public var outstandingPerReplica = 64
    /// The zone whose replicas are preferred as long as one of them takes calls; nil prefers none.
    public var zone: String?
    /// Whether replicas of one pool may store weights in different types, so that answers depend on the replica.
    public var allowsMixedWeightTypes = false
    /// The type of token rows that is sent; a replica that does not accept it is mismatched.
    public var rowType = NumberType.float32

    // MARK: Layers

    /// What the encoder's layers wait for.
    ///
    /// A token that is dropped there is missing in every later step, through cross-attention, so more is tried.
    public var encoder = LayerPolicy(deadline: .seconds(5), attempts: 4, patience: .milliseconds(500))
    /// What the decoder's layers wait for.
    public var decoder = LayerPolicy(deadline: .seconds(2), attempts: 3, patience: .milliseconds(50))
    /// The longest deadlines of single layers, in the place of their stack's.
    public var layerDeadlines: [ExpertLayer: Duration] = [:]

    // MARK: Hedges

    /// The part of the calls that may be sent to a second replica while the first one is silent; 0 hedges never.
    public var hedgeFraction = 0.05
    /// Hedges that may be sent at once after a time without any.
    public var hedgeBurst = 16.0
    /// The shortest time before a call is hedged, however fast the pool is.
    public var shortestHedgeDelay: Duration = .microseconds(500)
    /// The time before a call is hedged as long as too few calls like it have been seen.
    public var unknownHedgeDelay: Duration = .milliseconds(100)
    /// Calls of a kind that must have been seen before their percentiles are believed.
    public var samplesToBelieve = 20

    // MARK: Retries

    /// Tokens of each pool's `RetryBudget`: a failure takes one, a success brings back a tenth, and retries pause while
    /// half of them or fewer are left.
    public var retryTokens = 100.0
    /// The wait before a call is tried again on a replica that it failed on; it doubles with each attempt.
    public var retryDelay: Duration = .milliseconds(5)

    // MARK: Ejection

    /// Failures in a row that eject a replica.
    public var failuresToEject = 3
    /// Bad replies in a row that eject a replica.
    public var badRepliesToEject = 1
    /// Calls in a row that another replica answered first, after a hedge, that eject a replica.
    public var overtakesToEject = 5
    /// How many times as long as its fastest sibling's a replica's calls must take to be ejected; 0 ejects nobody for it.
    public var slownessToEject = 3.0
    /// By how much longer than its fastest sibling's they must take besides.
    public var slownessMargin: Duration = .milliseconds(2)
    /// First time that an ejected replica is left alone; it doubles with each further ejection.
    public var firstEjection: Duration = .milliseconds(500)
    /// Longest time that an ejected replica is left alone.
    public var longestEjection: Duration = .seconds(30)
    /// Longest time between probes of a replica that does not answer them, or of one whose pool has nobody else.
    public var longestProbeInterval: Duration = .seconds(2)
    /// Answered calls in a row after which an ejection is forgotten, so that the next one starts short again.
    public var successesToForgive = 100
    /// Time before a failed question to a replica is asked again.
    public var describeRetry: Duration = .milliseconds(500)

    /// The values that are used where nothing else is said.
    public static let defaults = ExpertPoolsConfiguration()

    /// Creates the default configuration.
    public init() {}

    /// What a layer waits for.
    ///
    /// - Parameter layer: The layer.
    /// - Returns: The policy of its stack, with the layer's own deadline if it has one.
    public func policy(of layer: ExpertLayer) -> LayerPolicy {
        var policy = layer.isDecoder ? self.decoder : self.encoder
        if let deadline = self.layerDeadlines[layer] { policy.deadline = deadline }
        return policy
    }
}

/// How long the layers of a stack wait for their experts, and how much is tried meanwhile.
public struct LayerPolicy: Sendable, Equatable {
    /// The longest time from a layer's dispatch to its combination.
    public var deadline: Duration
    /// A shorter deadline that follows what is observed; nil keeps to ``deadline``.
    public var adaptive: AdaptiveDeadline?
    /// How often a call is sent in all, hedges not counted.
    public var attempts: Int
    /// How long calls wait for a pool that has just lost its last replica, counted from the loss; then they are dropped
    /// at once.
    public var patience: Duration

    /// Creates a policy.
    ///
    /// - Parameters:
    ///   - deadline: The longest time from a layer's dispatch to its combination.
    ///   - adaptive: A shorter deadline that follows what is observed.
    ///   - attempts: How often a call is sent in all.
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
/// A call that is given up counts with the time that it was given, so where all calls become slow the deadline grows with
/// them, up to the policy's own.
public struct AdaptiveDeadline: Sendable, Equatable {
    /// What the 99th percentile is multiplied by.
    public var multiple: Double
    /// The shortest deadline, however fast the pools are.
    public var shortest: Duration

    /// Creates an adaptive deadline.
    ///
    /// - Parameters:
    ///   - multiple: What the 99th percentile is multiplied by.
    ///   - shortest: The shortest deadline.
    public init(multiple: Double, shortest: Duration = .milliseconds(20)) {
        self.multiple = multiple
        self.shortest = shortest
    }
}
