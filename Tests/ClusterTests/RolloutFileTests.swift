// SPDX-License-Identifier: Apache-2.0

import CommandKit
import Foundation
import NIOCore
import PeerTools
import RPCCore
import RPCTransport
import SwitchyardClient
import SwitchyardProtos
import Synchronization
import Testing

@testable import switchyard

@Suite("Rollouts by files and by names, across processes", .serialized, .timeLimit(.minutes(15)))
struct RolloutFileTests {
    /// Writes a file beside the watched one and renames it over, as the instructions say.
    private static func write(_ text: String, to path: String) throws {
        try Data(text.utf8).write(to: URL(fileURLWithPath: path), options: .atomic)
    }

    /// Waits until a gateway's rollout is as wanted.
    private static func reach(
        _ client: GatewayClient,
        _ what: String,
        _ isReached: (RolloutDescription) -> Bool
    ) async throws {
        let end = ContinuousClock.now.advanced(by: .seconds(240))
        while true {
            let now = try await client.rollout(RolloutRequest())
            if isReached(now) { return }
            guard .now < end else {
                Issue.record("\(what): \(now)")
                return
            }
            try await Task.sleep(for: .milliseconds(50))
        }
    }

    /// A second gateway for the hosts of a cluster.
    private static func withSecondGateway(
        of cluster: LocalCluster,
        model: String,
        _ arguments: [String],
        _ body: @escaping @Sendable (String) async throws -> Void
    ) async throws {
        let scratch = try ScratchFolder()
        defer { scratch.remove() }
        let addressFile = "\(scratch.path)/address"
        let pools = Set(cluster.hosts.running.map { $0.name.split(separator: "/").first.map(String.init) ?? "" })
        let targets = pools.sorted()
            .flatMap { pool in
                let hosts = cluster.hosts.running.filter { $0.name.hasPrefix("\(pool)/") }.map(\.address)
                return ["--pool", "\(pool)=\(hosts.joined(separator: ","))"]
            }
        let gateway = ChildSpecification(
            name: "second",
            arguments: [
                "gateway", "--model", model, "--listen", "127.0.0.1:0", "--admin-listen", "off", "--threads", "1",
                "--encoder-deadline-ms", "60000", "--decoder-deadline-ms", "60000", "--address-file", addressFile,
                "--exit-with-standard-input",
            ] + targets + arguments,
            addressFile: addressFile
        )
        try await ChildProcesses.run(
            [gateway],
            executable: TestCluster.executable,
            onExit: .fail,
            startTimeout: .seconds(300),
            events: { _ in },
            body: { children in
                let process = try #require(children.running.first)
                try await body(process.address)
            }
        )
    }

    @Test("Two gateways follow one file under load: canary, promotion, and back; no request fails, and none is mixed")
    func file() async throws {
        let checkpoints = try RolloutTests.Checkpoints(pools: 2)
        defer { checkpoints.remove() }
        let file = "\(checkpoints.path)/../wanted.json"
        let flags = ["--checkpoints", checkpoints.path]
        let following = flags + ["--rollout-file", file]
        try await TestCluster.runProcesses(pools: 2, gatewayArguments: following, hostArguments: flags) { cluster in
            // Another folder of records, as on another machine.
            let other = try RolloutTests.Checkpoints(pools: 2)
            defer { other.remove() }
            try await Self.withSecondGateway(
                of: cluster,
                model: "\(other.path)/plain/gateway",
                ["--checkpoints", other.path, "--rollout-file", file]
            ) { second in
                try await GatewayClient.with(endpoint: Endpoint(parsing: cluster.gatewayAddress)) { first in
                    try await GatewayClient.with(endpoint: Endpoint(parsing: second)) { second in
                        try await Self.follow(file, first, second, cluster.gatewayAddress)
                    }
                }
            }
            #expect(other.record("gateway")?.contains("tuned") == true)
            #expect(checkpoints.record("gateway")?.contains("tuned") == true)
            #expect(checkpoints.record("experts")?.contains("tuned") == true)
        }
    }

