// SPDX-License-Identifier: Apache-2.0

public import Checkpoints
internal import SwitchyardTypes
public import TensorKernels

/// What makes new weights of gradients.
///
/// A step is elementwise, or sums in one order: the same bits for any number of threads. Tensors that are untouched are left
/// out whole, as PyTorch leaves out parameters whose `grad` is None: neither moments nor decay change them, and their own
/// count of steps, which corrects biases, does not advance. An expert without a token in a step so stays as it is.
///
/// Accumulation is the caller's: it adds the gradients of a step's parts into one buffer, touched where any part touched, and
/// gives the step one scale, such as clip factor over tokens.
public protocol Optimizer: AnyObject, Sendable {
    /// The tensors that are trained.
    var layout: ParameterLayout { get }

    /// Makes a step.
    ///
    /// - Parameters:
    ///   - weights: Changed in place.
    ///   - gradients: The step's gradients, finite (``GradientNorm`` makes sure).
    ///   - learningRate: The step's rate.
    ///   - gradientScale: What each gradient is multiplied with before it is used.
    ///   - pool: The threads.
    func step(
        weights: ParameterBuffer,
        gradients: Gradients,
        learningRate: Double,
        gradientScale: Double,
        pool: WorkPool
    )

    /// All that a later run needs to go on, as tensors with names.
    ///
    /// The views may read the optimizer's own memory: write them before the next step.
    ///
    /// - Returns: The tensors.
    /// - Throws: `CheckpointError` where a tensor cannot be described; never for a layout made from a configuration.
    func state() throws(CheckpointError) -> [TensorView]

    /// Takes over what ``state()`` gave, bit for bit.
    ///
    /// - Parameter tensors: The tensors, in any order.
    /// - Throws: `CheckpointError` for a tensor that is missing, unknown, or of another shape or type; nothing is changed
    ///   then.
    func restore(_ tensors: [TensorView]) throws(CheckpointError)
}

/// The names and checks of saved optimizer state.
enum OptimizerState {
    /// The tensor that holds every tensor's count of steps.
    static let stepsName = "optimizer.steps"

    /// The name of a tensor's state, by PyTorch's name of it.
    static func name(_ kind: String, _ entry: ParameterLayout.Entry) -> String { "optimizer.\(kind).\(entry.name)" }

    /// The counts of steps as a tensor.
    static func steps(_ steps: [Int]) throws(CheckpointError) -> TensorView {
        var bytes: [UInt8] = []
        for step in steps {
            withUnsafeBytes(of: Int64(step).littleEndian) { bytes.append(contentsOf: $0) }
        }
        return try TensorView(name: Self.stepsName, dtype: .int64, shape: [steps.count], bytes: bytes)
    }

    /// The tensors by their names.
    static func indexed(_ tensors: [TensorView], expecting names: [String]) throws(CheckpointError) -> [String:
        TensorView]
    {
        var found: [String: TensorView] = [:]
        let known = Set(names)
        for tensor in tensors {
            guard known.contains(tensor.name) else {
                throw CheckpointError(
                    code: .unknownTensor,
                    message: "is no state of this optimizer and model; resume with the optimizer that saved it",
                    tensor: tensor.name
                )
            }
            found[tensor.name] = tensor
        }
        for name in names where found[name] == nil {
            throw CheckpointError(
                code: .missingTensor,
                message: "is not in the saved state; resume with the optimizer that saved it, or from another save",
                tensor: name
            )
        }
        return found
    }

    /// Reads the counts of steps.
    static func steps(from tensor: TensorView?, count: Int) throws(CheckpointError) -> [Int] {
        guard let tensor, tensor.dtype == .int64, tensor.shape == [count] else {
            throw self.mismatch(tensor, "I64", [count], Self.stepsName)
        }
        let steps = tensor.withUnsafeBytes { bytes in
            (0..<count).map { Int(Int64(littleEndian: bytes.loadUnaligned(fromByteOffset: $0 * 8, as: Int64.self))) }
        }
        guard steps.allSatisfy({ $0 >= 0 }) else {
            throw CheckpointError(
                code: .malformed,
                message: "holds a negative count of steps; resume from another save",
                tensor: Self.stepsName
            )
        }
        return steps
    }

    /// A tensor that is float32 and has the shape.
    static func checked(_ tensor: TensorView?, name: String, shape: [Int]) throws(CheckpointError) -> TensorView {
        guard let tensor, tensor.dtype == .float32, tensor.shape == shape else {
            throw self.mismatch(tensor, "F32", shape, name)
        }
        return tensor
    }

    /// Copies a float32 tensor's elements.
    static func copy(
        _ tensor: TensorView?,
        name: String,
        shape: [Int],
        to target: UnsafeMutableBufferPointer<Float>
    ) throws(CheckpointError) {
        let tensor = try self.checked(tensor, name: name, shape: shape)
        tensor.withUnsafeBytes { UnsafeMutableRawBufferPointer(target).copyMemory(from: $0) }
    }

    private static func mismatch(
        _ tensor: TensorView?,
        _ dtype: String,
        _ shape: [Int],
        _ name: String
    ) -> CheckpointError {
        let found = tensor.map { "\($0.dtype.safetensorsName) of shape \($0.shape)" } ?? "not there"
        return CheckpointError(
            code: .wrongShape,
            message: "is \(found), not \(dtype) of shape \(shape); resume with the model that saved it",
            tensor: name
        )
    }
}
