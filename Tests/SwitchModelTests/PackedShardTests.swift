// SPDX-License-Identifier: Apache-2.0

import Checkpoints
import Foundation
import SwitchModel
import SwitchyardTypes
import TensorKernels
import Testing

@Suite("Packed shards")
struct PackedShardTests {
    /// A folder that goes away with the value.
    private final class Folder: Sendable {
        let path: String

        init() throws {
            let folder = FileManager.default.temporaryDirectory.appending(
                path: "switchyard-packed-\(UUID().uuidString)"
            )
            try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
            self.path = folder.path(percentEncoded: false)
        }

        deinit { try? FileManager.default.removeItem(atPath: self.path) }

        func cut(_ model: String, _ name: String, pools: Int = 2, _ storage: WeightStorage?) throws -> [Checkpoint] {
            let packing = storage.map { ExpertPacking(storage: $0, pool: WorkPool(threads: 2)) }
            let output = "\(self.path)/\(name)"
            try CheckpointSharder.shard(model: model, output: output, pools: pools, packing: packing)
            return try (0..<pools).map { try Checkpoint.open("\(output)/pool-\($0)") }
        }
    }

    /// The bits that experts give for some rows of every expert of every layer.
    private func outputs(_ experts: LocalExperts, width: Int) throws -> [[UInt32]] {
        var numbers = NumberSource(seed: 33)
        return try experts.held.sorted { $0.key < $1.key }
            .map { layer, indices in
                let groups = indices.map { ExpertRows(expert: $0, rows: 1 + $0 % 5) }
                let rows = groups.reduce(0) { $0 + $1.rows }
                let tokens = FloatMatrix(rows: rows, columns: width)
                for index in 0..<(rows * width) { tokens.pointer[index] = Float.random(in: -2...2, using: &numbers) }
                let outputs = FloatMatrix(rows: rows, columns: width)
                try experts.forward(layer: layer, groups: groups, tokens: tokens.pointer, outputs: outputs.pointer)
                return outputs.bits
            }
    }

    @Test(
        "served from mapped files give the same bits as weights packed at the start",
        arguments: WeightStorage.allCases
    )
    func sameBits(storage: WeightStorage) throws {
        // bfloat16 with round sizes, float32 with odd sizes.
        let tiny = try TinyModel(seed: 4)
        for (model, width) in [(Miniature.directory, 128), (tiny.directory, 20)] {
            let folder = try Folder()
            let pool = WorkPool(threads: 2)
            let whole = try LocalExperts(checkpoint: try Checkpoint.open(model), pool: pool, storage: storage)
            let parts = try folder.cut(model, "packed", storage)
            let packed = try LocalExperts(checkpoints: parts, pool: pool)
            #expect(packed.held == whole.held)
            #expect(packed.weightType == whole.weightType)
            #expect(packed.byteCount == whole.byteCount)
            #expect(try self.outputs(packed, width: width) == self.outputs(whole, width: width))
            // Requesting their own type is not a contradiction.
            _ = try LocalExperts(checkpoints: parts, pool: pool, storage: storage)
        }
    }

    @Test("a whole model on packed experts gives the same logits, with one thread as with two")
    func wholeModel() throws {
        let tiny = try TinyModel(seed: 7)
        let folder = try Folder()
        let parts = try folder.cut(tiny.directory, "packed", .float32)
        for threads in [1, 2] {
            let packed = try LocalExperts(checkpoints: parts, pool: WorkPool(threads: threads))
            var numbers = NumberSource(seed: 8)
            let input = numbers.tokens(30)
            var record = RoutingRecord()
            let expected = try tiny.model.encode([input], experts: tiny.experts, record: &record)
            let actual = try tiny.model.encode([input], experts: packed, record: &record)
            #expect(actual[0].hidden.bits == expected[0].hidden.bits)
        }
    }

