// SPDX-License-Identifier: Apache-2.0

internal import DoorPage
internal import MessageJSON

/// The OpenAPI document of the door (https://spec.openapis.org/oas/v3.1.0), made from the tables that requests are read with.
enum OpenAPIDocument {
    /// The document.
    ///
    /// - Parameter version: The version of the gateway's software.
    /// - Returns: The document.
    static func json(version: String) -> JSONOutput {
        [
            "openapi": "3.1.0",
            "info": [
                "title": "Switchyard", "version": .string(version),
                "description": .string(
                    "A Switch Transformer behind four dialects of HTTP and JSON: OpenAI's, text-generation-inference's, the Open "
                        + "Inference Protocol's and the gateway's own, which is protobuf's JSON mapping of its gRPC messages."
                ),
            ],
            "paths": .object(Self.paths),
            "components": [
                "schemas": .object(Self.schemas),
                "securitySchemes": ["token": ["type": "http", "scheme": "bearer"]],
            ],
            // Where the gateway has no tokens, none is needed.
            "security": [[:], ["token": []]],
        ]
    }

    // MARK: - Addresses

    private static var paths: [(name: String, value: JSONOutput)] {
        var paths: [(name: String, operations: [(name: String, value: JSONOutput)])] = []
        for entry in DoorRoute.table {
            let operation = (
                name: entry.method.lowercased(), value: Self.operation(entry.path, entry.dialect, entry.action)
            )
            if let index = paths.firstIndex(where: { $0.name == entry.path }) {
                paths[index].operations.append(operation)
            } else {
                paths.append((entry.path, [operation]))
            }
        }
        return paths.map { (name: $0.name, value: .object($0.operations)) }
    }

    private static func operation(_ path: String, _ dialect: Dialect, _ action: DoorAction) -> JSONOutput {
        let isOfVersion = path.contains("{version}")
        var members: [(name: String, value: JSONOutput)] = [
            (name: "operationId", value: .string("\(action)\(isOfVersion ? "OfVersion" : "")")),
            (name: "summary", value: .string(Self.summary(action))),
            (name: "tags", value: [.string(Self.tag(dialect))]),
        ]
        var parameters: [JSONOutput] = []
        for name in ["model", "version"] where path.contains("{\(name)}") {
            parameters.append([
                "name": .string(name), "in": "path", "required": true, "schema": ["type": "string", "minLength": 1],
            ])
        }
        if action == .infer {
            parameters.append([
                "name": "inference-header-content-length", "in": "header", "required": false,
                "description": "Where the JSON ends, if tensors follow it as bytes.",
                "schema": ["type": "integer", "minimum": 0],
            ])
        }
        if action.isQueued {
            parameters.append([
                "name": "switchyard-timeout-ms", "in": "header", "required": false,
                "description": "How long the client waits, in milliseconds.",
                "schema": ["type": "integer", "minimum": 1, "maximum": 86_400_000],
            ])
        }
        if !parameters.isEmpty { members.append((name: "parameters", value: .array(parameters))) }
        if let body = Self.body(action) {
            members.append(
                (
                    name: "requestBody",
                    value: ["required": true, "content": ["application/json": ["schema": body]]]
                )
            )
        }
        members.append((name: "responses", value: Self.responses(dialect, action)))
        return .object(members)
    }

    private static func tag(_ dialect: Dialect) -> String {
        switch dialect {
        case .openAI: "OpenAI"
        case .textGeneration: "text-generation-inference"
        case .openInference: "Open Inference Protocol"
        case .own: "Switchyard"
        }
    }

    private static func summary(_ action: DoorAction) -> String {
        switch action {
        case .completions: "Answer prompts, whole or token by token."
        case .chatCompletions: "Refused: the model is no chat model."
        case .embeddings: "The mean of the encoder's hidden states of inputs."
        case .models: "List the one served model."
        case .model: "Name the served model."
        case .textGeneration: "Answer a text."
        case .textGenerationStream: "Answer a text token by token."
        case .textGenerationRoot: "Answer a text, whole or token by token."
        case .info: "Which model is served, and with which limits."
        case .health: "Whether requests are taken."
        case .generate: "The method Generate of gRPC."
        case .generateStream: "The method GenerateStream of gRPC, as server-sent events."
        case .score: "The method Score of gRPC."
        case .encode: "The method Encode of gRPC."
        case .cluster: "The method DescribeCluster of gRPC."
        case .describe: "The method DescribeModel of gRPC."
        case .tokenize: "Cut a text into tokens."
        case .detokenize: "The text of tokens."
        case .tokenizerInfo: "The tokenizer's special tokens."
        case .inferenceServer: "What the server is."
        case .inferenceLive: "Whether the server runs."
        case .inferenceReady: "Whether requests are taken."
        case .inferenceModel: "What tensors the model has."
        case .inferenceModelReady: "Whether requests for the model are taken."
        case .infer: "Answer texts or token ids, as tensors."
        case .document: "This document."
        case .page, .pageStyle, .pageScript: "The page."
        }
    }

