// SPDX-License-Identifier: Apache-2.0

import CommandKit
import SwitchyardProtos
import SwitchyardTypes

/// What `switchyard top` shows of a cluster: as a screen, or as one line.
struct TopScreen {
    var model: ModelDescription
    var cluster: ClusterDescription
    var movement: ClusterMovement
    /// Why the picture is old; nil where it is not.
    var complaint: String?

    // MARK: - One line

    /// The cluster in one line, for files and pipes.
    var line: String {
        let load = self.cluster.gateway ?? GatewayLoad()
        let hosts = self.cluster.pools.flatMap(\.replicas)
        let fields = [
            "\(self.movement.rate(self.movement.decodedTokens)) tokens/s",
            "\(self.movement.rate(self.movement.steps)) steps/s",
            "\(load.usedSlots)/\(load.batchSlots) slots", "\(load.queued) queued",
            "\(hosts.count { $0.state == .ready })/\(hosts.count) hosts ready",
            "\(self.movement.droppedTokens) of \(self.movement.routedTokens) routed tokens dropped",
            "\(self.movement.hedges) hedges", "\(self.movement.retries) retries",
        ]
        return fields.joined(separator: "  ") + (self.complaint.map { "  (\($0))" } ?? "")
    }

    // MARK: - A screen

    /// The cluster as lines of a screen; what does not fit is left out from the end, and said.
    ///
    /// - Parameters:
    ///   - columns: Columns of the screen.
    ///   - rows: Rows of the screen.
    /// - Returns: At most as many lines as there are rows.
    func lines(columns: Int, rows: Int) -> [String] {
        var lines: [String] = self.head(columns)
        lines.append("")
        lines += self.hosts(columns).split(separator: "\n", omittingEmptySubsequences: false).map(String.init)
        if !self.movement.layers.isEmpty {
            lines.append("")
            lines += self.picture(columns).text.split(separator: "\n", omittingEmptySubsequences: false)
                .map(String.init)
        }
        guard lines.count > rows - 1 else { return lines + [self.foot(columns, hidden: 0)] }
        let shown = max(0, rows - 1)
        return lines.prefix(shown) + [self.foot(columns, hidden: lines.count - shown)]
    }

    private func head(_ columns: Int) -> [String] {
        let load = self.cluster.gateway ?? GatewayLoad()
        let state =
            self.complaint != nil
            ? Terminal.styled("no answer", .red)
            : load.draining
                ? Terminal.styled("draining", .yellow)
                : self.cluster.complete ? Terminal.styled("complete", .green) : Terminal.styled("incomplete", .red)
        var lines = [
            "\(Terminal.styled(self.model.name, .bold))  \(state)  up \(Self.time(load.uptimeSeconds))",
            "\(self.movement.rate(self.movement.decodedTokens)) tokens/s  \(self.movement.rate(self.movement.steps)) steps/s"
                + "  \(load.usedSlots) of \(load.batchSlots) slots in use  \(load.queued) of \(load.queueLimit) queued",
            "dropped \(self.movement.droppedTokens) of \(self.movement.routedTokens) routed tokens"
                + "  hedged \(self.movement.rate(self.movement.hedges))/s  retried \(self.movement.rate(self.movement.retries))/s",
        ]
        if let complaint { lines.append(Terminal.styled(complaint, .red)) }
        if self.movement.isRestarted { lines.append(Terminal.styled("the gateway began anew", .yellow)) }
        return lines.flatMap { $0.wrapped(columns: columns).split(separator: "\n").map(String.init) }
    }

    private func hosts(_ columns: Int) -> String {
        var table = TextTable([
            ("pool", .left), ("host", .left), ("state", .left), ("calls/s", .right), ("rows/s", .right),
            ("in flight", .right), ("failed", .right), ("p50", .right), ("p99", .right), ("experts", .left),
        ])
        for pool in self.cluster.pools {
            for replica in pool.replicas {
                let host = self.movement.hosts[replica.address]
                table.add([
                    pool.name, replica.address, "\(replica.state)", self.movement.rate(host?.calls ?? 0),
                    self.movement.rate(host?.rows ?? 0), "\(replica.outstandingCalls)", "\(host?.failures ?? 0)",
                    Self.milliseconds(replica.latencyP50Microseconds),
                    Self.milliseconds(replica.latencyP99Microseconds),
                    NumberRanges.text(pool.experts.first?.experts ?? []),
                ])
            }
        }
        return table.text(columns: columns, keys: 2)
    }

    private func picture(_ columns: Int) -> RoutingPicture {
        let experts = Int(self.model.expertsPerLayer)
        var pools = [String](repeating: "?", count: experts)
        for pool in self.cluster.pools {
            for expert in pool.experts.first?.experts ?? [] where Int(expert) < experts {
                pools[Int(expert)] = pool.name
            }
        }
        return RoutingPicture(
            layers: zip(self.cluster.expertLoad, self.movement.layers)
                .map { layer, rows in
                    RoutingPicture.Layer(
                        name: "\(layer.stack) \(layer.layer)",
                        rows: rows,
                        dropped: self.cluster.dropped.filter { $0.stack == layer.stack && $0.layer == layer.layer }
                            .reduce(0) { $0 + $1.tokens }
                    )
                },
            pools: pools,
            usesColour: Terminal.usesColour,
            columns: columns
        )
    }

    private func foot(_ columns: Int, hidden: Int) -> String {
        let text = hidden == 0 ? "q quits" : "q quits; \(hidden) more lines: make the window taller"
        return Terminal.styled(String(text.prefix(max(1, columns - 1))), .dim)
    }

    private static func milliseconds(_ microseconds: UInt64) -> String {
        guard microseconds > 0 else { return "" }
        let hundredths = (Double(microseconds) / 10).rounded() / 100
        return "\(hundredths) ms"
    }

    private static func time(_ seconds: UInt64) -> String {
        switch seconds {
        case ..<120: "\(seconds) s"
        case ..<7_200: "\(seconds / 60) min"
        case ..<172_800: "\(seconds / 3_600) h"
        default: "\(seconds / 86_400) d"
        }
    }
}
