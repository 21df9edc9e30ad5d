// SPDX-License-Identifier: Apache-2.0

import CommandKit
import Foundation
import PeerTools
import SwitchyardClient
import SwitchyardProtos
import Testing

@testable import switchyard

private let hasPython = Peers.mayRun(Peers.python)
private let pythonHint: Comment = "make test sets SWITCHYARD_TEST_PYTHON"
private let hasTriton = Peers.mayRun(Peers.tritonPython)
private let tritonHint: Comment = "make test makes an environment with tritonclient"
private let hasCpp = Peers.mayRun("cpp_gateway")
private let cppHint: Comment = "make test builds the C++ clients where grpc_cpp_plugin and g++ are installed"

@Suite("Other people's gRPC clients", .serialized, .timeLimit(.minutes(10)))
struct PeerClientTests {
    @Test(
        "python's grpcio: unary, streaming, health, errors, deadline, cancellation",
        .enabled(if: hasPython, pythonHint)
    )
    func grpcio() async throws {
        let prompt = try #require(try TestCluster.prompts().first)
        try await TestCluster.run(pools: 2) { _, cluster in
            let ids = prompt.tokenIDs.map(Int.init)
            func call(_ command: String) async throws -> [String: Any] {
                try await PeerProcess.script(
                    "grpcio_client.py",
                    [cluster.gatewayAddress, "\(TestCluster.root)/Protos", command, prompt.prompt]
                )
            }
            let generated = try await call("generate")
            #expect(generated["token_ids"] as? [[Int]] == [ids])
            let streamed = try await call("stream")
            #expect(streamed["tokens"] as? [Int] == ids)
            #expect((streamed["final"] as? [String: Any])?["token_ids"] as? [[Int]] == [ids])
            #expect(try await call("describe")["experts"] as? Int == 8)
            #expect(try await call("health")["status"] as? String == "SERVING")
            #expect(try await call("unknown")["code"] as? String == "UNIMPLEMENTED")
            #expect(try await call("deadline")["code"] as? String == "DEADLINE_EXCEEDED")
            #expect(try await call("cancel")["cancelled"] as? Bool == true)
            let invalid = try await call("invalid")
            #expect(invalid["code"] as? String == "INVALID_ARGUMENT")
            #expect((invalid["message"] as? String)?.contains("temperature") == true)
        }
    }

    @Test(
        "grpclib, an HTTP/2 stack of its own",
        .enabled(if: hasPython, pythonHint),
        arguments: ["generate", "stream"]
    )
    func grpclib(command: String) async throws {
        let prompt = try #require(try TestCluster.prompts().first)
        try await TestCluster.run(pools: 1) { _, cluster in
            let address = cluster.gatewayAddress.split(separator: ":").map(String.init)
            let answer = try await PeerProcess.script(
                "grpclib_client.py",
                [address[0], address[1], "\(TestCluster.root)/Protos", command, prompt.prompt]
            )
            #expect(answer["token_ids"] as? [[Int]] == [prompt.tokenIDs.map(Int.init)])
        }
    }

    @Test("NVIDIA's tritonclient: metadata, readiness, and the ids of Generate", .enabled(if: hasTriton, tritonHint))
    func triton() async throws {
        let prompts = try TestCluster.prompts().prefix(3)
        try await TestCluster.run(pools: 2) { client, cluster in
            let model = try await client.describeModel().name
            let report = try await PeerProcess.script(
                "triton_client.py",
                [cluster.gatewayAddress, model] + prompts.map(\.prompt),
                with: Peers.tritonPython
            )
            for name in ["live", "ready", "model_ready", "version_ready"] {
                #expect(report[name] as? Bool == true, "\(name)")
            }
            #expect(report["other_ready"] as? Bool == false)
            #expect(report["server"] as? String == "switchyard")
            #expect(report["inputs"] as? [String] == ["text_input", "input_ids"])
            #expect(report["id"] as? String == "mine")
            var texts: [String] = []
            for prompt in prompts {
                let answer = try await client.generate(GenerateRequest(input: .text(prompt.prompt)))
                texts.append(answer.generations[0].text)
                #expect(answer.generations[0].tokenIDs == prompt.tokenIDs)
            }
            #expect(report["ids"] as? [[[Int]]] == prompts.map { [$0.tokenIDs.map(Int.init)] })
            #expect(report["texts"] as? [[String]] == texts.map { [$0] })
            #expect(report["listed"] as? [String] == texts)
            var beams = GenerateRequest(input: .text(prompts[0].prompt))
            beams.parameters = GenerationParameters(maxNewTokens: 6, numBeams: 3, numReturnSequences: 2)
            let best = try await client.generate(beams).generations
            #expect(report["beams"] as? [[[Int]]] == [best.map { $0.tokenIDs.map(Int.init) }])
            var ids = GenerateRequest(input: .tokenIDs([261, 28, 9, 2047, 1]))
            ids.parameters = GenerationParameters(maxNewTokens: 4)
            let fromIDs = try await client.generate(ids).generations
            #expect(report["from_ids"] as? [[[Int]]] == [fromIDs.map { $0.tokenIDs.map(Int.init) }])
            let refused = try #require(report["refused"] as? [String: [String: String]])
            #expect(refused["model"]?["status"] == "StatusCode.NOT_FOUND", "\(refused)")
            for (name, word) in [("parameter", "colour"), ("sequence", "sequence_"), ("output", "logits")] {
                #expect(refused[name]?["status"] == "StatusCode.INVALID_ARGUMENT", "\(refused)")
                #expect(refused[name]?["message"]?.contains(word) == true, "\(refused)")
            }
        }
    }

