// SPDX-License-Identifier: Apache-2.0

import CommandKit
import SwitchyardClient
import SwitchyardProtos
import Synchronization

/// What `up` prints once the cluster takes requests: a line per process, and the "ready" line.
struct UpReport {
    /// One process.
    struct Process: Hashable {
        var pool: String
        var address: String
        var experts: String
        var state: String
        var memory: String
    }

    /// Where the gateway takes requests.
    var gatewayAddress: String
    /// Where the gateway answers HTTP; nil if it does not.
    var httpAddress: String?
    /// The expert hosts, and the gateway last.
    var processes: [Process]
    /// Whether the model has no encoder, so that it continues its input.
    var isDecoderOnly: Bool

    /// How long to wait for more replicas once every expert has a host.
    private static let replicaPatience = Duration.seconds(30)

    /// Asks a cluster until every expert has a ready host, and the other replicas are ready or take too long.
    ///
    /// - Parameter cluster: The cluster.
    /// - Returns: The report.
    /// - Throws: If the gateway does not answer.
    static func collect(_ cluster: LocalCluster) async throws -> UpReport {
        let result = Mutex<(ClusterDescription, ModelDescription)?>(nil)
        try await GatewayClient.with(endpoint: Endpoint(parsing: cluster.gatewayAddress)) { client in
            var completeSince: ContinuousClock.Instant?
            while true {
                let description = try await client.describeCluster()
                if description.complete {
                    let since = completeSince ?? .now
                    completeSince = since
                    let isWhole = description.pools.allSatisfy { $0.replicas.allSatisfy { $0.state == .ready } }
                    if isWhole || since.duration(to: .now) > Self.replicaPatience {
                        let model = try await client.describeModel()
                        result.withLock { $0 = (description, model) }
                        return
                    }
                }
                try await Task.sleep(for: .milliseconds(50))
            }
        }
        guard let (description, model) = result.withLock({ $0 }) else { throw CancellationError() }
        return UpReport(cluster, description, model)
    }

    private init(_ cluster: LocalCluster, _ description: ClusterDescription, _ model: ModelDescription) {
        self.isDecoderOnly = model.encoderBlocks == 0
        let identifiers = Dictionary(
            cluster.processes.map { ($0.address, $0.processIdentifier) },
            uniquingKeysWith: { first, _ in first }
        )
        func memory(_ address: String) -> String {
            identifiers[address].flatMap { ProcessMemory.resident(of: $0) } ?? ""
        }
        self.gatewayAddress = cluster.gatewayAddress
        self.processes = description.pools.flatMap { pool in
            pool.replicas.map { replica in
                Process(
                    pool: pool.name,
                    address: replica.address,
                    experts: NumberRanges.text(pool.experts.first?.experts ?? []),
                    state: "\(replica.state)",
                    memory: memory(replica.address)
                )
            }
        }
        self.processes.append(
            Process(
                pool: "gateway",
                address: cluster.gatewayAddress,
                experts: "",
                state: "complete",
                memory: memory(cluster.gatewayAddress)
            )
        )
    }

    /// The table, a request to try, and the line that says that the cluster is ready.
    ///
    /// - Parameter columns: How many columns of the terminal a line may take.
    /// - Returns: Several lines, without the end of the last.
    func text(columns: Int) -> String {
        var table = TextTable([
            ("pool", .left), ("address", .left), ("experts", .left), ("state", .left), ("memory", .right),
        ])
        for process in self.processes {
            table.add([process.pool, process.address, process.experts, process.state, process.memory])
        }
        let web = self.httpAddress.map { "HTTP and JSON on http://\($0) (GET /openapi.json lists all)\n" } ?? ""
        // labml's own prompt for a model that continues texts.
        let example = self.isDecoderOnly ? "\"It is\" --max-new-tokens 64" : "\"my <extra_id_0> for a horse!\""
        return """
            \(table.text(columns: columns, keys: 2))

            switchyard generate --endpoint \(self.gatewayAddress) \(example)
            \(web)\(Terminal.styled("ready", .bold, .green)) on \(self.gatewayAddress); Ctrl-C stops everything
            """
    }
}
