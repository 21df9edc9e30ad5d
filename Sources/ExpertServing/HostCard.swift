// SPDX-License-Identifier: Apache-2.0

internal import Checkpoints
internal import ServiceKit
internal import SwitchModel
internal import SwitchyardProtos
internal import TensorKernels

/// What a host says about itself.
struct HostCard: Sendable {
    private let fixed: HostDescription
    private let start = ContinuousClock.now

    /// Collects what does not change while the host runs.
    ///
    /// - Parameters:
    ///   - shards: The folders.
    ///   - held: The experts that were loaded.
    ///   - weightBytes: Memory that their weights take.
    ///   - configuration: What the host was told.
    ///   - maxMessageBytes: The longest message that the transport takes.
    init(
        shards: HostShards,
        held: [SparseLayer: [Int]],
        weightBytes: Int,
        configuration: ExpertHostConfiguration,
        maxMessageBytes: Int
    ) {
        var description = HostDescription()
        description.modelFingerprint = shards.first.fingerprint
        description.shard = shards.name
        description.held = held.sorted { $0.key < $1.key }
            .map { layer, experts in
                LayerExperts(
                    stack: StackMessage(layer.stack),
                    layer: UInt32(layer.block),
                    experts: experts.map { UInt32($0) }
                )
            }
        description.modelWidth = UInt32(shards.first.configuration.modelWidth)
        description.weightDType = Self.weightDType(shards, held: held, storage: configuration.storage)
        description.acceptedDTypes = [.float32]
        description.maxRowsPerCall = UInt64(configuration.maxRowsPerCall)
        description.maxMessageBytes = UInt64(maxMessageBytes)
        description.version = SoftwareVersion.current
        description.kernels = KernelReport.describe()
        description.zone = configuration.zone ?? ""
        description.weightBytes = UInt64(weightBytes)
        self.fixed = description
    }

    /// The description at this moment.
    ///
    /// - Parameter load: How busy the host is.
    /// - Returns: The whole message.
    func description(load: HostLoad) -> HostDescription {
        var description = self.fixed
        description.load = load
        description.uptimeSeconds = UInt64(self.start.duration(to: .now).components.seconds)
        return description
    }

    private static func weightDType(
        _ shards: HostShards,
        held: [SparseLayer: [Int]],
        storage: WeightStorage
    ) -> DType {
        switch storage {
        case .float32:
            return .float32
        case .bfloat16:
            return .bfloat16
        case .int8:
            return .unspecified
        case .checkpoint:
            guard let (layer, experts) = held.min(by: { $0.key < $1.key }), let expert = experts.first,
                let checkpoint = shards.checkpoint(holding: expert, of: layer),
                let tensor = try? checkpoint.tensor(.expert(layer, expert: expert, .wi))
            else {
                return .unspecified
            }
            return tensor.dtype == .bfloat16 ? .bfloat16 : .float32
        }
    }
}
