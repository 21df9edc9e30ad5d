// SPDX-License-Identifier: Apache-2.0

import ArgumentParser
import Checkpoints
import Foundation
import GatewayServing
import ServiceKit
package import SwitchModel
import TensorKernels

/// Settings for reading a model, shared by the commands that load one.
package enum ModelSettings {
    /// `d_ff=1024;num_layers=24` as keys and values of `config.json`.
    ///
    /// - Parameters:
    ///   - texts: `KEY=VALUE` each.
    ///   - environment: Its `SWITCHYARD_OVERRIDE`, separated by semicolons, stands in where there are no texts.
    /// - Returns: Values by key.
    /// - Throws: ``Settings/Failure`` for a text without an equals sign; `CheckpointError` for a key that cannot be
    ///   overridden, or a value of another type.
    package static func overrides(
        _ texts: [String],
        environment: [String: String] = ProcessInfo.processInfo.environment
    ) throws -> [String: String] {
        let variable = environment[GatewaySettings.table.override.definition.variable] ?? ""
        let texts =
            texts.isEmpty
            ? Settings.parts(of: variable) : texts
        var overrides: [String: String] = [:]
        for text in texts {
            guard let override = GatewaySettings.override(text) else {
                throw Settings.Failure(
                    "the override is \"\(text)\"; it must be KEY=VALUE, such as num_decoder_layers=24"
                )
            }
            overrides[override.key] = override.value
        }
        try ModelConfiguration.check(overrides: overrides)
        return overrides
    }

    /// `checkpoint`, `unlimited`, `factor:1.25` or `floor:1.2`.
    ///
    /// - Parameter text: The policy as written, or nil.
    /// - Returns: The policy; `checkpoint` for nil.
    /// - Throws: ``Settings/Failure`` for anything else.
    package static func capacityPolicy(_ text: String?) throws -> CapacityPolicy {
        guard let text else { return .checkpoint }
        guard let policy = GatewaySettings.capacityPolicy(text) else {
            let allowed = GatewaySettings.table.capacity.definition.allowed
            throw Settings.Failure("capacity is \"\(text)\"; it must be \(allowed)")
        }
        return policy
    }

    /// Packs experts for shards, with all processors.
    ///
    /// - Parameter storage: How to keep the weights.
    /// - Returns: The packing for `CheckpointSharder`.
    package static func packing(_ storage: WeightStorage) -> ExpertPacking {
        ExpertPacking(storage: storage, pool: WorkPool(threads: Processors.count))
    }

    /// The folder of a model's name, which is a path or a hub id in the local Hugging Face cache.
    ///
    /// - Parameter name: Path or hub id.
    /// - Returns: The folder.
    /// - Throws: ``CheckpointError`` naming the places searched.
    package static func directory(_ name: String) throws -> String {
        try HubCache.resolve(name, environment: ProcessInfo.processInfo.environment)
    }
}
