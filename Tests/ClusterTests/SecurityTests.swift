// SPDX-License-Identifier: Apache-2.0

import CertificateAuthority
import CommandKit
import Foundation
import Testing

@testable import switchyard

/// Python with the packages of Tests/Peers/requirements.txt; make test sets it up.
private let python: String? = ProcessInfo.processInfo.environment["SWITCHYARD_TEST_PYTHON"]

/// Certificates, tokens and a cluster's flags that use them, in a folder for one test.
private struct SecureFolder {
    let path: String
    let token = "0123456789abcdef0123456789abcdef"

    static func with(_ body: (SecureFolder) async throws -> Void) async throws {
        let path = FileManager.default.temporaryDirectory.appendingPathComponent("secure-\(UUID().uuidString)").path
        defer { try? FileManager.default.removeItem(atPath: path) }
        let certs = try await Commands.run(
            TestCluster.executable,
            ["certs", "--out", path, "--host", "gateway.test", "--expert-host", "experts.test"]
        )
        #expect(certs.status == 0, "\(certs.errors)")
        let folder = SecureFolder(path: path)
        try folder.write("tester:\(folder.token)\n", to: "tokens")
        try folder.write("\(folder.token)\n", to: "token")
        try folder.write("\(folder.token.reversed().map { String($0) }.joined())\n", to: "wrong-token")
        try await body(folder)
    }

    private func write(_ text: String, to name: String) throws {
        try text.write(toFile: "\(self.path)/\(name)", atomically: true, encoding: .utf8)
        try FileManager.default.setAttributes([.posixPermissions: 0o600], ofItemAtPath: "\(self.path)/\(name)")
    }

    var hostArguments: [String] {
        [
            "--tls-certificate", "\(self.path)/expert-host.pem", "--tls-key", "\(self.path)/expert-host-key.pem",
            "--tls-client-ca", "\(self.path)/ca.pem", "--tls-allowed-clients",
            "spiffe://switchyard/gateway,spiffe://switchyard/expert-host",
        ]
    }

    var gatewayArguments: [String] {
        [
            "--tls-certificate", "\(self.path)/gateway.pem", "--tls-key", "\(self.path)/gateway-key.pem",
            "--tls-client-ca", "\(self.path)/ca.pem", "--tls-allowed-clients", "spiffe://switchyard/client",
            "--tokens", "\(self.path)/tokens", "--experts-tls-ca", "\(self.path)/ca.pem",
            "--experts-tls-certificate", "\(self.path)/gateway.pem", "--experts-tls-key",
            "\(self.path)/gateway-key.pem",
        ]
    }

    var clientArguments: [String] {
        [
            "--tls-ca", "\(self.path)/ca.pem", "--tls-certificate", "\(self.path)/client.pem", "--tls-key",
            "\(self.path)/client-key.pem",
        ]
    }
}

@Suite("A cluster with certificates and tokens", .serialized)
struct SecurityTests {
    @Test("answers its own commands and python's grpcio, and no client without certificate and token")
    func secureCluster() async throws {
        let prompt = try #require(try TestCluster.prompts().first)
        try await SecureFolder.with { folder in
            try await TestCluster.runProcesses(
                pools: 2,
                gatewayArguments: folder.gatewayArguments,
                hostArguments: folder.hostArguments
            ) { cluster in
                let generate = ["generate", "--endpoint", cluster.gatewayAddress, "--timeout", "10"]
                func run(_ arguments: [String]) async throws -> Commands.Output {
                    try await Commands.run(TestCluster.executable, generate + arguments + [prompt.prompt])
                }
                let answered = try await run(folder.clientArguments + ["--token-file", "\(folder.path)/token"])
                #expect(answered.status == 0, "\(answered.errors)")
                #expect(answered.text.contains(prompt.answer.trimmingCharacters(in: .whitespaces)))

                let wrong = try await run(folder.clientArguments + ["--token-file", "\(folder.path)/wrong-token"])
                #expect(wrong.status != 0)
                #expect(wrong.errors.contains("UNAUTHENTICATED: this server does not know the token"))
                let missing = try await run(folder.clientArguments)
                #expect(missing.errors.contains("UNAUTHENTICATED: this server requires a token"))
                let nobody = try await run(["--tls-ca", "\(folder.path)/ca.pem"])
                #expect(nobody.errors.contains("takes only clients with a certificate"), "\(nobody.errors)")
                let stranger = try await run([
                    "--tls-ca", "\(folder.path)/ca.pem", "--tls-certificate", "\(folder.path)/gateway.pem",
                    "--tls-key", "\(folder.path)/gateway-key.pem",
                ])
                #expect(stranger.errors.contains("is not among the allowed clients"), "\(stranger.errors)")
                let plain = try await run([])
                #expect(plain.errors.contains("the server speaks TLS, but this side is plaintext"), "\(plain.errors)")

                let status = try await Commands.run(
                    TestCluster.executable,
                    ["status", "--endpoint", cluster.gatewayAddress, "--token-file", "\(folder.path)/token"]
                        + folder.clientArguments
                )
                #expect(status.text.contains("complete"), "\(status.errors)")
                try await Self.checkHealth(cluster, folder)
                try await Self.callWithPython(cluster, folder, prompt)
            }
        }
    }

