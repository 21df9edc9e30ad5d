// SPDX-License-Identifier: Apache-2.0

package import Checkpoints
import Foundation
import GatewayServing
import ServiceKit
package import SwitchModel
import SwitchyardTypes

/// The folder with the parts of a model that a local cluster runs on.
package struct ShardWorkspace {
    /// The folder with `gateway` and the pools.
    package let folder: String
    /// The pools' names, which are folders of ``folder``.
    package let pools: [String]
    private let scratch: ScratchFolder?

    /// Cuts a model into parts, or finds the parts of an earlier run.
    ///
    /// - Parameters:
    ///   - model: Path or hub id.
    ///   - pools: Number of expert shards.
    ///   - folder: Where to keep the parts; nil for a temporary folder.
    ///   - packing: How to pack the experts; nil leaves them as they are.
    ///   - overrides: Configuration keys to override.
    ///   - adapter: A LoRA adapter to merge, named like the model.
    /// - Returns: The workspace.
    /// - Throws: ``CheckpointError`` if the model cannot be cut; ``ChildProcessError`` if the folder holds other
    ///   parts.
    package static func prepare(
        model: String,
        pools: Int,
        folder: String?,
        packing: WeightStorage? = nil,
        overrides: [String: String] = [:],
        adapter: String? = nil
    ) throws -> ShardWorkspace {
        let directory = try ModelSettings.directory(model)
        let adapter = try adapter.map(ModelSettings.directory)
        if let folder, FileManager.default.fileExists(atPath: "\(folder)/\(PlacementFile.fileName)") {
            let wanted = WantedParts(
                model: model,
                directory: directory,
                fingerprint: try Checkpoint.open(directory, overrides: overrides, adapter: adapter).fingerprint,
                pools: pools,
                isPacked: packing != nil,
                overrides: overrides
            )
            let placement = try wanted.check(folder)
            return ShardWorkspace(folder: folder, pools: placement.pools.map(\.name), scratch: nil)
        }
        // What the gateway would refuse at its start is refused before anything is written.
        _ = try ServedModel.check(directory, overrides: overrides)
        let scratch = folder == nil ? try ScratchFolder() : nil
        let target = folder ?? scratch.map { "\($0.path)/shards" } ?? ""
        do {
            let bar = ProgressBar()
            let placement = try CheckpointSharder.shard(
                model: directory,
                output: target,
                pools: pools,
                overrides: overrides,
                adapter: adapter,
                packing: packing.map { ModelSettings.packing($0) },
                progress: { bar.show($0) },
                note: { Terminal.printError($0) }
            )
            return ShardWorkspace(folder: target, pools: placement.pools.map(\.name), scratch: scratch)
        } catch {
            scratch?.remove()
            throw error
        }
    }

    /// Removes the folder if it is temporary.
    package func discard() {
        self.scratch?.remove()
    }

    /// Removes the leftovers of this process's interrupted cut into a folder.
    ///
    /// - Parameter folder: The folder that was to be written.
    package static func discardPartialCut(of folder: String) {
        let target = URL(fileURLWithPath: folder)
        let parent = target.deletingLastPathComponent().path
        let prefix = ".\(target.lastPathComponent).partial-\(getpid())-"
        for name in (try? FileManager.default.contentsOfDirectory(atPath: parent)) ?? [] where name.hasPrefix(prefix) {
            try? FileManager.default.removeItem(atPath: "\(parent)/\(name)")
        }
    }
}

