// SPDX-License-Identifier: Apache-2.0

import HTTPTypes
import JSONValues
import OpenInference
import RPCCore
import SwitchyardProtos
import Testing

@testable import HTTPDoor

@Suite("The Open Inference Protocol over HTTP")
struct InferBodyTests {
    private static let route = DoorRoute(
        dialect: .openInference,
        action: .infer,
        template: "/v2/models/{model}/infer",
        model: "words"
    )

    private static func read(_ text: String, tail: [UInt8]? = nil) throws -> InferBody {
        try InferBody(
            Array(text.utf8) + (tail ?? []),
            jsonLength: tail.map { _ in "\(text.utf8.count)" },
            route: Self.route
        )
    }

    @Test("elements are lists, in one another or not, or bytes after the JSON")
    func inputs() throws {
        let listed = try Self.read(
            #"{"id":"7","inputs":[{"name":"input_ids","shape":[2,2],"datatype":"INT64","data":[[1,2],[3,4.0]]}]}"#
        )
        #expect(listed.request.id == "7" && listed.request.modelName == "words")
        #expect(listed.request.inputs[0].contents?.int64Contents == [1, 2, 3, 4])
        #expect(listed.request.inputs[0].shape == [2, 2] && listed.request.rawInputContents.isEmpty)
        let texts = try Self.read(
            #"{"inputs":[{"name":"text_input","shape":[2],"datatype":"BYTES","data":["a","ß"]}]}"#
        )
        #expect(texts.request.inputs[0].contents?.bytesContents == [Array("a".utf8), Array("ß".utf8)])
        let bytes: [UInt8] = [1, 0, 0, 0, 97]
        let raw = try Self.read(
            #"{"inputs":[{"name":"text_input","shape":[1],"datatype":"BYTES","parameters":{"binary_data_size":5}}]}"#,
            tail: bytes
        )
        #expect(raw.request.rawInputContents == [bytes] && raw.request.inputs[0].parameters.isEmpty)
        #expect(try InferRequest(raw.request, model: Words().model).requests.map(\.input) == [.text("a")])
    }

