// SPDX-License-Identifier: Apache-2.0

import Foundation
import SwitchyardTypes
import Testing

@testable import Checkpoints

@Suite struct SafetensorsTests {
    /// A file of a header's text and some bytes.
    static func file(_ header: String, data: Int = 0) -> [UInt8] {
        withUnsafeBytes(of: UInt64(header.utf8.count).littleEndian) { Array($0) } + Array(header.utf8)
            + (0..<data).map { UInt8(truncatingIfNeeded: $0) }
    }

    private static let good = """
        {"__metadata__":{"format":"pt"},"b":{"dtype":"BF16","shape":[2,3],"data_offsets":[8,20]},\
        "a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"none":{"dtype":"I64","shape":[0,5],"data_offsets":[20,20]},\
        "scalar":{"dtype":"U8","shape":[],"data_offsets":[20,21]}}
        """

    private func read(_ bytes: [UInt8]) throws -> [String: TensorView] {
        let tensors = try SafetensorsReader.read(storage(bytes), path: "memory")
        return Dictionary(uniqueKeysWithValues: tensors.map { ($0.name, $0.view()) })
    }

    @Test func tensorsAreFoundWithTypeShapeAndBytes() throws {
        let tensors = try self.read(Self.file(Self.good, data: 21))
        #expect(tensors.count == 4)
        #expect(tensors["a"]?.bytes == Array(0..<8))
        #expect(tensors["b"]?.bytes == Array(8..<20))
        #expect(tensors["b"]?.shape == [2, 3])
        #expect(tensors["b"]?.dtype == .bfloat16)
        #expect(tensors["none"]?.elementCount == 0)
        #expect(tensors["scalar"]?.bytes == [20])
    }

    @Test func everyTruncationIsRefused() {
        let whole = Self.file(Self.good, data: 21)
        for count in whole.indices {
            let error = failure { _ = try self.read(Array(whole[..<count])) }
            #expect(error?.code == .malformed && error?.file == "memory", "cut at \(count)")
        }
        #expect(throws: CheckpointError.self) { try self.read(whole + [0]) }
    }

