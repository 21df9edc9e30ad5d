// SPDX-License-Identifier: Apache-2.0

import ArgumentParser
import Checkpoints
import ServiceKit
import SwitchModel

/// `switchyard shard`: cuts a checkpoint into one gateway part and expert shards.
struct ShardCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "shard",
        abstract: "Cut a checkpoint into one gateway part and N expert shards.",
        discussion: """
            Writes DIR/gateway, DIR/pool-0 to DIR/pool-(N-1) and DIR/placement.json. Every part carries the fingerprint
            of the checkpoint, so that parts of different models are never mixed.

            With --packed the experts' weights are written as expert hosts of this build keep them in memory, so that a host
            maps the file and serves from it. They are then of one type for good: --dtype.

            EXAMPLES
              switchyard shard deploy/models/switch-mini --out shards --pools 4
              switchyard shard google/switch-base-8 --out shards --pools 2
              switchyard shard google/switch-base-8 --out packed --pools 2 --packed --dtype bfloat16
            """
    )

    @Argument(help: "A folder in Hugging Face layout, or a hub id in the local cache.")
    var model: String

    @Option(help: ArgumentHelp("Folder to write; must be empty or not exist.", valueName: "dir"))
    var out: String

    @Option(help: "Number of expert shards.")
    var pools: Int

    @Flag(help: "Write the experts' weights in the form in which hosts serve them as they lie.")
    var packed = false

    @Option(
        help: ArgumentHelp(
            "How packed weights are stored: checkpoint, float32, bfloat16 or int8. (default: checkpoint, as in the model)",
            valueName: "type"
        ),
        transform: PrecisionNames.storage
    )
    var dtype: WeightStorage?

    @Option(help: ArgumentHelp("Replace a value of config.json; may be given several times.", valueName: "key=value"))
    var override: [String] = []

    func validate() throws {
        guard self.packed || self.dtype == nil else {
            throw ValidationError(
                "--dtype is for --packed; without it a shard holds the checkpoint's own weights, and expert-host has --dtype"
            )
        }
    }

    func run() async throws {
        let bar = ProgressBar()
        let placement = try CheckpointSharder.shard(
            model: try ModelSettings.directory(self.model),
            output: self.out,
            pools: self.pools,
            overrides: try ModelSettings.overrides(self.override),
            packing: self.packed ? ModelSettings.packing(self.dtype ?? .checkpoint) : nil
        ) { progress in
            bar.show(progress)
        }
        var table = TextTable([("part", .left), ("holds", .left)])
        table.add(["\(self.out)/gateway", "everything but the experts"])
        for pool in placement.pools {
            table.add(["\(self.out)/\(pool.name)", "experts \(ClusterReport.ranges(pool.experts.map(UInt32.init)))"])
        }
        Terminal.print(table.text)
        Terminal.print(
            "\nNext, on each machine:  switchyard expert-host --shard \(self.out)/pool-0 --listen 0.0.0.0:7401"
        )
    }
}
