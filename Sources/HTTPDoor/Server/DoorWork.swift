// SPDX-License-Identifier: Apache-2.0

internal import DoorPage
internal import HTTPTypes
internal import JSONValues
internal import Logging
internal import RPCCore
internal import SwitchyardProtos
internal import SwitchyardTypes

#if canImport(Glibc)
internal import Glibc
#elseif canImport(Musl)
internal import Musl
#elseif canImport(Darwin)
internal import Darwin
#endif

/// A whole answer.
struct DoorReply: Sendable {
    var status = 200
    var type = "application/json"
    var fields: HTTPFields = [:]
    var body: String
    /// Bytes after the text.
    var tail: [UInt8] = []

    init(_ json: JSONOutput, status: Int = 200) {
        self.body = json.text
        self.status = status
    }
}

extension DoorReply {
    /// A file of the page.
    init(_ file: DoorPage.File) {
        self.init(.null)
        self.type = file.type
        self.body = file.text
        self.fields[DoorHeaders.contentSecurityPolicy] = DoorPage.policy
        self.fields[DoorHeaders.referrerPolicy] = "no-referrer"
    }
}

/// What a request asks for, once it is understood.
enum DoorWork: Sendable {
    /// The answer is known.
    case ready(DoorReply)
    /// The gateway must be asked.
    case call(@Sendable () async throws -> DoorReply)
    /// The answer is sent as it comes.
    case stream(any DoorBackend, [GenerateRequest], any EventForm)
}

/// The time of day.
enum DoorClock {
    /// Seconds since 1970.
    static var now: Int { Int(time(nil)) }
}

/// Texts of requests in logs.
enum ErrorWords {
    /// A text without control characters and not too long.
    static func shown(_ text: String) -> String { ErrorText.shown(text) }
}

extension DoorResponder {
    /// The most JSON values of a body: every token id is one.
    private static let maxValues = 1 << 20

    /// Understands a request.
    ///
    /// - Parameters:
    ///   - exchange: What its head said.
    ///   - body: Its body.
    /// - Returns: What it asks for.
    /// - Throws: ``DoorFault`` naming what is wrong with it.
    func work(_ exchange: Exchange, _ body: [UInt8]) throws(DoorFault) -> DoorWork {
        let call = exchange.call
        let backend = self.backend
        switch exchange.route.action {
        case .completions: return try self.completions(try Self.parse(body), body, call)
        case .chatCompletions:
            throw DoorFault(
                404,
                .unimplemented,
                "This is not a chat model and thus not supported in the v1/chat/completions endpoint. Did you mean to use "
                    + "v1/completions? \(backend.model.name) fills the gaps of a text: write <extra_id_0> where words are missing.",
                field: "model"
            )
        case .embeddings:
            let (backend, value) = try self.chosen(try Self.parse(body), body)
            let embeddings = try EmbeddingsRequest(value, model: backend.model)
            self.note(embeddings.user, call)
            return .call {
                let response = try await backend.encode(embeddings.request, call)
                return DoorReply(try embeddings.answer(response, model: backend.model))
            }
        case .models:
            let entries = backend.models.map { OpenAIForm.entry($0, created: self.created) }
            return .ready(DoorReply(["object": "list", "data": .array(entries)]))
        case .model:
            let name = exchange.route.model
            guard let model = backend.models.first(where: { $0.name == name }) ?? backend.chosen(name, by: [])?.model
            else { throw OpenAIForm.unknown(name, backend.models) }
            return .ready(DoorReply(OpenAIForm.entry(model, created: self.created)))
        case .textGeneration: return try self.textGeneration(try Self.parse(body), call, streams: false)
        case .textGenerationStream: return try self.textGeneration(try Self.parse(body), call, streams: true)
        case .textGenerationRoot: return try self.textGeneration(try Self.parse(body), call, streams: nil)
        case .info: return .ready(DoorReply(TextGenerationForm.info(backend)))
        case .health: return .ready(try self.health())
        case .generate, .generateStream, .score, .encode:
            return try self.own(exchange.route.action, try Self.parse(body), call)
        case .cluster: return .ready(DoorReply(OwnForm.json(backend.cluster, "switchyard.v1.ClusterDescription")))
        case .describe: return .ready(DoorReply(OwnForm.json(backend.currentModel, "switchyard.v1.ModelDescription")))
        case .tokenize:
            let request = try TokenizerForm.Request(try Self.parse(body), model: backend.model)
            return .call { DoorReply(request.answer(try await backend.tokens(of: request.text), backend)) }
        case .detokenize: return .ready(DoorReply(try TokenizerForm.text(try Self.parse(body), backend)))
        case .tokenizerInfo: return .ready(DoorReply(TokenizerForm.info(backend)))
        case .inferenceServer, .inferenceLive, .inferenceReady, .inferenceModel, .inferenceModelReady, .infer:
            return try self.inference(exchange, body)
        case .page: return .ready(DoorReply(DoorPage.document))
        case .pageStyle: return .ready(DoorReply(DoorPage.style))
        case .pageScript: return .ready(DoorReply(DoorPage.script))
        case .document: return .ready(DoorReply(OpenAPIDocument.json(version: backend.model.version)))
        }
    }

