// SPDX-License-Identifier: Apache-2.0

import CommandKit
import FaultTools
import Foundation
import SwitchModel
import SwitchyardClient
import SwitchyardProtos
import Testing

@testable import switchyard

/// Models without experts, which a gateway serves alone, and gated experts, which hosts serve; in real processes.
@Suite("Dense models and gated experts", .serialized)
struct DenseServingTests {
    /// A fixture's answers.
    private struct Case: Decodable {
        var overrides: [String: String]?
        var prompts: [[UInt32]]
        var greedy: [[UInt32]]
        var beams: [[UInt32]]
    }

    private static let fixtures = "\(TestCluster.root)/Tests/Fixtures/dense"
    private static let t5 = "\(fixtures)/t5"
    private static let flan = "\(fixtures)/flan-t5"
    private static let xxl = "\(fixtures)/switch-xxl"

    private static func answers(_ folder: String) throws -> Case {
        try JSONDecoder().decode(Case.self, from: Data(contentsOf: URL(fileURLWithPath: "\(folder)/case.json")))
    }

    /// Asks for the first prompts greedily and with beams, and compares the ids.
    private static func check(_ client: GatewayClient, _ wanted: Case, count: Int) async throws {
        for index in 0..<min(count, wanted.prompts.count) {
            for (beams, ids) in [(UInt32(1), wanted.greedy[index]), (4, wanted.beams[index])] {
                var request = GenerateRequest(input: .tokenIDs(wanted.prompts[index]), parameters: .init())
                request.parameters?.maxNewTokens = 12
                request.parameters?.numBeams = beams
                let response = try await client.generate(request)
                #expect(response.generations.first?.tokenIDs == ids, "prompt \(index), \(beams) beams")
            }
        }
    }

    private static func command(_ arguments: [String]) async throws -> Commands.Output {
        try await Commands.run(TestCluster.executable, arguments, environment: ["COLUMNS": "200"])
    }

    @Test("a gateway without pools serves dense T5, and describes itself as complete", arguments: ["t5", "flan-t5"])
    func gatewayAlone(name: String) async throws {
        let folder = "\(Self.fixtures)/\(name)"
        var layout = LocalCluster.Layout(withoutExperts: folder)
        layout.gatewayThreads = 1
        layout.startTimeout = .seconds(300)
        let events: @Sendable (ChildEvent) -> Void = { _ in }
        try await LocalCluster.run(layout, executable: TestCluster.executable, events: events) { cluster in
            try await GatewayClient.with(endpoint: Endpoint(parsing: cluster.gatewayAddress)) { client in
                try await Self.check(client, Self.answers(folder), count: 20)
                let cluster = try await client.describeCluster()
                #expect(cluster.complete && cluster.pools.isEmpty)
                let model = try await client.describeModel()
                #expect(model.expertsPerLayer == 0 && model.sparseLayers.isEmpty && model.parameters > 0)
                try await Self.checkRoutes(client, Self.answers(folder))
            }
            let status = try await Self.command(["status", "--endpoint", cluster.gatewayAddress])
            #expect(status.status == 0 && status.text.contains("no experts"), "\(status.text)\(status.errors)")
        }
    }

    /// A model without routers has no routes and no losses of them.
    private static func checkRoutes(_ client: GatewayClient, _ wanted: Case) async throws {
        var request = GenerateRequest(input: .tokenIDs(wanted.prompts[0]), parameters: .init())
        request.parameters?.maxNewTokens = 12
        request.returnRoutes = true
        let response = try await client.generate(request)
        #expect(response.generations.first?.tokenIDs == wanted.greedy[0])
    }