    private static func body(_ action: DoorAction) -> JSONOutput? {
        switch action {
        case .completions: Self.object(CompletionRequest.fields, required: ["model", "prompt"])
        case .embeddings: Self.object(EmbeddingsRequest.fields, required: ["model", "input"])
        case .chatCompletions: ["type": "object"]
        case .textGeneration, .textGenerationStream: Self.object(TextGenerationRequest.fields, required: ["inputs"])
        case .textGenerationRoot: Self.object(TextGenerationRequest.rootFields, required: ["inputs"])
        case .generate, .generateStream: Self.reference("GenerateRequest")
        case .score: Self.reference("ScoreRequest")
        case .encode: Self.reference("EncodeRequest")
        case .tokenize: Self.object(TokenizerForm.fields, required: ["prompt"])
        case .detokenize: Self.object(TokenizerForm.reverseFields, required: ["tokens"])
        case .infer: Self.object(InferBody.fields, required: ["inputs"])
        case .models, .model, .info, .health, .cluster, .describe, .document, .page, .pageStyle, .pageScript,
            .tokenizerInfo, .inferenceServer, .inferenceLive, .inferenceReady, .inferenceModel, .inferenceModelReady:
            nil
        }
    }

    private static func object(_ fields: [BodyField], required: [JSONOutput]) -> JSONOutput {
        [
            "type": "object", "additionalProperties": false, "required": .array(required),
            "properties": .object(fields.map { (name: $0.name, value: $0.schema) }),
        ]
    }

    private static func reference(_ name: String) -> JSONOutput { ["$ref": .string("#/components/schemas/\(name)")] }

    // MARK: - Answers

    private static func responses(_ dialect: Dialect, _ action: DoorAction) -> JSONOutput {
        var responses: [(name: String, value: JSONOutput)] = []
        if action != .chatCompletions {
            responses.append((name: "200", value: ["description": "The answer.", "content": Self.content(action)]))
        }
        let error: JSONOutput = [
            "description": "Why there is no answer.",
            "content": ["application/json": ["schema": Self.reference(Self.errorName(dialect))]],
        ]
        responses.append((name: "default", value: error))
        return .object(responses)
    }

    private static func content(_ action: DoorAction) -> JSONOutput {
        let json: JSONOutput = ["application/json": ["schema": Self.answer(action)]]
        // Each event is an object of its dialect, for which this version of OpenAPI has no words.
        let events: JSONOutput = ["text/event-stream": ["schema": [:]]]
        switch action {
        case .textGenerationStream, .generateStream: return events
        case .page: return Self.file(DoorPage.document)
        case .pageStyle: return Self.file(DoorPage.style)
        case .pageScript: return Self.file(DoorPage.script)
        case .infer:
            return json.adding([(name: "application/octet-stream", value: ["schema": [:]])])
        case .completions, .textGenerationRoot:
            guard case .object(let more) = events else { return json }
            return json.adding(more)
        default: return json
        }
    }

    private static func file(_ file: DoorPage.File) -> JSONOutput {
        let type = String(file.type.prefix { $0 != ";" })
        let content: JSONOutput = ["schema": ["type": "string"]]
        return .object([(name: type, value: content)])
    }

    private static func answer(_ action: DoorAction) -> JSONOutput {
        switch action {
        case .completions:
            Self.shape([
                "id": "string", "object": "string", "created": "integer", "model": "string", "choices": "array",
                "usage": "object",
            ])
        case .embeddings: Self.shape(["object": "string", "data": "array", "model": "string", "usage": "object"])
        case .models: Self.shape(["object": "string", "data": "array"])
        case .model: Self.shape(["id": "string", "object": "string", "created": "integer", "owned_by": "string"])
        case .textGeneration: Self.shape(["generated_text": "string"])
        case .textGenerationRoot: ["type": "array", "items": Self.shape(["generated_text": "string"])]
        case .info:
            Self.shape([
                "model_id": "string", "max_input_tokens": "integer", "max_total_tokens": "integer", "version": "string",
            ])
        case .generate: Self.reference("GenerateResponse")
        case .score: Self.reference("ScoreResponse")
        case .encode: Self.reference("EncodeResponse")
        case .cluster: Self.reference("ClusterDescription")
        case .describe: Self.reference("ModelDescription")
        case .tokenize:
            Self.shape(["count": "integer", "max_model_len": "integer", "tokens": "array"])
        case .detokenize: Self.shape(["prompt": "string"])
        case .tokenizerInfo: Self.shape(["tokenizer_class": "string"])
        case .inferenceServer: Self.shape(["name": "string", "version": "string", "extensions": "array"])
        case .inferenceLive: Self.shape(["live": "boolean"])
        case .inferenceReady: Self.shape(["ready": "boolean"])
        case .inferenceModel:
            Self.shape([
                "name": "string", "versions": "array", "platform": "string", "inputs": "array", "outputs": "array",
            ])
        case .inferenceModelReady: Self.shape(["name": "string", "ready": "boolean"])
        case .infer: Self.shape(["model_name": "string", "model_version": "string", "outputs": "array"])
        case .health, .document, .chatCompletions, .textGenerationStream, .generateStream, .page,
            .pageStyle, .pageScript:
            ["type": "object"]
        }
    }

