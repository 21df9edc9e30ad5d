// SPDX-License-Identifier: Apache-2.0

internal import Foundation
internal import Synchronization

/// An expert host's process, which can be restarted at the same address.
package final class HostProcess: Sendable {
    /// `pool-0/1`.
    package let name: String
    /// `host:port`.
    package let address: String
    /// The network namespace that it lives in, if it has one.
    package let place: LabHost?

    let specification: ProcessSpecification
    private let current: Mutex<KeptProcess>

    init(name: String, address: String, place: LabHost?, specification: ProcessSpecification, process: KeptProcess) {
        self.name = name
        self.address = address
        self.place = place
        self.specification = specification
        self.current = Mutex(process)
    }

    /// The process that was started last.
    package var process: KeptProcess { self.current.withLock { $0 } }

    func replace(_ process: KeptProcess) { self.current.withLock { $0 = process } }
}

/// One gateway and its expert hosts, started one by one.
package final class FaultCluster: Sendable {
    /// Where programs, shards and logs are.
    package let workspace: FaultWorkspace
    /// The folder with `gateway` and the pools.
    package let shards: String
    /// The pools' names.
    package let pools: [String]
    /// The network that the hosts live in; nil for loopback.
    package let lab: NetworkLab?

    private struct State {
        var hosts: [HostProcess] = []
        var gateway: KeptProcess?
        var started = 0
        /// Hosts that were started, by pool.
        var replicas: [Int: Int] = [:]
    }

    private let keeper: ProcessKeeper
    private let folder: String
    private let state = Mutex(State())

    init(workspace: FaultWorkspace, shards: String, pools: Int, lab: NetworkLab?, keeper: ProcessKeeper) throws {
        self.workspace = workspace
        self.shards = shards
        self.pools = (0..<pools).map { "pool-\($0)" }
        self.lab = lab
        self.keeper = keeper
        self.folder = "\(workspace.folder)/cluster-\(UUID().uuidString)"
        try FileManager.default.createDirectory(atPath: self.folder, withIntermediateDirectories: true)
    }

    /// The folder with the processes' logs.
    package var logs: String { self.folder }

    /// The hosts in the order of their start.
    package var hosts: [HostProcess] { self.state.withLock { $0.hosts } }

    /// The gateway's process.
    ///
    /// - Throws: ``FaultError`` where none was started.
    package var gateway: KeptProcess {
        get throws {
            guard let gateway = self.state.withLock({ $0.gateway }) else { throw FaultError("no gateway was started") }
            return gateway
        }
    }

    /// Every process: the gateway's and the hosts' current ones.
    package var processes: [KeptProcess] {
        self.state.withLock { ($0.gateway.map { [$0] } ?? []) + $0.hosts.map(\.process) }
    }

    // MARK: - Hosts

    /// Starts an expert host and waits until it listens.
    ///
    /// - Parameters:
    ///   - pool: The pool's number.
    ///   - shard: The folder to serve; nil for the pool's own.
    ///   - arguments: Further arguments.
    ///   - wrapper: A command that becomes the program it is given; empty for none.
    /// - Returns: The host.
    /// - Throws: ``FaultError`` where it does not start.
    @discardableResult
    package func startHost(
        pool: Int,
        shard: String? = nil,
        arguments: [String] = [],
        wrapper: [String] = []
    ) async throws -> HostProcess {
        let (number, replica) = self.state.withLock { state in
            state.started += 1
            defer { state.replicas[pool, default: 0] += 1 }
            return (state.started, state.replicas[pool, default: 0])
        }
        let place = try await self.lab?.addHost()
        var command = [
            self.workspace.executable, "expert-host", "--shard", shard ?? "\(self.shards)/pool-\(pool)", "--listen",
            place.map { "\($0.address):7401" } ?? "127.0.0.1:0", "--address-file", "\(self.folder)/\(number).address",
            "--exit-with-standard-input", "--threads", "1", "--admin-listen", "off",
        ]
        if let place { command = place.command(command) + ["--plaintext"] }
        command = wrapper + command
        var specification = ProcessSpecification(
            name: "pool-\(pool)/\(replica)",
            executable: command[0],
            arguments: Array(command.dropFirst()) + arguments,
            addressFile: "\(self.folder)/\(number).address",
            logFile: "\(self.folder)/pool-\(pool)-\(replica).log"
        )
        let process = self.keeper.start(specification)
        let address = try await process.listening(within: .seconds(300))
        if let listen = specification.arguments.firstIndex(of: "--listen") {
            // The gateway knows the replica by its address, so the next process takes the same one.
            specification.arguments[listen + 1] = address
        }
        let host = HostProcess(
            name: specification.name,
            address: address,
            place: place,
            specification: specification,
            process: process
        )
        self.state.withLock { $0.hosts.append(host) }
        return host
    }

    /// Restarts a host's process at the same address and waits until it listens.
    ///
    /// - Parameters:
    ///   - host: A host whose process has ended.
    ///   - arguments: Arguments of this process only.
    /// - Throws: ``FaultError`` where it does not start.
    package func restart(_ host: HostProcess, arguments: [String] = []) async throws {
        try await self.startAgain(host, arguments: arguments).listening(within: .seconds(300))
    }

    /// Starts a host's process again at the same address; it may refuse to start.
    ///
    /// - Parameters:
    ///   - host: A host whose process has ended.
    ///   - arguments: Arguments of this process only.
    /// - Returns: The process, which may not run yet.
    /// - Throws: ``FaultError`` where the process before it still runs.
    package func startAgain(_ host: HostProcess, arguments: [String] = []) async throws -> KeptProcess {
        _ = try await host.process.ended(within: .seconds(300))
        var specification = host.specification
        specification.arguments += arguments
        let process = self.keeper.start(specification)
        host.replace(process)
        return process
    }

    /// Removes a host from the cluster; its process keeps running.
    package func forget(_ host: HostProcess) {
        self.state.withLock { state in state.hosts.removeAll { $0 === host } }
    }

    // MARK: - Gateway

    /// Starts the gateway and waits until it serves.
    ///
    /// - Parameters:
    ///   - model: The gateway's part; nil for the cluster's own.
    ///   - targets: The targets of each pool; nil for the hosts that were started.
    ///   - arguments: Further arguments.
    ///   - wrapper: A command that becomes the program it is given; empty for none.
    ///   - listen: Where it listens.
    /// - Returns: The process.
    /// - Throws: ``FaultError`` where it does not start.
    @discardableResult
    package func startGateway(
        model: String? = nil,
        targets: [String: [String]]? = nil,
        arguments: [String] = [],
        wrapper: [String] = [],
        listen: String = "127.0.0.1:0"
    ) async throws -> KeptProcess {
        var command = [
            // A row shows its own mechanism; what audits find is measured by `switchyard-bench audit`.
            self.workspace.executable, "gateway", "--audit-percent", "0", "--model", model ?? "\(self.shards)/gateway",
            "--listen", listen,
            "--threads", "1", "--admin-listen",
            "off",
            "--address-file",
            "\(self.folder)/gateway.address", "--exit-with-standard-input",
        ]
        let hosts = self.hosts
        for pool in self.pools {
            let own = hosts.filter { $0.name.hasPrefix("\(pool)/") }.map(\.address)
            command += ["--pool", "\(pool)=\((targets?[pool] ?? own).joined(separator: ","))"]
        }
        if self.lab != nil { command.append("--plaintext") }
        command = wrapper + command
        let process = self.keeper.start(
            ProcessSpecification(
                name: "gateway",
                executable: command[0],
                arguments: Array(command.dropFirst()) + self.workspace.gatewayArguments + arguments,
                addressFile: "\(self.folder)/gateway.address",
                logFile: "\(self.folder)/gateway.log"
            )
        )
        self.state.withLock { $0.gateway = process }
        try await process.listening(within: .seconds(300))
        return process
    }
}
