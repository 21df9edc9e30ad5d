// SPDX-License-Identifier: Apache-2.0

public import Checkpoints
internal import ExpertPooling
public import SwitchModel

/// How long the layers of each stack wait for the experts.
public struct LayerDeadlines: Sendable, Hashable {
    /// For each sparse layer of the encoder.
    ///
    /// Longer than the decoder's by default, since a token that is dropped there is missing in every later step, through
    /// cross-attention.
    public var encoder: Duration

    /// For each sparse layer of the decoder.
    public var decoder: Duration

    /// Two seconds in the encoder and one in the decoder.
    public static let defaults = LayerDeadlines()

    /// Sets both.
    ///
    /// - Parameters:
    ///   - encoder: For each sparse layer of the encoder.
    ///   - decoder: For each sparse layer of the decoder.
    public init(encoder: Duration = .seconds(2), decoder: Duration = .seconds(1)) {
        self.encoder = encoder
        self.decoder = decoder
    }

    /// The time for one layer.
    ///
    /// - Parameter stack: The layer's stack.
    /// - Returns: The time from the layer's dispatch to its combination.
    public subscript(stack: Stack) -> Duration {
        switch stack {
        case .encoder: self.encoder
        case .decoder: self.decoder
        }
    }
}

/// The cluster's experts: each layer's rows go to the pools that hold their experts, one grouped call a pool, all at
/// once, and come back inside one deadline.
///
/// The deadline of a layer is the configuration's. The deadlines of requests do not shorten it, since a request that is
/// about to expire would take its neighbours' tokens with it; a step that nobody waits for any more is cancelled whole.
public final class RemoteExperts: ExpertExecutor, Sendable {
    private let cluster: ExpertCluster
    private let fingerprint: UInt64
    private let deadlines: LayerDeadlines

    /// Creates an executor over a cluster.
    ///
    /// - Parameters:
    ///   - cluster: The expert hosts; somebody runs it.
    ///   - fingerprint: The fingerprint of the checkpoint that is served.
    ///   - deadlines: How long layers wait.
    public init(cluster: ExpertCluster, fingerprint: UInt64, deadlines: LayerDeadlines = .defaults) {
        self.cluster = cluster
        self.fingerprint = fingerprint
        self.deadlines = deadlines
    }

    /// Sends a layer's rows to their hosts.
    ///
    /// - Parameter request: The layer's work.
    /// - Returns: A handle for the outputs.
    public func begin(_ request: ExpertLayerRequest) -> any PendingExperts {
        let deadline = ContinuousClock.now.advanced(by: self.deadlines[request.layer.stack])
        let pending = PendingLayer(cluster: self.cluster, layer: request.layer, deadline: deadline)
        let (assignments, unplaced) = self.cluster.assignments(of: request.plan.groups, in: request.layer)
        pending.drop(rows: unplaced, reason: .unavailable)
        for assignment in assignments {
            pending.send(LayerCall(assignment, of: request, fingerprint: self.fingerprint))
        }
        return pending
    }
}
