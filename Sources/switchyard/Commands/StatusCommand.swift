// SPDX-License-Identifier: Apache-2.0

import ArgumentParser
import CommandKit
import SwitchyardClient

/// `switchyard status`: the cluster as the gateway sees it.
struct StatusCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "status",
        abstract: "Show the model, the pools, their hosts and the dropped tokens.",
        discussion: """
            Lines are as wide as the terminal, or 80 columns without one. If a column for each expert does not fit, each
            layer gets a summary: the fewest, median and most rows per expert, the number of idle experts, and the busiest
            ones.

            EXAMPLE
              switchyard status --endpoint gateway:7400
              switchyard status --experts
              switchyard status --json | jq '.pools[].hosts[] | select(.state != "ready")'
            """
    )

    @OptionGroup var client: ClientOptions

    @Flag(help: "Show the rows of every expert, however many there are.")
    var experts = false

    @Flag(help: "Print everything as JSON.")
    var json = false

    func validate() throws {
        guard !self.json || !self.experts else {
            throw ValidationError("--json shows all experts anyway; leave out --experts")
        }
    }

    func run() async throws {
        try await self.client.withClient { client in
            let model = try await client.describeModel()
            let cluster = try await client.describeCluster()
            if self.json {
                Terminal.print(try ClusterStatus(model: model, cluster: cluster).json())
            } else {
                let report = ClusterReport(model: model, cluster: cluster, showsAllExperts: self.experts)
                Terminal.print(report.text)
            }
        }
    }
}
