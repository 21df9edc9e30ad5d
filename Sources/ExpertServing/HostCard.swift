// SPDX-License-Identifier: Apache-2.0

internal import Checkpoints
internal import ServiceKit
internal import SwitchModel
internal import SwitchyardProtos
internal import SwitchyardTypes
internal import TensorKernels

/// A host's description of itself.
struct HostCard: Sendable {
    private let fixed: HostDescription
    private let start = ContinuousClock.now

    /// Collects the values that do not change while the host runs.
    ///
    /// - Parameters:
    ///   - shards: The folders.
    ///   - held: The loaded experts.
    ///   - weightType: How their weights are kept.
    ///   - weightBytes: Memory that their weights take.
    ///   - configuration: The host's configuration.
    ///   - maxMessageBytes: The longest message that the transport accepts.
    ///   - instance: The process's id (``makeInstanceID()``).
    init(
        shards: HostShards,
        held: [SparseLayer: [Int]],
        weightType: DType?,
        weightBytes: Int,
        configuration: ExpertHostConfiguration,
        maxMessageBytes: Int,
        instance: String
    ) {
        var description = HostDescription()
        description.modelFingerprint = shards.first.fingerprint
        description.shard = shards.name
        description.held = held.sorted { $0.key < $1.key }
            .map { layer, experts in
                LayerExperts(
                    stack: WireStack(layer.stack),
                    layer: UInt32(layer.block),
                    experts: experts.map { UInt32($0) }
                )
            }
        description.modelWidth = UInt32(shards.first.configuration.modelWidth)
        description.weightDType = weightType.map { WireDType($0) } ?? .unspecified
        description.acceptedDTypes = ForwardCheck.acceptedTypes
        description.maxRowsPerCall = UInt64(configuration.maxRowsPerCall)
        description.maxMessageBytes = UInt64(maxMessageBytes)
        description.version = SoftwareVersion.current
        description.kernels = KernelReport.describe()
        description.zone = configuration.zone ?? ""
        description.weightBytes = UInt64(weightBytes)
        description.instanceID = instance
        self.fixed = description
    }

    /// A new random id of 128 bits, in hexadecimal digits.
    static func makeInstanceID() -> String {
        var source = SystemRandomNumberGenerator()
        return [source.next(), source.next()].map(\.fingerprintText).joined()
    }

    /// The current description.
    ///
    /// - Parameter load: How busy the host is.
    /// - Returns: The whole message.
    func description(load: HostLoad) -> HostDescription {
        var description = self.fixed
        description.load = load
        description.uptimeSeconds = UInt64(self.start.duration(to: .now).components.seconds)
        return description
    }
}
