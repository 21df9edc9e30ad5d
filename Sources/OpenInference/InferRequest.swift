// SPDX-License-Identifier: Apache-2.0

internal import JSONValues
internal import MessageJSON
public import RPCCore
public import SwitchyardProtos
internal import SwitchyardTypes

/// A request of the Open Inference Protocol, and the gateway's requests that it means.
///
/// Source: https://github.com/kserve/open-inference-protocol/blob/29ca333e3a6f86e2232108850a170696e28e256f/specification/protocol/inference_grpc.md.
/// Nothing is ignored: a tensor, a parameter or an output that this model does not have is refused by its name.
public struct InferRequest: Sendable {
    /// The input that the requests are rows of.
    public let input: String
    /// One request for each row of the input.
    public let requests: [GenerateRequest]

    let outputs: [ModelTensors.Output]
    let id: String
    /// Whether elements travel as bytes; the answer's do as the request's did.
    let isRaw: Bool

    /// Reads a request.
    ///
    /// - Parameters:
    ///   - request: The request.
    ///   - model: The served model, whose limits count.
    /// - Throws: `RPCError`: `NOT_FOUND` for another model, `INVALID_ARGUMENT` with the name of what is wrong.
    public init(_ request: ModelInferRequest, model: ModelDescription) throws(RPCError) {
        guard ModelTensors.names(request.modelName, version: request.modelVersion, model) else {
            throw Self.unknownModel(request.modelName, request.modelVersion, [model])
        }
        self.id = request.id
        self.isRaw = !request.rawInputContents.isEmpty
        self.outputs = try Self.outputs(request.outputs)
        guard !self.isRaw || request.rawInputContents.count == request.inputs.count else {
            throw RPCError(
                .invalidArgument,
                "raw_input_contents has \(request.rawInputContents.count) entries; there are \(request.inputs.count) inputs"
            )
        }
        let known = [ModelTensors.textInput, ModelTensors.tokenInput]
        if let other = request.inputs.first(where: { !known.contains($0.name) }) {
            throw RPCError(
                .invalidArgument,
                "inputs.\(Self.shown(other.name)) is not an input of this model; give \(known.joined(separator: " or "))"
            )
        }
        guard request.inputs.count == 1, let tensor = request.inputs.first else {
            throw RPCError(
                .invalidArgument,
                "inputs has \(request.inputs.count) tensors; give one: \(known.joined(separator: " or "))"
            )
        }
        self.input = tensor.name
        let reader = try InferInputs(tensor, raw: request.rawInputContents.first)
        let limit = max(1, Int(model.maxInputs))
        let rows: [ModelInput] =
            if tensor.name == ModelTensors.textInput {
                try reader.texts(limit: limit).map { .text($0) }
            } else {
                try reader.tokens(limit: limit, length: Int(model.maxInputTokens)).map { .tokenIDs($0) }
            }
        let base = try Self.base(request.parameters)
        self.requests = rows.map { row in
            var single = base
            single.input = row
            return single
        }
    }

    /// The error of a request for a model that is not served.
    ///
    /// - Parameters:
    ///   - name: The name in the request.
    ///   - version: The version in the request.
    ///   - models: The models that a request may name.
    /// - Returns: The error, with `NOT_FOUND`.
    public static func unknownModel(_ name: String, _ version: String, _ models: [ModelDescription]) -> RPCError {
        let wanted = version.isEmpty ? Self.shown(name) : "\(Self.shown(name)) in version \(Self.shown(version))"
        let known = models.map { "\($0.name) in version \(ModelTensors.version(of: $0))" }.joined(separator: ", and ")
        return RPCError(.notFound, "this server has no model \(wanted); it has \(known)")
    }

    static func shown(_ text: String) -> String { ErrorText.shown(String(text.prefix(200))) }

