// SPDX-License-Identifier: Apache-2.0

import JSONValues
import RPCCore
import SwitchyardProtos
import Testing

@testable import HTTPDoor

@Suite("OpenAI's batch lines")
struct BatchLineTests {
    private static func reader(texts: (any TokenTexts)? = Words(), repeated: [Int: Int] = [:]) -> OpenAIBatchReader {
        OpenAIBatchReader(
            model: Words().model,
            texts: texts,
            seed: 100,
            created: 5,
            repeated: repeated,
            dropPolicy: DropPolicy(strict: true, maxDroppedFraction: 0),
            priority: .low,
            queueTimeoutMilliseconds: 0
        )
    }

    private static func line(
        _ body: String,
        url: String = "/v1/completions",
        index: Int = 3,
        reader: OpenAIBatchReader = Self.reader()
    ) -> OpenAIBatchLine {
        let text = #"{"custom_id":"a","method":"POST","url":"\#(url)","body":\#(body)}"#
        return reader.line(Array(text.utf8), index: index)
    }

    private static func value(_ bytes: [UInt8]) throws -> JSONValue {
        #expect(!bytes.contains(UInt8(ascii: "\n")))
        return try json(String(decoding: bytes, as: UTF8.self))
    }

    @Test("a completion's prompts are asked with the batch's policy, and with seeds that do not depend on when")
    func completion() throws {
        let line = Self.line(#"{"model":"words","prompt":["a","b"],"temperature":1}"#)
        guard case .generate(let requests) = line.question else {
            Issue.record("\(String(decoding: line.refusal, as: UTF8.self))")
            return
        }
        #expect(requests.map(\.input) == [.text("a"), .text("b")])
        #expect(requests.map { $0.parameters?.seed } == [103, 103 + 1 << 32])
        #expect(requests.allSatisfy { $0.dropPolicy?.strict == true && $0.priority == .low })
        let own = Self.line(
            #"{"model":"words","prompt":"a","seed":7,"switchyard":{"priority":"HIGH","dropPolicy":{"maxDroppedFraction":1}}}"#
        )
        guard case .generate(let chosen) = own.question else {
            Issue.record("\(String(decoding: own.refusal, as: UTF8.self))")
            return
        }
        #expect(chosen[0].parameters?.seed == 7 && chosen[0].priority == .high)
        #expect(chosen[0].dropPolicy?.strict == false)
    }

    @Test("an answer has OpenAI's form, no times, and the same bytes in each run")
    func answer() throws {
        var response = Words.response
        response.usage?.decodeMicroseconds = 9
        let line = Self.line(#"{"model":"words","prompt":"a","logprobs":1}"#)
        let answer = try Self.value(line.answer([response]))
        #expect(answer.at("custom_id") == .string("a"))
        #expect(answer.at("error") == .null)
        #expect(answer.at("response.status_code") == .integer(200))
        #expect(answer.at("response.body.object") == .string("text_completion"))
        #expect(answer.at("response.body.created") == .integer(5))
        #expect(answer.at("response.body.choices.0.logprobs.tokens.1") == .string(" king"))
        #expect(answer.at("response.body.switchyard.usage.0.decodeMicroseconds") == nil)
        guard case .string(let id)? = answer.at("id"), case .string(let request)? = answer.at("response.request_id")
        else {
            Issue.record("\(answer)")
            return
        }
        #expect(id.hasPrefix("batch_req_") && request == "req_" + id.dropFirst(10))
        let again = Self.line(#"{"model":"words","prompt":"a","logprobs":1}"#).answer([Words.response])
        #expect(again == line.answer([response]))
        let next = try Self.value(Self.line(#"{"model":"words","prompt":"a"}"#, index: 4).answer([response]))
        #expect(next.at("id") != answer.at("id"))
    }

    @Test("an embedding's inputs are encoded, and one that fails fails its line")
    func embeddings() throws {
        let line = Self.line(#"{"model":"words","input":["a","b"]}"#, url: "/v1/embeddings")
        guard case .encode(let request) = line.question else {
            Issue.record("\(String(decoding: line.refusal, as: UTF8.self))")
            return
        }
        #expect(request.inputs.count == 2 && request.pooling == .mean && request.dropPolicy?.strict == true)
        var good = EncodeResult()
        good.hiddenStates = Tensor(dtype: .float32, shape: [1, 1], data: [0, 0, 128, 63])
        var bad = EncodeResult()
        bad.status = InputStatus(code: 8, message: "input is too long")
        let (answered, isAnswer) = line.answer(EncodeResponse(results: [good, good]))
        #expect(isAnswer)
        #expect(try Self.value(answered).at("response.body.data.1.embedding.0") == .number(1))
        let (failed, isNone) = line.answer(EncodeResponse(results: [good, bad]))
        #expect(!isNone)
        #expect(try Self.value(failed).at("response.status_code") == .integer(400))
        #expect(try Self.value(failed).at("response.body.error.code") == .string("context_length_exceeded"))
    }

    @Test(
        "a line that is no request has an error with OpenAI's word",
        arguments: [
            ("not JSON", "invalid_json_line", "not JSON"), ("[1]", "invalid_json_line", "an array"),
            (#"{"method":"POST","url":"/v1/completions","body":{}}"#, "missing_required_parameter", "custom_id"),
            (#"{"custom_id":"a","url":"/v1/completions","body":{}}"#, "missing_required_parameter", "method"),
            (#"{"custom_id":"a","method":"GET","url":"/v1/completions","body":{}}"#, "invalid_method", "GET"),
            (#"{"custom_id":"a","method":"POST","body":{}}"#, "missing_required_parameter", "url"),
            (
                #"{"custom_id":"a","method":"POST","url":"/v1/chat/completions","body":{}}"#, "invalid_url",
                "no chat model"
            ), (#"{"custom_id":"a","method":"POST","url":"/v1/responses","body":{}}"#, "invalid_url", "/v1/responses"),
            (#"{"custom_id":"a","method":"POST","url":"/v1/completions"}"#, "missing_required_parameter", "body"),
            (
                #"{"custom_id":"a","method":"POST","url":"/v1/completions","body":{},"colour":1}"#, "invalid_request",
                "colour"
            ),
        ]
    )
    func malformed(text: String, code: String, word: String) throws {
        let line = Self.reader().line(Array(text.utf8), index: 0)
        guard case .none = line.question else {
            Issue.record("\(text) was taken")
            return
        }
        let answer = try Self.value(line.refusal)
        #expect(answer.at("response") == .null)
        #expect(answer.at("error.code") == .string(code))
        guard case .string(let message)? = answer.at("error.message") else {
            Issue.record("\(answer)")
            return
        }
        #expect(message.contains(word), "\(message)")
    }

    @Test("a name that an earlier line has is refused with that line's number")
    func repeatedName() throws {
        let line = Self.line(
            #"{"model":"words","prompt":"a"}"#,
            index: 4,
            reader: Self.reader(repeated: [4: 1])
        )
        let answer = try Self.value(line.refusal)
        #expect(answer.at("custom_id") == .string("a"))
        #expect(answer.at("error.code") == .string("duplicate_custom_id"))
        #expect(answer.at("error.message").map { "\($0)".contains("line 2") } == true)
    }

    @Test(
        "a body that the address would refuse has the address's status and error",
        arguments: [
            (#"{"model":"gpt","prompt":"a"}"#, 404, "model"),
            (#"{"model":"words","prompt":"a","stream":true}"#, 400, "stream"),
            (#"{"model":"words","prompt":"a","echo":true}"#, 400, "echo"), (#"{"model":"words"}"#, 400, "prompt"),
        ]
    )
    func refused(body: String, status: Int, field: String) throws {
        let answer = try Self.value(Self.line(body).refusal)
        #expect(answer.at("error") == .null)
        #expect(answer.at("response.status_code") == .integer(status))
        #expect(answer.at("response.body.error.param") == .string(field))
    }

    @Test("without a tokenizer, log-probabilities are refused in words; what a gateway refuses has its status")
    func others() throws {
        let line = Self.line(
            #"{"model":"words","prompt":"a","logprobs":1}"#,
            reader: Self.reader(texts: nil)
        )
        #expect(try Self.value(line.refusal).at("response.body.error.param") == .string("logprobs"))
        let asked = Self.line(#"{"model":"words","prompt":"a"}"#)
        let error = RPCError(.invalidArgument, "parameters.max_new_tokens is 9; the limit is 4")
        let answer = try Self.value(asked.answer(error))
        #expect(answer.at("response.status_code") == .integer(400))
        #expect(answer.at("response.body.error.param") == .string("max_tokens"))
        #expect(OpenAIBatchReader.name(in: Array(#"{"custom_id":"x"}"#.utf8)) == "x")
        #expect(OpenAIBatchReader.name(in: Array("{".utf8)) == nil)
    }
}
