// SPDX-License-Identifier: Apache-2.0

public import ExpertPooling
internal import RPCCore
public import RPCTransport
internal import ServiceKit
public import SwitchyardTypes
internal import TensorKernels

/// Which threads read and write the sockets of expert hosts.
public enum ExpertSockets: String, Sendable, Hashable, CaseIterable {
    /// As ``engine``, except while that thread has to wait for a processor; then another one.
    case auto
    /// The thread that waits for a layer's answers; another one while none waits.
    case engine
    /// Event loops, which hand answers over to the thread that waits.
    case eventLoops = "event-loops"
}

/// The expert hosts and how to reach them.
public struct ExpertClusterConfiguration: Sendable {
    /// The pools and where their replicas are.
    public var pools: [PoolSpecification]

    /// How replicas are chosen, hedged and ejected, and how long layers wait.
    public var choice = ExpertPoolsConfiguration.defaults

    /// How to connect to each replica.
    public var channel = RPCChannelConfiguration(
        limits: .dataPlane,
        reconnect: .dataPlane,
        timing: .dataPlane,
        // The pool decides which calls are retried, and on which replica.
        retry: .none,
        waitsWhileConnecting: false
    )

    /// How token rows travel to the hosts and back; a host that does not accept it is mismatched.
    public var wireType: DType {
        get { self.choice.rowType == .bfloat16 ? .bfloat16 : .float32 }
        set { self.choice.rowType = newValue == .bfloat16 ? .bfloat16 : .float32 }
    }

    /// How long the engine's threads look for what they wait for before they sleep.
    public var spin = GatewaySettings.table.compute.spin.defaultValue

    /// Which threads read and write the hosts' sockets; event loops that ``channel`` names are used in any case.
    public var sockets = GatewaySettings.table.pools.sockets.defaultValue

    /// Whether hosts must compute gradients; one that has no `Backward` is mismatched.
    var needsGradients = false

    /// Whether a file that lists replicas may name hosts off this machine when ``channel`` is not encrypted.
    public var allowsPlaintext = false

    /// How long a host may take to describe itself.
    ///
    /// Short, since an ejected host that does not answer is soon asked again.
    public var describeTimeout = Duration.seconds(1)

    /// How often names are looked up again; each address of a name is a replica.
    ///
    /// A lost connection brings the next lookup forward, to half a second after the last one.
    public var lookupInterval = GatewaySettings.table.pools.lookup.defaultValue

    /// How often files that list replicas are reread.
    public var fileInterval = Duration.milliseconds(500)

    /// Whether hot experts are placed on additional pools whose hosts hold them as spares.
    public var replicatesHotExperts = false

    /// When an expert counts as hot, and when it no longer does.
    public var planner = PlacementPlannerConfiguration.defaults

    /// How often the placement of hot experts is reviewed.
    public var planInterval = Duration.seconds(5)

    /// Bytes of experts that the gateway keeps loaded for its own opinion in audits.
    public var auditMemoryBytes = 256 << 20

    /// Whether rows wait for hosts that are gone, as in training, and are not dropped; for messages alone.
    var rowsWait = false

    /// Creates a configuration for some pools; everything else has its default.
    ///
    /// - Parameter pools: The pools and where their replicas are.
    public init(pools: [PoolSpecification]) {
        self.pools = pools
    }

    /// Whether replicas off this machine may be connected to.
    var mayLeaveThisMachine: Bool {
        if case .plaintext = self.channel.security { return self.allowsPlaintext }
        return true
    }

    /// Checks the choice's values against their limits.
    ///
    /// - Throws: ``GatewayError`` naming the first value that is outside its limits.
    func validate() throws(GatewayError) {
        let choice = self.choice
        let durations: [(String, Duration)] = [
            ("the encoder's layer deadline", choice.encoder.deadline),
            ("the decoder's layer deadline", choice.decoder.deadline),
            ("the encoder's shortest adaptive deadline", choice.encoder.adaptive?.shortest ?? .seconds(1)),
            ("the decoder's shortest adaptive deadline", choice.decoder.adaptive?.shortest ?? .seconds(1)),
        ]
        let layers = choice.layerDeadlines.sorted { $0.key < $1.key }
        for (name, value) in durations + layers.map({ ("the deadline of the layer \($0.key)", $0.value) })
        where value <= .zero {
            throw GatewayError(.configuration, "\(name) is \(value); it must be positive")
        }
        for (name, multiple) in [
            ("the encoder's", choice.encoder.adaptive?.multiple), ("the decoder's", choice.decoder.adaptive?.multiple),
        ] {
            guard let multiple, !(1...1000).contains(multiple) else { continue }
            throw GatewayError(
                .configuration,
                "\(name) adaptive deadline is \(multiple) times the 99th percentile; it must be from 1 to 1000"
            )
        }
        guard (0...1).contains(choice.hedgeFraction) else {
            throw GatewayError(
                .configuration,
                "the fraction of hedged calls is \(choice.hedgeFraction); it must be from 0 to 1"
            )
        }
        guard (0...1).contains(choice.auditFraction), choice.proofsToServe >= 1 else {
            throw GatewayError(
                .configuration,
                "the fraction of audited calls is \(choice.auditFraction) and the proofs of a caught host are "
                    + "\(choice.proofsToServe); they must be from 0 to 1, and at least 1"
            )
        }
        guard choice.encoder.attempts >= 1, choice.decoder.attempts >= 1, choice.outstandingPerReplica >= 1 else {
            throw GatewayError(.configuration, "attempts per call and calls per replica must be at least 1")
        }
    }
}