    @Test("gRPC's C++ library: unary, streaming, health, errors, deadline, cancellation", .enabled(if: hasCpp, cppHint))
    func cpp() async throws {
        let prompt = try #require(try TestCluster.prompts().first)
        try await TestCluster.run(pools: 1) { _, cluster in
            let arguments = [cluster.gatewayAddress, prompt.prompt] + prompt.tokenIDs.map(String.init)
            let output = try await PeerProcess.run(try Peers.path("cpp_gateway"), arguments)
            let report = try PeerProcess.object(of: output, from: "cpp_gateway")
            #expect(report.count == 7)
            for (name, outcome) in report { #expect(outcome as? String == "pass", "\(name)") }
        }
    }

    @Test(
        "by reflection alone, grpcio learns every service and message, and calls Generate",
        .enabled(if: hasPython, pythonHint)
    )
    func reflection() async throws {
        let prompt = try #require(try TestCluster.prompts().first)
        try await TestCluster.run(pools: 1) { _, cluster in
            let standard = [
                "grpc.health.v1.Health", "grpc.reflection.v1.ServerReflection",
                "grpc.reflection.v1alpha.ServerReflection",
            ]
            let gateway = try await PeerProcess.script(
                "reflection_client.py",
                [cluster.gatewayAddress, prompt.prompt]
            )
            Self.check(gateway, services: standard + ["inference.GRPCInferenceService", "switchyard.v1.Gateway"])
            #expect(gateway["token_ids"] as? [[Int]] == [prompt.tokenIDs.map(Int.init)])
            let messages = try #require(gateway["messages"] as? [String])
            #expect(messages.contains("switchyard.v1.ClusterDescription"))
            #expect(messages.contains("grpc.health.v1.HealthListResponse.StatusesEntry"))

            let host = try #require(cluster.hosts.running.first)
            let expertHost = try await PeerProcess.script("reflection_client.py", [host.address])
            Self.check(expertHost, services: standard + ["switchyard.v1.ExpertHost"])
            let methods = try #require(expertHost["methods"] as? [String])
            #expect(methods.contains("switchyard.v1.ExpertHost.Forward"))
        }
    }

    @Test("with --no-reflection there is none", .enabled(if: hasPython, pythonHint))
    func withoutReflection() async throws {
        try await TestCluster.run(pools: 1, gatewayArguments: ["--no-reflection"]) { _, cluster in
            let script = "\(Peers.folder)/reflection_client.py"
            let output = try await PeerProcess.run(try Peers.path(Peers.python), [script, cluster.gatewayAddress])
            #expect(output.status != 0)
            #expect(output.errors.contains("UNIMPLEMENTED"), "\(output.errors)")
        }
    }

    /// Both versions list the services, and answer questions that have no answer as they should.
    private static func check(_ report: [String: Any], services: [String]) {
        #expect(report["services"] as? [String] == services)
        for version in ["v1", "v1alpha"] {
            let answers = (report["versions"] as? [String: Any])?[version] as? [String: Any]
            #expect(answers?["services"] as? [String] == services, "\(version)")
            #expect(answers?["host"] as? String == "h", "\(version)")
            // NOT_FOUND twice, INVALID_ARGUMENT.
            #expect(answers?["errors"] as? [Int] == [5, 5, 3], "\(version)")
            #expect(answers?["extensions"] as? [Int] == [], "\(version)")
        }
    }
}