    @Test(arguments: [
        ("x", 0, "does not begin with {"),
        ("{", 0, "not the expected JSON"),
        ("{\"a\":3}", 0, "not the expected JSON"),
        (#"{"a":{"dtype":"F32","shape":[2]}}"#, 8, "data_offsets"),
        (#"{"a":{"dtype":"F32","shape":[2],"data_offsets":[0]}}"#, 8, "data_offsets"),
        (#"{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8,9]}}"#, 8, "data_offsets"),
        (#"{"a":{"dtype":"F32","shape":[2],"data_offsets":[8,0]}}"#, 8, "outside the 8 bytes"),
        (#"{"a":{"dtype":"F32","shape":[2],"data_offsets":[-8,0]}}"#, 8, "outside the 8 bytes"),
        (#"{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,9223372036854775807]}}"#, 8, "outside the 8 bytes"),
        (#"{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,18446744073709551615]}}"#, 8, "not the expected JSON"),
        (#"{"a":{"dtype":"F32","shape":[3],"data_offsets":[0,8]}}"#, 8, "F32 of shape [3] takes 12"),
        (#"{"a":{"dtype":"F32","shape":[-2],"data_offsets":[0,8]}}"#, 8, "impossible shape [-2]"),
        (#"{"a":{"dtype":"F32","shape":[4611686018427387904,4],"data_offsets":[0,8]}}"#, 8, "impossible shape"),
        (#"{"a":{"dtype":"F32","shape":[1,1,1,1,1,1,1,1,2],"data_offsets":[0,8]}}"#, 8, "9 axes"),
        (#"{"a":{"dtype":"F4","shape":[2],"data_offsets":[0,8]}}"#, 8, "unknown element type \"F4\""),
        (#"{"a":{"dtype":"F32","shape":[1.5],"data_offsets":[0,8]}}"#, 8, "not the expected JSON"),
        (
            #"{"a":{"dtype":"U8","shape":[6],"data_offsets":[0,6]},"b":{"dtype":"U8","shape":[4],"data_offsets":[4,8]}}"#,
            8,
            "begins 2 bytes before the previous tensor ends"
        ),
        (
            #"{"a":{"dtype":"U8","shape":[8],"data_offsets":[0,8]},"b":{"dtype":"U8","shape":[4],"data_offsets":[2,6]}}"#,
            8,
            "begins 6 bytes before"
        ),
        (
            #"{"a":{"dtype":"U8","shape":[3],"data_offsets":[0,3]},"b":{"dtype":"U8","shape":[4],"data_offsets":[4,8]}}"#,
            8,
            "begins 1 bytes after"
        ),
        (#"{"a":{"dtype":"U8","shape":[6],"data_offsets":[0,6]}}"#, 8, "has 2 bytes after its last tensor"),
        (#"{"__metadata__":{"x":1}}"#, 0, "not the expected JSON"),
    ])
    func wrongHeadersAreRefused(header: String, data: Int, complaint: String) {
        let error = failure { _ = try self.read(Self.file(header, data: data)) }
        #expect(error?.description.contains(complaint) == true, "\(String(describing: error))")
    }

    @Test(arguments: [UInt64.max, 1 << 63, 100_000_001, 100_000_000, 1_000])
    func announcedHeadersThatAreTooLongAreRefused(length: UInt64) {
        let bytes = withUnsafeBytes(of: length.littleEndian) { Array($0) } + Array("{}".utf8)
        let error = failure { _ = try self.read(bytes) }
        #expect(error?.description.contains("announces a header of \(length) bytes") == true)
        #expect(error?.code == (length > 100_000_000 ? .limitExceeded : .malformed))
    }

    @Test func mutatedFilesNeverReachOutsideTheirBytes() {
        let original = Self.file(Self.good, data: 21)
        var generator = Generator(state: 2)
        var (read, refused) = (0, 0)
        for _ in 0..<4_000 {
            do {
                for tensor in try self.read(generator.mutate(original, within: 0..<original.count)).values {
                    read += tensor.bytes.count
                }
            } catch {
                refused += 1
            }
        }
        #expect(read > 0)
        #expect(refused > 1_000)
    }

    @Test func writtenFilesAreAlignedAndComeBack() throws {
        let folder = try TemporaryFolder()
        let path = "\(folder.path)/out.safetensors"
        let tensors = try [(3, "odd"), (64, "a"), (128, "\u{e9}\"\\"), (1, "one"), (64, "z")]
            .map { count, name in
                try TensorView(name: name, dtype: .uint8, shape: [count], bytes: (0..<count).map { UInt8($0) })
            }
        var pieces = 0
        let total = try SafetensorsWriter.write(tensors, to: path, metadata: ["k": "v"]) { pieces += $0 }
        #expect(total == 260 && pieces == 260)
        let stored = try SafetensorsReader.read(path)
        #expect(stored.count == 5)
        for tensor in tensors {
            let found = try #require(stored.first { $0.name == tensor.name })
            #expect(found.view().bytes == tensor.bytes)
            if tensor.byteCount.isMultiple(of: 64) { #expect(found.range.lowerBound.isMultiple(of: 64)) }
        }
        #expect(failure { try SafetensorsWriter.write(tensors, to: path) }?.code == .writeFailed)
        #expect(failure { try SafetensorsWriter.write(tensors + tensors, to: path + "2") }?.code == .invalidArgument)
        #expect(throws: CheckpointError.self) { try TensorView(name: "x", dtype: .float32, shape: [2], bytes: [1]) }
    }

    @Test func foldersPipesAndEmptyFilesAreRefused() throws {
        let folder = try TemporaryFolder()
        #expect(failure { _ = try SafetensorsReader.read(folder.path) }?.code == .unreadable)
        let pipe = "\(folder.path)/pipe"
        #expect(mkfifo(pipe, 0o600) == 0)
        #expect(failure { _ = try SafetensorsReader.read(pipe) }?.code == .unreadable)
        try folder.write("", to: "empty")
        #expect(failure { _ = try SafetensorsReader.read("\(folder.path)/empty") }?.code == .malformed)
        #expect(failure { _ = try SafetensorsReader.read("\(folder.path)/absent") }?.code == .notFound)
    }
}
