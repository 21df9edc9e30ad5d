// SPDX-License-Identifier: Apache-2.0

import Foundation
import Testing

@testable import switchyard

/// Python with the packages of Tests/Peers/requirements.txt; make test sets it up.
private let python: String? = ProcessInfo.processInfo.environment["SWITCHYARD_TEST_PYTHON"]

@Suite("Other people's gRPC clients", .serialized, .enabled(if: python != nil, "make test sets SWITCHYARD_TEST_PYTHON"))
struct PeerClientTests {
    @Test("python's grpcio: unary, streaming, health, errors, deadline, cancellation")
    func grpcio() async throws {
        let prompt = try #require(try TestCluster.prompts().first)
        try await TestCluster.run(pools: 2) { _, cluster in
            let ids = prompt.tokenIDs.map(Int.init)
            func call(_ command: String) async throws -> [String: Any] {
                try await Self.run(
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

    @Test("grpclib, an HTTP/2 stack of its own", arguments: ["generate", "stream"])
    func grpclib(command: String) async throws {
        let prompt = try #require(try TestCluster.prompts().first)
        try await TestCluster.run(pools: 1) { _, cluster in
            let address = cluster.gatewayAddress.split(separator: ":").map(String.init)
            let answer = try await Self.run(
                "grpclib_client.py",
                [address[0], address[1], "\(TestCluster.root)/Protos", command, prompt.prompt]
            )
            #expect(answer["token_ids"] as? [[Int]] == [prompt.tokenIDs.map(Int.init)])
        }
    }

    private static func run(_ script: String, _ arguments: [String]) async throws -> [String: Any] {
        let output = try await Commands.run(
            try #require(python),
            ["\(TestCluster.root)/Tests/Peers/\(script)"] + arguments
        )
        #expect(output.status == 0, "\(script) failed:\n\(output.errors)")
        let line = output.text.split(separator: "\n").last ?? ""
        return try #require(try JSONSerialization.jsonObject(with: Data(line.utf8)) as? [String: Any])
    }
}