    private static func shape(_ members: KeyValuePairs<String, String>) -> JSONOutput {
        [
            "type": "object", "required": .array(members.map { .string($0.key) }),
            "properties": .object(members.map { (name: $0.key, value: ["type": .string($0.value)]) }),
        ]
    }

    private static func errorName(_ dialect: Dialect) -> String {
        switch dialect {
        case .openAI: "OpenAIError"
        case .textGeneration: "TextGenerationError"
        case .openInference: "InferenceError"
        case .own: "Status"
        }
    }

    // MARK: - Schemas

    private static var schemas: [(name: String, value: JSONOutput)] {
        let errors: [(name: String, value: JSONOutput)] = [
            (
                name: "OpenAIError",
                value: [
                    "type": "object", "required": ["error"],
                    "properties": ["error": Self.shape(["message": "string", "type": "string"])],
                ]
            ),
            (name: "TextGenerationError", value: Self.shape(["error": "string", "error_type": "string"])),
            (name: "InferenceError", value: Self.shape(["error": "string"])),
            (name: "Status", value: Self.shape(["code": "integer", "message": "string"])),
        ]
        let schema = MessageSchema.shared
        var needed = [
            "GenerateRequest", "GenerateResponse", "ScoreRequest", "ScoreResponse", "EncodeRequest", "EncodeResponse",
            "ClusterDescription", "ModelDescription",
        ]
        .map { "switchyard.v1.\($0)" }
        var messages: [(name: String, value: JSONOutput)] = []
        var index = 0
        while index < needed.count {
            let name = needed[index]
            index += 1
            let fields = schema.messages[name] ?? []
            for field in fields {
                if case .message(let other) = field.kind, !needed.contains(other) { needed.append(other) }
            }
            messages.append((name: Self.short(name), value: Self.message(fields)))
        }
        return errors + messages
    }

    private static func short(_ name: String) -> String { name.split(separator: ".").last.map(String.init) ?? name }

    private static func message(_ fields: [MessageSchema.Field]) -> JSONOutput {
        // A reader of the mapping takes null for a field that is left out.
        let properties = fields.map { field in
            let one = Self.value(field.kind)
            let value: JSONOutput = field.isList ? ["type": "array", "items": one] : one
            return (
                name: field.camelName, value: JSONOutput.object([(name: "anyOf", value: [value, ["type": "null"]])])
            )
        }
        return ["type": "object", "additionalProperties": false, "properties": .object(properties)]
    }

    /// The numbers of 64 bits as texts: all of up to nineteen digits, and those of twenty that are not too large.
    private static let number64: String = {
        let most = Array("\(UInt64.max)")
        var forms = ["[0-9]{1,\(most.count - 1)}", String(most)]
        for (place, digit) in most.enumerated().dropFirst() {
            guard let value = digit.wholeNumberValue, value > 0 else { continue }
            forms.append("\(String(most[..<place]))[0-\(value - 1)][0-9]{\(most.count - 1 - place)}")
        }
        return "^(\(forms.joined(separator: "|")))$"
    }()

    private static func value(_ kind: MessageSchema.Kind) -> JSONOutput {
        switch kind {
        case .uint32: ["type": "integer", "minimum": 0, "maximum": 4_294_967_295]
        case .uint64, .fixed64: ["type": "string", "pattern": .string(Self.number64)]
        case .float:
            [
                "anyOf": [
                    ["type": "number", "minimum": .raw("-3.4028235e38"), "maximum": .raw("3.4028235e38")],
                    ["enum": ["NaN", "Infinity", "-Infinity"]],
                ]
            ]
        case .bool: ["type": "boolean"]
        case .string: ["type": "string"]
        case .bytes: ["type": "string", "contentEncoding": "base64"]
        case .choice(let name):
            // Answers have the name; a reader of the mapping takes the number too.
            [
                "enum": .array(
                    (MessageSchema.shared.choices[name] ?? []).flatMap { [.string($0.name), .raw("\($0.number)")] }
                )
            ]
        case .message(let name): Self.reference(Self.short(name))
        }
    }
}
