// SPDX-License-Identifier: Apache-2.0

import Checkpoints
import SwitchModel
import SwitchyardTypes
import TensorKernels
import Testing

@testable import SwitchTraining

/// What an operation needs around it: weights, gradients, memory and the step's sums.
struct OperationBench {
    let run: PartRun
    let parameters: ModelParameters
    let gradients: Gradients

    init(
        _ configuration: ModelConfiguration,
        lengths: [(input: Int, target: Int)] = [(1, 1)],
        routes: [SparseLayer: [Int32]]? = nil,
        threads: Int = 1,
        step: UInt32? = nil,
        _ change: (inout TrainingSettings) -> Void = { _ in }
    ) throws {
        var settings = TrainingSettings()
        settings.seed = 0x0123_4567_89AB_CDEF
        change(&settings)
        let examples = TrainingCase.examples(lengths, vocabulary: configuration.vocabularySize, seed: 5)
        let batch = TrainingBatch(examples, routes: routes)
        let weights = try TrainingCase(name: "bench", configuration: configuration, batch: batch).weights()
        self.parameters = ModelParameters(configuration, layout: weights.layout)
        self.gradients = Gradients(layout: weights.layout)
        let arena = Arena()
        self.run = PartRun(
            configuration: configuration,
            weights: weights,
            pool: WorkPool(threads: threads),
            level: .best,
            arena: arena,
            exact: arena,
            packs: Arena(),
            settings: settings,
            randomness: step.map { StepRandomness(seed: settings.seed, step: $0) },
            gradients: self.gradients,
            sums: StepSums(configuration),
            routing: StepRouting(configuration, settings: settings, policy: settings.capacity, batch: batch)
        )
    }

    /// Rows of numbers within -scale ..< scale.
    func rows(_ count: Int, _ columns: Int, seed: UInt32, scale: Double = 1) -> Rows {
        let rows = self.run.arena.rows(count, columns: columns)
        for row in 0..<count {
            for column in 0..<columns {
                let place = row * columns + column
                rows.row(row)[column] = Float(scale * TrainingCase.number(place, seed: seed))
            }
        }
        return rows
    }

    /// Rows that hold nothing sensible, as an arena's do.
    func garbage(_ count: Int, _ columns: Int) -> Rows {
        let rows = self.run.arena.rows(count, columns: columns)
        for row in 0..<count { rows.row(row).update(repeating: .nan, count: columns) }
        return rows
    }

    func grid(_ weight: Weight) -> Grid {
        Grid(self.run.weights[weight.index], weight.outputs, weight.inputs)
    }

    func gradient(_ weight: Weight) -> Grid {
        Grid(self.gradients.values[weight.index], weight.outputs, weight.inputs)
    }

    func product(_ product: MatrixProduct) {
        self.run.pool.multiply([product], level: self.run.level)
    }
}

extension Grid {
    init(_ rows: Rows) {
        self.init(rows.count, rows.columns)
        for row in 0..<rows.count {
            for column in 0..<rows.columns { self[row, column] = Rounded(rows.row(row)[column]) }
        }
    }

    init(_ floats: some Collection<Float>, _ rows: Int, _ columns: Int) {
        self.init(rows, columns)
        for (index, float) in floats.enumerated() { self.values[index] = Rounded(float) }
    }

    init(_ doubles: [Double], _ rows: Int, _ columns: Int) {
        self.init(rows, columns)
        for (index, double) in doubles.enumerated() { self.values[index] = Rounded(double) }
    }
}

/// Fails where an element is further from the reference than rounding can explain.
///
/// It also fails where the limits themselves are so wide that they would prove nothing. `scale` is the size of terms that may
/// cancel each other, `limit` the largest relative width.
func expectRounded(
    _ found: Grid,
    _ expected: Grid,
    _ what: String,
    scale: Double? = nil,
    limit: Double = 1e-3,
    sourceLocation: SourceLocation = #_sourceLocation
) {
    guard found.rows == expected.rows, found.columns == expected.columns else {
        Issue.record("\(what) has another shape", sourceLocation: sourceLocation)
        return
    }
    var (largest, widest) = (scale ?? 0, 0.0)
    for (index, expected) in expected.values.enumerated() {
        let value = found.values[index].value
        let isClose = abs(value - expected.value) <= expected.error
        if !isClose {
            Issue.record(
                """
                \(what), row \(index / found.columns), column \(index % found.columns): \(value), but the reference has \
                \(expected.value) +- \(expected.error)
                """,
                sourceLocation: sourceLocation
            )
            return
        }
        largest = max(largest, abs(expected.value))
        widest = max(widest, expected.error)
    }
    #expect(widest <= limit * largest, "\(what): the limit is too wide", sourceLocation: sourceLocation)
}

/// Fails where a reference's gradients are not the slopes of its loss, by central differences along fixed directions.
///
/// The loss must be smooth near the inputs, as far as four times the step.
func expectSlopes(
    _ inputs: [Grid],
    _ gradients: [Grid],
    step: Double = 1e-4,
    sourceLocation: SourceLocation = #_sourceLocation,
    loss: ([Grid]) -> Double
) {
    for index in inputs.indices {
        for seed in 70..<72 {
            let direction = inputs[index].values.indices
                .map { TrainingCase.number($0, seed: UInt32(seed + 2 * index)) }
            func at(_ place: Double) -> Double {
                var moved = inputs
                moved[index] = inputs[index].moved(along: direction, by: place * step)
                return loss(moved)
            }
            let (far, near) = (at(2) - at(-2), at(1) - at(-1))
            let slope = (8 * near - far) / (12 * step)
            let terms = zip(gradients[index].values, direction).map { $0.value * $1 }
            let size = terms.reduce(0) { $0 + abs($1) }
            let difference = abs(terms.reduce(0, +) - slope)
            #expect(
                difference <= 1e-7 * size + 1e-9,
                "input \(index): the gradient says \(terms.reduce(0, +)), differences say \(slope)",
                sourceLocation: sourceLocation
            )
        }
    }
}
