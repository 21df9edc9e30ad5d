// SPDX-License-Identifier: Apache-2.0

import RPCCore
import SwitchyardProtos
import Testing

@testable import OpenInference

@Suite("The Open Inference Protocol")
struct InferRequestTests {
    private static let model: ModelDescription = {
        var model = ModelDescription()
        model.name = "words"
        model.fingerprint = 0xAB
        model.maxInputs = 4
        model.maxInputTokens = 8
        model.padTokenID = 9
        return model
    }()

    private static func bytes(_ texts: [String]) -> [UInt8] {
        texts.flatMap { text in
            withUnsafeBytes(of: UInt32(text.utf8.count).littleEndian) { Array($0) } + Array(text.utf8)
        }
    }

    private static func texts(_ texts: [String], shape: [Int64]? = nil) -> ModelInferRequest {
        ModelInferRequest(
            modelName: "words",
            id: "7",
            inputs: [
                InferInputTensor(
                    name: "text_input",
                    datatype: "BYTES",
                    shape: shape ?? [Int64(texts.count)],
                    contents: InferTensorContents(bytesContents: texts.map { Array($0.utf8) })
                )
            ]
        )
    }

    @Test("texts are rows, as contents and as raw bytes, with one axis or two")
    func rows() throws {
        let listed = try InferRequest(Self.texts(["a", "ß"]), model: Self.model)
        #expect(listed.requests.map(\.input) == [.text("a"), .text("ß")] && !listed.isRaw)
        var request = Self.texts(["a", "ß"], shape: [2, 1])
        request.inputs[0].contents = nil
        request.rawInputContents = [Self.bytes(["a", "ß"])]
        let raw = try InferRequest(request, model: Self.model)
        #expect(raw.requests == listed.requests && raw.isRaw)
    }

    @Test("token ids of each datatype are the same rows")
    func ids() throws {
        func request(_ datatype: String, _ contents: InferTensorContents?, raw: [UInt8]? = nil) -> ModelInferRequest {
            ModelInferRequest(
                modelName: "words",
                modelVersion: "00000000000000ab",
                inputs: [InferInputTensor(name: "input_ids", datatype: datatype, shape: [2, 2], contents: contents)],
                rawInputContents: raw.map { [$0] } ?? []
            )
        }
        let raw = [5, 1, 6, 1].flatMap { withUnsafeBytes(of: Int64($0).littleEndian) { Array($0) } }
        let requests = [
            request("INT64", InferTensorContents(int64Contents: [5, 1, 6, 1])),
            request("INT32", InferTensorContents(intContents: [5, 1, 6, 1])),
            request("UINT32", InferTensorContents(uintContents: [5, 1, 6, 1])),
            request("UINT64", InferTensorContents(uint64Contents: [5, 1, 6, 1])), request("INT64", nil, raw: raw),
        ]
        for request in requests {
            let read = try InferRequest(request, model: Self.model)
            #expect(read.requests.map(\.input) == [.tokenIDs([5, 1]), .tokenIDs([6, 1])])
        }
        let negative = request("INT64", InferTensorContents(int64Contents: [5, 1, -6, 1]))
        let error = #expect(throws: RPCError.self) { try InferRequest(negative, model: Self.model) }
        #expect(error?.message.contains("element 2") == true, "\(error?.message ?? "")")
        let minus = [5, 1, 6, -1].flatMap { withUnsafeBytes(of: Int32($0).littleEndian) { Array($0) } }
        #expect(throws: RPCError.self) { try InferRequest(request("INT32", nil, raw: minus), model: Self.model) }
    }

    @Test("parameters have the names of GenerationParameters, and those that clients send by themselves their meaning")
    func parameters() throws {
        var request = Self.texts(["a", "b"])
        request.parameters = [
            "max_new_tokens": InferParameter(value: .int64(5)), "num_beams": InferParameter(value: .uint64(2)),
            "temperature": InferParameter(value: .double(0.5)), "do_sample": InferParameter(value: .bool(true)),
            "stop": InferParameter(value: .string("x")), "strict": InferParameter(value: .bool(true)),
            "priority": InferParameter(value: .uint64(1)), "timeout": InferParameter(value: .int64(1_500)),
            "seed": InferParameter(value: .uint64(.max)),
        ]
        for read in try InferRequest(request, model: Self.model).requests {
            #expect(read.parameters?.maxNewTokens == 5 && read.parameters?.numBeams == 2)
            #expect(read.parameters?.temperature == 0.5 && read.parameters?.doSample == true)
            #expect(read.parameters?.stop == ["x"] && read.parameters?.seed == .max)
            #expect(read.dropPolicy?.strict == true && read.priority == .high)
            #expect(read.queueTimeoutMilliseconds == 2)
        }
    }

    @Test(
        "an unknown or wrong parameter is refused by its name",
        arguments: [
            ("sequence_id", InferParameter.Value.int64(3)), ("max_new_tokens", .string("many")),
            ("max_new_tokens", .int64(-1)), ("priority", .int64(4)), ("timeout", .int64(-1)),
            ("temperature", .double(.nan)), ("colour", nil),
        ]
    )
    func wrongParameter(name: String, value: InferParameter.Value?) throws {
        var request = Self.texts(["a"])
        request.parameters = [name: InferParameter(value: value)]
        let error = #expect(throws: RPCError.self) { try InferRequest(request, model: Self.model) }
        #expect(error?.code == .invalidArgument)
        #expect(error?.message.hasPrefix("parameters.\(name) ") == true, "\(error?.message ?? "")")
    }

