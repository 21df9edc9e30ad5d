// SPDX-License-Identifier: Apache-2.0

import Foundation
import ServiceKit
import Testing

@testable import switchyard

@Suite("switchyard config", .serialized)
struct ConfigCommandTests {
    private struct Report: Decodable {
        struct Entry: Decodable {
            var key: String
            var values: [String]
            var source: String
            var variable: String
            var `default`: String?
            var allowed: String
        }

        var settings: [Entry]
    }

    private func config(_ arguments: [String], environment: [String: String] = [:]) async throws -> Commands.Output {
        try await Commands.run(TestCluster.executable, ["config"] + arguments, environment: environment)
    }

    private func report(_ output: Commands.Output) throws -> [String: Report.Entry] {
        let report = try JSONDecoder().decode(Report.self, from: Data(output.text.utf8))
        return Dictionary(uniqueKeysWithValues: report.settings.map { ($0.key, $0) })
    }

    @Test("shows a gateway's settings, and where each value comes from")
    func sources() async throws {
        let file = FileManager.default.temporaryDirectory.appendingPathComponent("config-\(UUID().uuidString).json")
            .path
        defer { try? FileManager.default.removeItem(atPath: file) }
        try #"{"queue-limit": 7, "batch-slots": 8, "pool": ["a=127.0.0.1:1", "b=127.0.0.1:2"]}"#
            .write(toFile: file, atomically: true, encoding: .utf8)
        let output = try await config(
            ["gateway", "--json", "--batch-slots", "9", "--model", "https://user:pass@models.test/g?signature=secret"],
            environment: ["SWITCHYARD_CONFIG": file, "SWITCHYARD_LISTEN": "127.0.0.1:1234", "SWITCHYARD_ZONE": ""]
        )
        #expect(output.status == 0, "\(output.errors)")
        let settings = try report(output)
        #expect(settings["batch-slots"]?.values == ["9"])
        #expect(settings["batch-slots"]?.source == "flag")
        #expect(settings["listen"]?.values == ["127.0.0.1:1234"])
        #expect(settings["listen"]?.source == "environment")
        #expect(settings["queue-limit"]?.values == ["7"])
        #expect(settings["queue-limit"]?.source == "file:\(file)")
        #expect(settings["pool"]?.values == ["a=127.0.0.1:1", "b=127.0.0.1:2"])
        #expect(settings["capacity"]?.values == ["checkpoint"])
        #expect(settings["capacity"]?.source == "default")
        #expect(settings["zone"]?.values == [])
        #expect(settings["model"]?.values == ["https://***@models.test/g?***"])
        #expect(!output.text.contains("secret") && !output.text.contains("pass@"))
        #expect(settings["batch-slots"]?.default == "32")
        #expect(settings["batch-slots"]?.allowed == "a whole number from 1 to 4096")
        #expect(settings.keys.sorted() == CommandSettings.gateway.map(\.key).sorted())
    }

    @Test("prints a table for people, even of unusable settings, and then says what is wrong")
    func wrong() async throws {
        let output = try await config(
            ["expert-host", "--shard", "shards/pool-0", "--listen", "0.0.0.0:1"],
            environment: ["SWITCHYARD_MAX_ROWS": "12"]
        )
        #expect(output.status != 0)
        #expect(output.text.contains("environment SWITCHYARD_MAX_ROWS"), "\(output.text)")
        #expect(output.errors.contains("--plaintext"), "\(output.errors)")
    }

    @Test("checks files only when asked to, and is silent if all is well")
    func check() async throws {
        let shown = try await config(["expert-host", "--shard", "/nowhere/pool-0"])
        #expect(shown.status == 0, "\(shown.errors)")
        let missing = try await config(["expert-host", "--shard", "/nowhere/pool-0", "--check"])
        #expect(missing.status != 0)
        #expect(missing.errors.contains("/nowhere/pool-0"), "\(missing.errors)")
        let certificates = try await config([
            "gateway", "--model", TestCluster.miniature, "--pool", "a=127.0.0.1:1", "--tls-certificate",
            "/nowhere/c.pem",
            "--tls-key", "/nowhere/k.pem", "--check",
        ])
        #expect(certificates.status != 0)
        #expect(certificates.errors.contains("/nowhere/c.pem"), "\(certificates.errors)")
        let sound = try await config(["expert-host", "--shard", TestCluster.miniature, "--check"])
        #expect(sound.status == 0, "\(sound.errors)")
        #expect(sound.text.isEmpty && sound.errors.isEmpty)
    }

    @Test("a misspelt variable keeps a service and a client from starting")
    func misspelt() async throws {
        for arguments in [["config", "gateway", "--check"], ["expert-host"], ["generate", "x"], ["status"]] {
            let output = try await Commands.run(
                TestCluster.executable,
                arguments,
                environment: ["SWITCHYARD_TLS_CLIENTCA": "ca.pem"]
            )
            #expect(output.status != 0)
            #expect(output.errors.contains("did you mean SWITCHYARD_TLS_CLIENT_CA?"), "\(output.errors)")
        }
    }

    @Test("a wrong value is named with the line of the file that has it, by a service and by config")
    func badFileValue() async throws {
        let file = FileManager.default.temporaryDirectory.appendingPathComponent("config-\(UUID().uuidString).json")
            .path
        defer { try? FileManager.default.removeItem(atPath: file) }
        try "{\n  \"shard\": [\"shards/pool-0\"],\n  \"queue-limit\": 0\n}"
            .write(toFile: file, atomically: true, encoding: .utf8)
        for arguments in [["config", "expert-host", "--check"], ["expert-host"]] {
            let output = try await Commands.run(TestCluster.executable, arguments + ["--config", file])
            #expect(output.status != 0)
            let message = "\"queue-limit\" in \(file), line 3, is 0; it must be a whole number from 1 to 65536"
            #expect(output.errors.contains(message), "\(output.errors)")
        }
    }

    @Test("lists the settings")
    func list() async throws {
        let output = try await config(["list", "expert-host"])
        #expect(output.status == 0, "\(output.errors)")
        for setting in CommandSettings.expertHost {
            #expect(output.text.contains("\n\(setting.key) "), "\(setting.key)")
        }
        let markdown = try await config(["list", "client", "--markdown"])
        #expect(
            markdown.text.contains("| `token-file` | | | Send the gateway the token in this file. |"),
            "\(markdown.text)"
        )
    }
}

@Suite("Settings that couple requests", .serialized)
struct CouplingTests {
    @Test("a gateway says at its start, in a sentence each, which settings let requests change each other's answers")
    func warnings() async throws {
        let log = ProcessLog()
        try await TestCluster.runProcesses(
            pools: 1,
            gatewayArguments: ["--capacity", "factor:1.25", "--mixed-weight-types"],
            log: log
        ) { _ in }
        let warnings = log.lines.filter { $0.contains("requests can change each other's answers") }
        #expect(warnings.count == 2, "\(warnings)")
        let capacity = warnings.first { $0.contains("capacity factor:1.25 shares an expert's places") }
        #expect(capacity?.contains("warning") == true)
        #expect(warnings.contains { $0.contains("with mixed-weight-types an answer depends on the replica") })
        let quiet = ProcessLog()
        try await TestCluster.runProcesses(pools: 1, gatewayArguments: ["--capacity", "unlimited"], log: quiet) { _ in }
        #expect(!quiet.lines.isEmpty)
        #expect(!quiet.lines.contains { $0.contains("requests can change") })
    }
}
