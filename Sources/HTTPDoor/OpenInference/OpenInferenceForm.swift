// SPDX-License-Identifier: Apache-2.0

internal import HTTPTypes
internal import OpenInference
internal import SwitchyardProtos

/// What the addresses below `/v2` answer.
enum OpenInferenceForm {
    /// What the server is.
    static func server(_ model: ModelDescription) -> JSONOutput {
        let server = ModelTensors.server(model)
        return [
            "name": .string(server.name), "version": .string(server.version), "extensions": ["binary_tensor_data"],
        ]
    }

    /// What tensors the model has.
    static func metadata(_ model: ModelDescription) -> JSONOutput {
        let metadata = ModelTensors.metadata(model)
        func tensors(_ list: [TensorMetadata]) -> JSONOutput {
            .array(
                list.map { tensor in
                    [
                        "name": .string(tensor.name), "datatype": .string(tensor.datatype),
                        "shape": .array(tensor.shape.map { .integer(Int($0)) }),
                    ]
                }
            )
        }
        return [
            "name": .string(metadata.name), "versions": .array(metadata.versions.map { .string($0) }),
            "platform": .string(metadata.platform), "inputs": tensors(metadata.inputs),
            "outputs": tensors(metadata.outputs),
        ]
    }

    /// Refuses a name or a version that the served model does not have.
    static func check(_ route: DoorRoute, _ model: ModelDescription) throws(DoorFault) {
        guard ModelTensors.names(route.model, version: route.version, model) else {
            throw DoorFault(InferRequest.unknownModel(route.model, route.version, [model]))
        }
    }

    /// The answer to a body.
    ///
    /// - Parameters:
    ///   - body: The body.
    ///   - response: The gateway's answer, whose elements are bytes.
    /// - Returns: JSON, and after it the tensors that travel as bytes.
    static func reply(_ body: InferBody, _ response: ModelInferResponse) -> DoorReply {
        var tail: [UInt8] = []
        var hasBinary = false
        var outputs: [JSONOutput] = []
        for (tensor, bytes) in zip(response.outputs, response.rawOutputContents) {
            var members: [(name: String, value: JSONOutput)] = [
                (name: "name", value: .string(tensor.name)),
                (name: "shape", value: .array(tensor.shape.map { .integer(Int($0)) })),
                (name: "datatype", value: .string(tensor.datatype)),
            ]
            if body.isBinary(tensor.name) {
                hasBinary = true
                tail += bytes
                members.append((name: "parameters", value: ["binary_data_size": .integer(bytes.count)]))
            } else {
                members.append((name: "data", value: .array(Self.elements(bytes, tensor.datatype))))
            }
            outputs.append(.object(members))
        }
        var answer: [(name: String, value: JSONOutput)] = [
            (name: "model_name", value: .string(response.modelName)),
            (name: "model_version", value: .string(response.modelVersion)),
        ]
        if !response.id.isEmpty { answer.append((name: "id", value: .string(response.id))) }
        let parameters = response.parameters.sorted { $0.key < $1.key }
        answer.append(
            (name: "parameters", value: .object(parameters.map { (name: $0.key, value: Self.value($0.value)) }))
        )
        answer.append((name: "outputs", value: .array(outputs)))
        var reply = DoorReply(.object(answer))
        guard hasBinary else { return reply }
        reply.type = "application/octet-stream"
        reply.fields[DoorHeaders.inferenceLength] = "\(reply.body.utf8.count)"
        reply.tail = tail
        return reply
    }

    private static func value(_ parameter: InferParameter) -> JSONOutput {
        switch parameter.value {
        case .bool(let flag): .bool(flag)
        case .int64(let number): .integer(Int(number))
        case .uint64(let number): .raw("\(number)")
        case .string(let text): .string(text)
        case .double(let number): .float(Float(number))
        case nil: .null
        }
    }

    /// The elements of a tensor that `ModelInferResponse` carries as bytes, little-endian.
    private static func elements(_ bytes: [UInt8], _ datatype: String) -> [JSONOutput] {
        func numbers<Number: FixedWidthInteger>(_: Number.Type) -> [Number] {
            let width = Number.bitWidth / 8
            return stride(from: 0, to: bytes.count - bytes.count % width, by: width)
                .map { start in
                    (0..<width)
                        .reduce(Number(0)) { $0 | Number(truncatingIfNeeded: bytes[start + $1]) << Number($1 * 8) }
                }
        }
        switch datatype {
        case "INT64": return numbers(Int64.self).map { .integer(Int($0)) }
        case "INT32": return numbers(Int32.self).map { .integer(Int($0)) }
        case "FP32": return numbers(UInt32.self).map { .float(Float(bitPattern: $0)) }
        default:
            // Each element has its length before it.
            var texts: [JSONOutput] = []
            var rest = bytes[...]
            while rest.count >= 4 {
                let length = rest.prefix(4).reversed().reduce(0) { $0 << 8 | Int($1) }
                texts.append(.string(String(decoding: rest.dropFirst(4).prefix(length), as: UTF8.self)))
                rest = rest.dropFirst(4 + length)
            }
            return texts
        }
    }
}

extension DoorResponder {
    /// Understands a request of the Open Inference Protocol.
    ///
    /// - Parameters:
    ///   - exchange: What its head said.
    ///   - body: Its body.
    /// - Returns: What it asks for.
    /// - Throws: ``DoorFault`` naming what is wrong with it.
    func inference(_ exchange: Exchange, _ body: [UInt8]) throws(DoorFault) -> DoorWork {
        let backend = self.backend
        let route = exchange.route
        switch route.action {
        case .inferenceServer: return .ready(DoorReply(OpenInferenceForm.server(backend.model)))
        case .inferenceLive: return .ready(DoorReply(["live": true]))
        case .inferenceReady:
            if let refusal = backend.refusal { throw DoorFault(refusal) }
            return .ready(DoorReply(["ready": true]))
        case .inferenceModelReady:
            try OpenInferenceForm.check(route, backend.model)
            if let refusal = backend.refusal { throw DoorFault(refusal) }
            return .ready(DoorReply(["name": .string(route.model), "ready": true]))
        case .infer:
            try OpenInferenceForm.check(route, backend.model)
            let call = exchange.call
            let infer = try InferBody(body, jsonLength: exchange.inferenceLength, route: route)
            return .call { OpenInferenceForm.reply(infer, try await backend.infer(infer.request, call)) }
        default:
            try OpenInferenceForm.check(route, backend.model)
            return .ready(DoorReply(OpenInferenceForm.metadata(backend.model)))
        }
    }
}
