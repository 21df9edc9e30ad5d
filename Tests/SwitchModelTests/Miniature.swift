// SPDX-License-Identifier: Apache-2.0

import Checkpoints
import Foundation
import SwitchModel
import TensorKernels
import Tokenization

/// The trained miniature in the repository.
struct Miniature: Sendable {
    /// One line of the miniature's `prompts.json`.
    struct Prompt: Decodable {
        var prompt: String
        var tokenIDs: [Int32]

        enum CodingKeys: String, CodingKey {
            case prompt
            case tokenIDs = "token_ids"
        }
    }

    static let directory = URL(filePath: #filePath)
        .deletingLastPathComponent().deletingLastPathComponent().deletingLastPathComponent()
        .appending(path: "deploy/models/switch-mini").path(percentEncoded: false)

    let model: SwitchTransformer
    let experts: LocalExperts
    let tokenizer: Tokenizer

    init(threads: Int = 2, storage: WeightStorage = .checkpoint) throws {
        let checkpoint = try Checkpoint.open(Miniature.directory)
        let pool = WorkPool(threads: threads)
        self.model = try SwitchTransformer(checkpoint: checkpoint, pool: pool, storage: storage)
        self.experts = try LocalExperts(checkpoint: checkpoint, pool: pool, storage: storage)
        self.tokenizer = try Tokenizer(directory: Miniature.directory)
    }

    static func prompts() throws -> [Prompt] {
        let data = try Data(contentsOf: URL(filePath: Miniature.directory).appending(path: "prompts.json"))
        return try JSONDecoder().decode([Prompt].self, from: data)
    }
}

/// The index of the largest logit, the lowest where several are.
func argmax(_ row: UnsafeMutableBufferPointer<Float>) -> Int32 {
    var best = 0
    for index in row.indices where row[index] > row[best] {
        best = index
    }
    return Int32(best)
}
