// SPDX-License-Identifier: Apache-2.0

import Checkpoints
import Foundation
import ServiceKit
package import SwitchModel

/// The folder with the parts of a model that a local cluster runs on.
package struct ShardWorkspace {
    /// The folder with `gateway` and the pools.
    package let folder: String
    /// The pools' names, which are folders of ``folder``.
    package let pools: [String]
    private let isTemporary: Bool

    /// Cuts a model into parts, or finds the parts of an earlier run.
    ///
    /// - Parameters:
    ///   - model: Path or hub id.
    ///   - pools: Number of expert shards.
    ///   - folder: Where to keep the parts; nil for a temporary folder.
    ///   - packing: How to pack the experts; nil leaves them as they are.
    /// - Returns: The workspace.
    /// - Throws: ``CheckpointError`` where the model cannot be cut; ``ChildProcessError`` where the folder holds other parts.
    package static func prepare(
        model: String,
        pools: Int,
        folder: String?,
        packing: WeightStorage? = nil
    ) throws -> ShardWorkspace {
        let directory = try ModelSettings.directory(model)
        if let folder, FileManager.default.fileExists(atPath: "\(folder)/placement.json") {
            let placement = try PlacementFile.load(directory: folder)
            guard placement.pools.count == pools else {
                throw ChildProcessError(
                    description: "\(folder) holds \(placement.pools.count) pools, but \(pools) are wanted; "
                        + "remove it or name another --shards folder"
                )
            }
            let isPacked = try placement.pools.contains { pool in
                try ShardManifest.load(directory: "\(folder)/\(pool.directory)")?.packing != nil
            }
            guard isPacked == (packing != nil) else {
                throw ChildProcessError(
                    description: "\(folder) holds shards that are \(isPacked ? "" : "not ")packed, and --packed is "
                        + "\(isPacked ? "not " : "")given; remove it or name another --shards folder"
                )
            }
            return ShardWorkspace(folder: folder, pools: placement.pools.map(\.name), isTemporary: false)
        }
        let target =
            folder
            ?? FileManager.default.temporaryDirectory.appendingPathComponent("switchyard-shards-\(UUID().uuidString)")
            .path
        let bar = ProgressBar()
        let placement = try CheckpointSharder.shard(
            model: directory,
            output: target,
            pools: pools,
            packing: packing.map { ModelSettings.packing($0) }
        ) { progress in
            bar.show(progress)
        }
        return ShardWorkspace(folder: target, pools: placement.pools.map(\.name), isTemporary: folder == nil)
    }

    /// Removes the folder if it is temporary.
    package func discard() {
        if self.isTemporary { try? FileManager.default.removeItem(atPath: self.folder) }
    }
}
