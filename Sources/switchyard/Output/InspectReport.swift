// SPDX-License-Identifier: Apache-2.0

import Checkpoints
import CommandKit
import Foundation
import SwitchModel
import SwitchyardTypes

/// What `switchyard inspect` says of a checkpoint.
struct InspectReport: Encodable {
    /// The weights' memory in one process, by how they are kept.
    struct Memory: Encodable {
        var storage: String
        var gatewayBytes: Int
        /// One number for each pool.
        var poolBytes: [Int]
    }

    /// One type of weights.
    struct WeightType: Encodable {
        var dtype: String
        var tensors: Int
        var parameters: Int
        var bytes: Int
    }

    /// The model's sizes.
    struct Shape: Encodable {
        var family: String
        var parameters: Int
        var vocabularySize, modelWidth, feedForwardWidth, keyWidth, heads: Int
        var encoderBlocks, decoderBlocks: Int
        var encoderSparseBlocks, decoderSparseBlocks: [Int]
        var expertsPerLayer, expertCapacity: Int
        var activation: String
        var head: String
        var decoderStartToken: Int
        var endTokens: [Int]
        var padToken: Int
    }

    /// A setting of generation that the checkpoint brings.
    struct Default: Encodable {
        var key: String
        var value: String
    }

    /// What the folder holds of a model.
    enum Kind: String, Encodable {
        case whole, gateway, experts
    }

    /// The folder.
    var folder: String
    var kind = Kind.whole
    /// Sixteen hexadecimal digits.
    var fingerprint: String?
    /// For a part of a cut checkpoint, its name and what it was cut from.
    var part: String?
    /// What was merged into the weights; empty without an adapter.
    var adapter: [String] = []
    var shape: Shape?
    var files: [String] = []
    var types: [WeightType] = []
    var gatewayParameters = 0
    var expertParameters = 0
    /// Tensors that the model does not use.
    var unusedTensors: [String] = []
    var tokenizer: String?
    var generation: [Default] = []
    var memory: [Memory] = []
    /// What people should know before they serve it.
    var notes: [String] = []
    /// Why serving would fail; empty where it would not.
    var problems: [String] = []

    /// The report as JSON.
    ///
    /// - Returns: One object.
    /// - Throws: Never in practice.
    func json() throws -> String {
        let encoder = JSONEncoder()
        encoder.outputFormatting = [.prettyPrinted, .sortedKeys, .withoutEscapingSlashes]
        encoder.keyEncodingStrategy = .convertToSnakeCase
        return String(decoding: try encoder.encode(self), as: UTF8.self)
    }
}

extension InspectReport {
    /// The report for people.
    ///
    /// - Parameter command: What to do next, where nothing is wrong.
    /// - Returns: Lines without the last line's end.
    func text(next command: String) -> String {
        var lines: [String] = []
        func line(_ label: String, _ text: String) {
            let indent = String(repeating: " ", count: 14)
            let padded = label + String(repeating: " ", count: max(1, 14 - label.count))
            lines.append((padded + text).wrapped(columns: Terminal.columns, indent: indent))
        }
        line("model", self.folder)
        if let part { line("part", part) }
        for note in self.adapter { line("adapter", note) }
        if let shape { self.describe(shape, line) }
        if !self.files.isEmpty {
            let types = self.types.map { "\(Self.size($0.bytes)) of \($0.dtype)" }.joined(separator: ", ")
            line("weights", "\(Self.list(self.files)): \(types)")
        }
        if let fingerprint { line("fingerprint", fingerprint) }
        if !self.unusedTensors.isEmpty {
            line(
                "not used",
                "\(Self.list(self.unusedTensors)): no place in this model, or a copy of a tensor that is used"
            )
        }
        if let tokenizer { line("tokenizer", tokenizer) }
        if self.shape != nil {
            let defaults = self.generation.map { "\($0.key) \($0.value)" }.joined(separator: ", ")
            line("generation", defaults.isEmpty ? "no defaults of its own" : defaults)
        }
        for note in self.notes { line("note", note) }
        if !self.memory.isEmpty { lines += ["", self.memoryTable] }
        lines.append("")
        if self.problems.isEmpty {
            lines.append("Can be served. Next:  \(command)")
        } else {
            lines += self.problems.map {
                "\(Terminal.styled("cannot be served:", .red)) \($0)".wrapped(columns: Terminal.columns)
            }
        }
        return lines.joined(separator: "\n")
    }

