// SPDX-License-Identifier: Apache-2.0

import Foundation
import Testing

@testable import TrainingData

@Suite("Lines of files")
struct LineTests {
    private func texts(_ lines: some LineSource) throws -> [String] {
        try (0..<lines.count)
            .map {
                switch try lines.line($0) {
                case .bytes(let bytes): String(decoding: bytes, as: UTF8.self)
                case .tooLong(let limit): "over \(limit)"
                }
            }
    }

    @Test("are found whatever ends them, over several files, an empty one among them")
    func ends() throws {
        let contents = ["one\ntwo\r\n\nfour", "", "\u{FEFF}five\n", "six\r\n\n"].map { Array($0.utf8) }
        try Support.withFiles(contents) { paths in
            let lines = try FileLines(paths)
            #expect(try self.texts(lines) == ["one", "two", "", "four", "five", "six", ""])
            #expect(lines.place(of: 3) == LinePlace(file: paths[0], number: 4))
            #expect(lines.place(of: 4) == LinePlace(file: paths[2], number: 1))
            #expect(lines.place(of: 6).description == "\(paths[3]):2")
        }
    }

    @Test("are the same through the index as in memory, with blocks of every kind")
    func blocks() throws {
        // Short lines fill a block by number, long ones by bytes, and some are longer than what is read at once.
        let lengths = (0..<700).map { $0 % 97 == 13 ? 70_000 + $0 : $0 % 31 == 5 ? 9000 : $0 % 5 }
        let lines = lengths.enumerated().map { [UInt8](repeating: UInt8(97 + $0.offset % 26), count: $0.element) }
        try Support.withFiles([Array(lines.joined(separator: [10]))]) { paths in
            let file = try FileLines(paths)
            #expect(file.count == lines.count)
            for index in stride(from: 0, to: lines.count, by: 1).shuffled() {
                #expect(try file.line(index) == .bytes(lines[index]), "line \(index)")
            }
            #expect(file.indexBytes <= 16 * (700 / 64 + lengths.reduce(0, +) / LineIndex.bytesPerBlock + 2))
        }
    }

    @Test("an index does not depend on how bytes are handed in", arguments: [1, 2, 7, 64, 100_000])
    func chunks(size: Int) {
        let bytes = Array(Support.prose(300).joined(separator: "\n").utf8)
        var whole = LineIndex()
        bytes.withUnsafeBytes { whole.add($0) }
        var pieces = LineIndex()
        for start in stride(from: 0, to: bytes.count, by: size) {
            bytes[start..<min(start + size, bytes.count)].withUnsafeBytes { pieces.add($0) }
        }
        #expect(pieces == whole)
        #expect(whole.lineCount == 300)
    }

    @Test("of one byte too many are told apart from those at the limit")
    func limit() throws {
        let contents = Array("12345678\n123456789\r\n1234567890\n12345678901\n1\n".utf8)
        try Support.withFiles([contents]) { paths in
            let lines = try FileLines(paths, maximumLineBytes: 9)
            #expect(try self.texts(lines) == ["12345678", "123456789", "over 9", "over 9", "1"])
        }
    }

    @Test("have a fingerprint of their content and order")
    func fingerprint() throws {
        let first = Array("a\nb\n".utf8)
        let second = Array("a\nc\n".utf8)
        try Support.withFiles([first, second, first]) { paths in
            let lines = try FileLines([paths[0], paths[1]]).fingerprint
            #expect(try FileLines([paths[2], paths[1]]).fingerprint == lines)
            #expect(try FileLines([paths[1], paths[0]]).fingerprint != lines)
            #expect(try FileLines([paths[0]]).fingerprint != lines)
        }
    }

    @Test("that change are noticed")
    func change() throws {
        try Support.withFiles([Array("one\ntwo\n".utf8)]) { paths in
            let lines = try FileLines(paths)
            let handle = try #require(FileHandle(forUpdatingAtPath: paths[0]))
            try handle.seekToEnd()
            try handle.write(contentsOf: Data("three\n".utf8))
            try handle.close()
            let error = #expect(throws: DataError.self) { try lines.line(0) }
            #expect(error?.code == .fileChanged)
            #expect(error?.file == paths[0])
        }
    }

    @Test(
        "of files that are no text are refused with what to do",
        arguments: [
            ([0x1F, 0x8B, 8, 0] as [UInt8], "gunzip"), ([0x28, 0xB5, 0x2F, 0xFD], "unzstd"),
            ([0xFF, 0xFE, 65, 0], "iconv"),
        ]
    )
    func noText(bytes: [UInt8], remedy: String) throws {
        try Support.withFiles([bytes]) { paths in
            let error = #expect(throws: DataError.self) { try FileLines(paths) }
            #expect(error?.code == .notText)
            #expect(error?.message.contains(remedy) == true)
        }
    }

    @Test("need a file with a line in it")
    func noFile() throws {
        try Support.withFiles([[]]) { paths in
            #expect(throws: DataError.self) { try FileLines(paths) }
            let folder = URL(fileURLWithPath: paths[0]).deletingLastPathComponent().path
            #expect(#expect(throws: DataError.self) { try FileLines([folder]) }?.code == .unreadableFile)
            let absent = #expect(throws: DataError.self) { try FileLines([folder + "/absent"]) }
            #expect(absent?.file == folder + "/absent")
            #expect(absent?.message.contains("No such file") == true)
        }
        #expect(#expect(throws: DataError.self) { try FileLines([]) }?.code == .noExamples)
    }
}
