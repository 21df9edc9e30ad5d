// SPDX-License-Identifier: Apache-2.0

package import Checkpoints
internal import SwitchyardTypes
package import TensorKernels

/// The matrices of one feed-forward network, dense or expert.
struct FeedForwardWeights: Sendable {
    /// `[d_ff, d_model]`: the matrix before the activation, `wi0` in a gated network.
    let inner: PackedMatrix

    /// `[d_ff, d_model]`: what a gated network multiplies the activation with, `wi1`; nil in the others.
    let factor: PackedMatrix?

    /// `[d_model, d_ff]`.
    let wo: PackedMatrix

    /// What the matrices add; nil in families without biases.
    let biases: Biases?

    /// What the matrices of a network add.
    struct Biases: Sendable {
        /// `[1, d_ff]`: added before the activation.
        let inner: RowBias

        /// `[1, d_ff]`: added to what a gated network multiplies the activation with.
        let factor: RowBias?

        /// `[1, d_model]`.
        let wo: RowBias

        /// Loads the biases of a network's matrices.
        ///
        /// - Parameters:
        ///   - isGated: Whether the network is gated.
        ///   - load: Loads one of them.
        init(isGated: Bool, load: (FeedForwardMatrix) throws -> RowBias) rethrows {
            self.inner = try load(isGated ? .wi0 : .wi)
            self.factor = isGated ? try load(.wi1) : nil
            self.wo = try load(.wo)
        }

        var byteCount: Int {
            let columns = self.inner.values.columns + (self.factor?.values.columns ?? 0) + self.wo.values.columns
            return columns * MemoryLayout<Float>.stride
        }
    }

    /// Loads the matrices that a configuration calls for.
    ///
    /// - Parameters:
    ///   - isGated: Whether the network is gated.
    ///   - biases: What the matrices add.
    ///   - load: Loads one of the matrices.
    init(isGated: Bool, biases: Biases? = nil, load: (FeedForwardMatrix) throws -> PackedMatrix) rethrows {
        self.inner = try load(isGated ? .wi0 : .wi)
        self.factor = isGated ? try load(.wi1) : nil
        self.wo = try load(.wo)
        self.biases = biases
    }

    /// The bytes of all of them.
    var byteCount: Int {
        self.inner.byteCount + (self.factor?.byteCount ?? 0) + self.wo.byteCount + (self.biases?.byteCount ?? 0)
    }

    /// The types that they are kept in.
    var types: Set<DType> {
        var types: Set<DType> = [self.inner.dtype, self.wo.dtype]
        if let factor = self.factor { types.insert(factor.dtype) }
        return types
    }
}

/// A dense feed-forward sublayer.
///
/// It computes `wo(activation(wi x))`, or `wo(activation(wi0 x) * (wi1 x))` where it is gated.
struct FeedForward: Sendable {
    let weights: FeedForwardWeights

    /// The activation before `wo`.
    let activation: Activation

    /// Elements between the inner activation's rows.
    ///
    /// Rows a multiple of 4 KiB apart would all fall into the same set of the first-level cache, which holds eight of
    /// them; the product reads twelve at once.
    ///
    /// - Parameter width: `d_ff`.
    /// - Returns: The width or a little more.
    static func innerStride(width: Int) -> Int {
        width % 512 == 0 ? width + 16 : width
    }

    /// Computes the sublayer without its residual.
    ///
    /// - Parameters:
    ///   - input: `[tokens, d_model]`.
    ///   - pool: Threads that share the products.
    /// - Returns: `[tokens, d_model]`.
    func callAsFunction(_ input: FloatMatrix, pool: WorkPool) -> FloatMatrix {
        let output = FloatMatrix.temporary(rows: input.rows, columns: self.weights.wo.outputs)
        var work = FeedForwardWork(
            rows: input.rows,
            width: self.weights.inner.outputs,
            isGated: self.weights.factor != nil,
            activation: self.activation,
            pool: pool
        )
        work.add(self.weights, rows: input.rows, input: input.pointer, output: output.pointer)
        work.run()
        return output
    }
}

/// Feed-forward networks to be computed together, each for rows of its own.
struct FeedForwardWork {
    private let activation: Activation
    private let stride: Int
    /// The activations, `[rows, d_ff]`.
    private let inner: FloatMatrix
    /// What gated networks multiply the activations with, `[rows, d_ff]`; nil where they are not gated.
    private let factors: FloatMatrix?
    /// Threads that share the work.
    private let pool: WorkPool
    private let first: ProductList
    private let second: ProductList
    /// The networks with biases, each with its first row and where its outputs go.
    private var biased: [Biased] = []
    private var next = 0

