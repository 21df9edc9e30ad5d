// SPDX-License-Identifier: Apache-2.0

import SwitchyardTypes
import Testing

@testable import Checkpoints

@Suite struct TorchTests {
    private func read(_ bytes: [UInt8]) throws -> [String: TensorView] {
        let tensors = try TorchReader.read(storage(bytes), path: "memory")
        return Dictionary(uniqueKeysWithValues: tensors.map { ($0.name, $0.view()) })
    }

    private func read(fixture name: String) throws -> [String: TensorView] {
        try self.read(Repository.bytes(Repository.fixture(name)))
    }

    @Test func viewsOfStoragesAreReadAsTorchMeansThem() throws {
        let tensors = try self.read(fixture: "views.bin")
        #expect(tensors.count == 16)
        #expect(tensors["contiguous"]?.floats == (0..<24).map { Float($0) })
        #expect(tensors["transposed"]?.shape == [6, 4])
        #expect(tensors["transposed"]?.floats.prefix(5) == [0, 6, 12, 18, 1])
        #expect(tensors["slice"]?.floats == [8, 9, 10, 14, 15, 16])
        #expect(tensors["row"]?.floats == [12, 13, 14, 15, 16, 17])
        #expect(tensors["scalar"]?.floats == [2.5])
        #expect(tensors["scalar"]?.shape == [])
        #expect(tensors["empty"]?.shape == [0, 3])
        #expect(tensors["permuted"]?.shape == [4, 2, 3])
        #expect(tensors["permuted"]?.floats.prefix(7) == [0, 4, 8, 12, 16, 20, 1])
        #expect(tensors["expanded"]?.floats == [5, 5, 5, 5])
        let types = ["half", "double", "long", "int", "short", "char", "byte", "bool"].map { tensors[$0]?.dtype }
        #expect(types == [.float16, .float64, .int64, .int32, .int16, .int8, .uint8, .bool])
        #expect(tensors["byte"]?.bytes == Array(0..<24))
    }

    @Test(arguments: [
        ("compressed.bin", CheckpointError.Code.unsupported, "compressed (method 8)"),
        ("not-only-tensors.bin", .malformed, "step: is not a tensor"),
        ("list.bin", .malformed, "does not describe a dictionary"),
        ("command.bin", .refusedGlobal, "posix.system"),
        ("module.bin", .refusedGlobal, "torch.nn.modules.linear.Linear"),
    ])
    func otherFilesAreRefused(name: String, code: CheckpointError.Code, complaint: String) {
        let error = failure { _ = try self.read(fixture: name) }
        #expect(error?.code == code)
        #expect(error?.description.contains(complaint) == true, "\(String(describing: error))")
    }

    @Test func theFormatBeforeZipArchivesIsRead() throws {
        let tensors = try self.read(fixture: "legacy.bin")
        #expect(tensors["legacy"]?.shape == [24])
        #expect(tensors["legacy"]?.floats == (0..<24).map { Float($0) })
    }

    @Test func theOldFormatOnABigEndianMachineIsRefused() throws {
        var bytes = try Repository.bytes(Repository.fixture("legacy.bin"))
        let name = Array("little_endian".utf8)
        let start = try #require(bytes.indices.first { bytes[$0...].starts(with: name) })
        // The value after the name and its place in the memo: True becomes False.
        let value = try #require(bytes[(start + name.count)...].firstIndex(of: 0x88))
        bytes[value] = 0x89
        let error = failure { _ = try self.read(bytes) }
        #expect(error?.code == .unsupported)
        #expect(error?.description.contains("big-endian") == true)
    }

    @Test func changedBytesInTheOldFormatNeverReachOutside() throws {
        let original = try Repository.bytes(Repository.fixture("legacy.bin"))
        for position in original.indices {
            for value: UInt8 in [0x00, 0x7F, 0xFF, original[position] ^ 1] {
                var bytes = original
                bytes[position] = value
                // Any result is fine but a crash or a read out of bounds.
                if let tensors = try? self.read(bytes) { for tensor in tensors.values { _ = tensor.firstNonFinite } }
            }
        }
    }

    @Test(arguments: ["views.bin", "legacy.bin"])
    func everyTruncationIsRefused(name: String) throws {
        let whole = try Repository.bytes(Repository.fixture(name))
        for count in whole.indices {
            #expect(throws: CheckpointError.self, "cut at \(count)") { try self.read(Array(whole[..<count])) }
        }
    }

    @Test func mutatedFilesNeverReachOutsideTheirBytes() throws {
        let original = try Repository.bytes(Repository.fixture("views.bin"))
        // The pickle lies in front, the directory at the end: change these more often than the data between them.
        let places = [0..<original.count, 0..<1_600, (original.count - 1_500)..<original.count]
        var generator = Generator(state: 3)
        var (read, refused) = (0, 0)
        for round in 0..<6_000 {
            do {
                let mutated = generator.mutate(original, within: places[round % places.count])
                for tensor in try self.read(mutated).values { read += tensor.bytes.count }
            } catch {
                refused += 1
            }
        }
        #expect(read > 0)
        #expect(refused > 1_000)
    }
}

@Suite struct ZipTests {
    private func members(_ bytes: [UInt8]) throws -> [String: Range<Int>] {
        let storage = storage(bytes)
        return try withExtendedLifetime(storage) { try ZipArchive(storage.bytes, path: "memory").members }
    }

    @Test(arguments: [false, true])
    func storedMembersAreFound(zip64: Bool) throws {
        var builder = ZipBuilder(zip64: zip64)
        builder.add("first", [1, 2, 3])
        builder.add("folder/second", [])
        builder.add("third", Array(repeating: 7, count: 100))
        let bytes = builder.finish()
        let members = try self.members(bytes)
        #expect(members.count == 3)
        #expect(members["first"].map { Array(bytes[$0]) } == [1, 2, 3])
        #expect(members["folder/second"]?.isEmpty == true)
        #expect(members["third"].map { Array(bytes[$0]) } == Array(repeating: 7, count: 100))
    }

    @Test func aCommentAtTheEndIsSkipped() throws {
        var builder = ZipBuilder(zip64: true)
        builder.add("first", [1, 2, 3])
        #expect(try self.members(builder.finish(comment: Array(repeating: 80, count: 300))).count == 1)
    }

    @Test(arguments: [false, true])
    func everyTruncationAndEveryMutationIsHarmless(zip64: Bool) throws {
        var builder = ZipBuilder(zip64: zip64)
        builder.add("first", [1, 2, 3])
        builder.add("second", Array(0..<50))
        let whole = builder.finish()
        for count in whole.indices {
            #expect(throws: CheckpointError.self, "cut at \(count)") { try self.members(Array(whole[..<count])) }
        }
        var generator = Generator(state: 4)
        for _ in 0..<3_000 {
            let mutated = generator.mutate(whole, within: 0..<whole.count)
            guard let members = try? self.members(mutated) else { continue }
            for range in members.values { #expect(range.upperBound <= mutated.count) }
        }
    }

    @Test func twoMembersOfOneNameAreRefused() {
        var builder = ZipBuilder(zip64: false)
        builder.add("same", [1])
        builder.add("same", [2])
        #expect(
            failure { _ = try self.members(builder.finish()) }?.message.contains("two members named \"same\"") == true
        )
    }
}