    /// As a container's health check does, with the environment of the server that it asks.
    private static func checkHealth(_ cluster: LocalCluster, _ folder: SecureFolder) async throws {
        let host = try #require(cluster.hosts.running.first)
        func check(_ address: String, as name: String, certificate: String) async throws -> Commands.Output {
            try await Commands.run(
                TestCluster.executable,
                ["health"],
                environment: [
                    "SWITCHYARD_LISTEN": address, "SWITCHYARD_TLS_CA": "\(folder.path)/ca.pem",
                    "SWITCHYARD_TLS_CERTIFICATE": "\(folder.path)/\(certificate).pem",
                    "SWITCHYARD_TLS_KEY": "\(folder.path)/\(certificate)-key.pem",
                    "SWITCHYARD_TLS_SERVER_NAME": name,
                ]
            )
        }
        let ofHost = try await check(host.address, as: "experts.test", certificate: "expert-host")
        #expect(ofHost.status == 0, "\(ofHost.errors)")
        let ofGateway = try await check(cluster.gatewayAddress, as: "gateway.test", certificate: "client")
        #expect(ofGateway.status == 0, "\(ofGateway.errors)")
        // A host cannot be taken for the gateway.
        let pretender = try await check(host.address, as: "gateway.test", certificate: "expert-host")
        #expect(pretender.status == 1)
        #expect(pretender.errors.contains("certificate is not for gateway.test"), "\(pretender.errors)")
        let stranger = try await check(host.address, as: "experts.test", certificate: "client")
        #expect(stranger.status == 1)
        #expect(stranger.errors.contains("is not among the allowed clients"), "\(stranger.errors)")
    }

    private static func callWithPython(
        _ cluster: LocalCluster,
        _ folder: SecureFolder,
        _ prompt: TestCluster.Prompt
    ) async throws {
        guard let python else { return }
        func call(_ command: String, _ files: [String]) async throws -> [String: Any] {
            let output = try await Commands.run(
                python,
                [
                    "\(TestCluster.root)/Tests/Peers/grpcio_client.py", cluster.gatewayAddress,
                    "\(TestCluster.root)/Protos", command, prompt.prompt,
                ] + files
            )
            #expect(output.status == 0, "\(output.errors)")
            let line = output.text.split(separator: "\n").last ?? ""
            return try #require(try JSONSerialization.jsonObject(with: Data(line.utf8)) as? [String: Any])
        }
        let certificates = [
            "--ca", "\(folder.path)/ca.pem", "--certificate", "\(folder.path)/client.pem", "--key",
            "\(folder.path)/client-key.pem",
        ]
        let token = ["--token-file", "\(folder.path)/token"]
        let answered = try await call("generate", certificates + token)
        #expect(answered["token_ids"] as? [[Int]] == [prompt.tokenIDs.map(Int.init)])
        #expect(try await call("stream", certificates + token)["tokens"] as? [Int] == prompt.tokenIDs.map(Int.init))
        #expect(try await call("health", certificates)["status"] as? String == "SERVING")
        #expect(try await call("generate", certificates)["code"] as? String == "UNAUTHENTICATED")
        let wrong = try await call("generate", certificates + ["--token-file", "\(folder.path)/wrong-token"])
        #expect(wrong["code"] as? String == "UNAUTHENTICATED")
        let nobody = try await call("generate", ["--ca", "\(folder.path)/ca.pem"] + token)
        #expect(nobody["code"] as? String == "UNAVAILABLE")
    }

