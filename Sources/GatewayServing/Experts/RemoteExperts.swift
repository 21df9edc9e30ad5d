// SPDX-License-Identifier: Apache-2.0

public import Checkpoints
internal import ExpertPooling
public import SwitchModel
public import SwitchyardTypes
internal import Synchronization
internal import TensorKernels

/// The cluster's experts: each layer's rows go to the pools that hold their experts, in one grouped call per pool, all at
/// once, and come back within one deadline.
///
/// The configuration sets a layer's deadline (``ExpertClusterConfiguration/choice``). The deadlines of requests do not
/// shorten it, since a request that is about to expire would take its neighbours' tokens with it; a step that no
/// client waits for any more is cancelled as a whole.
public final class RemoteExperts: ExpertExecutor, Sendable {
    private let cluster: ExpertCluster
    private let fingerprint: UInt64
    private let rowType: DType
    private let bounds: [SparseLayer: LayerOutputBounds]
    private let memory = Mutex(LayerCallMemory())

    /// Creates an executor over a cluster.
    ///
    /// - Parameters:
    ///   - cluster: The expert hosts; the caller runs it.
    ///   - fingerprint: The fingerprint of the checkpoint that is served.
    ///   - bounds: How large outputs can be, by layer; rows beyond are refused, and rows of other layers only if they are
    ///     not finite.
    public init(cluster: ExpertCluster, fingerprint: UInt64, bounds: [SparseLayer: LayerOutputBounds] = [:]) {
        self.cluster = cluster
        self.fingerprint = fingerprint
        self.rowType = cluster.configuration.wireType
        self.bounds = bounds
    }

    /// Sends a layer's rows to their hosts.
    ///
    /// - Parameter request: The layer's work.
    /// - Returns: A handle for the outputs.
    public func begin(_ request: ExpertLayerRequest) -> any PendingExperts {
        self.begin(request, following: nil)
    }

    private func begin(_ request: ExpertLayerRequest, following trace: StepTrace?) -> any PendingExperts {
        let layer = request.layer
        let (assignments, unplaced, deadline) = self.cluster.assignments(of: request.plan.groups, in: layer)
        let bounds = self.bounds[layer]
        let calls = self.memory.withLock { memory in
            assignments.map { assignment in
                LayerCall(
                    assignment,
                    of: request,
                    fingerprint: self.fingerprint,
                    rowType: self.rowType,
                    bounds: bounds,
                    memory: &memory
                )
            }
        }
        return PendingLayer(
            sendingTo: self.cluster,
            layer: request.layer,
            assignments: assignments,
            calls: calls,
            unplaced: unplaced,
            deadline: deadline,
            trace: trace
        )
    }
}

extension RemoteExperts: TracedExperts {
    func begin(_ request: ExpertLayerRequest, trace: StepTrace) -> any PendingExperts {
        self.begin(request, following: trace)
    }
}
