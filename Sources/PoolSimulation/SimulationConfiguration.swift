// SPDX-License-Identifier: Apache-2.0

internal import BatchScheduling
package import ExpertPooling
package import SwitchyardTypes

/// What happens to the hosts of a simulated cluster.
package enum SimulationScenario: String, Sendable, Hashable, CaseIterable {
    /// Nothing.
    case calm
    /// Every second a host dies: its connections break, further ones are refused, and it comes back cold.
    case crash
    /// Every two seconds a host stands still for a second, its connections open.
    case hang
    /// Some hosts are always slow, and on all of them some calls take very long.
    case stragglers
    /// Hosts are drained and restarted in turn.
    case rolling
    /// Every three seconds a rack of hosts cannot be reached for a while.
    case partition
    /// Some experts are far more popular than others, sixteen times as many sequences are decoded, so that rows count and
    /// not only the reading of weights, and the hosts hold a further pool's experts.
    case hot
    /// Nothing, but four gateways share two hosts, which hold the same eight experts of each layer.
    case gateways

    /// The variants that are worth comparing.
    package var variants: [SimulationVariant] {
        switch self {
        case .calm: [.everything, .noHedges, .noAffinity]
        case .crash, .rolling: [.everything, .noHedges, .oneReplica]
        case .hang, .partition: [.everything, .noHedges, .noEjection, .neither, .oneReplica]
        case .stragglers: [.everything, .noHedges, .noEjection, .neither, .noAffinity]
        case .hot: [.everything, .noPlan, .noAffinity]
        case .gateways: [.everything, .noAffinity]
        }
    }
}

/// The defences that the gateways may use.
package enum SimulationVariant: String, Sendable, Hashable, CaseIterable {
    /// Every defence that the machine has.
    case everything
    /// No call is hedged.
    case noHedges = "no hedges"
    /// No host is ejected.
    case noEjection = "no ejection"
    /// Neither.
    case neither
    /// A layer's rows for a pool go to the less busy of two replicas, whatever their experts.
    case noAffinity = "no affinity"
    /// Each pool has one host.
    case oneReplica = "one replica"
    /// Hot experts stay where they are; only different from ``everything`` in ``SimulationScenario/hot``.
    case noPlan = "no plan"
}

/// A model, reduced to its experts' work and messages.
package struct SimulatedModel: Sendable, Equatable {
    /// Sparse layers of the encoder.
    package var encoderLayers: Int
    /// Sparse layers of the decoder.
    package var decoderLayers: Int
    /// Experts of each layer.
    package var experts: Int
    /// Width of a token row.
    package var width: Int
    /// Width of an expert's inner layer.
    package var innerWidth: Int
    /// Bytes of one weight.
    package var weightBytes: Int

    /// Switch-C, a model of 1.57 trillion parameters.
    ///
    /// 2,048 experts in each of 15 + 15 layers, 2,080 wide, experts 6,144 (W. Fedus, B. Zoph, N. Shazeer, Switch
    /// Transformers, 2022, table 9, https://arxiv.org/abs/2101.03961), weights in bfloat16.
    package static let switchC = SimulatedModel(
        encoderLayers: 15,
        decoderLayers: 15,
        experts: 2048,
        width: 2080,
        innerWidth: 6144,
        weightBytes: 2
    )

    /// google/switch-base-8, as its `config.json` says.
    ///
    /// 8 experts in each of 6 + 6 layers, 768 wide, experts 3,072, weights in float32.
    package static let switchBase8 = SimulatedModel(
        encoderLayers: 6,
        decoderLayers: 6,
        experts: 8,
        width: 768,
        innerWidth: 3072,
        weightBytes: 4
    )

    /// Parameters of all experts.
    package var expertParameters: Int {
        (self.encoderLayers + self.decoderLayers) * self.experts * 2 * self.width * self.innerWidth
    }

    /// The sparse layers, the encoder's first.
    package var layers: [SparseLayer] {
        (0..<self.encoderLayers).map { SparseLayer(stack: .encoder, block: $0) }
            + (0..<self.decoderLayers).map { SparseLayer(stack: .decoder, block: $0) }
    }
}

/// How fast hosts, gateways and the network between them are.
package struct SimulatedMachines: Sendable, Equatable {
    /// Bytes of weights that a host reads per second.
    package var weightBytesPerSecond = 200e9
    /// Floating-point operations per second.
    package var operationsPerSecond = 2e12
    /// Fixed cost of a call, seconds.
    package var callSeconds = 40e-6
    /// Spread of a call's time: the deviation of its logarithm.
    package var spread = 0.15
    /// Calls that may wait at a host; further ones are refused.
    package var queueLimit = 256
    /// How long an idle host may wait for a call that it could compute together with those that it has, seconds.
    package var batchWindow = 1e-3
    /// The slowdown factor of calls in the first second after a start.
    package var coldFactor = 3.0
    /// Time of the gateway's own part of a layer, seconds: attention, routing, norms.
    package var gatewayLayerSeconds = 350e-6
    /// Time of the rest of a step: the logits and the choice of tokens.
    package var gatewayStepSeconds = 700e-6
    /// One way through the network, seconds.
    package var latency = 40e-6
    /// Spread of that.
    package var jitter = 0.3
    /// Bytes that a link carries per second.
    package var linkBytesPerSecond = 3.1e9
    /// Silence after which a dead connection is noticed, seconds.
    package var keepalive = 3.0
    /// First wait before reconnecting, seconds; it grows by 1.6 each time.
    package var firstReconnect = 0.05
    /// Longest such wait.
    package var longestReconnect = 1.0
    /// How long a host may take to describe itself, seconds.
    package var describeTimeout = 2.0

    /// The defaults.
    package init() {}

    /// The queue of a host that has just started.
    var admission: HostAdmission {
        HostAdmission(
            limits: .init(calls: self.queueLimit, rows: 1 << 40),
            batching: .init(window: .nanoseconds(Int64(self.batchWindow * 1e9)))
        )
    }
}