    private struct Biased {
        let biases: FeedForwardWeights.Biases
        let firstRow: Int
        let rows: Int
        let output: UnsafeMutablePointer<Float>
    }

    /// Makes room.
    ///
    /// - Parameters:
    ///   - rows: All rows that will be added.
    ///   - width: `d_ff`.
    ///   - isGated: Whether the networks are gated.
    ///   - activation: Their activation.
    ///   - pool: Threads that share the work.
    init(rows: Int, width: Int, isGated: Bool, activation: Activation, pool: WorkPool) {
        self.activation = activation
        self.stride = FeedForward.innerStride(width: width)
        self.inner = FloatMatrix.temporary(rows: rows, columns: self.stride)
        self.factors = isGated ? FloatMatrix.temporary(rows: rows, columns: self.stride) : nil
        self.pool = pool
        self.first = pool.takeProducts()
        self.second = pool.takeProducts()
    }

    /// Adds a network.
    ///
    /// - Parameters:
    ///   - weights: Its matrices; gated as said when making room.
    ///   - rows: Number of rows.
    ///   - input: `[rows, d_model]`.
    ///   - output: `[rows, d_model]`.
    mutating func add(
        _ weights: FeedForwardWeights,
        rows: Int,
        input: UnsafePointer<Float>,
        output: UnsafeMutablePointer<Float>
    ) {
        let offset = self.next * self.stride
        if let biases = weights.biases {
            self.biased.append(Biased(biases: biases, firstRow: self.next, rows: rows, output: output))
        }
        self.next += rows
        self.first.products.append(
            Product(
                weights.inner,
                input: input,
                rows: rows,
                output: self.inner.pointer + offset,
                outputStride: self.stride,
                relu: self.activation == .relu && weights.biases == nil
            )
        )
        if let matrix = weights.factor, let factors = self.factors {
            let output = factors.pointer + offset
            self.first.products.append(
                Product(matrix, input: input, rows: rows, output: output, outputStride: self.stride)
            )
        }
        let inner = self.inner.pointer + offset
        self.second.products.append(
            Product(weights.wo, input: inner, inputStride: self.stride, rows: rows, output: output)
        )
    }

    /// Computes all, once, and gives the lists back.
    ///
    /// - Parameter pauses: Where to pause; nowhere if omitted.
    func run(pauses: WorkPauses? = nil) {
        let pool = self.pool
        pool.run(self.first.products, pauses: pauses)
        for part in self.biased {
            let offset = part.firstRow * self.stride
            part.biases.inner.add(to: self.inner.pointer + offset, stride: self.stride, rows: part.rows, pool: pool)
            if let factors = self.factors {
                part.biases.factor?
                    .add(
                        to: factors.pointer + offset,
                        stride: self.stride,
                        rows: part.rows,
                        pool: pool
                    )
            }
        }
        // Without biases the products have rectified their results already.
        if self.activation != .relu || self.factors != nil || !self.biased.isEmpty {
            let width = self.second.products.first?.matrix.inputs ?? 0
            WorkPool.share(self.next, width: width, among: pool) { rows in
                for row in rows {
                    let offset = row * self.stride
                    self.activation.apply(
                        self.inner.pointer + offset,
                        times: self.factors.map { UnsafePointer($0.pointer + offset) },
                        count: width
                    )
                }
            }
        }
        pool.run(self.second.products, pauses: pauses)
        for part in self.biased {
            part.biases.wo.add(to: part.output, stride: part.biases.wo.values.columns, rows: part.rows, pool: pool)
        }
        pool.giveBack(self.first)
        pool.giveBack(self.second)
    }
}

extension Activation {
    /// The activation that a configuration names.
    package init(_ activation: ModelConfiguration.Activation) {
        switch activation {
        case .relu: self = .relu
        case .gelu: self = .gelu
        case .geluTanh: self = .geluTanh
        case .silu: self = .silu
        case .quickGELU: self = .quickGELU
        case .tanh: self = .tanh
        case .relu6: self = .relu6
        case .squaredReLU: self = .squaredReLU
        }
    }
}
