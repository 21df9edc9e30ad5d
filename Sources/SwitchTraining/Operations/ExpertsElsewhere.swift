// SPDX-License-Identifier: Apache-2.0

internal import Checkpoints
internal import SwitchModel
internal import SwitchyardTypes
internal import TensorKernels

/// Experts that are computed elsewhere, as the layers of a step use them.
///
/// After a failure the layers get zeros, and the step, which is void, soon ends with the failure.
final class ExpertsElsewhere {
    private let experts: any TrainingExperts
    private var failure: (any Error)?

    init(_ experts: any TrainingExperts) {
        self.experts = experts
    }

    /// Refuses settings that need the experts' hidden rows here.
    static func check(_ settings: TrainingSettings) throws(TrainingError) {
        let dropout = settings.expertDropout ?? settings.dropout
        guard dropout == 0 else {
            throw TrainingError(
                code: .invalidSettings,
                message:
                    "expertDropout is \(dropout), but must be 0 where experts are computed elsewhere: what it drops is"
                    + " not here; set it to 0"
            )
        }
        guard settings.precision == .float32 else {
            throw TrainingError(
                code: .invalidSettings,
                message:
                    "precision is \(settings.precision), but must be float32 where experts are computed elsewhere: they"
                    + " round nothing between their products"
            )
        }
    }

    /// Throws what kept experts from answering since the last call.
    func check() throws(TrainingError) {
        guard let failure = self.failure else { return }
        self.failure = nil
        throw TrainingError(code: .noExperts, message: "\(failure)")
    }

    /// Computes the experts' outputs of dispatched rows.
    func forward(_ layer: SparseLayer, _ plan: RoutePlan, _ tokens: Rows, into outputs: Rows) {
        self.compute(plan, into: outputs) { experts, groups in
            try experts.forward(layer, groups: groups, tokens: tokens.matrix)
        }
    }

    /// Computes the gradients of dispatched rows.
    func backward(
        _ layer: SparseLayer,
        _ plan: RoutePlan,
        _ tokens: Rows,
        outputGradient: Rows,
        inputGradient: Rows
    ) {
        self.compute(plan, into: inputGradient) { experts, groups in
            try experts.backward(
                layer,
                groups: groups,
                tokens: tokens.matrix,
                outputGradients: outputGradient.matrix
            )
        }
    }

    private func compute(
        _ plan: RoutePlan,
        into results: Rows,
        _ body: (any TrainingExperts, [ExpertRows]) throws -> FloatMatrix
    ) {
        guard results.count > 0 else { return }
        let groups = plan.groups.map { ExpertRows(expert: $0.expert, rows: $0.rows.count) }
        if self.failure == nil {
            do {
                let computed = try body(self.experts, groups)
                for row in 0..<results.count {
                    results.row(row).update(from: computed.pointer + row * results.columns, count: results.columns)
                }
                return
            } catch {
                self.failure = error
            }
        }
        for row in 0..<results.count { results.row(row).update(repeating: 0, count: results.columns) }
    }
}

extension Rows {
    /// A copy without gaps between the rows.
    fileprivate var matrix: FloatMatrix {
        let matrix = FloatMatrix(uninitializedRows: self.count, columns: self.columns)
        for row in 0..<self.count {
            (matrix.pointer + row * self.columns).update(from: self.row(row), count: self.columns)
        }
        return matrix
    }
}
