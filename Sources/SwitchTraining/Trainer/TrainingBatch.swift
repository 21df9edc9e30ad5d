// SPDX-License-Identifier: Apache-2.0

internal import Checkpoints
public import SwitchyardTypes

/// One input and what the model should answer; in a model without an encoder, tokens and what follows each of them.
public struct TrainingExample: Sendable, Hashable {
    /// Token ids of the input, at least one.
    public var input: [Int32]
    /// Token ids of the answer, at least one, without a start token; usually ending with the end token.
    public var target: [Int32]
    /// What a teacher thinks of each place of the target; nil where the data alone counts.
    public var teacher: TeacherAnswer?

    /// Pairs an input with an answer.
    ///
    /// - Parameters:
    ///   - input: Token ids of the input.
    ///   - target: Token ids of the answer.
    public init(input: [Int32], target: [Int32]) {
        self.input = input
        self.target = target
    }
}

/// The examples of one step, with no padding, and how they are cut into parts.
public struct TrainingBatch: Sendable, Hashable {
    /// The examples; an example's index is what its random numbers depend on.
    public var examples: [TrainingExample]

    /// The examples of each part, in order: what is in memory at once.
    public var parts: [Range<Int>]

    /// For each sparse layer the expert of every token, -1 for a dropped one; the routers choose where it is nil.
    ///
    /// An encoder's layer has the tokens of all inputs, one after the other, a decoder's those of all targets.
    public var routes: [SparseLayer: [Int32]]?

    /// Makes a batch of one part.
    ///
    /// - Parameters:
    ///   - examples: The examples.
    ///   - routes: Where each token goes, if not where the routers choose.
    public init(_ examples: [TrainingExample], routes: [SparseLayer: [Int32]]? = nil) {
        self.examples = examples
        self.parts = [0..<examples.count]
        self.routes = routes
    }

    /// Makes a batch of parts that hold at most this many tokens, inputs and targets together; a single example may be
    /// longer.
    ///
    /// - Parameters:
    ///   - examples: The examples.
    ///   - mostTokens: Tokens of a part.
    public init(_ examples: [TrainingExample], mostTokens: Int) {
        self.examples = examples
        self.parts = []
        var (start, tokens) = (0, 0)
        for (index, example) in examples.enumerated() {
            let length = example.input.count + example.target.count
            if index > start, tokens + length > mostTokens {
                self.parts.append(start..<index)
                (start, tokens) = (index, 0)
            }
            tokens += length
        }
        self.parts.append(start..<examples.count)
    }

    /// Tokens of all inputs.
    public var inputTokens: Int { self.examples.reduce(0) { $0 + $1.input.count } }

    /// Tokens of all targets.
    public var targetTokens: Int { self.examples.reduce(0) { $0 + $1.target.count } }

    /// Whether every example has a teacher's answer.
    var hasTeacher: Bool { self.examples.allSatisfy { $0.teacher != nil } }

    /// Refuses what the model cannot learn from.
    func validate(_ configuration: ModelConfiguration, needsTeacher: Bool = false) throws(TrainingError) {
        func fail(_ message: String) -> TrainingError { TrainingError(code: .invalidBatch, message: message) }
        guard !self.examples.isEmpty else { throw fail("a step needs at least one example, but the batch is empty") }
        var next = 0
        for part in self.parts {
            guard part.lowerBound == next, !part.isEmpty else {
                throw fail("parts must cover the examples in order, but one is \(part) where \(next)... is next")
            }
            next = part.upperBound
        }
        guard next == self.examples.count else {
            throw fail("parts end at example \(next), but there are \(self.examples.count)")
        }
        for (index, example) in self.examples.enumerated() {
            for (name, tokens) in [("input", example.input), ("target", example.target)] {
                guard !tokens.isEmpty else {
                    throw fail("example \(index) of the step has an empty \(name); leave it out")
                }
                guard tokens.count <= Self.mostTokens else {
                    throw fail(
                        "example \(index) of the step has \(tokens.count) tokens in its \(name), but the limit is"
                            + " \(Self.mostTokens); cut it"
                    )
                }
                for token in tokens where token < 0 || Int(token) >= configuration.vocabularySize {
                    throw fail(
                        "example \(index) of the step has token \(token) in its \(name), but the model's vocabulary has"
                            + " \(configuration.vocabularySize) tokens; use the model's own tokenizer"
                    )
                }
            }
        }
        if !configuration.hasEncoder {
            for (index, example) in self.examples.enumerated() where example.input.count != example.target.count {
                throw fail(
                    "example \(index) of the step has \(example.input.count) tokens and \(example.target.count) that follow them, but"
                        + " the model has no encoder: there must be as many"
                )
            }
        }
        try self.validateTeacher(configuration, isNeeded: needsTeacher)
        try self.validateRoutes(configuration)
    }

    private func validateTeacher(_ configuration: ModelConfiguration, isNeeded: Bool) throws(TrainingError) {
        for (index, example) in self.examples.enumerated() {
            guard let teacher = example.teacher else {
                guard isNeeded else { continue }
                throw TrainingError(
                    code: .invalidBatch,
                    message:
                        "example \(index) of the step has no teacher's answer, but the loss has a teacher; ask it first"
                )
            }
            let vocabulary = configuration.vocabularySize
            guard let fault = teacher.fault(places: example.target.count, vocabulary: vocabulary) else { continue }
            throw TrainingError(
                code: .invalidBatch,
                message: "the teacher's answer for example \(index) of the step \(fault); ask the teacher again"
            )
        }
    }

    private func validateRoutes(_ configuration: ModelConfiguration) throws(TrainingError) {
        guard let routes else { return }
        for layer in configuration.sparseLayers {
            let tokens = layer.stack == .encoder ? self.inputTokens : self.targetTokens
            guard let experts = routes[layer], experts.count == tokens else {
                throw TrainingError(
                    code: .invalidBatch,
                    message:
                        "routes of layer \(layer) must name an expert for each of \(tokens) tokens, but have"
                        + " \(routes[layer]?.count ?? 0)"
                )
            }
            for expert in experts where expert < -1 || Int(expert) >= configuration.expertCount {
                throw TrainingError(
                    code: .invalidBatch,
                    message:
                        "routes of layer \(layer) name expert \(expert), but there are \(configuration.expertCount)"
                )
            }
        }
    }

    /// The most tokens of one input or target.
    public static let mostTokens = 1 << 16
}