    @Test("of another type than requested are refused by file, tensor and both types")
    func wrongType() throws {
        let tiny = try TinyModel()
        let folder = try Folder()
        let parts = try folder.cut(tiny.directory, "packed", .bfloat16)
        let error = #expect(throws: CheckpointError.self) {
            try LocalExperts(checkpoints: parts, pool: WorkPool(threads: 1), storage: .float32)
        }
        #expect(error?.code == .wrongDType)
        #expect(error?.file?.hasSuffix("packed/pool-0/model.safetensors") == true)
        #expect(error?.tensor?.contains("expert_0") == true)
        #expect(error?.message.contains("packed in bfloat16, but float32 was requested") == true)
    }

    @Test("of different types are not held together")
    func mixedTypes() throws {
        let tiny = try TinyModel()
        let folder = try Folder()
        let half = try folder.cut(tiny.directory, "half", .bfloat16)
        let full = try folder.cut(tiny.directory, "full", .float32)
        let plain = try folder.cut(tiny.directory, "plain", nil)
        let pool = WorkPool(threads: 1)
        let error = #expect(throws: ModelError.self) {
            try LocalExperts(checkpoints: [half[0], full[1]], pool: pool)
        }
        #expect(error?.message.contains("half/pool-0 keeps weights in bfloat16") == true)
        #expect(error?.message.contains("full/pool-1 in float32") == true)
        // Packed or not makes no difference where the type is the same.
        let both = try LocalExperts(checkpoints: [full[0], plain[1]], pool: pool)
        #expect(both.held.values.allSatisfy { $0.count == 5 })
        // An expert that an earlier part holds is not loaded again, and so has no type.
        _ = try LocalExperts(checkpoints: [half[0], full[0]], pool: pool)
    }

    /// Another form than this build's: zeros, some bytes too few.
    private struct Foreign: MatrixPacking {
        var own: ExpertPacking
        var form: PackedForm
        var cut: Int

        func size(of dtype: DType, rows: Int, columns: Int) -> (dtype: DType, byteCount: Int)? {
            self.own.size(of: dtype, rows: rows, columns: columns).map { ($0.dtype, $0.byteCount - self.cut) }
        }

        func pack(
            _ matrix: TensorView,
            _ body: (UnsafeRawBufferPointer) throws(CheckpointError) -> Void
        ) throws(CheckpointError) {
            let size = self.size(of: matrix.dtype, rows: matrix.shape[0], columns: matrix.shape[1])
            let zeros = [UInt8](repeating: 0, count: size?.byteCount ?? 0)
            let outcome = zeros.withUnsafeBytes { bytes in Result { () throws(CheckpointError) in try body(bytes) } }
            try outcome.get()
        }
    }

    @Test(
        "in another form are refused by file, version and width",
        arguments: [
            (PackedForm(version: 99, panelRows: 32), 0, "form 99 with panels of 32 rows"),
            (PackedForm(version: 1, panelRows: 16), 0, "form 1 with panels of 16 rows"),
            (PackedForm(version: 1, panelRows: 32), 64, "takes 5120"),
        ]
    )
    func otherForms(form: PackedForm, cut: Int, complaint: String) throws {
        let tiny = try TinyModel()
        let folder = try Folder()
        let own = ExpertPacking(storage: .float32, pool: WorkPool(threads: 1))
        try CheckpointSharder.shard(
            model: tiny.directory,
            output: "\(folder.path)/packed",
            pools: 1,
            packing: Foreign(own: own, form: form, cut: cut)
        )
        let part = try Checkpoint.open("\(folder.path)/packed/pool-0")
        let error = #expect(throws: CheckpointError.self) {
            try LocalExperts(checkpoint: part, pool: WorkPool(threads: 1))
        }
        #expect(error?.message.contains(complaint) == true, "\(String(describing: error))")
        #expect(error?.file?.hasPrefix("\(folder.path)/packed/pool-0/") == true)
    }
}
