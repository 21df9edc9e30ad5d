// SPDX-License-Identifier: Apache-2.0

import ArgumentParser
import Checkpoints
import CommandKit
import Foundation
import GatewayServing
import ServiceKit
import SwitchModel
import SwitchyardTypes

/// `switchyard shard`: cuts a checkpoint into one gateway part and expert shards.
struct ShardCommand: AsyncParsableCommand, ThreadedCommand {
    static let configuration = CommandConfiguration(
        commandName: "shard",
        abstract: "Cut a checkpoint into one gateway part and N expert shards.",
        discussion: """
            Writes DIR/gateway, DIR/pool-0 to DIR/pool-(N-1) and DIR/placement.json. Every part carries the fingerprint
            of the checkpoint, so that parts of different models are never mixed.

            With --packed the experts' weights are written the way expert hosts of this build keep them in memory, so that a
            host maps the file and serves from it. Their type is then fixed: --dtype.

            EXAMPLES
              switchyard shard deploy/models/switch-mini --out shards --pools 4
              switchyard shard google/switch-base-8 --out shards --pools 2
              switchyard shard google/switch-base-8 --out packed --pools 2 --packed --dtype bfloat16
              switchyard shard google/switch-base-8 --out tuned --pools 2 --merge-adapter my-adapter
            """
    )

    @Argument(help: "A folder in Hugging Face layout, or a hub id in the local cache.")
    var model: String

    @Option(help: ArgumentHelp("Folder to write; must be empty or not exist.", valueName: "dir"))
    var out: String

    @Option(help: "Number of expert shards.")
    var pools: Int

    @Flag(help: "Write the experts' weights in a form that hosts map and serve directly.")
    var packed = false

    @Option(
        help: ArgumentHelp(
            "How packed weights are stored: checkpoint, float32, bfloat16 or int8. (default: checkpoint, as in the model)",
            valueName: "type"
        ),
        transform: PrecisionNames.storage
    )
    var dtype: WeightStorage?

    @Option(help: ArgumentHelp("Override a value in config.json; may be given several times.", valueName: "key=value"))
    var override: [String] = []

    @Option(
        help: ArgumentHelp(
            "Merge this LoRA adapter into the weights: a folder, or a hub id in the local cache.",
            valueName: "dir"
        )
    )
    var mergeAdapter: String?

    @Flag(help: "Keep what --out holds, and succeed, if it is this checkpoint cut into the same number of shards.")
    var keep = false

    func validate() throws {
        guard self.packed || self.dtype == nil else {
            throw ValidationError(
                "--dtype is for --packed; without it a shard holds the checkpoint's own weights, and expert-host has --dtype"
            )
        }
    }

    func run() async throws {
        let directory = try ModelSettings.directory(self.model)
        let adapter = try self.mergeAdapter.map(ModelSettings.directory)
        if self.keep, try self.isCut(directory, adapter) {
            Terminal.print("\(self.out) already holds this checkpoint in \(self.pools) shards; keeping it.")
            return
        }
        let overrides = try ModelSettings.overrides(self.override)
        // What a gateway would refuse at its start is refused before anything is written.
        if try !ServedModel.check(directory, overrides: overrides) {
            Terminal.printError("\(self.model) has no tokenizer: the gateway will take ids only")
        }
        let bar = ProgressBar()
        let placement = try CheckpointSharder.shard(
            model: directory,
            output: self.out,
            pools: self.pools,
            overrides: overrides,
            adapter: adapter,
            packing: self.packed ? ModelSettings.packing(self.dtype ?? .checkpoint) : nil,
            progress: { bar.show($0) },
            note: { Terminal.printError($0) }
        )
        var table = TextTable([("part", .left), ("holds", .left)])
        table.add(["\(self.out)/gateway", "everything but the experts"])
        for pool in placement.pools {
            table.add(["\(self.out)/\(pool.name)", "experts \(NumberRanges.text(pool.experts.map(UInt32.init)))"])
        }
        Terminal.print(table.text)
        let host = "switchyard expert-host --shard \(self.out)/pool-0 --listen"
        Terminal.print(
            """

            Next, a host for each part on this machine:  \(host) 127.0.0.1:7401
            On other machines, with the certificates of `switchyard certs`:
              \(host) 0.0.0.0:7401 --tls-certificate FILE --tls-key FILE
            """
        )
    }

    /// Whether the output already is the cut that this command would make; an existing output folder is complete.
    ///
    /// The type of packed weights is not compared.
    ///
    /// - Parameters:
    ///   - directory: The checkpoint's folder.
    ///   - adapter: The folder of the adapter to merge, if there is one.
    /// - Returns: False if there is no earlier cut.
    /// - Throws: ``Settings/Failure`` if an earlier cut differs; `CheckpointError` if a file cannot be read.
    private func isCut(_ directory: String, _ adapter: String?) throws -> Bool {
        guard FileManager.default.fileExists(atPath: "\(self.out)/\(PlacementFile.fileName)") else { return false }
        let overrides = try ModelSettings.overrides(self.override)
        let checkpoint = try Checkpoint.open(directory, overrides: overrides, adapter: adapter)
        let placement = try PlacementFile.load(directory: self.out)
        let manifest = try placement.pools.first.flatMap {
            try ShardManifest.load(directory: "\(self.out)/\($0.directory)")
        }
        let differences = [
            (placement.fingerprintValue != checkpoint.fingerprint, "another checkpoint"),
            (placement.pools.count != self.pools, "\(placement.pools.count) shards"),
            ((manifest?.packing != nil) != self.packed, self.packed ? "shards that are not packed" : "packed shards"),
            (manifest?.overrides != overrides, "other overrides"),
        ]
        guard let difference = differences.first(where: \.0) else { return true }
        throw Settings.Failure(
            "\(self.out) holds a cut with \(difference.1), which --keep does not replace: choose another --out, or remove it"
        )
    }
}
