// SPDX-License-Identifier: Apache-2.0

import JSONValues
import RPCCore
import SwitchyardProtos
import Testing

@testable import HTTPDoor

/// ``Words`` with an answer to everything that a prompt which comes back asks for.
private struct AnsweringWords: DoorBackend {
    private let words = Words()
    var isDecoderOnly = false

    var model: ModelDescription {
        var model = self.words.model
        if self.isDecoderOnly { model.encoderBlocks = 0 }
        return model
    }

    var currentModel: ModelDescription { self.model }
    var models: [ModelDescription] { [self.model] }

    func chosen(_ name: String?, by body: [UInt8]) -> (any DoorBackend)? {
        name == nil || name == self.model.name ? self : nil
    }

    var cluster: ClusterDescription { self.words.cluster }
    var maxStopStrings: Int { 4 }
    var maxTargetTokens: Int { 3 }
    var maxConcurrentRequests: Int { 8 }
    var specialTokens: SpecialTokens { self.words.specialTokens }
    var refusal: RPCError? { nil }

    func refusal(of caller: String) -> RPCError? { nil }
    func texts(of ids: [UInt32]) -> [String] { self.words.texts(of: ids) }
    func text(of id: UInt32) -> String { self.words.text(of: id) }
    func isSpecial(_ id: UInt32) -> Bool { self.words.isSpecial(id) }

    /// Each word with its space is a token; `</s>` is one.
    func tokens(of text: String) async throws -> [UInt32] {
        try text.replacing("</s>", with: " </s> ").split(separator: " ")
            .flatMap { word -> [UInt32] in
                switch word {
                case "my": [2]
                case "king": [3]
                case "kingdom": [3, 4]
                case "</s>": [1]
                default: throw RPCError(.invalidArgument, "text has an unknown word")
                }
            }
    }

    /// A token's log-probability tells its place, and the most likely token is always `dom`.
    func score(_ request: ScoreRequest, _ call: DoorCall) async throws -> ScoreResponse {
        guard case .tokenIDs(let input)? = request.input, case .tokenIDs(let target)? = request.target else {
            throw RPCError(.internal, "the door asks with ids")
        }
        guard target.count <= self.maxTargetTokens else { throw RPCError(.resourceExhausted, "target_ids is too long") }
        var usage = Usage()
        usage.inputTokens = UInt32(input.count)
        let logprobs = target.enumerated()
            .map { place, id in
                TokenLogprob(
                    tokenID: id,
                    logprob: -Float(input.count + place),
                    top: [TokenCandidate(tokenID: 4, logprob: -0.25)]
                )
            }
        return ScoreResponse(logprobs: logprobs, usage: usage)
    }

    /// Answers `dom</s>` after what the decoder begins with, which must be the prompt's rest.
    func generate(
        _ request: GenerateRequest,
        _ call: DoorCall,
        onToken: ((GeneratedToken) async throws -> Void)?
    ) async throws -> GenerateResponse {
        let prefix: [UInt32]? = if case .tokenIDs(let ids)? = request.decoderPrefix { ids } else { nil }
        guard self.isDecoderOnly ? prefix == nil : prefix?.first == self.model.decoderStartTokenID else {
            throw RPCError(.internal, "a decoder begins with its start token")
        }
        var response = Words.response
        response.generations[0].tokenIDs = [4, 1]
        response.generations[0].text = "dom</s>"
        response.generations[0].logprobs = Array(Words.response.generations[0].logprobs.suffix(2))
        return response
    }

    func encode(_ request: EncodeRequest, _ call: DoorCall) async throws -> EncodeResponse {
        throw RPCError(.unimplemented, "nothing is encoded here")
    }

    func infer(_ request: ModelInferRequest, _ call: DoorCall) async throws -> ModelInferResponse {
        throw RPCError(.unimplemented, "nothing is inferred here")
    }
}

