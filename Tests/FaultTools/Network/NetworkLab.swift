// SPDX-License-Identifier: Apache-2.0

internal import Foundation
internal import Synchronization

/// Expert hosts in their own network namespaces, on a bridge; clients and gateway are on the bridge itself.
///
/// The whole process lives in private network, mount and process namespaces (``enter(_:)``), so the machine's own
/// network is untouched, and everything is gone when the process ends, however it ends.
package final class NetworkLab: Sendable {
    /// Set for the process inside.
    private static let mark = "SWITCHYARD_FAULTS_INSIDE"

    private let hosts = Mutex(0)

    /// Whether this process is in its own namespaces.
    package static var isInside: Bool { ProcessInfo.processInfo.environment[Self.mark] != nil }

    /// Restarts this program in its own namespaces; returns only where that is not possible.
    ///
    /// - Parameter arguments: The program's arguments.
    /// - Returns: Why it is not possible.
    package static func enter(_ arguments: [String]) async -> String {
        guard let unshare = Tool.path("unshare"), Tool.path("ip") != nil else {
            return "unshare or ip is missing; install them with: deploy/install-packages.sh faults"
        }
        var namespaces = ["--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]
        // Where this is not root, a user namespace may make it root within.
        if geteuid() != 0 { namespaces = ["--user", "--map-root-user"] + namespaces }
        do {
            try await Tool.run(unshare, namespaces + ["true"])
        } catch {
            return "needs root, or user namespaces for everyone: \(error)"
        }
        guard let own = try? FileManager.default.destinationOfSymbolicLink(atPath: "/proc/self/exe") else {
            return "/proc/self/exe does not say which program this is"
        }
        setenv(Self.mark, "1", 1)
        let command = [unshare] + namespaces + ["--", own] + arguments
        let words = command.map { strdup($0) } + [nil]
        execv(unshare, words)
        unsetenv(Self.mark)
        return "\(unshare) cannot be run: \(String(cString: strerror(errno)))"
    }

    /// Makes the bridge.
    ///
    /// - Throws: ``FaultError`` where the process is not in its own namespaces, or a program fails.
    package init() async throws {
        guard Self.isInside else { throw FaultError("this process lives in the machine's own network") }
        // Names of namespaces are files below /run, which is private here.
        try await Tool.run("mount", ["-t", "tmpfs", "none", "/run"])
        try await Tool.run("ip", ["link", "set", "lo", "up"])
        try await Tool.run("ip", ["link", "add", "bridge", "type", "bridge"])
        try await Tool.run("ip", ["addr", "add", "10.77.0.254/24", "dev", "bridge"])
        try await Tool.run("ip", ["link", "set", "bridge", "up"])
    }

    /// Makes the next host's namespace.
    func addHost() async throws -> LabHost {
        let number = self.hosts.withLock { hosts in
            hosts += 1
            return hosts
        }
        guard number < 250 else { throw FaultError("the bridge has 249 addresses, and all are taken") }
        let host = LabHost(name: "host\(number)", address: "10.77.0.\(number)")
        try await Tool.run("ip", ["netns", "add", host.name])
        try await Tool.run(
            "ip",
            ["link", "add", host.name, "type", "veth", "peer", "name", "eth0", "netns", host.name]
        )
        try await Tool.run("ip", ["link", "set", host.name, "master", "bridge", "up"])
        try await Tool.run("ip", ["-n", host.name, "link", "set", "lo", "up"])
        try await Tool.run("ip", ["-n", host.name, "addr", "add", "\(host.address)/24", "dev", "eth0"])
        try await Tool.run("ip", ["-n", host.name, "link", "set", "eth0", "up"])
        return host
    }

    /// Cuts a host off: packets to it and from it are lost silently.
    package func cut(_ host: LabHost) async throws { try await Tool.run("ip", ["link", "set", host.name, "down"]) }

    /// Ends a cut.
    package func heal(_ host: LabHost) async throws { try await Tool.run("ip", ["link", "set", host.name, "up"]) }

    /// Loses a share of the packets from hosts, and the same share of those to them.
    ///
    /// - Parameters:
    ///   - perMille: How many of a thousand.
    ///   - hosts: Between which and the gateway.
    /// - Throws: ``FaultError`` where a program fails.
    package func lose(perMille: Int, between hosts: [LabHost]) async throws {
        for prefix in [[]] + hosts.map({ ["ip", "netns", "exec", $0.name] }) {
            let command = prefix + ["nft", Self.lossRules(perMille: perMille)]
            try await Tool.run(command[0], Array(command.dropFirst()))
        }
    }

    /// Ends ``lose(perMille:between:)``.
    package func loseNothing(between hosts: [LabHost]) async throws {
        for prefix in [[]] + hosts.map({ ["ip", "netns", "exec", $0.name] }) {
            let command = prefix + ["nft", "delete table inet loss"]
            try await Tool.run(command[0], Array(command.dropFirst()))
        }
    }

    /// Packets are dropped on arrival: the sender would notice one that is dropped on departure.
    private static func lossRules(perMille: Int) -> String {
        """
        table inet loss {
            chain arrivals {
                type filter hook input priority 0;
                ip saddr 10.77.0.0/24 numgen random mod 1000 < \(perMille) counter drop
            }
        }
        """
    }
}

/// A network namespace that represents a machine.
package struct LabHost: Sendable, Hashable {
    /// The namespace, and the bridge's port to it.
    package let name: String
    /// Its address on the bridge.
    package let address: String

    /// A command that runs in it; the process that starts becomes the command's.
    func command(_ command: [String]) -> [String] {
        [Tool.path("nsenter") ?? "/usr/bin/nsenter", "--net=/run/netns/\(self.name)", "--"] + command
    }
}
