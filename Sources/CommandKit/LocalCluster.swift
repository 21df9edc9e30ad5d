// SPDX-License-Identifier: Apache-2.0

import Foundation
import SwitchyardTypes

/// A cluster on this machine: one gateway and, for each pool, some expert hosts, each in its own process.
package struct LocalCluster: Sendable {
    /// The processes to start, and their files.
    package struct Layout: Sendable {
        /// The folder that the gateway opens.
        package var model: String
        /// The folder that `switchyard shard` wrote; the model's own where nothing was cut.
        package var shards: String
        /// Names of the pools; each is a folder of `shards`.
        package var pools: [String]
        /// Expert hosts of each pool.
        package var replicas = 1
        /// Whether expert hosts listen on Unix sockets in a folder of this user's, where the folder's path is short enough.
        package var hostsUseSockets = false
        /// Where the gateway listens; port 0 lets the system choose.
        package var gatewayListen = "127.0.0.1:0"
        /// Compute threads of the gateway; nil leaves the choice to it.
        package var gatewayThreads: Int?
        /// Compute threads of each expert host; nil leaves the choice to it.
        package var hostThreads: Int?
        /// Further arguments of the gateway.
        package var gatewayArguments: [String] = []
        /// Further arguments of each expert host.
        package var hostArguments: [String] = []
        /// Where the gateway serves metrics and probes; nowhere by default.
        package var gatewayAdminListen = "off"
        /// Where each expert host does; `127.0.0.1:0` lets the system choose.
        package var hostAdminListen = "off"
        /// What to do when an expert host exits early.
        package var onHostExit = ChildExitPolicy.fail
        /// What to do when the gateway exits early.
        package var onGatewayExit = ChildExitPolicy.fail
        /// How long the hosts, and then the gateway, may take to start listening.
        package var startTimeout: Duration = .seconds(600)
        /// How long the gateway lets requests finish once it is asked to stop.
        package var gatewayDrain: Duration = .seconds(30)
        /// How long an expert host lets calls finish once it is asked to stop.
        package var hostDrain: Duration = .seconds(30)
        /// Passes signals on to the processes.
        package var signals = ChildSignals()

        /// Describes one expert host for each pool.
        ///
        /// - Parameters:
        ///   - shards: The folder that `switchyard shard` wrote.
        ///   - pools: Names of the pools.
        package init(shards: String, pools: [String]) {
            self.model = "\(shards)/gateway"
            self.shards = shards
            self.pools = pools
        }

        /// Describes a gateway alone, for a model without experts.
        ///
        /// - Parameter model: The model's folder.
        package init(withoutExperts model: String) {
            self.model = model
            self.shards = model
            self.pools = []
        }
    }

    /// `host:port` of the gateway.
    package let gatewayAddress: String
    /// The expert hosts' processes.
    package let hosts: ChildProcesses
    /// The gateway's process.
    package let gateway: ChildProcesses

    /// Every process that is up, the gateway first.
    package var processes: [ChildProcess] { self.gateway.running + self.hosts.running }

    /// Starts the cluster, runs the body, and stops the gateway and then the hosts, even if it is cancelled.
    ///
    /// - Parameters:
    ///   - layout: What to start.
    ///   - executable: The `switchyard` program.
    ///   - events: Called from any thread for starts, exits and lines of output.
    ///   - body: Runs while the cluster is up.
    /// - Returns: The body's result.
    /// - Throws: ``ChildProcessError`` if a process does not start or exits; and what the body throws.
    package static func run<Result: Sendable>(
        _ layout: Layout,
        executable: String,
        events: @escaping @Sendable (ChildEvent) -> Void,
        body: @escaping @Sendable (LocalCluster) async throws -> Result
    ) async throws -> Result {
        let scratch = try ScratchFolder()
        defer { scratch.remove() }
        let (hostSettings, gatewaySettings) = Self.settings(layout, executable: executable, events: events)
        let hosts = Self.hostSpecifications(layout, scratch: scratch.path)
        return try await ChildProcesses.run(hosts, settings: hostSettings) { hosts in
            let gateway = Self.gatewaySpecification(layout, hosts: hosts.running, scratch: scratch.path)
            return try await ChildProcesses.run([gateway], settings: gatewaySettings) { gateway in
                guard let address = gateway.running.first?.address else {
                    throw ChildProcessError(description: "the gateway exited as soon as it was up; its output says why")
                }
                return try await body(LocalCluster(gatewayAddress: address, hosts: hosts, gateway: gateway))
            }
        }
    }

    /// How to run the hosts, and how to run the gateway.
    static func settings(
        _ layout: Layout,
        executable: String,
        events: @escaping @Sendable (ChildEvent) -> Void
    ) -> (hosts: ChildSettings, gateway: ChildSettings) {
        let hosts = ChildSettings(
            executable: executable,
            onExit: layout.onHostExit,
            startTimeout: layout.startTimeout,
            drain: layout.hostDrain,
            signals: layout.signals,
            events: events
        )
        var gateway = hosts
        gateway.onExit = layout.onGatewayExit
        gateway.drain = layout.gatewayDrain
        return (hosts, gateway)
    }

    private static func hostSpecifications(_ layout: Layout, scratch: String) -> [ChildSpecification] {
        layout.pools.flatMap { pool in
            (0..<layout.replicas)
                .map { replica in
                    let addressFile = "\(scratch)/\(pool)-\(replica).address"
                    let adminAddressFile = "\(addressFile).admin"
                    let socket = try? UnixAddress(parsing: "unix:\(scratch)/\(pool)-\(replica).sock")
                    let listen = layout.hostsUseSockets ? socket?.description ?? "127.0.0.1:0" : "127.0.0.1:0"
                    var arguments = [
                        "expert-host", "--shard", "\(layout.shards)/\(pool)", "--listen", listen,
                        "--address-file", addressFile, "--exit-with-standard-input",
                        "--admin-listen", layout.hostAdminListen, "--admin-address-file", adminAddressFile,
                    ]
                    if let threads = layout.hostThreads { arguments += ["--threads", "\(threads)"] }
                    return ChildSpecification(
                        name: "\(pool)/\(replica)",
                        arguments: arguments + layout.hostArguments,
                        addressFile: addressFile,
                        adminAddressFile: layout.hostAdminListen == "off" ? nil : adminAddressFile
                    )
                }
        }
    }

    private static func gatewaySpecification(
        _ layout: Layout,
        hosts: [ChildProcess],
        scratch: String
    ) -> ChildSpecification {
        let addressFile = "\(scratch)/gateway.address"
        let adminAddressFile = "\(addressFile).admin"
        var arguments = [
            "gateway", "--model", layout.model, "--listen", layout.gatewayListen,
            "--address-file", addressFile, "--exit-with-standard-input",
            "--admin-listen", layout.gatewayAdminListen, "--admin-address-file", adminAddressFile,
        ]
        for pool in layout.pools {
            let targets = hosts.filter { $0.name.hasPrefix("\(pool)/") }.map(\.address)
            arguments += ["--pool", "\(pool)=\(targets.joined(separator: ","))"]
        }
        if let threads = layout.gatewayThreads { arguments += ["--threads", "\(threads)"] }
        return ChildSpecification(
            name: "gateway",
            arguments: arguments + layout.gatewayArguments,
            addressFile: addressFile,
            adminAddressFile: layout.gatewayAdminListen == "off" ? nil : adminAddressFile
        )
    }
}
