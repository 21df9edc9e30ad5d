// SPDX-License-Identifier: Apache-2.0

import Checkpoints
import Foundation
import SwitchModel
import SwitchyardTypes
import TensorKernels
import Testing
import Tokenization

@Suite("A model with int8 weights")
struct Int8ModelTests {
    /// A text with missing spans, and the spans, in the form that the miniature was trained on.
    private struct Exercise {
        var input: [Int32]
        var decoder: [Int32]

        /// Cuts three spans out of a window of tokens.
        init(window: ArraySlice<Int32>, sentinel: (Int) -> Int32, shift: Int) {
            let first = window.startIndex
            let spans = [6 + shift..<8 + shift, 17 + shift..<20 + shift, 30 + shift..<33 + shift]
                .map { first + $0.lowerBound..<first + $0.upperBound }
            var input: [Int32] = []
            // The decoder starts with token 0.
            var decoder: [Int32] = [0]
            var next = first
            for (number, span) in spans.enumerated() {
                input += window[next..<span.lowerBound] + [sentinel(number)]
                decoder += [sentinel(number)] + window[span]
                next = span.upperBound
            }
            self.input = input + window[next...] + [1]
            self.decoder = decoder + [sentinel(spans.count)]
        }
    }

    /// Positions to compare: some hundred in the ordinary run, 2,000 and more where the environment asks for them.
    private static var wantedPositions: Int {
        ProcessInfo.processInfo.environment["SWITCHYARD_AGREEMENT_POSITIONS"].flatMap(Int.init) ?? 240
    }

    private static func exercises(_ miniature: Miniature) throws -> [Exercise] {
        let file = URL(filePath: Miniature.directory).appending(path: "scenes.txt")
        let text = try String(contentsOf: file, encoding: .utf8)
        let tokens = miniature.tokenizer.encode(text).dropLast()
        var exercises: [Exercise] = []
        var positions = 0
        var start = tokens.startIndex
        while positions < Self.wantedPositions, start + 44 <= tokens.endIndex {
            let exercise = Exercise(
                window: tokens[start..<start + 44],
                sentinel: { 2047 - Int32($0) },
                shift: exercises.count % 7
            )
            exercises.append(exercise)
            positions += exercise.decoder.count
            // No multiple of the spans' distances, so that other words are missing each time.
            start += 29
        }
        return exercises
    }

    /// The most probable token after each of the decoder's tokens.
    private func choices(_ miniature: Miniature, _ exercises: ArraySlice<Exercise>) throws -> [Int32] {
        var record = RoutingRecord()
        let encoded = try miniature.model.encode(
            exercises.map(\.input),
            experts: miniature.experts,
            record: &record
        )
        let logits = try miniature.model.decode(
            zip(encoded, exercises).map { DecoderInput(cache: DecoderCache($0), tokens: $1.decoder) },
            experts: miniature.experts,
            options: StepOptions(logits: .all),
            record: &record
        )
        return (0..<logits.rows).map { argmax(logits.row($0)) }
    }

    @Test("chooses the tokens that float32 chooses, at least 97 of 100")
    func agreement() throws {
        let exact = try Miniature(storage: .float32)
        let small = try Miniature(storage: .int8)
        let exercises = try Self.exercises(exact)
        var expected: [Int32] = []
        var chosen: [Int32] = []
        var truth: [Int32] = []
        for start in stride(from: 0, to: exercises.count, by: 8) {
            let some = exercises[start..<min(start + 8, exercises.count)]
            expected += try self.choices(exact, some)
            chosen += try self.choices(small, some)
            truth += some.flatMap { $0.decoder.dropFirst() + [1] }
        }
        #expect(chosen.count >= Self.wantedPositions)
        let known = zip(expected, truth).count { $0 == $1 }
        #expect(known * 2 > expected.count, "these texts should be ones that the miniature knows")
        let same = zip(expected, chosen).count { $0 == $1 }
        let agreement = Double(same) / Double(expected.count)
        print("int8 chooses as float32 does at \(same) of \(expected.count) positions")
        #expect(agreement >= 0.97, "\(same) of \(expected.count)")
    }

    /// Greedy answers of at most 12 tokens and the bits of their logits.
    private func answers(_ miniature: Miniature, _ prompts: [[Int32]]) throws -> [[[UInt32]]] {
        var record = RoutingRecord()
        let encoded = try miniature.model.encode(prompts, experts: miniature.experts, record: &record)
        var rows = encoded.map { DecoderInput(cache: DecoderCache($0), tokens: [0]) }
        var answers = [[[UInt32]]](repeating: [], count: prompts.count)
        var running = Array(prompts.indices)
        for _ in 0..<12 where !running.isEmpty {
            let logits = try miniature.model.decode(
                running.map { rows[$0] },
                experts: miniature.experts,
                record: &record
            )
            var left: [Int] = []
            for (row, index) in running.enumerated() {
                answers[index].append(logits.bits(rows: row..<(row + 1)))
                rows[index].tokens = [argmax(logits.row(row))]
                if rows[index].tokens != [1] {
                    left.append(index)
                }
            }
            running = left
        }
        return answers
    }

    @Test("answers the same bits alone, in a batch, and with any number of threads")
    func invariance() throws {
        let one = try Miniature(threads: 1, storage: .int8)
        let three = try Miniature(threads: 3, storage: .int8)
        let prompts = try Miniature.prompts().prefix(6).map { one.tokenizer.encode($0.prompt) }
        let together = try self.answers(three, prompts)
        for (index, prompt) in prompts.enumerated() {
            let alone = try self.answers(one, [prompt])
            let same = alone[0] == together[index]
            #expect(same, "prompt \(index)")
        }
    }

    @Test("takes about half of a bfloat16 one's memory for its experts")
    func memory() throws {
        let half = try Miniature(storage: .bfloat16).experts.byteCount
        let quarter = try Miniature(storage: .int8).experts.byteCount
        #expect(quarter * 2 > half)
        #expect(quarter * 2 < half + half / 16)
    }

    @Test("is refused, naming the tensor, where a sum would not fit into 32 bits")
    func tooManyInputs() throws {
        // One dense block a stack.
        let tiny = try TinyModel(
            [
                "d_model": "1", "d_kv": "1", "d_ff": "131073", "num_heads": "1", "num_layers": "1",
                "num_decoder_layers": "1", "num_experts": "1",
            ],
            storage: .bfloat16
        )
        let checkpoint = try Checkpoint.open(tiny.directory)
        let error = #expect(throws: ModelError.self) {
            try SwitchTransformer(checkpoint: checkpoint, pool: WorkPool(threads: 1), storage: .int8)
        }
        #expect(error?.code == .unsupported)
        let message = error?.message ?? ""
        #expect(message.contains("encoder.block.0.layer.1.mlp.wo.weight has 131073 columns"), "\(message)")
        #expect(message.contains("131072 at most"))
    }
}
