// SPDX-License-Identifier: Apache-2.0

import JSONValues
import SwitchyardProtos
import Testing

@testable import HTTPDoor

@Suite("OpenAI's completions")
struct CompletionTests {
    private static func read(_ text: String) throws -> CompletionRequest {
        try CompletionRequest(try json(text), model: Words().model, maxStops: 4)
    }

    @Test("a bare body asks for sixteen tokens and leaves the rest to the model")
    func bare() throws {
        let request = try Self.read(#"{"model":"words","prompt":"a"}"#)
        #expect(request.requests.count == 1)
        #expect(request.requests[0].input == .text("a"))
        var expected = GenerationParameters()
        expected.maxNewTokens = 16
        expected.skipScores = true
        #expect(request.requests[0].parameters == expected)
        #expect(!request.streams && request.count == 1 && request.logprobs == nil)
    }

    @Test("every field that is honoured reaches the gateway's request")
    func honoured() throws {
        let request = try Self.read(
            """
            {"model":"words","prompt":["a","b"],"max_tokens":5,"n":2,"best_of":3,"temperature":0.5,"top_p":0.9,"seed":-1,
            "stop":["x","y"],"logprobs":2,"logit_bias":{"3":-100,"4":1.5},"user":"u","stream":false,"echo":false,"suffix":"",
            "presence_penalty":0,"frequency_penalty":0.0,
            "switchyard":{"parameters":{"repetitionPenalty":1.5,"top_k":7},"dropPolicy":{"strict":true},"priority":"HIGH"}}
            """
        )
        #expect(request.requests.map(\.input) == [.text("a"), .text("b")])
        let parameters = try #require(request.requests[1].parameters)
        #expect(parameters.maxNewTokens == 5)
        #expect(parameters.numReturnSequences == 3)
        #expect(parameters.doSample == true && parameters.temperature == 0.5 && parameters.topP == 0.9)
        #expect(parameters.seed == .max)
        #expect(parameters.stop == ["x", "y"])
        #expect(parameters.topLogprobs == 2 && !parameters.skipScores)
        #expect(
            parameters.sequenceBias?.biases == [
                SequenceBias(tokens: [3], bias: -100), SequenceBias(tokens: [4], bias: 1.5),
            ]
        )
        #expect(parameters.repetitionPenalty == 1.5 && parameters.topK == 7)
        #expect(request.requests[1].dropPolicy?.strict == true)
        #expect(request.requests[1].priority == .high)
        #expect(request.user == "u" && request.count == 2 && request.bestOf == 3)
    }

