// SPDX-License-Identifier: Apache-2.0

public import Checkpoints
public import SwitchModel
public import SwitchyardTypes
public import TensorKernels

/// Experts that are trained elsewhere, as a step uses them.
///
/// What they hold is a function of the state that they began with and of the calls since: the same bits as where a
/// ``TrainingStep`` holds all experts itself. Calls come from one thread, in the order of the step's computation, which does not
/// depend on where experts are.
public protocol LearningExperts: Sendable {
    /// The run that they are trained in: saves keep it, so that hosts know it again when it resumes.
    var run: UInt64 { get }

    /// The LoRA adapter of the whole model whose part for experts is trained in place of their weights; nil where those are.
    var adapter: LowRankSettings? { get }

    /// Begins a step, or begins it again: gradients of an earlier attempt are forgotten.
    ///
    /// - Parameter step: The step's number.
    /// - Throws: What prevents it, in words.
    func begin(step: Int) throws

    /// Computes experts' outputs; returns once every row has one.
    ///
    /// - Parameters:
    ///   - layer: The sparse layer.
    ///   - groups: The experts, ascending, and their numbers of rows, at least 1 each, in the order of the rows.
    ///   - tokens: The rows, `[rows, d_model]`, at least one.
    ///   - places: Where each row's dropout comes from; nil when evaluating.
    /// - Returns: The outputs, `[rows, d_model]`.
    /// - Throws: ``VoidStep``, or what prevents an answer, in words.
    func forward(
        _ layer: SparseLayer,
        groups: [ExpertRows],
        tokens: FloatMatrix,
        places: [RowPlace]?
    ) throws -> FloatMatrix

    /// Computes the gradients of experts' input rows, and adds to those of their weights; returns once every row has one.
    ///
    /// - Parameters:
    ///   - layer: The sparse layer.
    ///   - groups: As for ``forward(_:groups:tokens:places:)``.
    ///   - tokens: The rows that `forward` got.
    ///   - outputGradients: The gradient of the loss by each row's output, `[rows, d_model]`.
    ///   - places: As for `forward`.
    /// - Returns: The gradient of the loss by each row, `[rows, d_model]`.
    /// - Throws: ``VoidStep``, or what prevents an answer, in words.
    func backward(
        _ layer: SparseLayer,
        groups: [ExpertRows],
        tokens: FloatMatrix,
        outputGradients: FloatMatrix,
        places: [RowPlace]
    ) throws -> FloatMatrix

    /// The sums of squares of the step's gradients, of the tensors that got any: those of an adapter where one is trained.
    ///
    /// - Returns: A sum by the tensor's name.
    /// - Throws: ``VoidStep``, or what prevents an answer, in words.
    func squares() throws -> [String: Double]

    /// Ends the step: experts make new weights of their gradients.
    ///
    /// - Parameters:
    ///   - rate: The learning rate.
    ///   - scale: What each gradient is multiplied with before it is used.
    /// - Throws: What prevents it, in words.
    func apply(rate: Double, scale: Double) throws

    /// Gives the experts the state that they begin with.
    ///
    /// - Parameters:
    ///   - weights: The model's weights, or the adapter's.
    ///   - state: The optimizer's state by name; empty for an optimizer that has seen nothing.
    ///   - steps: The optimizer's count of steps of each tensor, by the tensor's name; empty as above.
    ///   - step: Steps that were taken.
    /// - Throws: What prevents it, in words.
    func load(_ weights: ParameterBuffer, state: [String: TensorView], steps: [String: Int], step: Int) throws

    /// Brings the experts' state home, as it is after the steps that were taken.
    ///
    /// - Parameter weights: The model's weights, or the adapter's, of which the experts' are replaced.
    /// - Returns: What is trained of experts and their optimizer's state, as ``ExpertShard/state()`` gives them, one list for each shard.
    /// - Throws: What prevents it, in words.
    func state(into weights: ParameterBuffer) throws -> [[TensorView]]
}

/// A step must be computed again from its beginning, with the same weights and data: what experts answered in it cannot be
/// trusted.
public struct VoidStep: Error, Sendable, CustomStringConvertible {
    /// Why, for people.
    public var description: String

    /// Makes an error.
    ///
    /// - Parameter reason: Why, for people.
    public init(_ reason: String) {
        self.description = reason
    }
}
