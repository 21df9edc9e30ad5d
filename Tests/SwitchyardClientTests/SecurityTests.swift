// SPDX-License-Identifier: Apache-2.0

import NIOCore
import RPCCore
import RPCTransport
import SwitchyardClient
import SwitchyardProtos
import Testing

@Suite("A client's security", .timeLimit(.minutes(10)))
struct SecurityTests {
    @Test(
        "goes nowhere in plaintext but to this machine, and says so at once",
        arguments: ["gateway.test", "10.0.0.1"]
    )
    func plaintext(host: String) async throws {
        let endpoint = Endpoint(host: host, port: 7_400)
        let error = await #expect(throws: GatewayError.self) {
            try await GatewayClient.with(endpoint: endpoint, logger: quietLogger) { try await $0.describeModel() }
        }
        #expect(error?.code == .failedPrecondition)
        #expect(error?.message.contains("\(host):7400 is not on this machine") == true)
        let client = GatewayClient(endpoint: endpoint, logger: quietLogger)
        await #expect(throws: GatewayError.self) { try await client.run() }
    }

    @Test("needs readable files, and says so at once")
    func files() async throws {
        let options = ClientTLSOptions(authorityFile: "/nowhere")
        let configuration = GatewayClientConfiguration(security: .tls(options))
        let error = await #expect(throws: GatewayError.self) {
            try await GatewayClient.with(endpoint: .local, configuration: configuration, logger: quietLogger) {
                try await $0.describeModel()
            }
        }
        #expect(error?.code == .failedPrecondition)
        #expect(error?.message.contains("cannot read /nowhere") == true)
    }

    @Test("sends its token with every call, in place of another one in the metadata")
    func token() async throws {
        var metadata = Metadata()
        try metadata.add("Basic other", forKey: "authorization")
        try metadata.add("kept", forKey: "x-kept")
        let configuration = GatewayClientConfiguration(metadata: metadata, token: try BearerToken("secret-token_1"))
        try await TestGateway.with(configuration: configuration) { gateway in
            let shown = GenerateRequest(input: .text("authorization"))
            let answer = try await gateway.generate(shown)
            #expect(answer.generations.first?.text == "Bearer secret-token_1 kept")
        }
    }

    @Test("never prints a token", arguments: ["secret-token_1"])
    func masked(secret: String) throws {
        let configuration = GatewayClientConfiguration(token: try BearerToken(secret))
        var dumped = ""
        dump(configuration, to: &dumped)
        for text in ["\(configuration)", String(reflecting: configuration), dumped] {
            #expect(!text.contains(secret))
            #expect(text.contains("***"))
        }
    }

    @Test("refuses text that cannot be a token", arguments: ["", "a b", "a\n", "tökén", "a:b"])
    func malformed(secret: String) {
        let error = #expect(throws: GatewayError.self) { try BearerToken(secret) }
        #expect(error?.code == .invalidArgument)
        #expect(secret.isEmpty || error?.message.contains(secret) == false)
    }
}
