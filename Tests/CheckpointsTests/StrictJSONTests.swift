// SPDX-License-Identifier: Apache-2.0

import Foundation
import JSONValues
import SwitchyardTypes
import Testing

@testable import Checkpoints

/// What the readers of the formats' own libraries do: safetensors 0.8.0, and Python 3.11's `json`.
@Suite struct StrictJSONTests {
    private static let whole = #"{"dtype":"F32","shape":[2],"data_offsets":[0,8]}"#

    private func read(_ header: [UInt8], data: Int = 8) throws -> [StoredTensor] {
        let length = withUnsafeBytes(of: UInt64(header.count).littleEndian) { Array($0) }
        return try SafetensorsReader.read(storage(length + header + Array(repeating: 0, count: data)), path: "memory")
    }

    private func value(_ text: some Collection<UInt8>) throws -> JSONValue {
        try Array(text).withUnsafeBytes { try JSONFile.value($0, file: "config.json") }
    }

    // MARK: - Headers

    @Test(arguments: [
        #"{"a":WHOLE,"a":{"dtype":"I32","shape":[1,2],"data_offsets":[0,8]}}"#,
        #"{"a":{"dtype":"F64","shape":[9],"data_offsets":[0,8]},"a":{"dtype":"I32","shape":[1,2],"data_offsets":[0,8]}}"#,
        #"{"a":WHOLE,"\u0061":{"dtype":"I32","shape":[1,2],"data_offsets":[0,8]}}"#,
    ])
    func theLastOfTwoTensorsCounts(header: String) throws {
        let tensors = try self.read(Array(header.replacing("WHOLE", with: Self.whole).utf8))
        #expect(tensors.map(\.name) == ["a"])
        #expect(tensors.first?.dtype == .int32)
        #expect(tensors.first?.shape == [1, 2])
    }

    @Test(arguments: [
        #"{"a":{"dtype":"F32","x":[1,{"y":[]}],"x":-1.5e3,"shape":[2],"data_offsets":[0,8]}}"#, "{\"a\":WHOLE}  \n\t\r",
        " \n{\"a\":WHOLE}", #"{"__metadata__":null,"a":WHOLE}"#, #"{"__metadata__":{"k":"1","k":"2"},"a":WHOLE}"#,
        #"{"a":{"dtype":"F32","x":DEEP,"shape":[2],"data_offsets":[0,8]}}"#,
    ])
    func whatTheLibraryReadsIsRead(header: String) throws {
        let deep = String(repeating: "[", count: 124) + String(repeating: "]", count: 124)
        let text = header.replacing("WHOLE", with: Self.whole).replacing("DEEP", with: deep)
        #expect(try self.read(Array(text.utf8)).map(\.name) == ["a"])
    }

