// SPDX-License-Identifier: Apache-2.0

public import Checkpoints
internal import SwitchyardTypes
public import TensorKernels

/// Adafactor: a matrix's mean squares are kept as one number for each row and column.
///
/// From N. Shazeer and M. Stern, "Adafactor: Adaptive Learning Rates with Sublinear Memory Cost" (ICML 2018), as
/// `transformers.optimization.Adafactor` 5.23 computes it
/// (https://github.com/huggingface/transformers/blob/v5.23.0/src/transformers/optimization.py), without its optional first
/// moment. Deviations:
///
/// - Means and root mean squares are summed in float64 in one order, where torch sums float32 in an order of its own.
/// - Weight decay has groups (``WeightDecay``).
///
/// T5X differs from both: it does not factor matrices with a side below 128, and its defaults are `scaleParameter` with a rate
/// from the schedule ``LearningRateSchedule/Shape/t5``.
public final class Adafactor: Optimizer, @unchecked Sendable {
    // Safety: one caller at a time makes a step; its threads write disjoint rows.

    /// Adafactor's settings.
    public struct Settings: Sendable, Hashable, Codable {
        /// Added to squared gradients; above 0.
        public var squareEpsilon = 1e-30
        /// The least root mean square of weights that scales a step.
        public var scaleEpsilon = 1e-3
        /// The root mean square of an update at most, before the learning rate.
        public var clipThreshold = 1.0
        /// The mean squares keep `1 - step^decayRate`; below 0.
        public var decayRate = -0.8
        /// Whether steps are in proportion to the weights' root mean square.
        public var scaleParameter = true
        /// Whether the rate is `min(1e-2, 1 / sqrt(step))` and the schedule's is not used.
        public var relativeStep = true
        /// Whether a relative step begins at `1e-6 * step` instead of 1e-2.
        public var warmUpInit = false
        /// The decay of weights, times the learning rate.
        public var decay = WeightDecay()

        /// The defaults of transformers.
        public init() {}
    }

    /// The tensors that are trained.
    public let layout: ParameterLayout

    /// The settings.
    public let settings: Settings

    /// What is kept of a tensor.
    enum Moments {
        /// A matrix: one number for each row, and one for each column.
        case factored(rows: [Float], columns: [Float])
        /// A vector: one number for each element.
        case whole([Float])
    }

    private var moments: [Moments]
    private let decays: [Double]
    private var steps: [Int]
    /// The instruction set, which does not show in the bits.
    var level = KernelLevel.best

    /// Makes an optimizer that has seen nothing.
    ///
    /// - Parameters:
    ///   - layout: The tensors to train, vectors or matrices.
    ///   - settings: The settings.
    /// - Throws: `invalidSettings` for a setting out of range, or two that do not fit each other.
    public init(layout: ParameterLayout, settings: Settings = Settings()) throws(TrainingError) {
        func check(_ holds: Bool, _ message: String) throws(TrainingError) {
            guard holds else { throw TrainingError(code: .invalidSettings, message: message) }
        }
        try check(
            settings.squareEpsilon >= 1e-37 && settings.squareEpsilon < 1,
            "squareEpsilon is \(settings.squareEpsilon); it must be from 1e-37 to 1"
        )
        try check(
            settings.scaleEpsilon >= 0 && settings.scaleEpsilon.isFinite,
            "scaleEpsilon is \(settings.scaleEpsilon); it must be 0 or more"
        )
        try check(settings.clipThreshold > 0, "clipThreshold is \(settings.clipThreshold); it must be above 0")
        try check(
            settings.decayRate < 0 && settings.decayRate >= -4,
            "decayRate is \(settings.decayRate); it must be below 0 and at least -4"
        )
        try check(
            settings.relativeStep || !settings.warmUpInit,
            "warmUpInit needs relativeStep; set both, or give the schedule a warm-up"
        )
        self.decays = try settings.decay.values(for: layout)
        self.layout = layout
        self.settings = settings
        self.steps = Array(repeating: 0, count: layout.entries.count)
        self.moments = layout.entries.map { entry in
            entry.shape.count == 2
                ? .factored(
                    rows: Array(repeating: 0, count: entry.shape[0]),
                    columns: Array(repeating: 0, count: entry.shape[1])
                )
                : .whole(Array(repeating: 0, count: entry.range.count))
        }
    }