/// A simulation that cannot be run, with the requested value and the allowed ones.
package struct SimulationError: Error, Sendable, Hashable, CustomStringConvertible {
    /// The whole message.
    package var description: String
}

/// One simulated cluster and its work.
package struct SimulationConfiguration: Sendable {
    /// The model.
    package var model = SimulatedModel.switchC
    /// Expert hosts.
    package var hosts = 256
    /// Hosts of each pool.
    package var replicas = 2
    /// Gateways, each with its own view of the hosts.
    package var gateways = 1
    /// Steps of each gateway.
    package var steps = 2000
    /// Steps at the beginning that statistics leave out.
    package var warmUp = 50
    /// Seed of the random numbers.
    package var seed: UInt64 = 1
    /// Sequences that a gateway decodes at once: the rows of a decoder layer.
    package var sequences = 32
    /// Tokens of an input: the rows of an encoder layer for one sequence.
    package var inputTokens = 64
    /// Tokens of an output, after which a sequence makes room for the next.
    package var outputTokens = 64
    /// How unevenly tokens go to the experts: the power with which popularity falls with rank.
    package var skew = 0.5
    /// What happens to the hosts.
    package var scenario = SimulationScenario.calm
    /// The defences that the gateways may use.
    package var variant = SimulationVariant.everything
    /// When faults end, seconds of simulated time; nil never.
    package var faultsEnd: Double?
    /// How fast everything is.
    package var machines = SimulatedMachines()
    /// The gateways' bounds, before ``variant`` removes some of them.
    package var pools: ExpertPoolsConfiguration = {
        var pools = ExpertPoolsConfiguration.defaults
        // Nothing is computed, so there are no bits to compare.
        pools.auditFraction = 0
        return pools
    }()
    /// When hot experts are sent elsewhere too.
    package var planner = PlacementPlannerConfiguration.defaults

    /// A cluster of 256 hosts for a trillion parameters, on which nothing happens.
    package init() {}

    /// The cluster of a scenario, and what happens to it: the one of 256 hosts, or a small one for several gateways.
    ///
    /// - Parameters:
    ///   - scenario: What happens.
    ///   - variant: The defences that the gateways may use.
    package init(_ scenario: SimulationScenario, _ variant: SimulationVariant) {
        self.scenario = scenario
        self.variant = variant
        guard scenario == .gateways else { return }
        self.model = .switchBase8
        self.hosts = 2
        self.gateways = 4
        self.sequences = 8
        // A host of a few processors: reading weights is what it does.
        self.machines.weightBytesPerSecond = 50e9
    }

    /// Rows of a decoder layer.
    var decoderRows: Int { self.scenario == .hot ? 16 * self.sequences : self.sequences }

    /// Pools that the hosts make.
    var poolCount: Int { max(1, self.hosts / max(1, self.replicas)) }

    /// Checks that the simulation can be run.
    ///
    /// - Throws: ``SimulationError`` naming the value and what is allowed.
    package func check() throws(SimulationError) {
        let bounds: [(name: String, value: Int, range: ClosedRange<Int>)] = [
            ("hosts", self.hosts, 1...65_535), ("replicas", self.replicas, 1...max(1, self.hosts)),
            ("gateways", self.gateways, 1...64), ("steps", self.steps, 1...10_000_000),
            ("experts", self.model.experts, self.poolCount...65_536), ("sequences", self.sequences, 1...65_536),
            ("input tokens", self.inputTokens, 1...65_536), ("output tokens", self.outputTokens, 1...65_536),
            ("encoder layers", self.model.encoderLayers, 0...1024),
            ("decoder layers", self.model.decoderLayers, 1...1024), ("width", self.model.width, 1...1_000_000),
            ("inner width", self.model.innerWidth, 1...1_000_000),
            ("warm-up steps", self.warmUp, 0...max(0, self.steps - 1)),
        ]
        for bound in bounds where !bound.range.contains(bound.value) {
            throw SimulationError(
                description: "\(bound.name) is \(bound.value), but must be from \(bound.range.lowerBound) to "
                    + "\(bound.range.upperBound)"
            )
        }
        guard self.skew >= 0, self.skew <= 8 else {
            throw SimulationError(description: "skew is \(self.skew), but must be from 0 to 8")
        }
    }

    /// The gateways' bounds under the variant.
    var effectivePools: ExpertPoolsConfiguration {
        var pools = self.pools
        if self.variant == .noAffinity { pools.replicaChoice = .twoChoices }
        if self.variant == .noHedges || self.variant == .neither { pools.hedgeFraction = 0 }
        if self.variant == .noEjection || self.variant == .neither {
            pools.failuresToEject = .max
            pools.badRepliesToEject = .max
            pools.overtakesToEject = .max
            pools.slownessToEject = 0
        }
        return pools
    }
}
