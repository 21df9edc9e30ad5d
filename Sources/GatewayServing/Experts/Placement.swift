// SPDX-License-Identifier: Apache-2.0

internal import Checkpoints
internal import ExpertPooling
internal import SwitchyardTypes

/// The placement that `switchyard shard` wrote next to the gateway's part.
struct Placement: Sendable {
    /// Which pool holds each expert.
    let table: PlacementTable

    /// The pools' names.
    let pools: [String]

    /// How large the experts' outputs can be; empty if the placement does not say.
    let bounds: [SparseLayer: LayerOutputBounds]

    private let file: String

    /// Reads the placement of a gateway's part.
    ///
    /// - Parameters:
    ///   - directory: The folder with the model.
    ///   - checkpoint: The model in it.
    /// - Returns: nil if the folder has no placement: a whole checkpoint, whose hosts report what they hold.
    /// - Throws: `CheckpointError` if the file cannot be read; ``GatewayError`` if it belongs to another checkpoint.
    static func load(directory: String, checkpoint: Checkpoint) throws -> Placement? {
        guard checkpoint.manifest?.kind == .gateway else {
            return nil
        }
        let file = try PlacementFile.load(directory: directory)
        guard file.fingerprintValue == checkpoint.fingerprint else {
            throw GatewayError(
                .placement,
                "\(directory)/\(PlacementFile.fileName) belongs to the checkpoint \(file.fingerprint), but the "
                    + "model next to it does not; cut the checkpoint again"
            )
        }
        var table = PlacementTable()
        for layer in checkpoint.configuration.sparseLayers {
            for pool in file.pools {
                for expert in pool.experts {
                    table.place(expert, of: layer, on: pool.name)
                }
            }
        }
        return Placement(
            table: table,
            pools: file.pools.map(\.name),
            bounds: Dictionary(
                (file.outputBounds ?? []).compactMap { bounds in bounds.layer.map { ($0, bounds) } }
            ) { first, _ in first },
            file: "\(directory)/\(PlacementFile.fileName)"
        )
    }

    /// Checks that the given pools are exactly the placement's.
    ///
    /// - Parameter given: The pools of the gateway's configuration.
    /// - Throws: ``GatewayError`` naming the pools that are missing or unknown.
    func check(_ given: [PoolSpecification]) throws(GatewayError) {
        let names = Set(given.map(\.name))
        let missing = self.pools.filter { !names.contains($0) }
        guard missing.isEmpty else {
            throw GatewayError(
                .placement,
                "\(self.file) places experts on \(missing.joined(separator: ", ")), but no targets are given for them; "
                    + "pass --pool NAME=HOST:PORT for each"
            )
        }
        let unknown = names.subtracting(self.pools).sorted()
        guard unknown.isEmpty else {
            throw GatewayError(
                .placement,
                "\(self.file) places no experts on \(unknown.joined(separator: ", ")); its pools are "
                    + self.pools.joined(separator: ", ")
            )
        }
    }
}
