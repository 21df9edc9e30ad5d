// SPDX-License-Identifier: Apache-2.0

import JSONValues
import SwitchyardProtos
import Testing

@testable import HTTPDoor

@Suite("text-generation-inference's dialect")
struct TextGenerationTests {
    private static func read(_ parameters: String, streams: Bool? = false) throws -> TextGenerationRequest {
        try TextGenerationRequest(
            try json(#"{"inputs":"a","parameters":{"# + parameters + "}}"),
            streams: streams,
            model: Words().model,
            maxStops: 4
        )
    }

    @Test("a bare body asks for a hundred tokens, or as many as the gateway allows")
    func bare() throws {
        for body in [#"{"inputs":"a"}"#, #"{"inputs":"a","parameters":null}"#] {
            let request = try TextGenerationRequest(try json(body), streams: false, model: Words().model, maxStops: 4)
            var expected = GenerationParameters()
            expected.maxNewTokens = 64
            #expect(request.request == GenerateRequest(input: .text("a"), parameters: expected))
        }
    }

    @Test("every field that is honoured reaches the gateway's request")
    func honoured() throws {
        let request = try Self.read(
            """
            "best_of":2,"temperature":0.5,"repetition_penalty":1.5,"top_k":3,"top_p":0.9,"typical_p":0.8,"do_sample":true,
            "max_new_tokens":9,"return_full_text":true,"stop":["x"],"details":true,"decoder_input_details":true,"seed":4,
            "top_n_tokens":2,"frequency_penalty":0,"watermark":false,"truncate":null,"grammar":null,"adapter_id":null
            """
        )
        let parameters = try #require(request.request.parameters)
        #expect(parameters.numReturnSequences == 2 && parameters.temperature == 0.5)
        #expect(parameters.repetitionPenalty == 1.5 && parameters.topK == 3 && parameters.topP == 0.9)
        #expect(parameters.typicalP == 0.8 && parameters.doSample == true && parameters.maxNewTokens == 9)
        #expect(parameters.stop == ["x"] && parameters.seed == 4 && parameters.topLogprobs == 2)
        #expect(request.returnsInput && request.hasDetails && request.hasPrefill && request.topTokens == 2)
    }

    @Test(
        "what narrows the choice of tokens samples, as that server does",
        arguments: [
            ("", Bool?.none), (#""temperature":1.0"#, nil), (#""temperature":0.7"#, true), (#""top_k":5"#, true),
            (#""top_p":0.9"#, true), (#""top_p":1"#, nil), (#""typical_p":0.9"#, true), (#""do_sample":false"#, false),
            (#""do_sample":true"#, true),
        ]
    )
    func sampling(fields: String, samples: Bool?) throws {
        #expect(try Self.read(fields).request.parameters?.doSample == samples)
    }

    @Test(
        "what cannot be honoured is refused by its name, with 422",
        arguments: [
            (#""truncate":5"#, "truncate"), (#""watermark":true"#, "watermark"), (#""grammar":{}"#, "grammar"),
            (#""adapter_id":"a""#, "adapter_id"), (#""frequency_penalty":0.5"#, "frequency_penalty"),
            (#""temperature":0"#, "temperature"), (#""top_p":1.5"#, "top_p"), (#""top_p":1e-60"#, "top_p"),
            (#""top_k":0"#, "top_k"), (#""repetition_penalty":1e300"#, "repetition_penalty"), (#""seed":-1"#, "seed"),
            (#""best_of":0"#, "best_of"), (#""stop":"x""#, "stop"), (#""stop":[""]"#, "stop"),
            (#""stop":["a","b","c","d","e"]"#, "stop"), (#""num_beams":2"#, "num_beams"), (#""details":1"#, "details"),
            (#""top_n_tokens":21"#, "top_n_tokens"), (#""max_new_tokens":0"#, "max_new_tokens"),
        ]
    )
    func refused(fields: String, field: String) throws {
        let fault = try #require(#expect(throws: DoorFault.self) { try Self.read(fields) })
        #expect(fault.message.hasPrefix("parameters.\(field)"), "\(fault.message)")
        #expect(Dialect.textGeneration.status(of: fault) == 422)
        #expect(try json(Dialect.textGeneration.body(of: fault).text).at("error_type") == .string("validation"))
    }

    @Test("the document's range of numbers is what 32 bits hold")
    func range() throws {
        let least = "7.006492321624085e-46"
        let most = "3.4028235677973366e38"
        let number = try #require(TextGenerationRequest.parameterFields.first { $0.name == "repetition_penalty" })
        let schema = try json(number.schema.text)
        #expect(schema["exclusiveMinimum"]?.double == Double(least))
        #expect(schema["exclusiveMaximum"]?.double == Double(most))
        for text in [least, most] {
            #expect(throws: DoorFault.self) { try Self.read(#""repetition_penalty":\#(text)"#) }
        }
        for value in [Double(least)?.nextUp, Double(most)?.nextDown] {
            let value = try #require(value)
            #expect(throws: Never.self) { try Self.read(#""repetition_penalty":\#(value)"#) }
        }
    }

    @Test("log-probabilities are computed only where the answer shows them")
    func logprobs() throws {
        #expect(try Self.read(#""top_n_tokens":3"#).request.parameters?.topLogprobs == 0)
        for fields in [#""details":true"#, #""decoder_input_details":true"#] {
            #expect(try Self.read(fields).request.parameters?.topLogprobs == 1)
        }
        #expect(try Self.read(#""top_n_tokens":3,"details":true"#).request.parameters?.topLogprobs == 3)
        #expect(try Self.read(#""top_n_tokens":3"#, streams: true).request.parameters?.topLogprobs == 3)
        #expect(try Self.read("", streams: true).request.parameters?.topLogprobs == 1)
    }

    @Test("only the address that serves both takes stream")
    func streamField() throws {
        let body = try json(#"{"inputs":"a","stream":true}"#)
        #expect(try TextGenerationRequest(body, streams: nil, model: Words().model, maxStops: 4).streams)
        let fault = #expect(throws: DoorFault.self) {
            try TextGenerationRequest(body, streams: false, model: Words().model, maxStops: 4)
        }
        #expect(fault?.field == "stream")
    }

    @Test("a whole answer has that server's form")
    func whole() throws {
        let plain = TextGenerationAnswer(backend: Words(), request: try Self.read(#""return_full_text":true"#))
        #expect(plain.whole(Words.response).text == #"{"generated_text":"amy kingdom</s>"}"#)
        let details = #""details":true,"decoder_input_details":true,"top_n_tokens":2"#
        let answer = try json(
            TextGenerationAnswer(backend: Words(), request: try Self.read(details)).whole(Words.response).text
        )
        #expect(answer.at("details.finish_reason") == .string("eos_token"))
        #expect(answer.at("details.generated_tokens") == .integer(4))
        #expect(answer.at("details.seed") == .null)
        #expect(answer.at("details.prefill.0.id") == .integer(0))
        #expect(answer.at("details.tokens.1.text") == .string(" king"))
        #expect(answer.at("details.tokens.1.logprob") == .number(-0.5))
        #expect(answer.at("details.tokens.1.special") == .bool(false))
        #expect(answer.at("details.tokens.3.special") == .bool(true))
        // JSON has no infinity.
        #expect(answer.at("details.top_tokens.0.1.logprob") == .number(-9999.0))
    }

    @Test("the best of several answers, and the others are in the details")
    func best() throws {
        var response = Words.response
        var better = response.generations[0]
        better.score = -0.1
        better.text = "better"
        response.generations.append(better)
        response.seed = .max
        let request = try Self.read(#""best_of":2,"details":true,"do_sample":true"#)
        let answer = try json(
            TextGenerationAnswer(backend: Words(), request: request).whole(response).text
                .replacing("18446744073709551615", with: "9")
        )
        #expect(answer.at("generated_text") == .string("better"))
        #expect(answer.at("details.seed") == .integer(9))
        #expect(answer.at("details.best_of_sequences.0.generated_text") == .string("my kingdom</s>"))
    }

    @Test("the last event of a stream has the whole text, and the others a token each")
    func stream() throws {
        var form = TextGenerationEvents(
            answer: TextGenerationAnswer(backend: Words(), request: try Self.read(#""top_n_tokens":1"#))
        )
        let events = try Words.events.flatMap { form.events($0) }.map { try json($0) }
        #expect(events.count == 4)
        #expect(events.map { $0.at("index") } == [1, 2, 3, 4].map { .integer($0) })
        #expect(events[2].at("generated_text") == .null)
        #expect(events[3].at("generated_text") == .string("my kingdom</s>"))
        #expect(events[3].at("details.input_length") == .integer(7))
        #expect(events[0].at("top_tokens.0.id") == .integer(2))
        #expect(form.ending().isEmpty)
        // A beam search has no token before its end.
        var late = TextGenerationEvents(answer: TextGenerationAnswer(backend: Words(), request: try Self.read("")))
        let all = try late.events(.response(0, Words.response)).map { try json($0) }
        #expect(all.count == 4)
        #expect(all[3].at("details.finish_reason") == .string("eos_token"))
    }

    @Test("info says what is served")
    func info() throws {
        let info = try json(TextGenerationForm.info(Words()).text)
        #expect(info.at("model_id") == .string("words"))
        #expect(info.at("model_dtype") == .string("torch.float32"))
        #expect(info.at("max_input_tokens") == .integer(128))
        #expect(info.at("max_total_tokens") == .integer(192))
    }
}
