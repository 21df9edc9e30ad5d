// SPDX-License-Identifier: Apache-2.0

import Foundation
import RPCTransport
import ServiceKit
import Testing

@Suite("Settings of transport security")
struct SecuritySettingsTests {
    private static func settings(
        _ flags: [String: String],
        environment: [String: String] = [:]
    ) async throws -> Settings {
        let known =
            ListenerSecuritySettings.table.definitions + ExpertsSecuritySettings.table.definitions
            + ClientSecuritySettings.table.definitions
        return try await Settings(known: known, flags: flags, environment: environment, file: nil)
    }

    private static func failure(_ body: () throws -> some Any) -> String {
        do {
            _ = try body()
            return "no failure"
        } catch {
            return "\(error)"
        }
    }

    @Test("plaintext stays on loopback unless a setting allows more")
    func plaintext() async throws {
        let none = try await Self.settings([:])
        let asked = try await Self.settings([:], environment: ["SWITCHYARD_PLAINTEXT": "true"])
        let loopback = ListenAddress(host: "127.0.0.1", port: 1)
        let everywhere = ListenAddress(host: "0.0.0.0", port: 1)
        #expect(try SecuritySettings.listener(none, at: loopback) == nil)
        let listening = Self.failure { try SecuritySettings.listener(none, at: everywhere) }
        #expect(listening.contains("listening at 0.0.0.0:1 would be plaintext on a network: set tls-certificate and"))
        #expect(listening.contains("--plaintext or SWITCHYARD_PLAINTEXT=true"))
        #expect(try SecuritySettings.listener(asked, at: everywhere) == nil)

        #expect(try SecuritySettings.experts(none, hosts: [("::1", "[::1]:1")]) == nil)
        let dialing = Self.failure { try SecuritySettings.experts(none, hosts: [("127.0.0.1", "l:1"), ("a", "a:1")]) }
        #expect(dialing.contains("connecting to the expert host a:1 would be plaintext"))
        #expect(dialing.contains("experts-tls-ca"))
        #expect(try SecuritySettings.experts(asked, hosts: [("a", "a:1")]) == nil)

        #expect(try SecuritySettings.client(none, host: "localhost", endpoint: "localhost:1") == nil)
        let calling = Self.failure { try SecuritySettings.client(none, host: "a", endpoint: "a:1") }
        #expect(calling.contains("connecting to a:1 would be plaintext"))
        #expect(try SecuritySettings.client(asked, host: "a", endpoint: "a:1") == nil)
    }

    @Test("the settings are used")
    func options() async throws {
        let everywhere = ListenAddress(host: "0.0.0.0", port: 1)
        let listener = try await Self.settings(
            ["tls-certificate": "c", "tls-key": "k", "tls-client-ca": "a"],
            environment: ["SWITCHYARD_TLS_ALLOWED_CLIENTS": "one, two;three", "SWITCHYARD_TLS_KEY": "other"]
        )
        let server = try SecuritySettings.listener(listener, at: everywhere)
        #expect(server?.certificateFile == "c")
        #expect(server?.keyFile == "k")
        #expect(server?.clientAuthorityFile == "a")
        #expect(server?.requiresClientCertificate == true)
        #expect(server?.allowedClients == ["one", "two", "three"])

        let experts = try await Self.settings([
            "experts-tls-ca": "a", "experts-tls-certificate": "c", "experts-tls-key": "k",
            "experts-tls-server-name": "n",
        ])
        let options = try SecuritySettings.experts(experts, hosts: [("a", "a:1")])
        #expect(options?.authorityFile == "a")
        #expect(options?.certificateFile == "c")
        #expect(options?.keyFile == "k")
        #expect(options?.serverName == "n")

        let system = try await Self.settings(["tls": "true"])
        let client = try SecuritySettings.client(system, host: "a", endpoint: "a:1")
        #expect(client != nil)
        #expect(client?.authorityFile == nil)
    }

    @Test(
        "half of a pair is an error that names the other half",
        arguments: [
            (["tls-certificate": "c"], "tls-certificate is set without tls-key: set --tls-key or SWITCHYARD_TLS_KEY"),
            (["tls-key": "k"], "tls-key is set without tls-certificate"),
            (["tls-client-ca": "a"], "tls-client-ca is set without tls-certificate"),
            (["tls-allowed-clients": "a"], "tls-allowed-clients is set without tls-certificate"),
            (
                ["tls-certificate": "c", "tls-key": "k", "tls-allowed-clients": "a"],
                "tls-allowed-clients is set without tls-client-ca"
            ),
        ]
    )
    func listenerPairs(flags: [String: String], part: String) async throws {
        let settings = try await Self.settings(flags)
        let failure = Self.failure {
            try SecuritySettings.listener(settings, at: ListenAddress(host: "127.0.0.1", port: 1))
        }
        #expect(failure.contains(part), "\(failure)")
    }

    @Test(
        "and so it is towards expert hosts and gateways",
        arguments: [
            (
                ["experts-tls-ca": "a", "experts-tls-key": "k"],
                "experts-tls-key is set without experts-tls-certificate"
            ),
            (
                ["experts-tls-certificate": "c", "experts-tls-key": "k"],
                "experts-tls-certificate is set without experts-tls-ca"
            ),
            (["experts-tls-server-name": "n"], "experts-tls-server-name is set without experts-tls-ca"),
            (["tls-ca": "a", "tls-certificate": "c"], "tls-certificate is set without tls-key"),
            (
                ["tls-certificate": "c", "tls-key": "k"],
                "set --tls-ca or SWITCHYARD_TLS_CA, or --tls or SWITCHYARD_TLS"
            ),
            (["tls-server-name": "n"], "tls-server-name is set without tls-ca"),
        ]
    )
    func clientPairs(flags: [String: String], part: String) async throws {
        let settings = try await Self.settings(flags)
        let failure = Self.failure {
            if flags.keys.contains(where: { $0.hasPrefix("experts") }) {
                try SecuritySettings.experts(settings, hosts: [])
            } else {
                try SecuritySettings.client(settings, host: "127.0.0.1", endpoint: "127.0.0.1:1")
            }
        }
        #expect(failure.contains(part), "\(failure)")
    }

    @Test("a token comes from the environment or from a file, not from both")
    func token() async throws {
        let secret = "0123456789abcdef"
        let environment = ["SWITCHYARD_TOKEN": secret]
        #expect(try SecuritySettings.token(try await Self.settings([:])) == nil)
        #expect(try SecuritySettings.token(try await Self.settings([:], environment: environment)) == secret)
        let both = try await Self.settings(["token-file": "/nowhere"], environment: environment)
        let failure = Self.failure { try SecuritySettings.token(both) }
        #expect(failure.contains("both set"))
        #expect(!failure.contains(secret))
        let missing = try await Self.settings(["token-file": "/nowhere"])
        #expect(Self.failure { try SecuritySettings.token(missing) }.contains("cannot read /nowhere"))
    }
}
