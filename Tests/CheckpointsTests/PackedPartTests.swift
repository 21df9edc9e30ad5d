// SPDX-License-Identifier: Apache-2.0

import Foundation
import SwitchyardTypes
import Testing

@testable import Checkpoints

/// A form that is simple enough to see through: the matrix itself, filled up with zeros to whole lines of 64 bytes.
struct PlainPacking: MatrixPacking {
    var form = PackedForm(version: 7, panelRows: 1)
    var type: DType?
    var most = Int.max

    func size(of dtype: DType, rows: Int, columns: Int) -> (dtype: DType, byteCount: Int)? {
        guard columns <= self.most else { return nil }
        return (self.type ?? dtype, (rows * columns * dtype.byteCount + 63) / 64 * 64)
    }

    func pack(
        _ matrix: TensorView,
        _ body: (UnsafeRawBufferPointer) throws(CheckpointError) -> Void
    ) throws(CheckpointError) {
        let count = self.size(of: matrix.dtype, rows: matrix.shape[0], columns: matrix.shape[1])?.byteCount ?? 0
        let copy = CopiedStorage(byteCount: count) { target in
            target.initializeMemory(as: UInt8.self, repeating: 0)
            target.copyBytes(from: matrix.bytes)
        }
        try withExtendedLifetime(copy) { () throws(CheckpointError) in try body(copy.bytes) }
    }
}

@Suite struct PackedPartTests {
    /// Cuts the tiny model into `folder/out`, packed.
    private func cut(_ folder: TemporaryFolder, _ packing: PlainPacking = PlainPacking(), pools: Int = 2) throws {
        let model = try TemporaryFolder()
        try TinyModel().write(to: model)
        try CheckpointSharder.shard(
            model: model.path,
            output: "\(folder.path)/out",
            pools: pools,
            packing: packing
        )
    }

    private func role(_ expert: Int, _ matrix: FeedForwardMatrix = .wi) -> TensorRole {
        .expert(SparseLayer(stack: .encoder, block: 1), expert: expert, matrix)
    }