@Suite("Prompts that come back with their answers")
struct EchoTests {
    private static func answer(
        _ fields: String,
        _ backend: AnsweringWords = AnsweringWords()
    ) async throws -> JSONValue {
        let body = try json(#"{"model":"words","echo":true,"# + fields + "}")
        let request = try CompletionRequest(body, model: backend.model, maxStops: 4)
        let answer = CompletionAnswer(
            texts: backend,
            model: backend.model,
            request: request,
            id: "cmpl-1",
            created: 5
        )
        return try json(answer.whole(try await backend.echoAll(request, DoorCall())).text)
    }

    private static func list(_ values: JSONValue?) -> [Double?] {
        guard case .array(let elements)? = values else { return [] }
        return elements.map(\.double)
    }

    @Test("with an encoder, what follows the end token is scored and continued, from a text and from ids")
    func encoder() async throws {
        for prompt in [#""my king</s>my king""#, "[2,3,1,2,3]"] {
            let answer = try await Self.answer(#""prompt":\#(prompt),"logprobs":1"#)
            #expect(
                answer.at("choices.0.text")
                    == .string(prompt.hasPrefix("[") ? "my king</s> my kingdom</s>" : "my king</s>my kingdom</s>")
            )
            let logprobs = try #require(answer.at("choices.0.logprobs"))
            #expect(
                logprobs["tokens"]
                    == .array([" my", " king", "</s>", " my", " king", "dom", "</s>"].map { .string($0) })
            )
            #expect(Self.list(logprobs["token_logprobs"]) == [nil, nil, 0, -3, -4, -1, -1.5])
            let top = try #require(logprobs["top_logprobs"])
            #expect(top["0"] == .null && top["1"] == .null)
            #expect(top["2"] == .object(["</s>": .number(0)]))
            // The most likely token, and the one that is there.
            #expect(top["3"] == .object(["dom": .number(-0.25), " my": .number(-3)]))
            #expect(top["5"] == .object(["dom": .number(-1)]))
            #expect(answer.at("usage.prompt_tokens") == .integer(5))
            #expect(answer.at("usage.completion_tokens") == .integer(2))
            #expect(answer.at("switchyard.score_usage.0.0.inputTokens") == .integer(3))
            let offsets = Self.list(logprobs["text_offset"])
            #expect(
                offsets.last == (prompt.hasPrefix("[") ? 22 : 21) && offsets == offsets.sorted { ($0 ?? 0) < ($1 ?? 0) }
            )
        }
    }

    @Test("without an encoder every token but the first is scored, in pieces where the prompt is long")
    func decoderOnly() async throws {
        let backend = AnsweringWords(isDecoderOnly: true)
        let answer = try await Self.answer(#""prompt":[2,3,4,2,3,4,2,3],"logprobs":2"#, backend)
        let logprobs = try #require(answer.at("choices.0.logprobs"))
        #expect(Self.list(logprobs["token_logprobs"]) == [nil, -1, -2, -3, -4, -5, -6, -7, -1, -1.5])
        #expect(logprobs["top_logprobs"]?["0"] == .null)
        guard case .array(let usages)? = answer.at("switchyard.score_usage.0") else {
            Issue.record("no usage of scores")
            return
        }
        #expect(usages.count == 3)
        let short = try await Self.answer(#""prompt":[2],"logprobs":0"#, backend)
        #expect(Self.list(short.at("choices.0.logprobs.token_logprobs")) == [nil, -1, -1.5])
        #expect(short.at("choices.0.logprobs.top_logprobs") == .null)
    }

    @Test("max_tokens of 0 asks for the prompt alone")
    func promptAlone() async throws {
        let answer = try await Self.answer(#""prompt":["my</s>king","king</s>"],"max_tokens":0,"logprobs":0,"n":2"#)
        #expect(answer.at("choices.3.index") == .integer(3) && answer.at("choices.4") == nil)
        #expect(answer.at("choices.0.text") == .string("my</s>king"))
        #expect(answer.at("choices.0.finish_reason") == .string("length"))
        #expect(Self.list(answer.at("choices.1.logprobs.token_logprobs")) == [nil, 0, -2])
        // Nothing follows the border, so nothing is scored.
        #expect(Self.list(answer.at("choices.2.logprobs.token_logprobs")) == [nil, 0])
        #expect(answer.at("usage.completion_tokens") == .integer(0))
        #expect(answer.at("switchyard.usage.0") == .null)
    }

    @Test("without logprobs the prompt is text alone")
    func textAlone() async throws {
        let answer = try await Self.answer(#""prompt":"my</s>king""#)
        #expect(answer.at("choices.0.text") == .string("my</s>kingdom</s>"))
        #expect(answer.at("choices.0.logprobs") == .null)
        #expect(answer.at("switchyard.score_usage.0") == .array([]))
    }

    @Test(
        "a prompt that does not say what is to be scored is refused in words that say how",
        arguments: [
            ("[2,3]", "echo", "write </s> (token 1)"), (#""my""#, "echo", "POST /v1/score"),
            ("[2,1,3,1,4]", "prompt", "second </s> at token 3"), ("[1,2,3,4,2]", "prompt", "the limit is 3"),
        ]
    )
    func refused(prompt: String, field: String, words: String) async throws {
        let fault = await #expect(throws: DoorFault.self) {
            try await Self.answer(#""prompt":\#(prompt),"logprobs":1"#)
        }
        #expect(fault?.status == 400 && fault?.field == field)
        #expect(fault?.message.contains(words) == true, "\(fault?.message ?? "")")
    }

    @Test("lines of a batch have no echo")
    func batch() throws {
        let reader = OpenAIBatchReader(
            model: Words().model,
            texts: Words(),
            seed: 1,
            created: 5,
            repeated: [:],
            dropPolicy: DropPolicy(),
            priority: .low,
            queueTimeoutMilliseconds: 0
        )
        let text =
            #"{"custom_id":"a","method":"POST","url":"/v1/completions","body":{"model":"words","prompt":"a","echo":true}}"#
        let answer = try json(String(decoding: reader.line(Array(text.utf8), index: 0).refusal, as: UTF8.self))
        #expect(answer.at("response.status_code") == .integer(400))
        #expect(answer.at("response.body.error.param") == .string("echo"))
    }

    @Test("the tokenizer's own end token comes where it is wanted, and ids without a text are refused")
    func tokenizer() throws {
        let backend = Words()
        func tokens(_ fields: String) throws -> JSONValue {
            let request = try TokenizerForm.Request(
                try json(#"{"prompt":"my king""# + fields + "}"),
                model: backend.model
            )
            return try json(request.answer([2, 3], backend).text)
        }
        let whole = try tokens(#","return_token_strs":true"#)
        #expect(whole["tokens"] == .array([2, 3, 1].map { .integer($0) }) && whole["count"] == .integer(3))
        #expect(whole["token_strs"] == .array([" my", " king", "</s>"].map { .string($0) }))
        let bare = try tokens(#","add_special_tokens":false,"model":"words""#)
        #expect(bare["tokens"] == .array([2, 3].map { .integer($0) }) && bare["token_strs"] == .null)
        #expect(bare["max_model_len"] == .integer(128))
        #expect(#expect(throws: DoorFault.self) { try tokens(#","model":"gpt""#) }?.status == 404)
        #expect(#expect(throws: DoorFault.self) { try tokens(#","inputs":"a""#) }?.field == "inputs")
        let text = try TokenizerForm.text(try json(#"{"tokens":[2,3,4,1]}"#), backend)
        #expect(text.text == #"{"prompt":"my kingdom</s>"}"#)
        for (body, field) in [(#"{"tokens":[5]}"#, "tokens[0]"), (#"{"tokens":"a"}"#, "tokens"), ("{}", "tokens")] {
            let fault = #expect(throws: DoorFault.self) { try TokenizerForm.text(try json(body), backend) }
            #expect(fault?.field == field)
        }
        #expect(try json(TokenizerForm.info(backend).text)["eos_token"] == .string("</s>"))
    }
}