    @Test("what does not fit is refused with its name")
    func refusals() throws {
        func refused(_ change: (inout ModelInferRequest) -> Void) -> RPCError? {
            var request = Self.texts(["a", "b"])
            change(&request)
            return #expect(throws: RPCError.self) { try InferRequest(request, model: Self.model) }
        }
        #expect(refused { $0.modelName = "other" }?.code == .notFound)
        #expect(refused { $0.modelVersion = "2" }?.code == .notFound)
        let cases: [(String, (inout ModelInferRequest) -> Void)] = [
            ("inputs.prompt is not an input", { $0.inputs[0].name = "prompt" }),
            ("inputs has 0 tensors", { $0.inputs = [] }), ("inputs has 2 tensors", { $0.inputs += $0.inputs }),
            ("inputs.text_input has the datatype FP32", { $0.inputs[0].datatype = "FP32" }),
            ("inputs.text_input has 2 elements", { $0.inputs[0].shape = [3] }),
            ("inputs.text_input has 5 rows; the limit is 4", { $0.inputs[0].shape = [5] }),
            ("inputs.text_input has the shape [0]", { $0.inputs[0].shape = [0] }),
            ("inputs.text_input has the shape [-1]", { $0.inputs[0].shape = [-1] }),
            ("inputs.text_input is not UTF-8 at element 0", { $0.inputs[0].contents?.bytesContents[0] = [0xFF] }),
            ("inputs.text_input has contents, but", { $0.rawInputContents = [Self.bytes(["a", "b"])] }),
            ("raw_input_contents has 2 entries", { $0.rawInputContents = [[], []] }),
            (
                "inputs.text_input ends within the length",
                {
                    $0.inputs[0].contents = nil
                    $0.rawInputContents = [[1, 0]]
                }
            ),
            (
                "inputs.text_input ends within element 0",
                {
                    $0.inputs[0].contents = nil
                    $0.rawInputContents = [[255, 255, 255, 255]]
                }
            ),
            (
                "inputs.text_input has 1 bytes after",
                {
                    $0.inputs[0].contents = nil
                    $0.rawInputContents = [Self.bytes(["a", "b"]) + [0]]
                }
            ),
            (
                "inputs.text_input has the parameter shared_memory_region",
                { $0.inputs[0].parameters = ["shared_memory_region": InferParameter(value: .string("x"))] }
            ), ("outputs.logits is not an output", { $0.outputs = [InferRequestedOutputTensor(name: "logits")] }),
            (
                "outputs.score is there twice",
                { $0.outputs = [InferRequestedOutputTensor(name: "score"), InferRequestedOutputTensor(name: "score")] }
            ),
            (
                "outputs.score has the parameter classification",
                {
                    $0.outputs = [
                        InferRequestedOutputTensor(
                            name: "score",
                            parameters: ["classification": InferParameter(value: .int64(2))]
                        )
                    ]
                }
            ),
        ]
        for (words, change) in cases {
            let error = refused(change)
            let message = error?.message ?? ""
            #expect(error?.code == .invalidArgument && message.hasPrefix(words), "\(message)")
        }
    }

    @Test("an answer has the request's name, its rows, padded ids, and the form of the request")
    func answers() throws {
        var usage = Usage()
        usage.inputTokens = 3
        usage.outputTokens = 2
        let responses = [
            GenerateResponse(
                generations: [Generation(text: "ab", tokenIDs: [4, 5, 1], finishReason: .endOfSequence, score: -0.5)],
                usage: usage
            ),
            GenerateResponse(
                generations: [Generation(text: "c", tokenIDs: [6], finishReason: .length, score: -1)],
                usage: usage,
                seed: 8
            ),
        ]
        let listed = try InferRequest(Self.texts(["x", "y"]), model: Self.model).answer(responses, model: Self.model)
        #expect(listed.id == "7" && listed.modelName == "words" && listed.modelVersion == "00000000000000ab")
        #expect(listed.outputs.map(\.name) == ModelTensors.metadata(Self.model).outputs.map(\.name))
        #expect(listed.outputs.map(\.datatype) == ModelTensors.metadata(Self.model).outputs.map(\.datatype))
        #expect(listed.outputs.map(\.shape) == [[2, 1], [2, 1, 3], [2, 1], [2, 1], [2, 1]])
        #expect(listed.outputs[0].contents?.bytesContents == [Array("ab".utf8), Array("c".utf8)])
        #expect(listed.outputs[1].contents?.int64Contents == [4, 5, 1, 6, 9, 9])
        #expect(listed.outputs[2].contents?.intContents == [3, 1])
        #expect(listed.outputs[4].contents?.fp32Contents == [-0.5, -1])
        #expect(listed.parameters["input_tokens"]?.value == .int64(6))
        #expect(listed.parameters["seeds"]?.value == .string(",8"))
        #expect(listed.rawOutputContents.isEmpty)

        var request = Self.texts(["x", "y"])
        request.inputs[0].contents = nil
        request.rawInputContents = [Self.bytes(["x", "y"])]
        request.outputs = [InferRequestedOutputTensor(name: "score"), InferRequestedOutputTensor(name: "text_output")]
        let raw = try InferRequest(request, model: Self.model).answer(responses, model: Self.model)
        #expect(raw.outputs.map(\.name) == ["score", "text_output"])
        #expect(raw.outputs.allSatisfy { $0.contents == nil })
        #expect(raw.rawOutputContents == [[0, 0, 0, 191, 0, 0, 128, 191], Self.bytes(["ab", "c"])])
        // The wire takes it back.
        #expect(try ModelInferResponse(serialized: raw.serialized()) == raw)
    }
}