    @Test func escapedNamesAreRead() throws {
        let names = [(#"\ud83d\ude00\n\/"#, "😀\n/"), (#"\u0000é\\\"\b\f\r\t"#, "\0é\\\"\u{8}\u{c}\r\t")]
        for (escaped, name) in names {
            #expect(try self.read(Array("{\"\(escaped)\":\(Self.whole)}".utf8)).map(\.name) == [name])
        }
    }

    @Test(arguments: [
        (#"{"b":WHOLE,"b":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}}"#, "begins 4 bytes after"),
        (#"{"a":{"dtype":"F32"},"a":WHOLE}"#, "has no shape"),
        (#"{"a":{"dtype":"F32","dtype":"F32","shape":[2],"data_offsets":[0,8]}}"#, "has dtype twice"),
        (#"{"a":{"dtype":"F32","shape":[],"shape":[2],"data_offsets":[0,8]}}"#, "has shape twice"),
        (#"{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8],"data_offsets":[0,8]}}"#, "has data_offsets twice"),
        (#"{"__metadata__":{},"__metadata__":{},"a":WHOLE}"#, "\"__metadata__\" twice"),
        (#"{"a":WHOLE,}"#, "a trailing comma"),
        (#"{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8],}}"#, "a trailing comma"),
        (#"{"a":{"dtype":"F32","shape":[2,],"data_offsets":[0,8]}}"#, "a trailing comma"),
        ("{\"a\":WHOLE}\0", "more text after its end"), (#"{"a":WHOLE}{}"#, "more text after its end"),
        ("{\"a\":WHOLE}\u{c}", "more text after its end"),
        (#"{"a\ud800":WHOLE}"#, "half of a surrogate pair"), (#"{"a\ude00\ud83d":WHOLE}"#, "half of a surrogate pair"),
        (#"{"a\ud83dx":WHOLE}"#, "half of a surrogate pair"), (#"{"a\u00g0":WHOLE}"#, "hexadecimal"),
        (#"{"a\x41":WHOLE}"#, "unknown escape"), ("{\"a\t\":WHOLE}", "control character"),
        ("{/*x*/\"a\":WHOLE}", "no key in quotes"), ("{'a':WHOLE}", "no key in quotes"),
        (#"{"a":{"DTYPE":"F32","shape":[2],"data_offsets":[0,8]}}"#, "has no dtype"),
        (#"{"a":{"dtype":"F32","x":1e999,"shape":[2],"data_offsets":[0,8]}}"#, "out of range"),
        (#"{"a":{"dtype":"F32","x":01,"shape":[2],"data_offsets":[0,8]}}"#, "begins with 0"),
        (#"{"a":{"dtype":"F32","x":NaN,"shape":[2],"data_offsets":[0,8]}}"#, "no value"),
        (#"{"a":{"dtype":"F32","x":truth,"shape":[2],"data_offsets":[0,8]}}"#, "no value"),
        (#"{"a":null}"#, "null where an object is needed"), (#"{"a":"b"}"#, "the string \"b\" where an object"),
        (#"{"__metadata__":{"k":1},"a":WHOLE}"#, "the integer 1 where a string is needed"),
        (#"{"a":{"dtype":"F32","x":DEEP,"shape":[2],"data_offsets":[0,8]}}"#, "127 values inside each other"),
        (#"{"a":{"dtype":"F32","shape":"#, "the end where an array is needed"),
        (#"{"a":{"dtype":"F3"#, "a string without an end"),
        (#"{"a":{"dtype":"F32\"#, "a string without an end"), (#"{"a" 1}"#, "no colon"), (#"{"a":1 "b":2}"#, "object"),
    ])
    func whatTheLibraryRefusesIsRefused(header: String, complaint: String) {
        let deep = String(repeating: "[", count: 130) + String(repeating: "]", count: 130)
        let text = header.replacing("WHOLE", with: Self.whole).replacing("DEEP", with: deep)
        let error = failure { _ = try self.read(Array(text.utf8)) }
        #expect(error?.description.contains(complaint) == true, "\(String(describing: error))")
        #expect(error?.file == "memory")
    }

    @Test(arguments: [
        "2.0", "2e0", "1e2", "+2", "02", "-0", "0x2", "2.", "\"2\"", "null", "true", "NaN", "[2]",
        "18446744073709551616", "",
    ])
    func sizesAreIntegersWithoutFractionOrExponent(text: String) {
        for header in [
            #"{"a":{"dtype":"F32","shape":[\#(text)],"data_offsets":[0,8]}}"#,
            #"{"a":{"dtype":"F32","shape":[2],"data_offsets":[\#(text),8]}}"#,
        ] {
            let error = failure { _ = try self.read(Array(header.utf8)) }
            #expect(error?.code == .malformed, "\(header)")
        }
    }

    @Test func onlyPlainUTF8IsRead() {
        let text = "{\"a\":\(Self.whole)}"
        for (encoding, complaint): (String.Encoding, String) in [
            (.utf16, "UTF-16 or UTF-32"), (.utf16LittleEndian, "UTF-16"), (.utf16BigEndian, "UTF-16"),
            (.utf32LittleEndian, "UTF-32"),
        ] {
            let bytes = [UInt8](text.data(using: encoding) ?? Data())
            #expect(failure { _ = try self.read(bytes) }?.message.contains(complaint) == true)
            #expect(throws: CheckpointError.self) { try self.value(bytes) }
        }
        let marked = failure { _ = try self.read([0xEF, 0xBB, 0xBF] + Array(text.utf8)) }
        #expect(marked?.message.contains("byte order mark") == true)
        for wrong: [UInt8] in [[0xFF], [0xED, 0xA0, 0x80], [0xC0, 0x80], [0xE2, 0x82]] {
            let bytes = Array("{\"a".utf8) + wrong + Array("\":\(Self.whole)}".utf8)
            #expect(failure { _ = try self.read(bytes) }?.message.contains("not UTF-8") == true)
        }
    }

    // MARK: - Bounds

    @Test func axesAndOffsetsAreCountedWhileTheyAreRead() {
        // Were the arrays read to their end, the broken number behind them would be the complaint.
        for key in ["shape", "data_offsets"] {
            let text = #"{"a":{"dtype":"F32","\#(key)":["# + String(repeating: "1,", count: 4_000) + "x]}}"
            let error = failure { _ = try self.read(Array(text.utf8)) }
            #expect(error?.tensor == "a")
            #expect(
                error?.message.contains(key == "shape" ? "9 axes or more; the limit is 8" : "more than two") == true
            )
        }
    }

    @Test func valuesAndTensorsAreCounted() throws {
        var scanner = CheckpointScanner(
            UnsafeRawBufferPointer(start: nil, count: 0),
            file: "x",
            dialect: .serde,
            maxValues: 0
        )
        #expect(failure { _ = try scanner.string() }?.code == .limitExceeded)
        let text = Array(#"{"a":[1,2,{"b":null}]}"#.utf8)
        try text.withUnsafeBytes { bytes in
            for limit in 0...7 {
                var scanner = CheckpointScanner(bytes, file: "x", dialect: .python, maxValues: limit)
                if limit >= 6 {
                    try scanner.skip()
                    try scanner.end()
                } else {
                    let error = failure { try scanner.skip() }
                    #expect(error?.code == .limitExceeded)
                    #expect(error?.message.contains("more than \(limit) JSON values") == true)
                }
            }
        }
        var header = Array("{".utf8)
        let entry = Array(#"":{"dtype":"U8","shape":[0],"data_offsets":[0,0]}"#.utf8)
        for index in 0...SafetensorsHeader.maxTensors {
            header += Array((index == 0 ? "\"" : ",\"").utf8) + Array("\(index)".utf8) + entry
        }
        let error = failure { _ = try self.read(header + Array("}".utf8), data: 0) }
        #expect(error?.code == .limitExceeded)
        #expect(error?.message.contains("more than 262144 tensors") == true)
    }

    // MARK: - Configurations and indexes

    @Test(arguments: [
        (#"{"a":1,"b":[],"a":{"c":2}}"#, ["a": JSONValue.object(["c": .integer(2)]), "b": .array([])]),
        (#"{"a":1.0,"b":1e2,"c":-0}"#, ["a": .number(1), "b": .number(100), "c": .integer(0)]),
        (
            #"{"a":1e999,"b":-Infinity,"c":Infinity}"#,
            ["a": .number(.infinity), "b": .number(-.infinity), "c": .number(.infinity)]
        ),
        (
            #" {"a":100000000000000000000000000000,"b":true,"c":"NaN"} "#,
            ["a": .number(1e29), "b": .bool(true), "c": .string("NaN")]
        ),
    ])
    func configurationsAreReadAsPythonReadsThem(text: String, members: [String: JSONValue]) throws {
        #expect(try self.value(text.utf8) == .object(members))
    }

    @Test func notANumberIsRead() throws {
        guard case .object(let members) = try self.value(#"{"a":NaN}"#.utf8), case .number(let number)? = members["a"]
        else {
            Issue.record("no number")
            return
        }
        #expect(number.isNaN)
    }

    @Test(arguments: [
        #"{"a":1,}"#, "{\"a\":1}\0", "{\"a\":1}x", "{\"a\":\"\t\"}", #"{"a":01}"#, #"{"a":+1}"#, #"{"a":nan}"#,
        #"{"a":.5}"#,
        #"{"a":1 "b":2}"#, #"{"a":[1 2]}"#, "[", "", #"{"a":-}"#, #"{"a":1e}"#,
    ])
    func whatPythonRefusesIsRefused(text: String) {
        #expect(failure { _ = try self.value(text.utf8) }?.code == .malformed)
    }

    @Test func theLastOfTwoIndexEntriesCounts() throws {
        let folder = try TemporaryFolder()
        let tensors = try TinyModel().tensors()
        try folder.write(TinyModel().json, to: "config.json")
        try SafetensorsWriter.write(tensors, to: "\(folder.path)/whole.safetensors")
        let map = tensors.map { "\"\($0.name)\": \"absent.safetensors\", \"\($0.name)\": \"whole.safetensors\"" }
        let index = "{\"weight_map\": {}, \"weight_map\": {\(map.joined(separator: ", "))}}"
        try folder.write(index, to: "model.safetensors.index.json")
        #expect(try Checkpoint.open(folder.path).tensors.count == tensors.count)
        for (text, complaint) in [
            ("{\"weight_map\": []}", "no object weight_map"), ("{\"weight_map\": {\"a\": 3}}", "the integer 3"),
            (index.dropLast() + ",}", "a trailing comma"), ("\u{FEFF}" + index, "byte order mark"),
        ] {
            try folder.write(String(text), to: "model.safetensors.index.json")
            let error = failure { _ = try Checkpoint.open(folder.path) }
            #expect(error?.message.contains(complaint) == true, "\(String(describing: error))")
            #expect(error?.file?.hasSuffix("model.safetensors.index.json") == true)
        }
    }

    // MARK: - This program's own files

    @Test func manifestsWithTwoEqualKeysOrImpossibleSizesAreRefused() throws {
        let folder = try TemporaryFolder()
        func manifest(_ change: (String) -> String) throws -> CheckpointError? {
            let text = #"""
                {"formatVersion":1,"kind":"gateway","name":"gateway","fingerprint":"0123456789abcdef",
                "partFingerprint":"0123456789abcdef","source":"m","pools":1,"overrides":{},"experts":[],"tensorCount":3,
                "byteCount":40,"files":[{"name":"a","byteCount":20,"sha256":"x"},{"name":"b","byteCount":20,"sha256":"x"}]}
                """#
            try folder.write(change(text), to: "manifest.json")
            return failure { if try ShardManifest.load(directory: folder.path) != nil { throw CheckpointError.read } }
        }
        #expect(try manifest { $0 } == .read)
        #expect(
            try manifest { $0.replacing("\"pools\":1", with: "\"pools\":1,\"pools\":2") }?.message
                .contains("\"pools\" twice") == true
        )
        let sizes = [Int.max, Int.max - 7, -1, StatedSizes.most + 1]
        for size in sizes {
            #expect(
                try manifest { $0.replacing("\"byteCount\":20", with: "\"byteCount\":\(size)") }?.message
                    .contains("\(size)") == true
            )
            #expect(
                try manifest { $0.replacing("\"byteCount\":40", with: "\"byteCount\":\(size)") }?.message
                    .contains("\(size)") == true
            )
            #expect(
                try manifest { $0.replacing("\"tensorCount\":3", with: "\"tensorCount\":\(size)") }?.message
                    .contains("\(size)") == true
            )
        }
        let half = StatedSizes.most / 2 + 1
        #expect(
            try manifest { $0.replacing("\"byteCount\":20", with: "\"byteCount\":\(half)") }?.message.contains("in all")
                == true
        )
    }

    @Test func sumsOfStatedSizesNeverOverflow() {
        #expect(StatedSizes.total([]) == 0)
        #expect(StatedSizes.total([1, 2, StatedSizes.most - 3]) == StatedSizes.most)
        #expect(StatedSizes.total([1, StatedSizes.most]) == nil)
        #expect(StatedSizes.total([5, -1]) == nil)
        #expect(StatedSizes.total([Int.max, Int.max, Int.min]) == nil)
        #expect(StatedSizes.total([Int.min]) == nil)
    }

    @Test(arguments: [UInt8(ascii: "N"), UInt8(ascii: "("), UInt8(ascii: ")")])
    func opcodesAreCountedWhateverTheyPush(opcode: UInt8) {
        // Values that are popped or appended to a list at once never deepen the stack.
        let pair: [UInt8] = opcode == UInt8(ascii: "(") ? [opcode, UInt8(ascii: "e")] : [opcode, UInt8(ascii: "a")]
        var pickle = Array("]".utf8)
        for _ in 0...Unpickler.maxOpcodes / 2 { pickle += pair }
        let error = pickle.withUnsafeBytes { bytes in
            var unpickler = Unpickler(bytes, path: "memory")
            return failure { _ = try unpickler.value() }
        }
        #expect(error?.code == .limitExceeded)
        #expect(error?.message.contains("opcodes (limit 5000000)") == true)
    }
}

extension CheckpointError {
    /// Stands for success where a failure is expected otherwise.
    fileprivate static let read = CheckpointError(code: .invalidArgument, message: "read")
}
