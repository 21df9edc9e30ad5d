// SPDX-License-Identifier: Apache-2.0

import Logging
import NIOCore
import RPCCore
import RPCTransport
import SwitchyardClient
import SwitchyardProtos
import Testing

let quietLogger = Logger(label: "test") { _ in SwiftLogNoOpLogHandler() }

/// A server that answers the gateway's methods without a model: the text that it gets selects its behaviour.
enum TestGateway {
    /// Runs the server and a client of it.
    static func with<Result>(
        configuration: GatewayClientConfiguration = .defaults,
        _ body: (GatewayClient) async throws -> Result
    ) async throws -> Result {
        let server = RPCServer(configuration: RPCServerConfiguration(), methods: Self.methods, logger: quietLogger)
        return try await withThrowingTaskGroup(of: Void.self) { tasks in
            tasks.addTask { try await server.run() }
            let port = try await server.boundAddress().port
            let outcome: Swift.Result<Result, any Error>
            do {
                outcome = .success(
                    try await GatewayClient.with(
                        endpoint: Endpoint(host: "127.0.0.1", port: port),
                        configuration: configuration,
                        logger: quietLogger,
                        body
                    )
                )
            } catch {
                outcome = .failure(error)
            }
            server.beginGracefulShutdown()
            try await tasks.waitForAll()
            return try outcome.get()
        }
    }

    /// The response to a request: an echo of its text or ids.
    static func response(to request: GenerateRequest) -> GenerateResponse {
        switch request.input {
        case .text(let text): GenerateResponse(generations: [Generation(text: text, finishReason: .endOfSequence)])
        case .tokenIDs(let ids): GenerateResponse(generations: [Generation(tokenIDs: ids, finishReason: .length)])
        case nil: GenerateResponse()
        }
    }

    private static func method(_ name: MethodName) -> Method { Method(service: name.service, name: name.name) }

    private static let methods: [ServiceMethod] = [
        .unary(Self.method(GatewayMethods.generate)) { buffer, context in
            let request = try GenerateRequest(serialized: Array(buffer.readableBytesView))
            switch request.input {
            case .text("full queue"):
                var metadata = Metadata()
                try metadata.add("250", forKey: "grpc-retry-pushback-ms")
                throw RPCError(.resourceExhausted, "the queue is full", metadata: metadata)
            case .text("never again"):
                var metadata = Metadata()
                try metadata.add("-1", forKey: "grpc-retry-pushback-ms")
                throw RPCError(.unavailable, "no", metadata: metadata)
            case .text("wait"):
                // Ends when the caller leaves.
                try await Task.sleep(for: .seconds(60))
                return Payload(bytes: [])
            case .text("nonsense"):
                return Payload(bytes: [0xFF])
            case .text("metadata"):
                return Payload(
                    bytes: GenerateResponse(generations: [Generation(text: context.metadata.first("x-key") ?? "")])
                        .serialized()
                )
            case .text("authorization"):
                let shown = context.metadata[text: "authorization"] + context.metadata[text: "x-kept"]
                let answer = Generation(text: shown.joined(separator: " "))
                return Payload(bytes: GenerateResponse(generations: [answer]).serialized())
            default:
                return Payload(bytes: Self.response(to: request).serialized())
            }
        },
        .serverStreaming(Self.method(GatewayMethods.generateStream)) { buffer, _, writer in
            let request = try GenerateRequest(serialized: Array(buffer.readableBytesView))
            guard case .text(let text) = request.input else {
                throw RPCError(.invalidArgument, "input is missing")
            }
            for (index, character) in text.enumerated() {
                let token = GeneratedToken(tokenID: UInt32(index), text: String(character))
                try await writer.write(Payload(bytes: GenerateEvent(event: .token(token)).serialized()))
            }
            // An event that this version of the client does not know.
            try await writer.write(Payload(bytes: [0x1A, 0x00]))
            if text == "cut" {
                return
            }
            try await writer.write(
                Payload(bytes: GenerateEvent(event: .response(Self.response(to: request))).serialized())
            )
        },
        .unary(Self.method(GatewayMethods.encode)) { buffer, _ in
            let request = try EncodeRequest(serialized: Array(buffer.readableBytesView))
            let rows: UInt32 = request.pooling == .mean ? 1 : 2
            let states = Tensor(dtype: .float32, shape: [rows, 1], data: Array(repeating: 0, count: Int(rows) * 4))
            return Payload(bytes: EncodeResponse(hiddenStates: states).serialized())
        },
        .unary(Self.method(GatewayMethods.score)) { buffer, _ in
            let request = try ScoreRequest(serialized: Array(buffer.readableBytesView))
            let isSame = request.input == request.target
            return Payload(bytes: ScoreResponse(loss: isSame ? 0 : 1).serialized())
        },
        .unary(Self.method(GatewayMethods.describeModel)) { _, _ in
            var model = ModelDescription()
            model.name = "test"
            return Payload(bytes: model.serialized())
        },
        .unary(Self.method(GatewayMethods.describeCluster)) { _, _ in
            var cluster = ClusterDescription()
            cluster.pools = [PoolDescription(name: "pool-0")]
            return Payload(bytes: cluster.serialized())
        },
    ]
}
