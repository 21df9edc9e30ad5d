// SPDX-License-Identifier: Apache-2.0

import SwitchModel
import TensorKernels
import Testing
import Tokenization

@Suite("The trained miniature")
struct MiniatureTests {
    @Test("answers all its prompts with transformers' tokens, all of them in one batch")
    func greedy() throws {
        let miniature = try Miniature()
        let prompts = try Miniature.prompts()
        #expect(prompts.count == 15)
        var record = RoutingRecord()
        let encoded = try miniature.model.encode(
            prompts.map { miniature.tokenizer.encode($0.prompt) },
            experts: miniature.experts,
            record: &record
        )
        var rows = encoded.map { DecoderInput(cache: DecoderCache($0), tokens: [0]) }
        var answers = [[Int32]](repeating: [], count: prompts.count)
        var running = Array(prompts.indices)
        // As transformers without a length: 20 new tokens at most.
        for _ in 0..<20 where !running.isEmpty {
            let logits = try miniature.model.decode(
                running.map { rows[$0] },
                experts: miniature.experts,
                record: &record
            )
            for (row, index) in running.enumerated() {
                let token = argmax(logits.row(row))
                answers[index].append(token)
                rows[index].tokens = [token]
            }
            running.removeAll { answers[$0].last == 1 }
        }
        for (prompt, answer) in zip(prompts, answers) {
            #expect(answer == prompt.tokenIDs, "\(prompt.prompt)")
        }
        #expect(record.droppedCount == 0)
    }
}
