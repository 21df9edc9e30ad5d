// SPDX-License-Identifier: Apache-2.0

import NIOCore
import RPCCore
import SwitchyardClient
import SwitchyardProtos
import Testing

@Suite(.timeLimit(.minutes(10)))
struct GatewayClientTests {
    private func request(_ text: String) -> GenerateRequest { GenerateRequest(input: .text(text)) }

    /// The error that a call throws.
    private func failure(
        _ configuration: GatewayClientConfiguration = .defaults,
        _ call: (GatewayClient) async throws -> Void
    ) async throws -> GatewayError? {
        try await TestGateway.with(configuration: configuration) { gateway in
            do {
                try await call(gateway)
                return nil
            } catch {
                return error as? GatewayError
            }
        }
    }

    @Test func `every method is called and answered`() async throws {
        try await TestGateway.with { gateway in
            let generated = try await gateway.generate(self.request("a\0é"))
            #expect(generated == TestGateway.response(to: self.request("a\0é")))
            let ids = GenerateRequest(input: .tokenIDs([1, 2]))
            #expect(try await gateway.generate(ids).generations.first?.tokenIDs == [1, 2])
            let encoded = try await gateway.encode(EncodeRequest(input: .text("x"), pooling: .mean))
            #expect(encoded.hiddenStates?.shape == [1, 1])
            let scored = try await gateway.score(ScoreRequest(input: .text("x"), target: .text("y")))
            #expect(scored.loss == 1)
            #expect(try await gateway.describeModel().name == "test")
            #expect(try await gateway.describeCluster().pools.map(\.name) == ["pool-0"])
        }
    }

    @Test func `tokens come one by one and the response last`() async throws {
        try await TestGateway.with { gateway in
            var texts: [String] = []
            var responses: [GenerateResponse] = []
            for try await event in try await gateway.generateStream(self.request("hällo")) {
                switch event {
                case .token(let token):
                    #expect(responses.isEmpty)
                    texts.append(token.text)
                case .response(let response):
                    responses.append(response)
                }
            }
            #expect(texts == ["h", "ä", "l", "l", "o"])
            #expect(responses == [TestGateway.response(to: self.request("hällo"))])
        }
    }

    @Test func `a stream without the last event is an error`() async throws {
        let error = try await self.failure { gateway in
            for try await _ in try await gateway.generateStream(self.request("cut")) {}
        }
        #expect(error?.code == .internal)
    }

    @Test func `a stream that the gateway refuses throws where it is read`() async throws {
        let error = try await self.failure { gateway in
            let events = try await gateway.generateStream(GenerateRequest())
            for try await _ in events {}
        }
        #expect(error?.code == .invalidArgument)
        #expect(error?.message == "input is missing")
        #expect(error?.isRetryable == false)
    }

    @Test func `a full queue says when to come back`() async throws {
        let error = try await self.failure { _ = try await $0.generate(self.request("full queue")) }
        #expect(error?.code == .resourceExhausted)
        #expect(error?.retryDelay == .milliseconds(250))
        #expect(error?.isRetryable == true)
    }

    @Test func `a negative pushback forbids to come back`() async throws {
        let error = try await self.failure { _ = try await $0.generate(self.request("never again")) }
        #expect(error?.code == .unavailable)
        #expect(error?.retryDelay == nil)
        #expect(error?.isRetryable == false)
    }

    @Test func `an answer that is no message is an error that names it`() async throws {
        let error = try await self.failure { _ = try await $0.generate(self.request("nonsense")) }
        #expect(error?.code == .internal)
        #expect(error?.message.contains("switchyard.v1.GenerateResponse") == true)
        #expect(error?.cause is ProtoError)
    }

    @Test func `a call takes no longer than its timeout`() async throws {
        let one = try await self.failure {
            _ = try await $0.generate(self.request("wait"), timeout: .milliseconds(50))
        }
        #expect(one?.code == .deadlineExceeded)
        let configuration = GatewayClientConfiguration(timeout: .milliseconds(50))
        let other = try await self.failure(configuration) { _ = try await $0.generate(self.request("wait")) }
        #expect(other?.code == .deadlineExceeded)
    }

    @Test func `cancelling the task cancels the call`() async throws {
        let error = try await self.failure { gateway in
            try await withThrowingTaskGroup(of: Void.self) { tasks in
                tasks.addTask { _ = try await gateway.generate(self.request("wait")) }
                tasks.cancelAll()
                try await tasks.waitForAll()
            }
        }
        #expect(error?.code == .cancelled)
    }

    @Test func `the configuration's metadata goes with every call`() async throws {
        var metadata = Metadata()
        try metadata.add("value", forKey: "x-key")
        let configuration = GatewayClientConfiguration(metadata: metadata)
        try await TestGateway.with(configuration: configuration) { gateway in
            let answer = try await gateway.generate(self.request("metadata"))
            #expect(answer.generations.first?.text == "value")
        }
    }

    @Test func `an answer over the limit is refused`() async throws {
        let configuration = GatewayClientConfiguration(maxResponseBytes: 100)
        let error = try await self.failure(configuration) {
            _ = try await $0.generate(self.request(String(repeating: "x", count: 200)))
        }
        #expect(error?.code == .resourceExhausted)
    }

    @Test func `without a listener a call fails soon, may be retried and says where`() async throws {
        // A port that was free a moment ago: the server that had it has drained.
        let endpoint = try await TestGateway.with { $0.endpoint }
        let error = try await GatewayClient.with(endpoint: endpoint, logger: quietLogger) { gateway in
            await #expect(throws: GatewayError.self) { try await gateway.describeModel() }
        }
        #expect(error?.code == .unavailable)
        #expect(error?.isRetryable == true)
        #expect(error?.message.contains("127.0.0.1:\(endpoint.port)") == true)
    }

    @Test func `a client runs once, and after its end calls are refused`() async throws {
        let endpoint = try await TestGateway.with { $0.endpoint }
        let gateway = try await GatewayClient.with(endpoint: endpoint, logger: quietLogger) { $0 }
        let again = await #expect(throws: GatewayError.self) { try await gateway.run() }
        #expect(again?.code == .failedPrecondition)
        let late = await #expect(throws: GatewayError.self) { try await gateway.describeModel() }
        #expect(late?.code == .unavailable)
    }
}

@Suite struct EndpointTests {
    @Test(arguments: [
        ("localhost:7400", "localhost", 7400), ("127.0.0.1:1", "127.0.0.1", 1), ("[::1]:65535", "::1", 65_535),
        ("gateway.internal:80", "gateway.internal", 80), ("unix:/run/a.sock", "unix:/run/a.sock", 0),
    ])
    func `an endpoint is read and written`(text: String, host: String, port: Int) throws {
        let endpoint = try Endpoint(parsing: text)
        #expect(endpoint == Endpoint(host: host, port: port))
        #expect(endpoint.description == text)
    }

    @Test(arguments: ["", "host", "host:", ":7400", "host:0", "host:65536", "host:x", "::1:7400", "[]:1", "host:-1"])
    func `anything else is refused with a way out`(text: String) {
        let error = #expect(throws: GatewayError.self) { try Endpoint(parsing: text) }
        #expect(error?.code == .invalidArgument)
        #expect(error?.message.contains("write host:port") == true)
    }
}