    /// Reads a body as JSON.
    static func parse(_ body: [UInt8]) throws(DoorFault) -> JSONValue {
        let result = body.withUnsafeBytes { bytes in
            Result<JSONValue, JSONFault> { () throws(JSONFault) in
                try JSONText.value(bytes, dialect: .serde, maxValues: Self.maxValues, refuseDuplicates: true)
            }
        }
        switch result {
        case .success(let value): return value
        case .failure(let fault): throw DoorFault(400, .invalidArgument, "the body is not JSON: \(fault.message)")
        }
    }

    /// The gateway with the checkpoint that a body names, and the body with that checkpoint's own name.
    private func chosen(
        _ value: JSONValue,
        _ body: [UInt8]
    ) throws(DoorFault) -> (backend: any DoorBackend, value: JSONValue) {
        // What is wrong without a name, the request's reader says.
        guard case .object(var members) = value, case .string(let name)? = members["model"] else {
            return (self.backend, value)
        }
        guard let backend = self.backend.chosen(name, by: body) else {
            throw OpenAIForm.unknown(name, self.backend.models)
        }
        members["model"] = .string(backend.model.name)
        return (backend, .object(members))
    }

    private func note(_ user: String?, _ call: DoorCall) {
        guard let user else { return }
        self.logger.debug(
            "a request's user",
            metadata: ["caller": "\(call.caller)", "user": "\(ErrorText.shown(user))"]
        )
    }

    private func completions(
        _ parsed: JSONValue,
        _ body: [UInt8],
        _ call: DoorCall
    ) throws(DoorFault) -> DoorWork {
        let (backend, value) = try self.chosen(parsed, body)
        let request = try CompletionRequest(value, model: backend.model, maxStops: backend.maxStopStrings)
        self.note(request.user, call)
        let answer = CompletionAnswer(
            texts: backend,
            model: backend.model,
            request: request,
            id: "cmpl-" + OwnForm.hexadecimal(.random(in: 0...UInt64.max)),
            created: DoorClock.now
        )
        guard !request.streams else { return .stream(backend, request.requests, CompletionEvents(answer: answer)) }
        guard !request.echoes else {
            return .call { DoorReply(answer.whole(try await backend.echoAll(request, call))) }
        }
        return .call { DoorReply(answer.whole(try await backend.generateAll(request.requests, call))) }
    }

    // Whether tokens are sent as they come, the body says where the address does not.
    private func textGeneration(_ body: JSONValue, _ call: DoorCall, streams: Bool?) throws(DoorFault) -> DoorWork {
        let backend = self.backend
        let request = try TextGenerationRequest(
            body,
            streams: streams,
            model: backend.model,
            maxStops: backend.maxStopStrings
        )
        let answer = TextGenerationAnswer(backend: backend, request: request)
        guard !request.streams else {
            let sequences = request.request.parameters?.numReturnSequences ?? 1
            guard sequences == 1 else {
                throw .invalid(
                    "parameters.best_of",
                    "is \(sequences), but nothing can be streamed before the best is known; leave it out"
                )
            }
            return .stream(backend, [request.request], TextGenerationEvents(answer: answer))
        }
        let isRoot = streams == nil
        return .call {
            let whole = answer.whole(try await backend.generate(request.request, call, onToken: nil))
            return DoorReply(isRoot ? .array([whole]) : whole)
        }
    }

    private func own(_ action: DoorAction, _ body: JSONValue, _ call: DoorCall) throws(DoorFault) -> DoorWork {
        let backend = self.backend
        switch action {
        case .score:
            let request: ScoreRequest = try OwnForm.message(body, "switchyard.v1.ScoreRequest")
            return .call {
                DoorReply(OwnForm.json(try await backend.score(request, call), "switchyard.v1.ScoreResponse"))
            }
        case .encode:
            let request: EncodeRequest = try OwnForm.message(body, "switchyard.v1.EncodeRequest")
            return .call {
                DoorReply(OwnForm.json(try await backend.encode(request, call), "switchyard.v1.EncodeResponse"))
            }
        default:
            let request: GenerateRequest = try OwnForm.message(body, "switchyard.v1.GenerateRequest")
            guard action == .generate else { return .stream(backend, [request], OwnEvents()) }
            return .call {
                DoorReply(
                    OwnForm.json(
                        try await backend.generate(request, call, onToken: nil),
                        "switchyard.v1.GenerateResponse"
                    )
                )
            }
        }
    }

    private func health() throws(DoorFault) -> DoorReply {
        if let refusal = self.backend.refusal { throw DoorFault(refusal) }
        return DoorReply([:])
    }
}
