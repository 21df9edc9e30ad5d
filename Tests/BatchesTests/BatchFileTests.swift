// SPDX-License-Identifier: Apache-2.0

import Batches
import Foundation
import RPCCore
import SwitchyardProtos
import Testing

/// How a batch's lines are read and its answers are kept.
@Suite("batch files")
struct BatchFileTests {
    private static func identity(lines: Int = 4, seed: UInt64 = 7, defaults: String = "{}") -> BatchIdentity {
        BatchIdentity(
            lines: lines,
            input: 1,
            model: 2,
            task: "generate",
            format: "text",
            defaults: defaults,
            seed: seed
        )
    }

    private static func withFolder(_ body: (String) throws -> Void) throws {
        let folder = FileManager.default.temporaryDirectory.appending(path: "switchyard-batch-\(UUID().uuidString)")
        try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
        defer { try? FileManager.default.removeItem(at: folder) }
        try body(folder.appending(path: "out.jsonl").path(percentEncoded: false))
    }

    @Test("the end of a line that was cut off is removed, and the batch goes on behind the last whole one")
    func tornLine() throws {
        try Self.withFolder { path in
            let first = try BatchOutput(path, of: Self.identity())
            try first.write([Array("one".utf8), Array("two".utf8)])
            let handle = try #require(FileHandle(forWritingAtPath: path + ".partial"))
            try handle.seekToEnd()
            try handle.write(contentsOf: Data("thr".utf8))
            try handle.close()
            let second = try BatchOutput(path, of: Self.identity())
            #expect(second.lines == 2)
            try second.write([Array("three".utf8), Array("four".utf8)])
            try second.finish()
            #expect(try String(contentsOfFile: path, encoding: .utf8) == "one\ntwo\nthree\nfour\n")
            #expect(try BatchOutput.unfinished(path) == nil)
            #expect(!FileManager.default.fileExists(atPath: path + ".partial"))
        }
    }

    @Test("an unfinished file is not gone on with as another batch, nor a finished one replaced")
    func otherBatch() throws {
        try Self.withFolder { path in
            _ = try BatchOutput(path, of: Self.identity())
            let error = #expect(throws: BatchError.self) {
                _ = try BatchOutput(path, of: Self.identity(defaults: "{\"parameters\":{}}"))
            }
            #expect(error?.description.contains("its options were {}") == true, "\(error?.description ?? "")")
            #expect(throws: BatchError.self) { _ = try BatchOutput(path, of: Self.identity(lines: 5)) }
            try FileManager.default.moveItem(atPath: path + ".partial", toPath: path)
            #expect(throws: BatchError.self) { try BatchOutput.prepare(path, overwrite: false) }
            try BatchOutput.prepare(path, overwrite: true)
            #expect(!FileManager.default.fileExists(atPath: path))
            #expect(try BatchOutput.unfinished(path) == nil)
        }
    }

    // MARK: - Lines

    private static func reader(
        _ format: BatchFormat = .jsonl,
        task: BatchTask = .generate,
        defaults: BatchRequest = .generate(
            GenerateRequest(parameters: GenerationParameters(maxNewTokens: 9, numBeams: 2), priority: .low)
        )
    ) -> BatchReader {
        BatchReader(task: task, format: format, defaults: defaults, seed: 100)
    }

    private static func request(_ line: String, _ reader: BatchReader, index: Int = 0) throws -> GenerateRequest {
        guard case .generate(let request) = try reader.line(Array(line.utf8), index: index).request.get() else {
            throw BatchError("another request")
        }
        return request
    }

    @Test("a line's fields win over the flags', one by one, by either of their names")
    func merging() throws {
        let line = #"{"id": 12, "text": "a", "parameters": {"max_new_tokens": 3, "seed": "5"}}"#
        #expect(Self.reader().line(Array(line.utf8), index: 3).id == "12")
        let request = try Self.request(line, Self.reader(), index: 3)
        #expect(request.input == .text("a"))
        #expect(request.parameters?.maxNewTokens == 3)
        #expect(request.parameters?.numBeams == 2)
        #expect(request.parameters?.seed == 5)
        #expect(request.priority == .low)
        let other = try Self.request(#"{"text": "a"}"#, Self.reader(), index: 3)
        #expect(other.parameters?.maxNewTokens == 9)
        #expect(other.parameters?.seed == 103, "each line has its own seed, whenever it is asked")
        let text = try Self.request(#"{"text": "a"}"#, Self.reader(.text))
        #expect(text.input == .text(#"{"text": "a"}"#))
    }

    @Test(
        "what a line says wrongly is named",
        arguments: [
            (#"{"text": "a", "tokens": 3}"#, "tokens"), (#"{"text": 3}"#, "text"), ("[1]", "an array"),
            ("{", "not JSON"), (#"{"id": {}, "text": "a"}"#, "id"), (#"{"text": "a", "text": "b"}"#, "text"),
            (#"{"text": "a", "inputIds": {"ids": [1]}}"#, "set only one"),
        ]
    )
    func faults(line: String, word: String) {
        let result = Self.reader().line(Array(line.utf8), index: 0).request
        guard case .failure(let fault) = result else {
            Issue.record("\(line) was taken")
            return
        }
        #expect(fault.code == .invalidArgument)
        #expect(fault.message.contains(word), "\(fault.message)")
    }

    @Test("an answer has no times, and an error its code and words")
    func answers() {
        var response = GenerateResponse(generations: [Generation(text: "a \"b\"\n", tokenIDs: [4, 1])])
        response.usage = Usage(inputTokens: 3, queueMicroseconds: 5, encodeMicroseconds: 6, decodeMicroseconds: 7)
        let line = String(decoding: BatchAnswer.line(response, id: "\"x\"", index: 1), as: UTF8.self)
        #expect(line.hasPrefix(#"{"line":2,"id":"x","response":{"#))
        #expect(!line.contains("Microseconds") && !line.contains("\n"), "\(line)")
        let fault = BatchAnswer.line(BatchFault(.invalidArgument, "text is \"3\""), id: nil, index: 0)
        #expect(
            String(decoding: fault, as: UTF8.self)
                == #"{"line":1,"error":{"code":"INVALID_ARGUMENT","message":"text is \"3\""}}"#
        )
    }
}
