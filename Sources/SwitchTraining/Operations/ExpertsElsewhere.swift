// SPDX-License-Identifier: Apache-2.0

internal import Checkpoints
public import SwitchModel
internal import SwitchyardTypes
internal import TensorKernels

/// Where the experts of a model are computed that is trained.
public enum ExpertPlace: Sendable {
    /// With the weights' own experts.
    case here
    /// By experts with weights that stay as they are. Where their weights are the same, so are the bits.
    case frozen(any TrainingExperts)
    /// By experts that are trained where they are.
    case learning(any LearningExperts)
}

/// Experts that are computed elsewhere, as the layers of a step use them.
///
/// After a failure the layers get zeros, and the step, which is void, soon ends with the failure.
final class ExpertsElsewhere {
    private enum Kind {
        case frozen(any TrainingExperts)
        case learning(any LearningExperts)
    }

    private let experts: Kind
    private var failure: (any Error)?
    /// The sums of squares of the latest step's gradients that are elsewhere, by the tensor's name.
    private(set) var squares: [String: Double] = [:]

    /// Those that are trained where they are.
    var learning: (any LearningExperts)? {
        if case .learning(let experts) = self.experts { experts } else { nil }
    }

    init?(_ place: ExpertPlace) {
        switch place {
        case .here: return nil
        case .frozen(let experts): self.experts = .frozen(experts)
        case .learning(let experts): self.experts = .learning(experts)
        }
    }

    /// Refuses settings that need the experts' hidden rows here, where they are not there either.
    func check(_ settings: TrainingSettings) throws(TrainingError) {
        guard case .frozen = self.experts else { return }
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
        throw Self.error(failure)
    }

    private static func error(_ failure: any Error) -> TrainingError {
        TrainingError(code: failure is VoidStep ? .voidStep : .noExperts, message: "\(failure)")
    }

    /// Begins a step, or begins it again.
    func begin(step: Int) throws(TrainingError) {
        self.failure = nil
        do {
            try self.learning?.begin(step: step)
        } catch {
            throw Self.error(error)
        }
    }

    /// Adds the sums of squares of gradients that are elsewhere; an adapter's are not the model's.
    func add(to squares: inout [Double], _ layout: ParameterLayout) throws(TrainingError) {
        guard let learning = self.learning else { return }
        do {
            self.squares = try learning.squares()
        } catch {
            throw Self.error(error)
        }
        guard learning.adapter == nil else { return }
        let indices = layout.indicesByName
        for (name, square) in self.squares {
            if let index = indices[name] { squares[index] = square }
        }
    }

    /// Computes the experts' outputs of dispatched rows; `places` are nil when evaluating.
    func forward(
        _ layer: SparseLayer,
        _ plan: RoutePlan,
        _ tokens: Rows,
        places: @autoclosure () -> [RowPlace]?,
        into outputs: Rows
    ) {
        self.compute(plan, into: outputs) { groups in
            switch self.experts {
            case .frozen(let experts): try experts.forward(layer, groups: groups, tokens: tokens.matrix)
            case .learning(let experts):
                try experts.forward(layer, groups: groups, tokens: tokens.matrix, places: places())
            }
        }
    }

    /// Computes the gradients of dispatched rows.
    func backward(
        _ layer: SparseLayer,
        _ plan: RoutePlan,
        _ tokens: Rows,
        places: @autoclosure () -> [RowPlace]?,
        outputGradient: Rows,
        inputGradient: Rows
    ) {
        self.compute(plan, into: inputGradient) { groups in
            switch self.experts {
            case .frozen(let experts):
                try experts.backward(
                    layer,
                    groups: groups,
                    tokens: tokens.matrix,
                    outputGradients: outputGradient.matrix
                )
            case .learning(let experts):
                try experts.backward(
                    layer,
                    groups: groups,
                    tokens: tokens.matrix,
                    outputGradients: outputGradient.matrix,
                    places: places() ?? []
                )
            }
        }
    }

    private func compute(
        _ plan: RoutePlan,
        into results: Rows,
        _ body: ([ExpertRows]) throws -> FloatMatrix
    ) {
        guard results.count > 0 else { return }
        let groups = plan.groups.map { ExpertRows(expert: $0.expert, rows: $0.rows.count) }
        if self.failure == nil {
            do {
                let computed = try body(groups)
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
