// SPDX-License-Identifier: Apache-2.0

import ArgumentParser
import CertificateAuthority
import CommandKit
import Foundation
import ServiceKit

/// `switchyard certs`: a development authority, and certificates for every process of a cluster.
struct CertsCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "certs",
        abstract: "Make a development certificate authority and certificates for a cluster.",
        discussion: """
            Writes ca.pem, gateway.pem, expert-host.pem and client.pem, each with NAME-key.pem, into a folder. An authority
            that is already in the folder is reused and never replaced. The gateway's certificate is valid for every --host,
            the hosts' for every --expert-host, and both for this machine's loopback: with the key of an expert host nobody
            can pose as the gateway under its name. Each certificate carries an identity for --tls-allowed-clients:
            spiffe://switchyard/gateway, spiffe://switchyard/expert-host, spiffe://switchyard/client.

            EXAMPLE
              switchyard certs --out certs --host gateway,10.0.0.7 --expert-host experts-0,experts-1
              switchyard expert-host --shard shards/pool-0 --listen 0.0.0.0:7401 --tls-certificate certs/expert-host.pem \\
                --tls-key certs/expert-host-key.pem --tls-client-ca certs/ca.pem \\
                --tls-allowed-clients spiffe://switchyard/gateway
            """
    )

    @Option(help: ArgumentHelp("The folder to write to.", valueName: "dir"))
    var out: String

    @Option(
        help: ArgumentHelp(
            "A DNS name or address at which the gateway is reached; may be given several times.",
            valueName: "name[,name]"
        )
    )
    var host: [String] = []

    @Option(
        help: ArgumentHelp(
            "A DNS name or address at which expert hosts are reached; may be given several times.",
            valueName: "name[,name]"
        )
    )
    var expertHost: [String] = []

    @Option(help: "How many days the certificates last; the authority lasts ten years.")
    var days = 397

    @Flag(help: "Replace certificates that exist; the authority is kept.")
    var force = false

    func validate() throws {
        guard (1...3_650).contains(self.days) else {
            throw ValidationError("--days is \(self.days), but must be from 1 to 3650")
        }
    }

    func run() async throws {
        let leaves = Self.leaves(
            gateway: try Self.names(self.host),
            experts: try Self.names(self.expertHost),
            days: self.days
        )
        let entries = try CertificateFolder(path: self.out).make(leaves, replacing: self.force)
        var table = TextTable([("certificate", .left), ("key", .left), ("ends", .left)])
        for entry in entries {
            table.add([
                entry.certificate + (entry.isReused ? " (kept)" : ""), entry.key,
                entry.notAfter.formatted(.iso8601.year().month().day()),
            ])
        }
        Terminal.print(table.text)
        Terminal.print(
            "\nGive ca.pem to every process, each process its own certificate and key, and ca-key.pem to none."
        )
        let shared = Set(self.host.flatMap(Self.parts)).intersection(self.expertHost.flatMap(Self.parts)).sorted()
        if !shared.isEmpty {
            Terminal.printError(
                "note: \(shared.joined(separator: ", ")) is in the certificates of both: there an expert host's key can pose as "
                    + "the gateway. Use separate names if you can"
            )
        }
    }

    private static func parts(_ names: String) -> [String] {
        names.split(separator: ",").map { $0.trimmingCharacters(in: .whitespaces) }
    }

    private static func names(_ options: [String]) throws -> [LeafCertificate.SubjectName] {
        try options.flatMap(Self.parts).map { try LeafCertificate.SubjectName(host: $0) }
    }

    /// The certificates of a cluster's processes.
    ///
    /// A gateway is a client of its expert hosts, and `switchyard health` is a client of the expert host that it runs
    /// next to, so their certificates are valid for both roles. What keeps them apart is the names in them: clients check
    /// the name that they connect to, and listeners the identity of their clients.
    ///
    /// - Parameters:
    ///   - gateway: Where the gateway is reached.
    ///   - experts: Where expert hosts are reached.
    ///   - days: How long the certificates last.
    /// - Returns: The leaves.
    static func leaves(
        gateway: [LeafCertificate.SubjectName],
        experts: [LeafCertificate.SubjectName],
        days: Int
    ) -> [LeafCertificate] {
        let local: [LeafCertificate.SubjectName] = [.dns("localhost"), .address("127.0.0.1"), .address("::1")]
        func leaf(_ name: String, _ hosts: [LeafCertificate.SubjectName]?) -> LeafCertificate {
            let names = hosts.map { hosts in hosts + local.filter { !hosts.contains($0) } } ?? []
            return LeafCertificate(
                name: name,
                subjectAlternativeNames: names + [.uri("spiffe://switchyard/\(name)")],
                isServer: hosts != nil,
                isClient: true,
                lifetime: TimeInterval(days) * 86_400
            )
        }
        return [leaf("gateway", gateway), leaf("expert-host", experts), leaf("client", nil)]
    }
}