/// The parts that a cluster needs, to compare with a folder's content.
package struct WantedParts {
    /// The model as it was named.
    package var model: String
    /// The model's folder.
    package var directory: String
    /// The model's fingerprint.
    package var fingerprint: UInt64
    /// Number of expert shards.
    package var pools: Int
    /// Whether the experts are packed.
    package var isPacked: Bool
    /// The overrides with which they are cut.
    package var overrides: [String: String] = [:]

    /// Compares every part of a folder with what the cluster needs.
    ///
    /// - Parameter folder: The folder with the placement.
    /// - Returns: The placement.
    /// - Throws: ``ChildProcessError`` naming the file, its content and what is needed; `CheckpointError` for files
    ///   that cannot be read.
    package func check(_ folder: String) throws -> PlacementFile {
        let placement = try PlacementFile.load(directory: folder)
        let file = "\(folder)/\(PlacementFile.fileName)"
        try self.expect(self.fingerprint, placement.fingerprintValue, of: placement.source, in: file, folder)
        guard placement.pools.count == self.pools else {
            throw Self.failure(
                "\(file) has \(placement.pools.count) pools, not \(self.pools) (--pools)",
                folder
            )
        }
        try self.checkPart(placement.gateway, kind: .gateway, name: placement.gateway, experts: nil, folder)
        for pool in placement.pools {
            try self.checkPart(pool.directory, kind: .experts, name: pool.name, experts: pool.experts, folder)
        }
        try self.checkConfiguration("\(folder)/\(placement.gateway)", folder)
        return placement
    }

    /// Compares what no fingerprint covers, such as the capacity of experts.
    private func checkConfiguration(_ part: String, _ folder: String) throws {
        for name in ["config.json", "generation_config.json"] {
            let (own, found) = ("\(self.directory)/\(name)", "\(part)/\(name)")
            guard FileManager.default.contents(atPath: own) != FileManager.default.contents(atPath: found) else {
                continue
            }
            throw Self.failure("\(found) is not the same as \(own)", folder)
        }
    }

    private func checkPart(
        _ part: String,
        kind: ShardManifest.Kind,
        name: String,
        experts: [Int]?,
        _ folder: String
    ) throws {
        let file = "\(folder)/\(part)/\(ShardManifest.fileName)"
        guard let manifest = try ShardManifest.load(directory: "\(folder)/\(part)") else {
            throw Self.failure("\(file) is missing, so the part's contents are unknown", folder)
        }
        try self.expect(self.fingerprint, manifest.fingerprintValue, of: manifest.source, in: file, folder)
        guard manifest.kind == kind, manifest.name == name else {
            throw Self.failure(
                "\(file) describes the \(manifest.kind.rawValue) part \(manifest.name), not the \(kind.rawValue) part "
                    + "\(name)",
                folder
            )
        }
        guard manifest.overrides == self.overrides else {
            throw Self.failure(
                "\(file) was cut with \(Self.text(manifest.overrides)), but the checkpoint is wanted "
                    + (self.overrides.isEmpty ? "as it is" : "with \(Self.text(self.overrides))"),
                folder
            )
        }
        guard manifest.pools == self.pools else {
            throw Self.failure("\(file) is one of \(manifest.pools) pools, not \(self.pools)", folder)
        }
        guard let experts else { return }
        for layer in manifest.experts where layer.experts != experts {
            let found = NumberRanges.text(layer.experts.map { UInt32(clamping: $0) })
            let wanted = NumberRanges.text(experts.map { UInt32(clamping: $0) })
            throw Self.failure(
                "\(file) holds experts \(found) of \(layer.stack) \(layer.block), but \(PlacementFile.fileName) puts "
                    + "\(wanted) there",
                folder
            )
        }
        guard (manifest.packing != nil) == self.isPacked else {
            throw Self.failure(
                "\(file) describes a part that is \(self.isPacked ? "not " : "")packed, but --packed is "
                    + "\(self.isPacked ? "" : "not ")given",
                folder
            )
        }
    }

    private static func text(_ overrides: [String: String]) -> String {
        guard !overrides.isEmpty else { return "no overrides" }
        let pairs = overrides.sorted { $0.key < $1.key }.map { "\($0.key)=\($0.value)" }
        return "\(pairs.joined(separator: ", ")) (--override)"
    }

    private func expect(_ wanted: UInt64, _ found: UInt64, of source: String, in file: String, _ folder: String) throws
    {
        guard found != wanted else { return }
        throw Self.failure(
            "\(file) was cut from \(source), fingerprint \(found.fingerprintText), but \(self.model) has fingerprint "
                + "\(wanted.fingerprintText)",
            folder
        )
    }

    private static func failure(_ complaint: String, _ folder: String) -> ChildProcessError {
        ChildProcessError(description: "\(complaint); remove \(folder), or name another folder with --shards")
    }
}