    @Test func expertsArePackedAndTheGatewayPartIsNot() throws {
        let (folder, model) = (try TemporaryFolder(), try TemporaryFolder())
        try TinyModel().write(to: model)
        let whole = try Checkpoint.open(model.path)
        try self.cut(folder)
        try CheckpointSharder.shard(model: model.path, output: "\(folder.path)/plain", pools: 2)
        let gateway = "gateway/model.safetensors"
        #expect(
            try Repository.bytes("\(folder.path)/out/\(gateway)")
                == Repository.bytes("\(folder.path)/plain/\(gateway)")
        )
        #expect(try ShardManifest.load(directory: "\(folder.path)/out/gateway")?.formatVersion == 1)
        #expect(try ShardManifest.load(directory: "\(folder.path)/plain/pool-0")?.formatVersion == 1)
        var experts: [Int] = []
        for pool in 0..<2 {
            let part = try Checkpoint.open("\(folder.path)/out/pool-\(pool)")
            try part.validate()
            #expect(part.manifest?.formatVersion == 2)
            #expect(part.packing == PackedForm(version: 7, panelRows: 1))
            // The checkpoint's fingerprint, whatever its weights were made into.
            #expect(part.fingerprint == whole.fingerprint)
            #expect(part.manifest?.partFingerprintValue != whole.fingerprint)
            let plain = try Checkpoint.open("\(folder.path)/plain/pool-\(pool)")
            #expect(part.heldExperts == plain.heldExperts)
            experts += part.heldExperts.values.first ?? []
            for (layer, held) in part.heldExperts {
                for expert in held {
                    for matrix in [FeedForwardMatrix.wi, .wo] {
                        let packed = try part.packedTensor(.expert(layer, expert: expert, matrix))
                        let original = try whole.tensor(.expert(layer, expert: expert, matrix))
                        #expect([packed.rows, packed.columns] == original.shape)
                        #expect(packed.dtype == .float32)
                        #expect(Int(bitPattern: packed.bytes.baseAddress).isMultiple(of: 64))
                        #expect(packed.bytes.count == 128)
                        #expect(Array(packed.bytes.prefix(96)) == original.bytes)
                    }
                }
            }
            for name in part.packedNames {
                #expect(name.hasSuffix(".weight.packed"))
                try part.verifyPacked(name)
            }
            #expect(part.packedNames.count == 2 * part.heldExperts.values.reduce(0) { $0 + $1.count })
            part.prefetchPacked()
        }
        #expect(experts.sorted() == [0, 1, 2])
    }

    @Test func aPackedPartHoldsNoTensorsForOthers() throws {
        let folder = try TemporaryFolder()
        try self.cut(folder)
        let part = try Checkpoint.open("\(folder.path)/out/pool-0")
        let error = failure { _ = try part.tensor(self.role(0)) }
        #expect(error?.code == .missingTensor && error?.message.contains("packed") == true)
        let other = failure { _ = try part.packedTensor(self.role(2)) }
        #expect(other?.code == .missingTensor && other?.message.contains("does not hold this expert") == true)
        let gateway = try Checkpoint.open("\(folder.path)/out/gateway")
        #expect(failure { _ = try gateway.packedTensor(self.role(0)) }?.code == .unsupported)
        #expect(gateway.packedNames.isEmpty)
        #expect(failure { try part.verifyPacked("nothing") }?.code == .missingTensor)
    }

    @Test func typesAreThoseOfWeights() throws {
        let folder = try TemporaryFolder()
        try self.cut(folder, PlainPacking(type: .int8))
        let part = try Checkpoint.open("\(folder.path)/out/pool-0")
        #expect(try part.packedTensor(self.role(0)).dtype == .int8)
        #expect(try part.packedTensor(self.role(0)).bytes.count == 128)
        let other = try TemporaryFolder()
        try self.cut(other, PlainPacking(type: .float64))
        let wrong = try Checkpoint.open("\(other.path)/out/pool-0")
        let error = failure { _ = try wrong.packedTensor(self.role(0)) }
        #expect(error?.code == .wrongDType && error?.message.contains("F64") == true)
        #expect(failure { try wrong.validate() }?.code == .wrongDType)
    }

    /// The path of the first part's weights, and where the first tensor's bytes begin in it.
    private func weights(_ folder: TemporaryFolder) throws -> (path: String, start: Int) {
        let path = "\(folder.path)/out/pool-0/model.safetensors"
        let bytes = try Repository.bytes(path)
        let header = bytes.prefix(8).enumerated().reduce(0) { $0 + Int($1.element) << (8 * $1.offset) }
        return (path, 8 + header)
    }

    @Test func aChangedByteIsFoundByItsTensor() throws {
        let folder = try TemporaryFolder()
        try self.cut(folder)
        let (path, start) = try self.weights(folder)
        var bytes = try Repository.bytes(path)
        // Within the second tensor.
        bytes[start + 128 + 3] ^= 1
        try folder.write(bytes, to: "out/pool-0/model.safetensors")
        let error = failure { _ = try Checkpoint.open("\(folder.path)/out/pool-0") }
        #expect(error?.code == .fingerprintMismatch)
        #expect(error?.file == path)
        #expect(error?.tensor == self.role(0, .wo).name + ".packed")
        #expect(error?.message.contains("has the checksum") == true)
    }

    @Test(arguments: [1, 64, 200])
    func aFileCutShortIsRefused(missing: Int) throws {
        let folder = try TemporaryFolder()
        try self.cut(folder)
        let (path, _) = try self.weights(folder)
        try folder.write(Repository.bytes(path).dropLast(missing), to: "out/pool-0/model.safetensors")
        let error = failure { _ = try Checkpoint.open("\(folder.path)/out/pool-0") }
        #expect(error?.code == .malformed)
        #expect(error?.file == path)
        #expect(error?.tensor != nil)
    }

    @Test func aFileWithOtherTensorsIsRefused() throws {
        let folder = try TemporaryFolder()
        try self.cut(folder, pools: 3)
        let part = "\(folder.path)/out/pool-0"
        try FileManager.default.removeItem(atPath: "\(part)/model.safetensors")
        try FileManager.default.copyItem(
            atPath: "\(folder.path)/out/pool-1/model.safetensors",
            toPath: "\(part)/model.safetensors"
        )
        let error = failure { _ = try Checkpoint.open(part) }
        #expect(error?.code == .missingTensor)
        #expect(error?.tensor == self.role(0).packedName || error?.tensor?.contains("expert_0") == true)
    }

    @Test(arguments: [
        ("\"formatVersion\" : 2", "\"formatVersion\" : 1", "formatVersion 1 and a packing"),
        ("\"formatVersion\" : 2", "\"formatVersion\" : 3", "reads 1 and 2"),
        ("\"packing\" :", "\"unpacking\" :", "formatVersion 2 and no packing"),
        ("\"kind\" : \"experts\"", "\"kind\" : \"gateway\"", "only experts can be"),
        ("\"panelRows\" : 1", "\"panelRows\" : \"1\"", "wrong type at packing.form.panelRows"),
        ("\"version\" : 7", "\"Version\" : 7", "version"),
    ])
    func damagedManifestsAreRefused(old: String, new: String, complaint: String) throws {
        let folder = try TemporaryFolder()
        try self.cut(folder, pools: 1)
        let path = "\(folder.path)/out/pool-0/manifest.json"
        let text = String(decoding: try Repository.bytes(path), as: UTF8.self)
        let range = try #require(text.range(of: old))
        try folder.write(text.replacingCharacters(in: range, with: new), to: "out/pool-0/manifest.json")
        let error = failure { _ = try Checkpoint.open("\(folder.path)/out/pool-0") }
        #expect(error?.description.contains(complaint) == true, "\(String(describing: error))")
        #expect(error?.file == path)
    }

    @Test func aPackedPartIsNotCutAgain() throws {
        let folder = try TemporaryFolder()
        try self.cut(folder)
        let error = failure {
            try CheckpointSharder.shard(model: "\(folder.path)/out/pool-0", output: "\(folder.path)/x", pools: 1)
        }
        #expect(error?.code == .invalidArgument)
    }

    @Test func aMatrixThatCannotBePackedIsNamed() throws {
        let folder = try TemporaryFolder()
        let error = failure { try self.cut(folder, PlainPacking(most: 4)) }
        #expect(error?.code == .unsupported && error?.tensor == self.role(0, .wo).name)
        #expect(error?.message.contains("[4, 6]") == true)
        #expect(try folder.names.isEmpty)
    }
}
