// SPDX-License-Identifier: Apache-2.0

import Foundation
import NIOCore
import Testing

@testable import ExpertTraining

@Suite("Files of a trainer's log")
struct LogFilesTests {
    private static func withFolder(_ body: (String) throws -> Void) throws {
        let folder = NSTemporaryDirectory() + "log-files-\(UUID().uuidString)"
        defer { try? FileManager.default.removeItem(atPath: folder) }
        try LogFiles.makeFolder(folder)
        try body(folder)
    }

    private static func call(_ number: Int, bytes: Int) -> [ByteBuffer] {
        let content = (0..<bytes).map { UInt8(truncatingIfNeeded: $0 &* 7 &+ number) }
        return [ByteBuffer(bytes: content.prefix(bytes / 3)), ByteBuffer(bytes: content.dropFirst(bytes / 3))]
    }

    private static func bytes(_ parts: [ByteBuffer]) -> [UInt8] { parts.flatMap { Array($0.readableBytesView) } }

    /// This process's files in a folder, as the system shows them.
    private static func open(in folder: String) -> [String] {
        let links = "/proc/self/fd"
        return (try? FileManager.default.contentsOfDirectory(atPath: links))?.map { "\(links)/\($0)" }
            .filter { link in
                (try? FileManager.default.destinationOfSymbolicLink(atPath: link))?.hasPrefix(folder) == true
            } ?? []
    }

    @Test("Calls come back as they were, files have no names, and each goes with its last call")
    func round() throws {
        try Self.withFolder { folder in
            let files = LogFiles(folder, limit: 8 << 20)
            let calls = (0..<9).map { Self.call($0, bytes: 700_000 + $0) }
            let places = try calls.map { try files.write($0) }
            #expect(files.byteCount == 9 * 700_000 + 36)
            #expect(try FileManager.default.contentsOfDirectory(atPath: folder).isEmpty)
            #expect(Set(places.map(\.file)).count == 5, "a file is begun after each mebibyte")
            #expect(Self.open(in: folder).count == 5)
            for (call, place) in zip(calls, places).reversed() {
                #expect(try Array(files.read(place).readableBytesView) == Self.bytes(call))
            }
            files.free(Array(places[..<3]))
            #expect(Self.open(in: folder).count == 4)
            #expect(files.byteCount == 7 * 700_000 + 35)
            let gone = #expect(throws: LogFiles.Failure.self) { try files.read(places[0]) }
            #expect(gone?.description.contains("is closed") == true)
            #expect(try Array(files.read(places[3]).readableBytesView) == Self.bytes(calls[3]))
            files.free(Array(places[3...]))
            #expect(files.byteCount == 0 && Self.open(in: folder).isEmpty)
        }
    }

    @Test("A bound is kept, with both numbers in words, and what was written before stays")
    func bound() throws {
        try Self.withFolder { folder in
            let files = LogFiles(folder, limit: 1000)
            let place = try files.write(Self.call(1, bytes: 900))
            let full = #expect(throws: LogFiles.Failure.self) { try files.write(Self.call(2, bytes: 101)) }
            #expect(full?.description == "the log's files have 900 bytes, and may have 1000")
            #expect(try Array(files.read(place).readableBytesView) == Self.bytes(Self.call(1, bytes: 900)))
            _ = try files.write(Self.call(2, bytes: 100))
        }
    }

    @Test("A torn file and a changed byte are found, and named")
    func damage() throws {
        try Self.withFolder { folder in
            let files = LogFiles(folder, limit: 1 << 20)
            let places = try (0..<3).map { try files.write(Self.call($0, bytes: 1000)) }
            let file = try #require(Self.open(in: folder).first)
            let handle = try #require(FileHandle(forUpdatingAtPath: file))
            try handle.seek(toOffset: 1500)
            try handle.write(contentsOf: [0xFF, 0xFE])
            let changed = #expect(throws: LogFiles.Failure.self) { try files.read(places[1]) }
            #expect(changed?.description.contains("the checksum of a call is another one") == true)
            try handle.truncate(atOffset: 2500)
            try handle.close()
            let torn = #expect(throws: LogFiles.Failure.self) { try files.read(places[2]) }
            #expect(torn?.description.contains("is torn: it ends 500 bytes too early") == true)
            #expect(try Array(files.read(places[0]).readableBytesView) == Self.bytes(Self.call(0, bytes: 1000)))
        }
    }

    @Test("A folder that cannot be used is named with the system's reason")
    func folder() throws {
        let path = NSTemporaryDirectory() + "log-file-\(UUID().uuidString)"
        defer { try? FileManager.default.removeItem(atPath: path) }
        _ = FileManager.default.createFile(atPath: path, contents: Data())
        let error = #expect(throws: LogFiles.Failure.self) { try LogFiles.makeFolder(path) }
        #expect(error?.description.contains(path) == true)
        // A process without privileges may not write here, and nobody can where no folder can be.
        #expect(throws: LogFiles.Failure.self) { try LogFiles.makeFolder("/proc/self/log") }
    }
}