    private static func outputs(_ wanted: [InferRequestedOutputTensor]) throws(RPCError) -> [ModelTensors.Output] {
        guard !wanted.isEmpty else { return ModelTensors.Output.allCases }
        var outputs: [ModelTensors.Output] = []
        for output in wanted {
            guard let known = ModelTensors.Output(rawValue: output.name) else {
                let all = ModelTensors.Output.allCases.map(\.rawValue).joined(separator: ", ")
                throw RPCError(
                    .invalidArgument,
                    "outputs.\(Self.shown(output.name)) is not an output of this model; it has \(all)"
                )
            }
            guard !outputs.contains(known) else {
                throw RPCError(.invalidArgument, "outputs.\(output.name) is there twice; name it once")
            }
            if let name = output.parameters.keys.min() {
                throw RPCError(
                    .invalidArgument,
                    "outputs.\(output.name) has the parameter \(Self.shown(name)), which this server does not know; leave it out"
                )
            }
            outputs.append(known)
        }
        return outputs
    }

    // MARK: - Parameters

    /// What all rows are asked with.
    ///
    /// Fields of `GenerationParameters` have their own names. Beside them are `strict` and `max_dropped_fraction` of
    /// `DropPolicy`, `queue_timeout_ms`, and what clients send by themselves: `priority` as `low`, `normal`, `high` or as Triton's
    /// numbers (1 is the highest), and `timeout` in microseconds, the longest wait for batch slots.
    private static func base(_ parameters: [String: InferParameter]) throws(RPCError) -> GenerateRequest {
        var generation: [String: JSONValue] = [:]
        var policy: [String: JSONValue] = [:]
        var members: [String: JSONValue] = [:]
        for (name, parameter) in parameters.sorted(by: { $0.key < $1.key }) {
            let value = try Self.value(parameter, name)
            switch name {
            case "strict", "max_dropped_fraction": policy[name] = value
            case "queue_timeout_ms": members[name] = value
            case "timeout":
                guard parameters["queue_timeout_ms"] == nil else {
                    throw Self.wrong(name, "is set, and queue_timeout_ms too; give one of them")
                }
                guard case .integer(let microseconds) = value, (0...3_600_000_000).contains(microseconds) else {
                    throw Self.wrong(name, "is \(value.kind); it must be microseconds from 0 to 3600000000")
                }
                members["queue_timeout_ms"] = .integer((microseconds + 999) / 1_000)
            case "priority": members[name] = try Self.priority(value)
            case "stop": generation[name] = .array([value])
            default: generation[name] = value
            }
        }
        if !generation.isEmpty { members["parameters"] = .object(generation) }
        if !policy.isEmpty { members["drop_policy"] = .object(policy) }
        let message = "switchyard.v1.GenerateRequest"
        let bytes: [UInt8]
        do throws(MessageJSONError) {
            let unknown = "is not a parameter of this model; leave it out"
            bytes = try MessageJSONReader.bytes(.object(members), message: message, form: .mapping, unknown: unknown)
        } catch {
            // The path in the message as the path in the request, which has no parameters inside others.
            let name = error.field.split(separator: ".").last.map(String.init) ?? error.field
            throw Self.wrong(name, error.message)
        }
        do throws(ProtoError) {
            return try GenerateRequest(serialized: bytes)
        } catch {
            throw RPCError(.invalidArgument, "the parameters are no \(message): \(error)")
        }
    }

    private static func wrong(_ name: String, _ words: String) -> RPCError {
        RPCError(.invalidArgument, "parameters.\(Self.shown(name)) \(words)")
    }

    private static func value(_ parameter: InferParameter, _ name: String) throws(RPCError) -> JSONValue {
        switch parameter.value {
        case .bool(let value): return .bool(value)
        case .int64(let value): return .integer(Int(value))
        case .uint64(let value): return Int(exactly: value).map { .integer($0) } ?? .string("\(value)")
        case .string(let value): return .string(value)
        case .double(let value):
            guard value.isFinite else { throw Self.wrong(name, "is \(value); it must be finite") }
            return .number(value)
        case nil: throw Self.wrong(name, "has no value; give it one")
        }
    }

    private static func priority(_ value: JSONValue) throws(RPCError) -> JSONValue {
        switch value {
        case .string("low"), .integer(3): .string("LOW")
        case .string("normal"), .integer(2): .string("NORMAL")
        case .string("high"), .integer(1): .string("HIGH")
        case .integer(0): .string("PRIORITY_UNSPECIFIED")
        default:
            throw Self.wrong(
                "priority",
                "is \(value.kind); it must be low, normal or high, or from 1 (high) to 3 (low), or 0 for the gateway's own"
            )
        }
    }
}