    @Test(
        "temperature and top_p choose between the model's settings, the most likely token and sampling",
        arguments: [
            (#""temperature":null"#, Bool?.none, Float?.none), (#""top_p":1"#, nil, nil),
            (#""temperature":0"#, false, nil), (#""temperature":0,"top_p":0.5"#, false, nil),
            (#""top_p":0"#, false, nil),
            (#""temperature":1"#, true, 1), (#""top_p":0.5"#, true, 1), (#""temperature":2,"top_p":1"#, true, 2),
        ]
    )
    func sampling(fields: String, samples: Bool?, temperature: Float?) throws {
        let parameters = try #require(
            try Self.read(#"{"model":"words","prompt":"a","# + fields + "}").requests[0].parameters
        )
        #expect(parameters.doSample == samples)
        #expect(parameters.temperature == temperature)
        // OpenAI samples from all tokens.
        #expect(parameters.topK == (samples == true ? 0 : nil))
    }

    @Test(
        "prompts are texts or ids, one or several",
        arguments: [
            ("\"a\"", [ModelInput.text("a")]), ("[\"a\"]", [.text("a")]), ("[1,2]", [.tokenIDs([1, 2])]),
            ("[[1],[2,3]]", [.tokenIDs([1]), .tokenIDs([2, 3])]),
        ]
    )
    func prompts(prompt: String, expected: [ModelInput]) throws {
        #expect(try Self.read(#"{"model":"words","prompt":"# + prompt + "}").requests.map(\.input) == expected)
    }

    @Test(
        "what cannot be honoured is refused by its name",
        arguments: [
            (#""echo":true,"stream":true"#, "echo", "set stream to false"),
            (#""max_tokens":0"#, "max_tokens", "from 1"),
            (#""echo":true,"switchyard":{"decoderText":"x"}"#, "switchyard.decoder_prefix", "after </s>"),
            (
                #""echo":true,"switchyard":{"parameters":{"decoderStartTokenId":1}}"#,
                "switchyard.parameters.decoder_start_token_id", "leave it out"
            ),
            (#""suffix":"x""#, "suffix", "<extra_id_0>"),
            (#""presence_penalty":1"#, "presence_penalty", "leave it out"),
            (#""frequency_penalty":-0.1"#, "frequency_penalty", "repetition_penalty"),
            (#""top_k":5"#, "top_k", "is not a field"), (#""temperature":2.1"#, "temperature", "0.0 to 2.0"),
            (#""temperature":"1""#, "temperature", "is the string"), (#""n":0"#, "n", "1 to 128"),
            (#""n":1.5"#, "n", "whole number"), (#""best_of":1,"n":2"#, "best_of", "at least n"),
            (#""best_of":2,"stream":true"#, "best_of", "stream"), (#""logprobs":6"#, "logprobs", "0 to 5"),
            (#""stop":["a","b","c","d","e"]"#, "stop", "limit is 4"), (#""stop":"""#, "stop", "empty"),
            (#""logit_bias":{"x":1}"#, "logit_bias", "token ids"),
            (#""logit_bias":{"1":101}"#, "logit_bias", "-100 to 100"),
            (#""logit_bias":[]"#, "logit_bias", "an object"), (#""seed":1e30"#, "seed", "64 bits"),
            (#""stream_options":{}"#, "stream_options", "stream is not true"),
            (#""stream":true,"stream_options":{"x":1}"#, "stream_options.x", "is not a field"),
            (
                #""stream":true,"stream_options":{"include_obfuscation":true}"#, "stream_options.include_obfuscation",
                "leave it out"
            ),
            (#""switchyard":{"text":"x"}"#, "switchyard.input", "prompt"),
            (#""switchyard":{"parameters":{"temperature":1}}"#, "switchyard.parameters.temperature", "use temperature"),
            (#""switchyard":{"parameters":{"tempo":1}}"#, "switchyard.parameters.tempo", "is not a field"),
            (#""switchyard":{"returnReceipt":true}"#, "switchyard.return_receipt", "/v1/generate"),
        ]
    )
    func refused(fields: String, field: String, words: String) throws {
        let fault = #expect(throws: DoorFault.self) {
            try Self.read(#"{"model":"words","prompt":"a","# + fields + "}")
        }
        #expect(fault?.status == 400)
        #expect(fault?.field == field)
        #expect(fault?.message.contains(words) == true, "\(fault?.message ?? "")")
        #expect(fault?.message.hasPrefix(field) == true)
    }

    @Test(
        "bodies that are no request are refused",
        arguments: [
            ("[]", "the body is an array"), (#"{"model":"words"}"#, "prompt is missing"),
            (#"{"model":"words","prompt":[]}"#, "prompt is an empty list"),
            (#"{"model":"words","prompt":7}"#, "prompt is the integer 7"),
            (#"{"model":"words","prompt":[[]]}"#, "prompt[0] is no list"),
            (#"{"model":"words","prompt":[1,"a"]}"#, "prompt holds"),
            (#"{"model":"words","prompt":["a","a","a","a","a"]}"#, "the limit is 4"),
            (#"{"prompt":"a"}"#, "model is missing"),
            (#"{"model":7,"prompt":"a"}"#, "model is the integer 7"),
        ]
    )
    func malformed(body: String, words: String) throws {
        let fault = #expect(throws: DoorFault.self) { try Self.read(body) }
        #expect(fault?.message.contains(words) == true, "\(fault?.message ?? "")")
    }

    @Test("another model's name is not found")
    func otherModel() throws {
        let fault = #expect(throws: DoorFault.self) { try Self.read(#"{"model":"gpt","prompt":"a"}"#) }
        #expect(fault?.status == 404)
        let error = try json(Dialect.openAI.body(of: try #require(fault)).text)
        #expect(error.at("error.code") == .string("model_not_found"))
        #expect(error.at("error.param") == .string("model"))
    }

    private static func answer(_ fields: String = "") throws -> CompletionAnswer {
        CompletionAnswer(
            texts: Words(),
            model: Words().model,
            request: try Self.read(#"{"model":"words","prompt":"a""# + fields + "}"),
            id: "cmpl-1",
            created: 5
        )
    }

    @Test("a whole answer has OpenAI's form")
    func whole() throws {
        let answer = try json(try Self.answer(#","logprobs":1"#).whole([Words.response]).text)
        #expect(answer.at("object") == .string("text_completion"))
        #expect(answer.at("choices.0.text") == .string("my kingdom</s>"))
        #expect(answer.at("choices.0.finish_reason") == .string("stop"))
        #expect(answer.at("choices.0.logprobs.tokens") == .array([" my", " king", "dom", "</s>"].map { .string($0) }))
        #expect(answer.at("choices.0.logprobs.text_offset") == .array([0, 2, 7, 10].map { .integer($0) }))
        #expect(answer.at("choices.0.logprobs.top_logprobs.1") == .object([" king": .number(-0.5)]))
        #expect(answer.at("usage.total_tokens") == .integer(11))
        #expect(answer.at("switchyard.usage.0.inputTokens") == .integer(7))
        #expect(answer.at("system_fingerprint") == .string("fp_00000000000000ab"))
    }

    @Test("the best of several are the most likely")
    func best() throws {
        var response = Words.response
        var better = response.generations[0]
        better.score = -0.1
        better.text = "better"
        response.generations += [better, response.generations[0]]
        let answer = try json(try Self.answer(#","best_of":3"#).whole([response]).text)
        #expect(answer.at("choices.0.text") == .string("better"))
        #expect(answer.at("choices.1") == nil)
        // All tokens were generated.
        #expect(answer.at("usage.completion_tokens") == .integer(12))
    }

    @Test("a stream's texts joined are the whole text, and the last chunks say why it ended and what it cost")
    func stream() throws {
        let answer = try Self.answer(#","stream":true,"logprobs":0,"stream_options":{"include_usage":true}"#)
        var form = CompletionEvents(answer: answer)
        let chunks = try Words.events.flatMap { form.events($0) }.map { try json($0) }
        #expect(chunks.count == 5)
        let texts = chunks.compactMap { chunk -> String? in
            if case .string(let text)? = chunk.at("choices.0.text") { text } else { nil }
        }
        #expect(texts.joined() == "my kingdom</s>")
        #expect(chunks[1].at("choices.0.logprobs.text_offset.0") == .integer(2))
        #expect(chunks[3].at("choices.0.finish_reason") == .null)
        #expect(chunks[4].at("choices.0.finish_reason") == .string("stop"))
        #expect(chunks[0].at("usage") == .null)
        let ending = form.ending()
        #expect(ending.count == 2 && ending[1] == "[DONE]")
        #expect(try json(ending[0]).at("usage.total_tokens") == .integer(11))
        #expect(try json(ending[0]).at("choices") == .array([]))
    }

    @Test("where no token was final before the end, the text comes at once")
    func beams() throws {
        var form = CompletionEvents(answer: try Self.answer(#","stream":true"#))
        let chunks = try form.events(.response(0, Words.response)).map { try json($0) }
        #expect(chunks.count == 1)
        #expect(chunks[0].at("choices.0.text") == .string("my kingdom</s>"))
        #expect(form.ending() == ["[DONE]"])
    }

    @Test("embeddings are numbers or base64, and a missing answer fails all")
    func embeddings() throws {
        func read(_ fields: String) throws -> EmbeddingsRequest {
            try EmbeddingsRequest(
                try json(
                    #"{"model":"words","input":["a",[1]]"#.replacing(#"["a",[1]]"#, with: #"["a","b"]"#) + fields + "}"
                ),
                model: Words().model
            )
        }
        let request = try read(#","dimensions":2"#)
        #expect(request.request.pooling == .mean)
        #expect(request.request.inputs.map(\.input) == [.text("a"), .text("b")])
        let tensor = Tensor(dtype: .float32, shape: [1, 2], data: [0, 0, 128, 63, 0, 0, 0, 192])
        var usage = Usage()
        usage.inputTokens = 3
        let result = EncodeResult(hiddenStates: tensor, usage: usage)
        var response = EncodeResponse(results: [result, result])
        let answer = try json(try request.answer(response, model: Words().model).text)
        #expect(answer.at("data.1.embedding") == .array([.number(1.0), .number(-2.0)]))
        #expect(answer.at("usage.prompt_tokens") == .integer(6))
        let packed = try read(#","encoding_format":"base64""#)
        #expect(
            try json(try packed.answer(response, model: Words().model).text).at("data.0.embedding")
                == .string("AACAPwAAAMA=")
        )
        response.results[1] = EncodeResult(status: InputStatus(code: 3, message: "text is bad"))
        let fault = #expect(throws: DoorFault.self) { try request.answer(response, model: Words().model) }
        #expect(fault?.message == "input[1]: text is bad" && fault?.status == 400)
        for (fields, field) in [
            (#","dimensions":3"#, "dimensions"), (#","encoding_format":"int8""#, "encoding_format"),
        ] {
            #expect(#expect(throws: DoorFault.self) { try read(fields) }?.field == field)
        }
    }
}