    @Test("parameters keep their types, and those of the transport go no further")
    func parameters() throws {
        let body = try Self.read(
            """
            {"parameters":{"max_new_tokens":5,"temperature":0.5,"do_sample":true,"stop":"x","binary_data_output":true},
            "inputs":[{"name":"text_input","shape":[1],"datatype":"BYTES","data":["a"]}],
            "outputs":[{"name":"score","parameters":{"binary_data":false}},{"name":"text_output"}]}
            """
        )
        #expect(
            body.request.parameters == [
                "max_new_tokens": InferParameter(value: .int64(5)), "temperature": InferParameter(value: .double(0.5)),
                "do_sample": InferParameter(value: .bool(true)), "stop": InferParameter(value: .string("x")),
            ]
        )
        #expect(!body.isBinary("score") && body.isBinary("text_output"))
        #expect(body.request.outputs.map(\.name) == ["score", "text_output"])
        #expect(body.request.outputs.allSatisfy { $0.parameters.isEmpty })
    }

    @Test(
        "what is wrong is refused by its name",
        arguments: [
            (#"{}"#, "inputs"), (#"{"inputs":{}}"#, "inputs"), (#"{"inputs":[],"colour":1}"#, "colour"),
            (#"{"inputs":[{"name":"a","shape":[1],"datatype":"BYTES"}]}"#, "inputs[0].data"),
            (#"{"inputs":[{"name":"a","shape":1,"datatype":"BYTES","data":[]}]}"#, "inputs[0].shape"),
            (#"{"inputs":[{"name":"a","shape":["x"],"datatype":"BYTES","data":[]}]}"#, "inputs[0].shape[0]"),
            (#"{"inputs":[{"name":"a","shape":[1],"datatype":"BYTES","data":[1]}]}"#, "inputs[0].data[0]"),
            (#"{"inputs":[{"name":"a","shape":[2],"datatype":"INT32","data":[1,3000000000]}]}"#, "inputs[0].data[1]"),
            (#"{"inputs":[{"name":"a","shape":[1],"datatype":"BYTES","data":["a"],"x":1}]}"#, "inputs[0].x"),
            (
                #"{"inputs":[{"name":"a","shape":[1],"datatype":"BYTES","parameters":{"binary_data_size":1}}]}"#,
                "inputs[0].parameters.binary_data_size"
            ),
            (#"{"inputs":[],"parameters":{"a":[1]}}"#, "parameters.a"),
            (#"{"inputs":[],"parameters":{"binary_data_output":1}}"#, "parameters.binary_data_output"),
            (#"{"inputs":[],"outputs":[{}]}"#, "outputs[0].name"),
        ]
    )
    func refused(body: String, field: String) throws {
        let fault = #expect(throws: DoorFault.self) { try Self.read(body) }
        #expect(fault?.status == 400)
        #expect(fault?.field == field, "\(fault?.message ?? "")")
    }

    @Test("bytes after the JSON must belong to a tensor, and the head must not lie about them")
    func tails() throws {
        let input = #"{"inputs":[{"name":"a","shape":[1],"datatype":"BYTES","data":["a"]}]}"#
        let rest = #expect(throws: DoorFault.self) { try Self.read(input, tail: [1, 2]) }
        #expect(rest?.message.contains("2 bytes after the JSON") == true)
        for length in ["-1", "x", "1000", "99999999999999999999"] {
            let fault = #expect(throws: DoorFault.self) {
                try InferBody(Array(input.utf8), jsonLength: length, route: Self.route)
            }
            #expect(fault?.message.contains("inference-header-content-length") == true)
        }
    }

    @Test("an answer's tensors are lists or bytes, each as it was asked for")
    func reply() throws {
        let model = Words().model
        let body = try Self.read(
            """
            {"id":"7","inputs":[{"name":"text_input","shape":[1],"datatype":"BYTES","data":["a"]}],
            "outputs":[{"name":"text_output"},{"name":"output_ids","parameters":{"binary_data":true}},
            {"name":"sequence_length"},{"name":"score"},{"name":"finish_reason","parameters":{"binary_data":true}}]}
            """
        )
        let request = try InferRequest(body.request, model: model)
        let reply = OpenInferenceForm.reply(body, request.answer([Words.response], model: model, isRaw: true))
        let answer = try json(reply.body)
        #expect(answer["model_name"] == .string("words") && answer["id"] == .string("7"))
        #expect(answer.at("outputs.0.data") == .array([.string("my kingdom</s>")]))
        #expect(answer.at("outputs.1.parameters.binary_data_size") == .integer(32))
        #expect(answer.at("outputs.1.data") == nil)
        #expect(answer.at("outputs.1.shape") == .array([1, 1, 4].map { .integer($0) }))
        #expect(answer.at("outputs.2.data") == .array([.integer(4)]))
        #expect(answer.at("outputs.3.data") == .array([.number(-0.75)]))
        #expect(answer.at("parameters.output_tokens") == .integer(4))
        #expect(reply.type == "application/octet-stream")
        #expect(reply.fields[DoorHeaders.inferenceLength] == "\(reply.body.utf8.count)")
        #expect(reply.tail.prefix(8) == [2, 0, 0, 0, 0, 0, 0, 0])
        #expect(Array(reply.tail.suffix(19)) == [15, 0, 0, 0] + Array("end_of_sequence".utf8))
        let plain = OpenInferenceForm.reply(
            try Self.read(#"{"inputs":[{"name":"text_input","shape":[1],"datatype":"BYTES","data":["a"]}]}"#),
            request.answer([Words.response], model: model, isRaw: true)
        )
        #expect(plain.type == "application/json" && plain.tail.isEmpty)
    }

    @Test("the server and the model are described, and another model is not found")
    func metadata() throws {
        let model = Words().model
        #expect(try json(OpenInferenceForm.server(model).text)["extensions"]?["0"] == .string("binary_tensor_data"))
        let metadata = try json(OpenInferenceForm.metadata(model).text)
        #expect(metadata["versions"]?["0"] == .string("00000000000000ab"))
        #expect(metadata.at("inputs.1.name") == .string("input_ids"))
        var other = Self.route
        other.version = "7"
        let fault = try #require(#expect(throws: DoorFault.self) { try OpenInferenceForm.check(other, model) })
        #expect(fault.status == 404)
        #expect(Dialect.openInference.body(of: fault).text.hasPrefix(#"{"error":"this server has no model words"#))
    }
}
