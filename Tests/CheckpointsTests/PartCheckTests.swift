// SPDX-License-Identifier: Apache-2.0

import Foundation
import SwitchyardTypes
import Testing

@testable import Checkpoints

@Suite struct PartCheckTests {
    /// A model cut in two, in the folder `cut`.
    private func cut() throws -> TemporaryFolder {
        let folder = try TemporaryFolder()
        let model = try TemporaryFolder()
        try TinyModel().write(to: model)
        try model.write(#"{"max_new_tokens": 4}"#, to: "generation_config.json")
        try CheckpointSharder.shard(model: model.path, output: "\(folder.path)/cut", pools: 2)
        return folder
    }

    private func bytes(_ path: String) throws -> [UInt8] { [UInt8](try Data(contentsOf: URL(fileURLWithPath: path))) }

    /// Writes into the file that is there, as a disk that loses bits does.
    private func write(_ bytes: [UInt8], _ path: String) throws {
        try Data(bytes).write(to: URL(fileURLWithPath: path), options: [])
    }

    @Test(arguments: ["gateway", "pool-0", "pool-1"])
    func wholePartsPass(part: String) throws {
        let folder = try self.cut()
        let checkpoint = try Checkpoint.open("\(folder.path)/cut/\(part)")
        let stated = try #require(checkpoint.manifest?.files).reduce(0) { $0 + $1.byteCount }
        #expect(try checkpoint.verifyFiles() == stated)
        let (result, compared) = try PartCheck.during([checkpoint, checkpoint]) { 7 }
        #expect(result == 7 && compared == 2 * stated)
        #expect(checkpoint.manifest?.checksums?.count == checkpoint.tensors.count)
    }

    @Test(arguments: ["gateway", "pool-1"])
    func everyFlippedBitOfTheWeightsIsFound(part: String) throws {
        let folder = try self.cut()
        let path = "\(folder.path)/cut/\(part)/model.safetensors"
        let whole = try self.bytes(path)
        let checkpoint = try Checkpoint.open("\(folder.path)/cut/\(part)")
        for tensor in checkpoint.tensors.values {
            // The middle of a tensor: the fingerprint's samples see some of these and miss others.
            var damaged = whole
            damaged[tensor.range.lowerBound + tensor.range.count / 2] ^= 1
            try self.write(damaged, path)
            let error = failure { try checkpoint.verifyFiles() }
            #expect(error?.code == .fingerprintMismatch)
            #expect(error?.file?.hasSuffix("\(part)/model.safetensors") == true)
        }
        try self.write(whole, path)
        #expect(try checkpoint.verifyFiles() > whole.count)
    }

    @Test func theDamagedTensorIsNamed() throws {
        let folder = try self.cut()
        let path = "\(folder.path)/cut/pool-0/model.safetensors"
        let name = TensorRole.expert(SparseLayer(stack: .decoder, block: 1), expert: 0, .wo).name
        let stored = try #require(try Checkpoint.open("\(folder.path)/cut/pool-0").tensors[name])
        var damaged = try self.bytes(path)
        for index in stored.range.dropFirst(8).prefix(16) { damaged[index] = 0 }
        try self.write(damaged, path)
        // The file is opened after it was damaged, and its mapping shows the damage.
        let error = failure {
            let checkpoint = try Checkpoint.open("\(folder.path)/cut/pool-0")
            _ = try PartCheck.during([checkpoint]) {}
        }
        #expect(error?.tensor == name)
        #expect(error?.code == .fingerprintMismatch)
    }

    @Test(arguments: ["config.json", "generation_config.json", "placement.json"])
    func otherFilesAreComparedToo(name: String) throws {
        let folder = try self.cut()
        let checkpoint = try Checkpoint.open("\(folder.path)/cut/gateway")
        let path = "\(folder.path)/cut/gateway/\(name)"
        try self.write(try self.bytes(path) + [0x20], path)
        let error = failure { try checkpoint.verifyFiles() }
        #expect(error?.file == path)
        #expect(error?.message.contains("manifest.json says") == true)
        try FileManager.default.removeItem(atPath: path)
        #expect(failure { try checkpoint.verifyFiles() }?.code == .notFound)
    }

    @Test func aShorterFileIsFound() throws {
        let folder = try self.cut()
        let checkpoint = try Checkpoint.open("\(folder.path)/cut/pool-0")
        let path = "\(folder.path)/cut/pool-0/model.safetensors"
        try FileManager.default.removeItem(atPath: path)
        // Another file under the name: the checkpoint's mapping is still whole, and the manifest still wins.
        try self.write([1, 2, 3], path)
        #expect(failure { try checkpoint.verifyFiles() }?.message.contains("has 3 bytes") == true)
    }

    @Test func damageIsTheReasonWhereLoadingFailsToo() throws {
        struct Unreadable: Error {}
        let folder = try self.cut()
        let checkpoint = try Checkpoint.open("\(folder.path)/cut/pool-0")
        #expect(throws: Unreadable.self) { try PartCheck.during([checkpoint]) { throw Unreadable() } }
        let path = "\(folder.path)/cut/pool-0/model.safetensors"
        var damaged = try self.bytes(path)
        damaged[damaged.count - 1] ^= 0x80
        try self.write(damaged, path)
        #expect(throws: CheckpointError.self) { try PartCheck.during([checkpoint]) { throw Unreadable() } }
    }

    @Test func wholeCheckpointsHaveNothingToCompare() throws {
        let folder = try TemporaryFolder()
        try TinyModel().write(to: folder)
        #expect(try Checkpoint.open(folder.path).verifyFiles() == 0)
    }
}
