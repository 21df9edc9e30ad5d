// SPDX-License-Identifier: Apache-2.0

import JSONValues
import MessageJSON
import SwitchyardProtos
import Testing

@testable import HTTPDoor

@Suite("Messages by protobuf's JSON mapping")
struct MappingTests {
    private static func read(_ text: String) throws -> GenerateRequest {
        try OwnForm.message(try json(text), "switchyard.v1.GenerateRequest")
    }

    @Test("both names of a field are read, and the mapping's is written")
    func names() throws {
        for name in ["maxNewTokens", "max_new_tokens"] {
            #expect(try Self.read(#"{"parameters":{"\#(name)":5}}"#).parameters?.maxNewTokens == 5)
        }
        var request = GenerateRequest(input: .tokenIDs([1, 2]), parameters: GenerationParameters())
        request.parameters?.seed = .max
        request.parameters?.temperature = 0.1
        request.parameters?.doSample = false
        request.parameters?.earlyStopping = .always
        #expect(
            OwnForm.json(request, "switchyard.v1.GenerateRequest").text
                == #"{"inputIds":{"ids":[1,2]},"parameters":{"doSample":false,"temperature":0.1,"seed":"18446744073709551615","earlyStopping":"ALWAYS"}}"#
        )
    }

    @Test(
        "whatever the mapping allows is read",
        arguments: [
            #"{"seed":"7"}"#, #"{"seed":7}"#, #"{"seed":7.0}"#, #"{"seed":7e0}"#, #"{"seed":"7","temperature":null}"#,
        ]
    )
    func numbers(parameters: String) throws {
        let read = try #require(try Self.read(#"{"parameters":\#(parameters)}"#).parameters)
        #expect(read.seed == 7 && read.temperature == nil)
    }

    @Test("enums are names or numbers, bytes either alphabet of base64, floats also in quotes")
    func forms() throws {
        #expect(try Self.read(#"{"priority":"LOW"}"#).priority == .low)
        #expect(try Self.read(#"{"priority":3}"#).priority == .high)
        let parameters = try #require(
            try Self.read(#"{"parameters":{"topP":"0.5","lengthPenalty":"-Infinity"}}"#).parameters
        )
        #expect(parameters.topP == 0.5 && parameters.lengthPenalty == -.infinity)
        for text in ["+/8=", "-_8", "+/8"] {
            let tensor: Tensor = try OwnForm.message(try json(#"{"data":"\#(text)"}"#), "switchyard.v1.Tensor")
            #expect(tensor.data == [0xFB, 0xFF])
        }
        #expect(
            OwnForm.json(Tensor(dtype: .float32, shape: [1], data: [0xFB, 0xFF]), "switchyard.v1.Tensor").text
                == #"{"dtype":"FLOAT32","shape":[1],"data":"+/8="}"#
        )
    }

    @Test("fields are written by number, whatever their order on the wire, and unknown ones left out")
    func order() {
        // data, an unknown field 15, shape in two parts, dtype twice.
        let bytes: [UInt8] = [0x1A, 2, 0xFB, 0xFF, 0x78, 1, 0x12, 1, 1, 0x08, 2, 0x12, 1, 7, 0x08, 1]
        #expect(
            MessageJSONWriter.text(bytes, message: "switchyard.v1.Tensor", form: .mapping)
                == #"{"dtype":"FLOAT32","shape":[1,7],"data":"+/8="}"#
        )
        #expect(MessageJSONWriter.text([0x78, 1], message: "switchyard.v1.Tensor", form: .mapping) == "{}")
    }

    @Test(
        "a text is quoted with what JSON, terminals and readers need escaped",
        arguments: [
            ("plain <extra_id_0> ü 漢", #""plain <extra_id_0> ü 漢""#), ("", #""""#),
            ("a\"b\\c\n\r\t", #""a\"b\\c\n\r\t""#),
            ("\u{1}\u{7F}\u{85}\u{202E}\u{2069}", #""\u0001\u007f\u0085\u202e\u2069""#),
            ("▁é–", #""▁é–""#),
        ]
    )
    func quoted(text: String, json: String) {
        #expect(MessageJSONWriter.quoted(text) == json)
    }

    @Test(
        "what the mapping does not allow is refused by the field's name",
        arguments: [
            (#"{"tex":"a"}"#, "tex"), (#"{"text":1}"#, "text"), (#"{"parameters":[]}"#, "parameters"),
            (#"{"parameters":{"seed":-1}}"#, "parameters.seed"), (#"{"parameters":{"seed":1.5}}"#, "parameters.seed"),
            (#"{"parameters":{"topP":"0x1p3"}}"#, "parameters.topP"),
            (#"{"parameters":{"topP":1e39}}"#, "parameters.topP"),
            (#"{"parameters":{"topP":true}}"#, "parameters.topP"), (#"{"priority":"URGENT"}"#, "priority"),
            (#"{"priority":9}"#, "priority"), (#"{"text":"a","inputIds":{"ids":[1]}}"#, "inputIds"),
            (#"{"parameters":{"maxNewTokens":1,"max_new_tokens":1}}"#, "parameters.max_new_tokens"),
            (#"{"inputIds":{"ids":[1,null]}}"#, "inputIds.ids[1]"),
            (#"{"inputIds":{"ids":[4294967296]}}"#, "inputIds.ids[0]"),
            (#"{"returnRoutes":"true"}"#, "returnRoutes"), (#"{"parameters":{"stop":"a"}}"#, "parameters.stop"),
        ]
    )
    func refused(text: String, field: String) throws {
        let fault = #expect(throws: DoorFault.self) { try Self.read(text) }
        #expect(fault?.field == field, "\(fault?.message ?? "")")
    }
}
