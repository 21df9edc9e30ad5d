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
            that is already in the folder is reused and never replaced. The gateway's and the hosts' certificates are
            valid for every --host and for this machine. Each certificate carries an identity for --tls-allowed-clients:
            spiffe://switchyard/gateway, spiffe://switchyard/expert-host, spiffe://switchyard/client.

            EXAMPLE
              switchyard certs --out certs --host gateway,experts-0,experts-1,10.0.0.7
              switchyard expert-host --shard shards/pool-0 --listen 0.0.0.0:7401 --tls-certificate certs/expert-host.pem \\
                --tls-key certs/expert-host-key.pem --tls-client-ca certs/ca.pem \\
                --tls-allowed-clients spiffe://switchyard/gateway
            """
    )

    @Option(help: ArgumentHelp("The folder to write to.", valueName: "dir"))
    var out: String

    @Option(
        help: ArgumentHelp(
            "A DNS name or address at which servers are reached; may be given several times.",
            valueName: "name[,name]"
        )
    )
    var host: [String] = []

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
        let hosts = try self.host.flatMap { $0.split(separator: ",") }
            .map { try LeafCertificate.SubjectName(host: $0.trimmingCharacters(in: .whitespaces)) }
        let entries = try CertificateFolder(path: self.out)
            .make(Self.leaves(hosts: hosts, days: self.days), replacing: self.force)
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
    }

    /// The certificates of a cluster's processes.
    ///
    /// A gateway is a client of its expert hosts, and `switchyard health` is a client of the expert host that it runs
    /// next to, so their certificates are valid for both roles.
    private static func leaves(hosts: [LeafCertificate.SubjectName], days: Int) -> [LeafCertificate] {
        let local: [LeafCertificate.SubjectName] = [.dns("localhost"), .address("127.0.0.1"), .address("::1")]
        let names = hosts + local.filter { !hosts.contains($0) }
        return [("gateway", true, true), ("expert-host", true, true), ("client", false, true)]
            .map { name, isServer, isClient in
                LeafCertificate(
                    name: name,
                    subjectAlternativeNames: (isServer ? names : []) + [.uri("spiffe://switchyard/\(name)")],
                    isServer: isServer,
                    isClient: isClient,
                    lifetime: TimeInterval(days) * 86_400
                )
            }
    }
}
