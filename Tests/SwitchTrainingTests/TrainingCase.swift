// SPDX-License-Identifier: Apache-2.0

import Checkpoints
import Foundation
import SwitchModel
import SwitchyardTypes
import TensorKernels
import Testing

@testable import SwitchTraining

/// A tiny model with weights and a batch, both functions of a seed that Python computes too (`make_training_cases.py`).
struct TrainingCase: Sendable, CustomTestStringConvertible {
    var name: String
    var configuration: ModelConfiguration
    var settings = TrainingSettings()
    var batch: TrainingBatch
    var seed: UInt32 = 1

    var testDescription: String { self.name }

    /// A number within -1 ..< 1 for a place.
    static func number(_ index: Int, seed: UInt32) -> Double {
        var x = UInt32(truncatingIfNeeded: index) &* 0x9E37_79B9 &+ seed &* 0x85EB_CA6B
        x = (x ^ (x >> 16)) &* 0x7FEB_352D
        x = (x ^ (x >> 15)) &* 0x846C_A68B
        x ^= x >> 16
        return Double(Int32(bitPattern: x)) * 0x1p-31
    }

    /// Weights around those that a fresh model has, norms around 1.
    func weights() throws -> ParameterBuffer {
        let buffer = ParameterBuffer(layout: try ParameterLayout(self.configuration))
        for (index, entry) in buffer.layout.entries.enumerated() {
            let seed = entry.name.utf8.reduce(self.seed &* 31) { ($0 ^ UInt32($1)) &* 0x0100_0193 }
            let fan = Double(entry.shape.last ?? 1)
            let target = buffer[index]
            for place in target.indices {
                let number = Self.number(place, seed: seed)
                switch entry.kind {
                case .norm where entry.name.hasSuffix(".bias"): target[place] = Float(0.3 * number)
                case .norm: target[place] = Float(1 + 0.3 * number)
                case .embedding, .head: target[place] = Float(number)
                case .relativeBias: target[place] = Float(0.5 * number)
                default: target[place] = Float(number * 1.5 / fan.squareRoot())
                }
            }
        }
        return buffer
    }

    /// Examples of these lengths.
    static func examples(_ lengths: [(input: Int, target: Int)], vocabulary: Int, seed: UInt32) -> [TrainingExample] {
        lengths.enumerated()
            .map { index, length in
                func tokens(_ count: Int, _ offset: Int) -> [Int32] {
                    (0..<count)
                        .map { position in
                            let unit = Self.number(position + 1_000 * index + offset, seed: seed) * 0.5 + 0.5
                            return Int32(min(Int(unit * Double(vocabulary - 1)), vocabulary - 2)) + 1
                        }
                }
                return TrainingExample(input: tokens(length.input, 0), target: tokens(length.target, 500))
            }
    }

    /// A teacher's answer for a target: the softmax of numbers that are a function of a seed, its greatest `kept`.
    static func teacher(places: Int, vocabulary: Int, kept: Int, temperature: Double, seed: UInt32) -> TeacherAnswer {
        var answer = TeacherAnswer(kept: kept, tokens: [], logprobs: [])
        for place in 0..<places {
            let logits = (0..<vocabulary).map { 4 * Self.number(place * vocabulary + $0, seed: seed) / temperature }
            let most = logits.max() ?? 0
            let normalizer = most + log(logits.reduce(0) { $0 + exp($1 - most) })
            let tokens = logits.indices.sorted { logits[$0] > logits[$1] }.prefix(kept).sorted()
            answer.tokens += tokens.map { Int32($0) }
            answer.logprobs += tokens.map { Float(logits[$0] - normalizer) }
        }
        return answer
    }

    /// The same case with a teacher, whose answers are a function of a seed.
    func taught(kept: Int, weight: Double = 0.25, temperature: Double = 1) -> TrainingCase {
        var result = self
        var loss = TeacherLoss()
        loss.weight = weight
        loss.temperature = temperature
        result.settings.teacher = loss
        for index in self.batch.examples.indices {
            result.batch.examples[index].teacher = Self.teacher(
                places: self.batch.examples[index].target.count,
                vocabulary: self.configuration.vocabularySize,
                kept: kept,
                temperature: temperature,
                seed: UInt32(900 + index)
            )
        }
        return result
    }

    /// Gradients and report of the case.
    func gradients(
        parts: [Range<Int>]? = nil,
        threads: Int = 1,
        level: KernelLevel = .best,
        step number: Int = 3,
        wanted: [Bool]? = nil
    ) throws -> (StepReport, Gradients) {
        let step = try TrainingStep(
            self.configuration,
            settings: self.settings,
            pool: WorkPool(threads: threads),
            level: level
        )
        var batch = self.batch
        if let parts { batch.parts = parts }
        let gradients = Gradients(layout: step.layout, wanted: wanted)
        let report = try step.gradients(batch, weights: try self.weights(), into: gradients, step: number)
        return (report, gradients)
    }
}

/// The Euclidean distance of two vectors, divided by the second one's norm.
func relativeError(_ values: some Sequence<Double>, _ expected: [Double]) -> Double {
    let distance = zip(values, expected).reduce(0.0) { $0 + ($1.0 - $1.1) * ($1.0 - $1.1) }
    let norm = expected.reduce(0.0) { $0 + $1 * $1 }
    return norm > 0 ? (distance / norm).squareRoot() : distance.squareRoot()
}
