// SPDX-License-Identifier: Apache-2.0

import ArgumentParser
import CommandKit
import Foundation
import ServiceKit
import SwitchyardClient

/// `switchyard status`: the cluster as the gateway sees it.
struct StatusCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "status",
        abstract:
            "Show a cluster: the model, the pools, their hosts and the dropped tokens; or a training run and its hosts.",
        discussion: """
            Lines are as wide as the terminal, or 80 columns without one. If a column for each expert does not fit, each
            layer gets a summary: the fewest, median and most rows per expert, the number of idle experts, and the busiest
            ones.

            --run shows a training run by its folder, on the machine where it trains: step, loss, speed, the log, and of each
            host what it does, how far it is behind, its snapshots and its checksums.

            --watch shows it again every two seconds, a run until its end.

            EXAMPLE
              switchyard status --endpoint gateway:7400
              switchyard status --experts
              switchyard status --run run --watch
              switchyard status --json | jq '.pools[].hosts[] | select(.state != "ready")'
            """
    )

    @OptionGroup var client: ClientOptions

    @Flag(help: "Show the rows of every expert, however many there are.")
    var experts = false

    @Flag(help: "Print everything as JSON.")
    var json = false

    @Option(name: .customLong("run"), help: ArgumentHelp("Show the training run in this folder.", valueName: "dir"))
    var folder: String?

    @Flag(help: "Show it again every two seconds.")
    var watch = false

    func validate() throws {
        guard !self.json || !self.experts else {
            throw ValidationError("--json shows all experts anyway; leave out --experts")
        }
        guard self.folder != nil else { return }
        if let flag = self.client.connectionFlag ?? (self.experts ? "--experts" : nil) {
            throw ValidationError("\(flag) is for a cluster; leave it out with --run")
        }
    }

    func run() async throws {
        let isLive = self.watch && StandardStream.output.isTerminal
        func show(_ text: String) {
            // From the top of an empty screen.
            Terminal.print(isLive ? "\u{1B}[H\u{1B}[2J\(text)" : text + (self.watch && !self.json ? "\n" : ""))
        }
        if let folder {
            return try await self.repeated {
                let status = try TrainingStatus(of: folder)
                let now = Date().timeIntervalSince1970
                show(
                    self.json
                        ? try status.json(isPretty: !self.watch) : TrainingReport(status: status, now: now).text
                )
                return status.state == .running && status.silence(now: now) == nil
            }
        }
        try await self.client.withClient { client in
            try await self.repeated {
                let model = try await client.describeModel()
                let cluster = try await client.describeCluster()
                show(
                    self.json
                        ? try ClusterStatus(model: model, cluster: cluster).json(isPretty: !self.watch)
                        : ClusterReport(model: model, cluster: cluster, showsAllExperts: self.experts).text
                )
                return true
            }
        }
    }

    /// Does something once, or again and again until it is not wanted any more.
    private func repeated(_ body: () async throws -> Bool) async throws {
        while try await body(), self.watch { try await Task.sleep(for: .seconds(2)) }
    }
}
