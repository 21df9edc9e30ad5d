// SPDX-License-Identifier: Apache-2.0

internal import Checkpoints
internal import NIOCore
internal import OpenInference
internal import RPCCore
internal import RPCTransport
internal import SwitchyardProtos

/// The Open Inference Protocol beside the gateway's own service: the same requests, queue and answers.
extension GatewayService {
    /// Requests that name no more than a model.
    private static let maxQuestionBytes = 4 << 10

    /// The service's methods, for the server.
    var inferenceMethods: [ServiceMethod] {
        [
            .unary(.serverLive) { message, _ in
                _ = try ServerLiveRequest(reading: message)
                return Payload(bytes: ServerLiveResponse(live: true).serialized())
            }
            .requests(upTo: Self.maxQuestionBytes),
            .unary(.serverReady) { message, _ in
                _ = try ServerReadyRequest(reading: message)
                return Payload(bytes: ServerReadyResponse(ready: self.isReady).serialized())
            }
            .requests(upTo: Self.maxQuestionBytes),
            .unary(.modelReady) { message, _ in
                let request = try ModelReadyRequest(reading: message)
                let isServed = self.lanes.model(named: request.name, version: request.version) != nil
                return Payload(bytes: ModelReadyResponse(ready: isServed && self.isReady).serialized())
            }
            .requests(upTo: Self.maxQuestionBytes),
            .unary(.serverMetadata) { message, _ in
                _ = try ServerMetadataRequest(reading: message)
                return Payload(bytes: ModelTensors.server(self.model).serialized())
            }
            .requests(upTo: Self.maxQuestionBytes),
            .unary(.modelMetadata) { message, _ in
                let request = try ModelMetadataRequest(reading: message)
                guard let model = self.lanes.model(named: request.name, version: request.version) else {
                    throw InferRequest.unknownModel(request.name, request.version, self.lanes.named)
                }
                return Payload(bytes: ModelTensors.metadata(model).serialized())
            }
            .requests(upTo: Self.maxQuestionBytes),
            .unary(.modelInfer) { message, context in
                try await self.traced(context) { trace in
                    let request = try ModelInferRequest(reading: message)
                    let call = RequestHandler.Call(context, trace)
                    return Payload(bytes: try await self.infer(request, call).serialized())
                }
            },
        ]
    }

    /// Whether requests are taken.
    private var isReady: Bool { self.gate.phase == .serving && self.lanes.serving.weights.failure == nil }

    /// The model that is served.
    private var model: ModelDescription { self.lanes.serving.description }

    /// Answers a request with the checkpoint that it names.
    private func infer(
        _ message: ModelInferRequest,
        _ call: RequestHandler.Call
    ) async throws -> ModelInferResponse {
        let bytes = message.serialized()
        guard let lease = self.lanes.lease(named: message.modelName, version: message.modelVersion, by: bytes) else {
            throw InferRequest.unknownModel(message.modelName, message.modelVersion, self.lanes.named)
        }
        defer { withExtendedLifetime(lease) {} }
        var named = message
        // Whatever the request called it.
        named.modelName = lease.lane.description.name
        named.modelVersion = ""
        return try await self.checked(on: lease.lane) { try await Self.infer(named, call, $0) }
    }

    /// Answers a request, all of its rows at once; the first row that fails ends the others.
    ///
    /// - Parameters:
    ///   - message: The request.
    ///   - call: What comes with it.
    ///   - lane: The checkpoint that answers.
    ///   - isRaw: Whether the answer's elements are bytes; nil: as the request's are.
    /// - Returns: The answer.
    /// - Throws: ``RPCError``.
    static func infer(
        _ message: ModelInferRequest,
        _ call: RequestHandler.Call,
        _ lane: ModelLane,
        isRaw: Bool? = nil
    ) async throws -> ModelInferResponse {
        let model = lane.description
        let request = try InferRequest(message, model: model)
        guard request.requests.count > 1 else {
            let responses = [try await lane.handler.generate(request.requests[0], call)]
            return request.answer(responses, model: model, isRaw: isRaw)
        }
        let responses = try await withThrowingTaskGroup(of: (Int, GenerateResponse).self) { group in
            for (row, single) in request.requests.enumerated() {
                group.addTask {
                    do {
                        return (row, try await lane.handler.generate(single, call))
                    } catch let error as RPCError {
                        let place = "inputs.\(request.input)[\(row)]"
                        throw RPCError(error.code, "\(place): \(error.message)", metadata: error.metadata)
                    }
                }
            }
            var responses: [Int: GenerateResponse] = [:]
            for try await (row, response) in group { responses[row] = response }
            return request.requests.indices.compactMap { responses[$0] }
        }
        return request.answer(responses, model: model, isRaw: isRaw)
    }
}