    /// One file through all its wishes.
    private static func follow(
        _ file: String,
        _ first: GatewayClient,
        _ second: GatewayClient,
        _ address: String
    ) async throws {
        let known = RolloutTests.KnownAnswers()
        try await known.learn(first)
        let clients = [first, second]
        // All requests, so that the new answers can be learnt.
        try Self.write(#"{"checkpoint": "tuned", "canary": "100%"}"#, to: file)
        for client in clients {
            try await Self.reach(client, "canary") { $0.phase == .canary && $0.share == 1 && $0.readyHosts == 2 }
        }
        try await known.learn(second)
        #expect(known.fingerprints.count == 2 && known.different > 0)
        let load = RolloutTests.Load()
        async let running: Void = load.run(address, known, clients: 3)
        try Self.write(#"{"checkpoint": "tuned", "canary": 0.5}"#, to: file)
        for client in clients { try await Self.reach(client, "half") { $0.phase == .canary && $0.share == 0.5 } }
        // What is wrong with a file changes nothing.
        try Self.write(#"{"checkpoint": "tuned", "canary": "most"}"#, to: file)
        try await Task.sleep(for: .seconds(1))
        try Self.write(#"{"back": true}"#, to: file)
        for client in clients {
            try await Self.reach(client, "back") { $0.phase == .steady && $0.serving?.checkpoint == "" }
        }
        try Self.write(#"{"checkpoint": "tuned"}"#, to: file)
        for client in clients {
            try await Self.reach(client, "promotion") { $0.phase == .steady && $0.serving?.checkpoint == "tuned" }
        }
        load.stop()
        try await running
        let counts = load.counts.withLock { $0 }
        #expect(counts.failures.isEmpty, "\(counts.failures.prefix(3))")
        #expect(counts.mixed == 0 && counts.answered > 0, "\(counts.mixed) of \(counts.answered)")
        #expect(counts.models == known.fingerprints)
        // The hosts hold one checkpoint again once no gateway uses the other: a person's settle has nothing left to do.
        let end = ContinuousClock.now.advanced(by: .seconds(120))
        while true {
            do {
                _ = try await second.rollout(RolloutRequest(step: .rolloutSettle))
                break
            } catch {
                guard .now < end else { throw error }
                try await Task.sleep(for: .milliseconds(100))
            }
        }
    }

    @Test("One command leads two gateways from one checkpoint to another, and hosts unload the old one after both")
    func several() async throws {
        let checkpoints = try RolloutTests.Checkpoints(pools: 2)
        defer { checkpoints.remove() }
        let flags = ["--checkpoints", checkpoints.path]
        try await TestCluster.runProcesses(pools: 2, gatewayArguments: flags, hostArguments: flags) { cluster in
            let other = try RolloutTests.Checkpoints(pools: 2)
            defer { other.remove() }
            try await Self.withSecondGateway(
                of: cluster,
                model: "\(other.path)/plain/gateway",
                ["--checkpoints", other.path]
            ) { second in
                let gateways = ["--gateway", second]
                let first = cluster.gatewayAddress
                let canary = try await RolloutTests.rollout(["tuned", "--canary", "50%"] + gateways, at: first)
                #expect(canary.contains("tuned") && canary.contains("50.0% of new requests"))
                let promoted = try await RolloutTests.rollout(["tuned", "--promote"] + gateways, at: first)
                #expect(promoted.contains("tuned is served"))
                for address in [first, second] {
                    let status = try await RolloutTests.rollout(["--status"], at: address)
                    #expect(status.contains("no rollout") && status.contains("tuned"), "\(status)")
                }
            }
            #expect(checkpoints.record("experts")?.contains("tuned") == true)
            #expect(other.record("gateway")?.contains("tuned") == true)
        }
    }

    @Test("A file without a folder of checkpoints is refused before anything is loaded")
    func withoutFolder() async throws {
        let result = try await Commands.run(
            TestCluster.executable,
            [
                "gateway", "--model", TestCluster.miniature, "--rollout-file", "/tmp/wanted.json", "--pool",
                "a=127.0.0.1:1",
            ]
        )
        #expect(result.status != 0 && result.errors.contains("pass --checkpoints DIR too"), "\(result.errors)")
    }

    // MARK: - Names

    private struct Reply: Equatable {
        var model: String
        var fingerprint: String
        var texts: [String]
    }

    /// Asks for completions with curl.
    private static func complete(_ web: WebCluster, _ members: [String: Any]) async throws -> WebCluster.Answer {
        let body = try JSONSerialization.data(withJSONObject: members)
        return try await web.ask("/v1/completions", String(decoding: body, as: UTF8.self))
    }

    private static func complete(
        _ web: WebCluster,
        _ model: String,
        _ prompts: [String]
    ) async throws -> WebCluster.Answer {
        try await Self.complete(web, ["model": model, "prompt": prompts, "max_tokens": 16])
    }

    private static func texts(_ answer: WebCluster.Answer) -> [String] {
        (answer.json["choices"] as? [[String: Any]] ?? []).compactMap { $0["text"] as? String }
    }

    /// The same over the Open Inference Protocol, with names and versions.
    private static func infer(_ cluster: LocalCluster, _ prompt: String, _ old: Reply, _ new: Reply) async throws {
        let gateway = try #require(cluster.gateway.running.first)
        let method = GRPCInferenceServiceMethods.modelInfer
        try await withHostChannel(gateway) { channel in
            func ask(_ name: String, _ version: String = "") async throws -> ModelInferResponse {
                let request = ModelInferRequest(
                    modelName: name,
                    modelVersion: version,
                    inputs: [
                        InferInputTensor(
                            name: "text_input",
                            datatype: "BYTES",
                            shape: [1],
                            contents: InferTensorContents(bytesContents: [Array(prompt.utf8)])
                        )
                    ]
                )
                let reply = try await channel.unary(
                    Method(service: method.service, name: method.name),
                    Payload(bytes: request.serialized()),
                    options: CallOptions(deadline: .now.advanced(by: .seconds(240)))
                )
                return try ModelInferResponse(serialized: Array(buffer: reply.message))
            }
            for (name, expected) in [("switch-mini", old), ("tuned", new)] {
                let digits = String(expected.fingerprint.dropFirst(3))
                for response in [try await ask(name), try await ask(name, digits), try await ask("assistant", digits)] {
                    #expect(response.modelName == name && response.modelVersion == digits)
                }
                await #expect(throws: RPCError.self) { try await ask(name, String(digits.reversed())) }
            }
            #expect(["switch-mini", "tuned"].contains(try await ask("assistant").modelName))
        }
    }

    @Test(
        "An OpenAI request that names a checkpoint is answered by it or refused in words; a stable name follows the shares",
        .enabled(if: Peers.mayRun("curl"))
    )
    func names() async throws {
        let checkpoints = try RolloutTests.Checkpoints(pools: 2)
        defer { checkpoints.remove() }
        let flags = ["--checkpoints", checkpoints.path]
        try await WebCluster.run(gatewayArguments: flags + ["--model-name", "assistant"], hostArguments: flags) { web in
            let prompts = try TestCluster.prompts().prefix(4).map(\.prompt)
            let address = web.cluster.gatewayAddress
            func ask(_ model: String) async throws -> Reply {
                let answer = try await Self.complete(web, model, prompts)
                #expect(answer.status == 200, "\(model): \(answer.body)")
                return Reply(
                    model: answer.json["model"] as? String ?? "",
                    fingerprint: answer.json["system_fingerprint"] as? String ?? "",
                    texts: Self.texts(answer)
                )
            }
            func refused(_ model: String) async throws -> String {
                let answer = try await Self.complete(web, model, prompts)
                let error = answer.json["error"] as? [String: Any]
                #expect(answer.status == 404, "\(model): \(answer.body)")
                #expect(error?["code"] as? String == "model_not_found")
                return error?["message"] as? String ?? ""
            }
            let old = try await ask("switch-mini")
            #expect(old.model == "switch-mini" && old.texts.count == prompts.count)
            #expect(try await ask("assistant") == old)
            #expect(try await refused("tuned").contains("serves `assistant` and `switch-mini`"))

            _ = try await RolloutTests.rollout(["tuned", "--canary", "50%"], at: address)
            let new = try await ask("tuned")
            #expect(new.model == "tuned" && new.fingerprint != old.fingerprint && new.texts != old.texts)
            // By its name each one answers every request, whatever the share.
            for _ in 0..<4 {
                #expect(try await ask("switch-mini") == old)
                #expect(try await ask("tuned") == new)
            }
            let digits = new.fingerprint.dropFirst(3)
            #expect(try await ask("tuned@\(digits)") == new)
            #expect(try await ask("assistant@\(digits)") == new)
            #expect(try await refused("switch-mini@\(digits)").contains("`tuned`"))
            // By the stable name a body decides, and all its prompts get the same checkpoint.
            var models: Set<String> = []
            for seed in 0..<24 {
                let answer = try await Self.complete(
                    web,
                    ["model": "assistant", "prompt": prompts, "max_tokens": 16, "seed": seed]
                )
                let model = answer.json["model"] as? String ?? ""
                #expect(Self.texts(answer) == (model == "tuned" ? new.texts : old.texts))
                models.insert(model)
            }
            #expect(models == ["tuned", "switch-mini"])
            let listed = try await web.ask("/v1/models").json["data"] as? [[String: Any]]
            #expect(listed?.compactMap { $0["id"] as? String } == ["assistant", "switch-mini", "tuned"])
            #expect(try await web.ask("/v1/models/tuned").status == 200)
            let embedded = try await web.ask("/v1/embeddings", #"{"model":"tuned","input":["my kingdom"]}"#)
            #expect(embedded.status == 200 && embedded.json["model"] as? String == "tuned", "\(embedded.body)")
            // Streamed, every event names the checkpoint.
            let streamed = #"{"model":"tuned","prompt":"my <extra_id_0>","stream":true}"#
            let stream = try await web.ask("/v1/completions", streamed)
            let events = WebCluster.events(stream.body).filter { $0 != "[DONE]" }
            #expect(!events.isEmpty && events.allSatisfy { $0.contains(#""model":"tuned""#) }, "\(stream.body)")

            try await Self.infer(web.cluster, prompts[0], old, new)

            _ = try await RolloutTests.rollout(["tuned", "--promote"], at: address)
            #expect(try await ask("assistant") == new)
            #expect(try await ask("tuned") == new)
            #expect(try await refused("switch-mini").contains("serves `assistant` and `tuned`"))
            #expect(try await web.ask("/v1/models/switch-mini").status == 404)
        }
    }
}
