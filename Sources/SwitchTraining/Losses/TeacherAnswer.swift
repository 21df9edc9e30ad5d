// SPDX-License-Identifier: Apache-2.0

internal import Checkpoints

/// What a teacher thinks of each place of one target: its most probable tokens there, given the input and the target's tokens
/// before.
public struct TeacherAnswer: Sendable, Hashable {
    /// Tokens that are named at each place: the vocabulary's size, or fewer.
    public var kept: Int
    /// `[places, kept]`: the tokens' ids, ascending at each place.
    public var tokens: [Int32]
    /// `[places, kept]`: the natural logarithms of their probabilities, at the temperature that the student learns with.
    public var logprobs: [Float]

    /// Names tokens and their probabilities.
    ///
    /// - Parameters:
    ///   - kept: Tokens that are named at each place.
    ///   - tokens: `[places, kept]`, ascending at each place.
    ///   - logprobs: `[places, kept]`.
    public init(kept: Int, tokens: [Int32], logprobs: [Float]) {
        self.kept = kept
        self.tokens = tokens
        self.logprobs = logprobs
    }

    /// What is wrong with an answer, as the end of a sentence; nil where it can be learnt from.
    ///
    /// - Parameters:
    ///   - places: Tokens of the target.
    ///   - vocabulary: Tokens of the student's vocabulary.
    /// - Returns: What is wrong.
    public func fault(places: Int, vocabulary: Int) -> String? {
        guard self.kept >= 1, self.kept <= vocabulary else {
            return "names \(self.kept) tokens at each place, but must name from 1 to the vocabulary's \(vocabulary)"
        }
        let (count, overflow) = places.multipliedReportingOverflow(by: self.kept)
        guard !overflow, self.tokens.count == count, self.logprobs.count == count else {
            return
                "has \(self.tokens.count) tokens and \(self.logprobs.count) numbers for \(places) places of \(self.kept)"
        }
        for (index, token) in self.tokens.enumerated() {
            let before = index % self.kept == 0 ? -1 : self.tokens[index - 1]
            guard token > before, Int(token) < vocabulary else {
                return "names token \(token) after \(before), but ids must ascend, and be below \(vocabulary)"
            }
        }
        // Sums of rounded probabilities may be a little above 1.
        guard let number = self.logprobs.first(where: { !($0.isFinite && $0 <= 1e-3) }) else { return nil }
        return "has the log-probability \(number), but it must be finite and at most 0"
    }
}

/// What a student learns of its teacher, beside what it learns of the data.
///
/// From G. Hinton, O. Vinyals and J. Dean, "Distilling the Knowledge in a Neural Network" (2015, arXiv 1503.02531), and
/// W. Fedus, B. Zoph and N. Shazeer, "Switch Transformers" (JMLR 2022), section 4.1: a step minimises
///
///     (1 - weight) * (cross-entropy of the data) + weight * temperature^2 * sum of q (log q - log p)
///
/// averaged over the target's tokens, where q is the teacher's distribution and p the student's, both at the temperature. The
/// sum is over the tokens that the teacher named and one more that stands for all others together: its q is what the named
/// ones leave to 1, its p all that the student gives to others. So the student learns how probable the others are together,
/// and nothing of how they share that. Where the teacher named the whole vocabulary, there is no other, and the sum is the
/// Kullback-Leibler divergence. The paper minimises cross-entropies; the gradients are the same.
public struct TeacherLoss: Sendable, Hashable {
    /// The teacher's share of the loss (the paper: 0.25); the rest is the data's, label smoothing and softmax z-loss included.
    public var weight = 0.25
    /// What logits are divided by in both models' softmax; 1 for the probabilities as they are (the paper).
    public var temperature = 1.0

    /// The highest temperature.
    public static let highestTemperature = 1000.0

    /// The paper's settings.
    public init() {}

    /// Refuses what is out of range.
    func validate() throws(TrainingError) {
        func check(_ holds: Bool, _ message: @autoclosure () -> String) throws(TrainingError) {
            guard holds else { throw TrainingError(code: .invalidSettings, message: message()) }
        }
        try check(
            self.weight >= 0 && self.weight <= 1,
            "the teacher's share of the loss must be from 0 to 1, but is \(self.weight); correct the training settings"
        )
        try check(
            self.temperature >= 0.01 && self.temperature <= Self.highestTemperature,
            "the temperature must be from 0.01 to \(Self.highestTemperature), but is \(self.temperature); correct the training"
                + " settings"
        )
    }
}

/// The teacher's answers of a part of a step, row by row.
struct TeacherRows {
    private let answers: [TeacherAnswer]
    /// For each row its answer, and the place in it.
    private let places: [(answer: Int32, place: Int32)]

    /// - Parameter examples: The part's examples; nil where one of them has no answer.
    init?(_ examples: ArraySlice<TrainingExample>) {
        var answers: [TeacherAnswer] = []
        var places: [(answer: Int32, place: Int32)] = []
        for example in examples {
            guard let answer = example.teacher else { return nil }
            places += example.target.indices.map { (Int32(answers.count), Int32($0)) }
            answers.append(answer)
        }
        self.answers = answers
        self.places = places
    }

    private init(answers: [TeacherAnswer], places: [(answer: Int32, place: Int32)]) {
        self.answers = answers
        self.places = places
    }

    /// The most tokens that are named at one place.
    var mostKept: Int { self.answers.reduce(0) { max($0, $1.kept) } }

    /// Some of the rows.
    func slice(_ range: Range<Int>) -> TeacherRows {
        TeacherRows(answers: self.answers, places: Array(self.places[range]))
    }

    /// Gives a body a row's tokens and log-probabilities.
    func withRow<Result>(
        _ row: Int,
        _ body: (UnsafePointer<Int32>, UnsafePointer<Float>, Int) -> Result?
    ) -> Result? {
        let (index, place) = self.places[row]
        let answer = self.answers[Int(index)]
        return answer.tokens.withUnsafeBufferPointer { tokens in
            answer.logprobs.withUnsafeBufferPointer { logprobs in
                let start = Int(place) * answer.kept
                guard let tokens = tokens.baseAddress, let logprobs = logprobs.baseAddress else { return nil }
                return body(tokens + start, logprobs + start, answer.kept)
            }
        }
    }
}