    @Test(
        "what would be plaintext on a network, and what is half set, stops the start with what to set",
        arguments: [
            (
                ["expert-host", "--shard", TestCluster.miniature, "--listen", "0.0.0.0:0"],
                "set tls-certificate and tls-key"
            ),
            (
                ["gateway", "--model", TestCluster.miniature, "--pool", "p=127.0.0.1:1", "--listen", "0.0.0.0:0"],
                "SWITCHYARD_PLAINTEXT=true"
            ),
            (["gateway", "--model", TestCluster.miniature, "--pool", "p=experts.test:1"], "set experts-tls-ca"),
            (["up", TestCluster.miniature, "--listen", "0.0.0.0:0"], "--plaintext"),
            (["generate", "--endpoint", "gateway.test:7400", "x"], "set tls-ca"),
            (["status", "--endpoint", "gateway.test:7400"], "--plaintext"),
            (["expert-host", "--shard", TestCluster.miniature, "--tls-key", "k"], "tls-key is set without"),
            (
                ["gateway", "--model", TestCluster.miniature, "--pool", "p=a:1", "--experts-tls-key", "k"],
                "experts-tls-key is set without experts-tls-certificate"
            ),
            (
                [
                    "gateway", "--model", TestCluster.miniature, "--pool", "p=127.0.0.1:1", "--tls-certificate",
                    "/nowhere", "--tls-key", "/nowhere",
                ], "cannot read /nowhere"
            ),
            (
                ["gateway", "--model", TestCluster.miniature, "--pool", "p=127.0.0.1:1", "--tokens", "/nowhere"],
                "cannot read /nowhere"
            ),
            (
                ["gateway", "--model", TestCluster.miniature, "--pool", "p=127.0.0.1:1", "--tokens-cover-health"],
                "set --tokens"
            ),
            (["generate", "--token-file", "/nowhere", "x"], "cannot read /nowhere"),
            (["certs", "--out", "/tmp/never-written", "--host", "a b"], "neither a DNS name"),
            (["certs", "--out", "/tmp/never-written", "--days", "0"], "--days"),
        ]
    )
    func errors(arguments: [String], part: String) async throws {
        let output = try await Commands.run(TestCluster.executable, arguments)
        #expect(output.status != 0)
        #expect(output.status != -1, "a signal ended it: \(output.errors)")
        #expect(output.errors.contains(part), "\(output.errors)")
    }

    @Test(
        "a service whose settings cannot be used ends with a status that units do not restart",
        arguments: [
            ["gateway", "--model", "/nowhere", "--listen", "nowhere"],
            ["expert-host", "--shard", "/nowhere", "--queue-limit", "0"],
        ]
    )
    func unusableSettings(arguments: [String]) async throws {
        let output = try await Commands.run(TestCluster.executable, arguments)
        #expect(output.status == 78)
        #expect(output.errors.contains("Error: the flag --"), "\(output.errors)")
        // What may pass by itself, such as weights that are not there yet, is tried again.
        let absent = try await Commands.run(TestCluster.executable, Array(arguments.prefix(3)))
        #expect(absent.status == 1, "\(absent.errors)")
    }

    @Test("a cluster on this machine uses plaintext on loopback, whatever the environment sets for other processes")
    func localCluster() async throws {
        let keys = ["TLS_CERTIFICATE", "TLS_KEY", "TLS_CLIENT_CA", "EXPERTS_TLS_CA", "TOKENS"]
        let output = try await Commands.run(
            TestCluster.executable,
            ["demo", "--model", TestCluster.miniature, "--pools", "1", "--prompts", "1"],
            environment: Dictionary(keys.map { ("SWITCHYARD_\($0)", "/nowhere") }) { first, _ in first }
        )
        #expect(output.status == 0, "\(output.errors)")
    }

    @Test("the gateway's names are in no certificate of an expert host, so its key cannot pose as the gateway")
    func separateNames() async throws {
        let leaves = CertsCommand.leaves(
            gateway: [.dns("gateway.test"), .address("10.0.0.7")],
            experts: [.dns("experts.test")],
            days: 1
        )
        let names = Dictionary(uniqueKeysWithValues: leaves.map { ($0.name, Set($0.subjectAlternativeNames)) })
        let local: Set<LeafCertificate.SubjectName> = [.dns("localhost"), .address("127.0.0.1"), .address("::1")]
        let (gateway, host) = (try #require(names["gateway"]), try #require(names["expert-host"]))
        #expect(gateway.intersection(host) == local)
        #expect(
            gateway.isSuperset(of: [.dns("gateway.test"), .address("10.0.0.7"), .uri("spiffe://switchyard/gateway")])
        )
        #expect(host.isSuperset(of: [.dns("experts.test"), .uri("spiffe://switchyard/expert-host")]))
        #expect(names["client"] == [.uri("spiffe://switchyard/client")])
        #expect(leaves.filter(\.isServer).map(\.name) == ["gateway", "expert-host"])
    }

    @Test("certs says where a name is in the certificates of both")
    func sharedNames() async throws {
        let path = FileManager.default.temporaryDirectory.appendingPathComponent("shared-\(UUID().uuidString)").path
        defer { try? FileManager.default.removeItem(atPath: path) }
        let output = try await Commands.run(
            TestCluster.executable,
            ["certs", "--out", path, "--host", "one.test,two.test", "--expert-host", "two.test"]
        )
        #expect(output.status == 0, "\(output.errors)")
        #expect(output.errors.contains("note: two.test is in the certificates of both"))
        #expect(!output.errors.contains("one.test"))
    }

    @Test("certs keeps existing certificates unless told to replace them")
    func certs() async throws {
        try await SecureFolder.with { folder in
            let again = try await Commands.run(TestCluster.executable, ["certs", "--out", folder.path])
            #expect(again.status != 0)
            #expect(again.errors.contains("--force"))
            let forced = try await Commands.run(TestCluster.executable, ["certs", "--out", folder.path, "--force"])
            #expect(forced.status == 0, "\(forced.errors)")
            #expect(forced.text.contains("ca.pem (kept)"))
        }
    }
}
