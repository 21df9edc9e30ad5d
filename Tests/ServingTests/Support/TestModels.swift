// SPDX-License-Identifier: Apache-2.0

import Checkpoints
import Foundation
import Logging
import SwitchModel
import Synchronization
import TensorKernels
import Testing
import Tokenization

let quietLogger = Logger(label: "test") { _ in SwiftLogNoOpLogHandler() }

/// A model in the repository, loaded whole into this process.
struct TestModel: Sendable, CustomTestStringConvertible {
    /// The folder, from the repository's root, or anywhere.
    let path: String

    /// The trained miniature; the only one with a tokenizer.
    static let miniature = TestModel(path: "deploy/models/switch-mini")

    /// The models for the contract of executors: bfloat16 and float32, widths that no vector divides,
    /// all layers sparse and few of them.
    static let all = [
        miniature, TestModel(path: "Tests/Fixtures/parity/asymmetric"),
        TestModel(path: "Tests/Fixtures/parity/capacity"), TestModel(path: "Tests/Fixtures/parity/step4"),
    ]

    var testDescription: String { self.path.split(separator: "/").last.map(String.init) ?? self.path }

    /// The repository's root.
    static let root = URL(filePath: #filePath)
        .deletingLastPathComponent().deletingLastPathComponent().deletingLastPathComponent()
        .deletingLastPathComponent().path(percentEncoded: false)

    var directory: String { self.path.hasPrefix("/") ? self.path : Self.root + self.path }

    /// The model and its experts in this process.
    func load() throws -> LoadedModel {
        let checkpoint = try Checkpoint.open(self.directory)
        let pool = WorkPool(threads: 1)
        return LoadedModel(
            checkpoint: checkpoint,
            model: try SwitchTransformer(checkpoint: checkpoint, pool: pool),
            experts: try LocalExperts(checkpoint: checkpoint, pool: pool)
        )
    }

    /// Token ids that the model knows, of some lengths.
    func inputs(_ lengths: [Int], configuration: ModelConfiguration) -> [[Int32]] {
        lengths.enumerated()
            .map { index, length in
                (0..<length).map { Int32((index * 37 + $0 * 11 + 5) % configuration.vocabularySize) }
            }
    }
}

struct LoadedModel: Sendable {
    let checkpoint: Checkpoint
    let model: SwitchTransformer
    let experts: LocalExperts
}

/// One line of the miniature's `prompts.json`.
struct Prompt: Decodable, Sendable {
    var prompt: String
    var answer: String
    var tokenIDs: [UInt32]

    enum CodingKeys: String, CodingKey {
        case prompt
        case answer
        case tokenIDs = "token_ids"
    }

    static func all() throws -> [Prompt] {
        let data = try Data(contentsOf: URL(filePath: TestModel.miniature.directory).appending(path: "prompts.json"))
        return try JSONDecoder().decode([Prompt].self, from: data)
    }
}

/// Folders with the parts of models, cut once for all tests of the process.
enum ShardCache {
    private static let root = FileManager.default.temporaryDirectory
        .appending(path: "switchyard-serving-tests-\(ProcessInfo.processInfo.processIdentifier)")

    private static let folders = Mutex<[String: String]>([:])

    /// Cuts a model into parts, or reuses the parts of an earlier test.
    static func folder(of model: TestModel, pools: Int) throws -> String {
        try self.folders.withLock { folders in
            if folders.isEmpty {
                atexit { try? FileManager.default.removeItem(at: ShardCache.root) }
            }
            let key = "\(model.testDescription)-\(pools)"
            if let known = folders[key] {
                return known
            }
            try FileManager.default.createDirectory(at: self.root, withIntermediateDirectories: true)
            let folder = self.root.appending(path: key).path(percentEncoded: false)
            try CheckpointSharder.shard(model: model.directory, output: folder, pools: pools)
            folders[key] = folder
            return folder
        }
    }
}