    /// Makes a step.
    ///
    /// - Parameters:
    ///   - weights: Changed in place.
    ///   - gradients: The step's gradients, finite.
    ///   - learningRate: The step's rate; not used with `relativeStep`.
    ///   - gradientScale: What each gradient is multiplied with before it is used.
    ///   - pool: The threads.
    public func step(
        weights: ParameterBuffer,
        gradients: Gradients,
        learningRate: Double,
        gradientScale: Double,
        pool: WorkPool
    ) {
        for index in self.steps.indices where gradients.touched[index] {
            self.steps[index] += 1
            let shape = self.layout.entries[index].shape
            let update = AdafactorUpdate(
                weights: weights.start(index),
                gradients: UnsafePointer(gradients.values.start(index)),
                rows: shape.count == 2 ? shape[0] : 1,
                columns: shape.last ?? 1,
                gradientScale: Float(gradientScale),
                squareEpsilon: Float(self.settings.squareEpsilon),
                level: self.level
            )
            let keep = self.keep(self.steps[index])
            let sums: AdafactorUpdate.Sums
            switch self.moments[index] {
            case .factored(var rows, var columns):
                // Without its second owner the arrays are changed in place.
                self.moments[index] = .whole([])
                sums = update.gather(pool: pool)
                update.average(&rows, sums.rowMeans, keep: keep)
                update.average(&columns, sums.columnMeans, keep: keep)
                let factors = AdafactorUpdate.Factors(rowMeans: rows, columnMeans: columns)
                self.apply(update, factors, sums.weightSquares, index, learningRate, pool)
                self.moments[index] = .factored(rows: rows, columns: columns)
            case .whole(var squares):
                self.moments[index] = .whole([])
                let weightSquares = update.average(&squares, keep: keep)
                let factors = AdafactorUpdate.Factors(
                    rows: [1],
                    columns: squares.map { 1 / $0.squareRoot() }
                )
                self.apply(update, factors, weightSquares, index, learningRate, pool)
                self.moments[index] = .whole(squares)
            }
        }
    }

    /// How much of the mean squares stays at a tensor's step, counted from 1.
    private func keep(_ step: Int) -> (kept: Float, share: Float) {
        let kept = step == 1 ? 0 : 1 - PortableMath.power(Double(step), self.settings.decayRate)
        return (Float(kept), Float(1 - kept))
    }

    private func apply(
        _ update: AdafactorUpdate,
        _ factors: AdafactorUpdate.Factors,
        _ weightSquares: Double,
        _ index: Int,
        _ learningRate: Double,
        _ pool: WorkPool
    ) {
        let count = Double(update.rows * update.columns)
        var rate = learningRate
        if self.settings.relativeStep {
            let step = Double(self.steps[index])
            rate = min(self.settings.warmUpInit ? 1e-6 * step : 1e-2, 1 / step.squareRoot())
        }
        if self.settings.scaleParameter {
            rate *= max(self.settings.scaleEpsilon, (weightSquares / count).squareRoot())
        }
        let size = (update.squares(factors, pool: pool) / count).squareRoot()
        update.apply(
            factors,
            divisor: Float(max(1, size / self.settings.clipThreshold)),
            rate: Float(rate),
            keep: Float(1 - self.decays[index] * rate),
            pool: pool
        )
    }

    /// The mean squares and the counts of steps, under PyTorch's names, such as `optimizer.exp_avg_sq_row.NAME`.
    ///
    /// - Returns: The tensors.
    /// - Throws: `CheckpointError` where a tensor cannot be described.
    public func state() throws(CheckpointError) -> [TensorView] {
        var tensors = [try OptimizerState.steps(self.steps)]
        for (entry, moments) in zip(self.layout.entries, self.moments) {
            for (kind, values) in moments.parts {
                tensors.append(
                    try TensorView(
                        name: OptimizerState.name(kind, entry),
                        dtype: .float32,
                        shape: [values.count],
                        bytes: values.withUnsafeBytes { Array($0) }
                    )
                )
            }
        }
        return tensors
    }

    /// Takes over what ``state()`` gave, bit for bit.
    ///
    /// - Parameter tensors: The tensors, in any order.
    /// - Throws: `CheckpointError` for a tensor that is missing, unknown, or of another shape or type; nothing is changed
    ///   then.
    public func restore(_ tensors: [TensorView]) throws(CheckpointError) {
        let names = zip(self.layout.entries, self.moments)
            .flatMap { entry, moments in
                moments.parts.map { OptimizerState.name($0.kind, entry) }
            }
        let found = try OptimizerState.indexed(tensors, expecting: names + [OptimizerState.stepsName])
        let steps = try OptimizerState.steps(from: found[OptimizerState.stepsName], count: self.steps.count)
        var restored: [Moments] = []
        for (entry, moments) in zip(self.layout.entries, self.moments) {
            var parts: [[Float]] = []
            for (kind, old) in moments.parts {
                let name = OptimizerState.name(kind, entry)
                var values = old
                let result: Result<Void, CheckpointError> = values.withUnsafeMutableBufferPointer { target in
                    do throws(CheckpointError) {
                        try OptimizerState.copy(found[name], name: name, shape: [target.count], to: target)
                        return .success(())
                    } catch {
                        return .failure(error)
                    }
                }
                try result.get()
                parts.append(values)
            }
            restored.append(parts.count == 2 ? .factored(rows: parts[0], columns: parts[1]) : .whole(parts[0]))
        }
        self.moments = restored
        self.steps = steps
    }
}

extension Adafactor.Moments {
    /// The numbers that are kept, by PyTorch's names for them.
    var parts: [(kind: String, values: [Float])] {
        switch self {
        case .factored(let rows, let columns): [("exp_avg_sq_row", rows), ("exp_avg_sq_col", columns)]
        case .whole(let squares): [("exp_avg_sq", squares)]
        }
    }
}