    @Test("up serves a dense model with one process, and refuses options about experts")
    func up() async throws {
        for option in [["--pools", "2"], ["--replicas", "1"], ["--packed"], ["--wire-dtype", "bfloat16"]] {
            let refused = try await Self.command(["up", Self.t5, "--listen", "127.0.0.1:0"] + option)
            #expect(refused.status != 0)
            #expect(refused.errors.contains("\(option[0]) is about experts"), "\(refused.errors)")
        }
        let folder = FileManager.default.temporaryDirectory.appendingPathComponent("dense-\(UUID().uuidString)").path
        try FileManager.default.createDirectory(atPath: folder, withIntermediateDirectories: true)
        defer { try? FileManager.default.removeItem(atPath: folder) }
        try await ProcessKeeper.with { keeper in
            let process = keeper.start(
                ProcessSpecification(
                    name: "up",
                    executable: TestCluster.executable,
                    arguments: ["up", Self.flan, "--listen", "127.0.0.1:0", "--threads", "1", "--dtype", "float32"],
                    addressFile: "\(folder)/never",
                    logFile: "\(folder)/up.log",
                    environment: ["TMPDIR": folder]
                )
            )
            let address = try await Self.ready(process)
            try await GatewayClient.with(endpoint: Endpoint(parsing: address)) { client in
                try await Self.check(client, Self.answers(Self.flan), count: 5)
            }
            try process.signal(SIGTERM)
            let exit = try await process.ended(within: .seconds(300))
            #expect(exit.code == 0, "\(exit)")
        }
    }

    private static func ready(_ process: KeptProcess) async throws -> String {
        let deadline = ContinuousClock.now.advanced(by: .seconds(300))
        while ContinuousClock.now < deadline {
            if let line = process.lines.first(where: { $0.contains("ready on ") }),
                let match = line.firstMatch(of: /ready on ([^;]+);/)
            {
                return match.1.description
            }
            if let exit = process.exit { throw FaultError("up left, \(exit): \(process.lines)") }
            try await Task.sleep(for: .milliseconds(10))
        }
        throw FaultError("up was never ready: \(process.lines)")
    }

    @Test("pools without experts, experts without pools, and hosts without experts are refused by name")
    func refusals() async throws {
        let listen = ["--listen", "127.0.0.1:0"]
        for (arguments, words) in [
            (
                ["gateway", "--model", Self.t5, "--pool", "pool-0=127.0.0.1:1"] + listen,
                ["pool-0", "leave out --pool"]
            ),
            (["gateway", "--model", TestCluster.miniature] + listen, ["no expert pool is given", "--pool"]),
            (["expert-host", "--shard", Self.t5] + listen, ["has no experts", "model_type t5"]),
            (["shard", Self.t5, "--out", "/nowhere/at-all", "--pools", "2"], ["has no experts", "switchyard up"]),
            (["inspect", Self.t5, "--override", "num_experts=4"], ["num_experts", "would change nothing"]),
        ] {
            let output = try await Self.command(arguments)
            #expect(output.status != 0, "\(arguments)")
            for word in words {
                let text = output.errors + output.text
                #expect(text.contains(word), "no \"\(word)\" in: \(text)")
            }
        }
    }

    @Test("inspect describes a dense model, and names the command that serves it")
    func inspect() async throws {
        let output = try await Self.command(["inspect", Self.flan])
        #expect(output.status == 0, "\(output.text)\(output.errors)")
        for part in ["t5, ", "gated gelu_new", "its own head", "Can be served. Next:  switchyard up \(Self.flan)"] {
            #expect(output.text.contains(part), "no \"\(part)\" in\n\(output.text)")
        }
        #expect(!output.text.contains("pools"))
    }

    @Test("gated experts on two hosts give the reference's ids", arguments: [nil, WeightStorage.checkpoint])
    func gatedExperts(packing: WeightStorage?) async throws {
        let wanted = try Self.answers(Self.xxl)
        let overrides = wanted.overrides ?? [:]
        try await TestCluster.runProcesses(
            pools: 2,
            model: Self.xxl,
            packing: packing,
            overrides: overrides
        ) { cluster in
            try await GatewayClient.with(endpoint: Endpoint(parsing: cluster.gatewayAddress)) { client in
                try await Self.check(client, wanted, count: 12)
            }
        }
    }
}