    private func describe(_ shape: Shape, _ line: (String, String) -> Void) {
        let experts =
            self.expertParameters == 0 ? "" : ", \(Self.count(self.expertParameters)) of them in experts"
        line("family", "\(shape.family), \(Self.count(shape.parameters)) parameters\(experts)")
        line(
            "shape",
            "d_model \(shape.modelWidth), d_ff \(shape.feedForwardWidth), \(shape.heads) heads of \(shape.keyWidth), "
                + (shape.encoderBlocks == 0 ? "" : "\(shape.encoderBlocks) + ")
                + "\(shape.decoderBlocks) blocks, vocabulary \(shape.vocabularySize), "
                + "\(shape.activation), \(shape.head)"
        )
        if !shape.encoderSparseBlocks.isEmpty || !shape.decoderSparseBlocks.isEmpty {
            func blocks(_ blocks: [Int]) -> String {
                blocks.isEmpty ? "none" : NumberRanges.text(blocks.map(UInt32.init(clamping:)))
            }
            let encoder =
                shape.encoderBlocks == 0 ? "" : "encoder blocks \(blocks(shape.encoderSparseBlocks)), decoder "
            let capacity = shape.encoderBlocks == 0 ? "no capacity" : "capacity \(shape.expertCapacity)"
            line(
                "sparse",
                "\(encoder)blocks \(blocks(shape.decoderSparseBlocks)); \(shape.expertsPerLayer) experts each, \(capacity)"
            )
        }
        // A decoder alone continues its input: no token begins an answer, and none fills gaps.
        guard shape.encoderBlocks > 0 else {
            let ends = shape.endTokens.map(String.init).joined(separator: " and ")
            line("tokens", "continues its input; \(ends.isEmpty ? "no token ends an answer" : "end \(ends)")")
            return
        }
        let ends = shape.endTokens.isEmpty ? "none" : shape.endTokens.map(String.init).joined(separator: " and ")
        line(
            "tokens",
            "start \(shape.decoderStartToken), end \(ends), "
                + "pad \(shape.padToken)"
        )
    }

    private var memoryTable: String {
        let pools = self.memory.first?.poolBytes.count ?? 0
        var table = TextTable(
            [("memory of weights", .left), ("gateway", .right)]
                + (pools == 0 ? [] : [(pools == 1 ? "the pool's host" : "each host of \(pools) pools", .right)])
        )
        for memory in self.memory {
            let least = memory.poolBytes.min() ?? 0
            let most = memory.poolBytes.max() ?? 0
            let hosts =
                Self.size(least) == Self.size(most) ? Self.size(most) : "\(Self.size(least)) to \(Self.size(most))"
            table.add([memory.storage, Self.size(memory.gatewayBytes)] + (pools == 0 ? [] : [hosts]))
        }
        return table.text
    }

    private static func list(_ names: [String]) -> String {
        let most = 4
        guard names.count > most else { return names.joined(separator: ", ") }
        return names.prefix(most - 1).joined(separator: ", ") + " and \(names.count - most + 1) more"
    }

    private static func size(_ bytes: Int) -> String {
        let bytes = Double(bytes)
        switch bytes {
        case 1e9...: return String(format: "%.2f GB", bytes / 1e9)
        case 1e6...: return String(format: "%.1f MB", bytes / 1e6)
        default: return String(format: "%.0f kB", bytes / 1e3)
        }
    }

    private static func count(_ parameters: Int) -> String {
        let number = Double(parameters)
        switch number {
        case 1e9...: return String(format: "%.2f billion", number / 1e9)
        case 1e6...: return String(format: "%.1f million", number / 1e6)
        default: return "\(parameters)"
        }
    }
}
