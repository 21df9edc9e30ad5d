// SPDX-License-Identifier: Apache-2.0

import Checkpoints
import Foundation
import SwitchModel
import SwitchyardTypes
import TensorKernels
import Testing
import Tokenization

/// How far narrower weights lead the miniature astray.
@Suite("Narrower weights")
struct PrecisionTests {
    /// The miniature as it may have been before its weights were rounded to bfloat16: each is moved at random by less than
    /// what rounding can move it, so that the rounded weights and these differ as those of any checkpoint do.
    private final class Unrounded: Sendable {
        let directory: String

        init(seed: UInt64) throws {
            let folder = FileManager.default.temporaryDirectory.appending(path: "switchyard-fine-\(UUID().uuidString)")
            try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
            self.directory = folder.path(percentEncoded: false)
            for name in ["config.json", "spiece.model"] {
                try FileManager.default.copyItem(
                    atPath: "\(Miniature.directory)/\(name)",
                    toPath: "\(self.directory)/\(name)"
                )
            }
            let source = try Checkpoint.open(Miniature.directory)
            let configuration = source.configuration
            var roles = configuration.gatewayRoles
            for layer in configuration.sparseLayers {
                for expert in 0..<configuration.expertCount {
                    roles += [FeedForwardMatrix.wi, .wo].map { .expert(layer, expert: expert, $0) }
                }
            }
            var numbers = NumberSource(seed: seed)
            let tensors = try roles.map { try Self.moved(try source.tensor($0), as: $0, &numbers) }
            try SafetensorsWriter.write(tensors, to: "\(self.directory)/model.safetensors")
        }

        deinit { try? FileManager.default.removeItem(atPath: self.directory) }

        private static func moved(
            _ view: TensorView,
            as role: TensorRole,
            _ numbers: inout NumberSource
        ) throws -> TensorView {
            var bytes = [UInt8](repeating: 0, count: 4 * view.elementCount)
            bytes.withUnsafeMutableBytes { target in
                view.withUnsafeBytes { source in
                    for index in 0..<view.elementCount {
                        let half = source.loadUnaligned(fromByteOffset: 2 * index, as: UInt16.self)
                        // The lower half of the float's bits, from half a step below to half a step above.
                        let step = UInt32(truncatingIfNeeded: Int32(truncatingIfNeeded: numbers.next()) >> 16)
                        let moved = half & 0x7FFF == 0 ? 0 : (UInt32(half) << 16) &+ step
                        target.storeBytes(of: moved, toByteOffset: 4 * index, as: UInt32.self)
                    }
                }
            }
            return try TensorView(name: role.name, dtype: .float32, shape: view.shape, bytes: bytes)
        }

        /// The best next token at every position of some texts, each given all tokens before it.
        func choices(_ storage: WeightStorage, _ texts: [(input: [Int32], target: [Int32])]) throws -> [Int32] {
            let checkpoint = try Checkpoint.open(self.directory)
            let pool = WorkPool(threads: 2)
            let model = try SwitchTransformer(checkpoint: checkpoint, pool: pool, storage: storage)
            let experts = try LocalExperts(checkpoint: checkpoint, pool: pool, storage: storage)
            var record = RoutingRecord()
            let encoded = try model.encode(texts.map(\.input), experts: experts, record: &record)
            let rows = zip(encoded, texts).map { DecoderInput(cache: DecoderCache($0), tokens: [0] + $1.target) }
            let logits = try model.decode(
                rows,
                experts: experts,
                options: StepOptions(logits: .all),
                record: &record
            )
            return (0..<logits.rows).map { argmax(logits.row($0)) }
        }
    }

    /// Texts that the miniature was trained on: 48 tokens to read, 15 to continue with.
    private func texts(_ count: Int) throws -> [(input: [Int32], target: [Int32])] {
        let tokenizer = try Tokenizer(directory: Miniature.directory)
        let scenes = try String(contentsOfFile: "\(Miniature.directory)/scenes.txt", encoding: .utf8)
        let tokens = tokenizer.encode(scenes)
        try #require(tokens.count >= 63 * count, "the scenes have \(tokens.count) tokens")
        return (0..<count)
            .map { index in
                let start = index * 63
                return (Array(tokens[start..<(start + 48)]), Array(tokens[(start + 48)..<(start + 63)]))
            }
    }

    @Test("bfloat16 weights choose the next token that float32 weights choose at 99 of 100 positions")
    func bfloat16() throws {
        let model = try Unrounded(seed: 12)
        // Some hundred positions in an ordinary run, 2,000 and more where the environment asks for them.
        let wanted = ProcessInfo.processInfo.environment["SWITCHYARD_AGREEMENT_POSITIONS"].flatMap(Int.init) ?? 400
        let texts = try self.texts((wanted + 15) / 16)
        let exact = try model.choices(.float32, texts)
        let rounded = try model.choices(.bfloat16, texts)
        #expect(exact.count >= wanted)
        let same = zip(exact, rounded).count { $0 == $1 }
        print("\(same) of \(exact.count) positions agree with float32 in bfloat16")
        #expect(Double(same) >= 0.99 * Double(exact.count))
        // The weights did change: otherwise nothing would have been compared.
        #expect(try self.differs(model))
    }

    private func differs(_ model: Unrounded) throws -> Bool {
        let role = TensorRole.expert(SparseLayer(stack: .encoder, block: 1), expert: 0, .wi)
        let tensor = try Checkpoint.open(model.directory).tensor(role)
        return tensor.withUnsafeBytes { bytes in
            (0..<tensor.elementCount)
                .contains { bytes.loadUnaligned(fromByteOffset: 4 * $0, as: UInt32.self) & 0xFFFF != 0 }
        }
    }
}
