// SPDX-License-Identifier: Apache-2.0

internal import SwitchyardTypes
internal import TensorKernels

/// The gradients of feed-forward networks' input rows, with weights that stay as they are.
///
/// The products before the activation are computed again. Each sum is one chain in the order in which training computes it
/// (`FeedForwards` of `SwitchTraining`), so the bits are the same, whichever rows are computed together.
struct FeedForwardGradient {
    /// A network and how many of the rows are its own.
    struct Part {
        let weights: FeedForwardWeights
        let rows: Int
    }

    let parts: [Part]
    /// `d_model`.
    let modelWidth: Int
    /// `d_ff`.
    let width: Int
    let activation: Activation
    let pool: WorkPool
    /// Where to pause; nowhere where nil.
    let pauses: WorkPauses?

    /// Floats of weights that are unpacked at a time where nothing pauses.
    private static let unpackedFloats = 1 << 18

    private var stride: Int { FeedForward.innerStride(width: self.width) }

    /// Computes the gradients.
    ///
    /// - Parameters:
    ///   - tokens: The networks' input rows, `[rows, d_model]`, those of the first part first.
    ///   - outputGradients: The gradients of their output rows, `[rows, d_model]`.
    ///   - inputGradients: Room for `[rows, d_model]`, which overlaps neither.
    func run(
        tokens: UnsafePointer<Float>,
        outputGradients: UnsafePointer<Float>,
        inputGradients: UnsafeMutablePointer<Float>
    ) {
        let rows = self.parts.reduce(0) { $0 + $1.rows }
        let isGated = self.parts.contains { $0.weights.factor != nil }
        let inner = FloatMatrix.temporary(rows: rows, columns: self.stride)
        let gradient = FloatMatrix.temporary(rows: rows, columns: self.stride)
        let factor = isGated ? FloatMatrix.temporary(rows: rows, columns: self.stride) : nil
        let factorGradient = isGated ? FloatMatrix.temporary(rows: rows, columns: self.stride) : nil
        self.forward(tokens, inner: inner, factor: factor)
        self.multiply(
            by: \.wo,
            outputGradients,
            stride: self.modelWidth,
            into: gradient.pointer,
            stride: self.stride
        )
        self.activationBackward(inner, gradient, factor, factorGradient)
        self.multiply(
            by: \.inner,
            gradient.pointer,
            stride: self.stride,
            into: inputGradients,
            stride: self.modelWidth
        )
        guard let factorGradient else { return }
        self.multiply(
            by: \.gate,
            factorGradient.pointer,
            stride: self.stride,
            into: inputGradients,
            stride: self.modelWidth,
            accumulates: true
        )
    }

    private func isPlainReLU(_ factor: FloatMatrix?) -> Bool { self.activation == .relu && factor == nil }

    /// The products before the activation; rectified where relu has no gate.
    private func forward(_ tokens: UnsafePointer<Float>, inner: FloatMatrix, factor: FloatMatrix?) {
        var products: [Product] = []
        var row = 0
        for part in self.parts {
            let input = tokens + row * self.modelWidth
            for (matrix, target) in [(part.weights.inner, inner), (part.weights.factor, factor)] {
                guard let matrix, let target else { continue }
                products.append(
                    Product(
                        matrix,
                        input: input,
                        rows: part.rows,
                        output: target.pointer + row * self.stride,
                        outputStride: self.stride,
                        relu: self.isPlainReLU(factor) && part.weights.biases == nil
                    )
                )
            }
            row += part.rows
        }
        self.pool.run(products, pauses: self.pauses)
        row = 0
        for part in self.parts {
            defer { row += part.rows }
            guard let biases = part.weights.biases else { continue }
            let offset = row * self.stride
            biases.inner.add(to: inner.pointer + offset, stride: self.stride, rows: part.rows, pool: self.pool)
            if let factor {
                biases.factor?
                    .add(
                        to: factor.pointer + offset,
                        stride: self.stride,
                        rows: part.rows,
                        pool: self.pool
                    )
            } else if self.activation == .relu {
                let (width, stride) = (self.width, self.stride)
                WorkPool.share(part.rows, width: width, among: self.pool) { rows in
                    for row in rows {
                        Activation.relu.apply(inner.pointer + offset + row * stride, count: width)
                    }
                }
            }
        }
    }

    private func activationBackward(
        _ inner: FloatMatrix,
        _ gradient: FloatMatrix,
        _ factor: FloatMatrix?,
        _ factorGradient: FloatMatrix?
    ) {
        let isPlainReLU = self.isPlainReLU(factor)
        let (width, stride, activation) = (self.width, self.stride, self.activation)
        // An element is read and written in the time of some eight multiply-adds.
        let step = self.pauses?.items(of: 8 * width, threads: self.pool.threadCount) ?? inner.rows
        for start in Swift.stride(from: 0, to: inner.rows, by: max(1, step)) {
            let count = min(step, inner.rows - start)
            WorkPool.share(count, width: 2 * width, among: self.pool) { rows in
                withUnsafeTemporaryAllocation(of: Float.self, capacity: width) { room in
                    guard let room = room.baseAddress else { return }
                    for row in rows {
                        let offset = (start + row) * stride
                        if isPlainReLU {
                            Activation.reluBackward(
                                gradient.pointer + offset,
                                hidden: inner.pointer + offset,
                                count: width
                            )
                            continue
                        }
                        var gate: (value: UnsafePointer<Float>, gradient: UnsafeMutablePointer<Float>)?
                        if let factor, let factorGradient {
                            gate = (UnsafePointer(factor.pointer + offset), factorGradient.pointer + offset)
                        }
                        activation.backward(
                            gradient.pointer + offset,
                            inner: inner.pointer + offset,
                            factor: gate,
                            room: room,
                            count: width
                        )
                    }
                }
            }
            self.pauses?.pause()
        }
    }

    /// `dx = dy W` or `dx += dy W` for each part's matrix, some columns at a time, whose weights are unpacked just before.
    private func multiply(
        by matrix: KeyPath<FeedForwardWeights, PackedMatrix>,
        _ outputGradients: UnsafePointer<Float>,
        stride: Int,
        into inputGradients: UnsafeMutablePointer<Float>,
        stride inputStride: Int,
        accumulates: Bool = false
    ) {
        var row = 0
        for part in self.parts {
            let packed = part.weights[keyPath: matrix]
            let depth = packed.outputs
            let threads = self.pool.threadCount
            let together =
                self.pauses?.columns(depth: depth, rows: part.rows, threads: threads)
                ?? max(1, Self.unpackedFloats / (depth * PackedLayout.panelColumns)) * PackedLayout.panelColumns
            let step = min(packed.inputs, together)
            let weights = FloatMatrix.temporary(rows: step, columns: depth)
            for first in Swift.stride(from: 0, to: packed.inputs, by: step) {
                let inputs = first..<min(first + step, packed.inputs)
                WorkPool.share(inputs.count, width: depth, among: self.pool) { range in
                    let part = inputs.lowerBound + range.lowerBound..<inputs.lowerBound + range.upperBound
                    packed.unpack(inputs: part, intoTransposed: weights.pointer + range.lowerBound * depth)
                }
                let product = MatrixProduct(
                    MatrixOperand(outputGradients + row * stride, stride: stride),
                    MatrixOperand(weights.pointer, stride: depth, isTransposed: true),
                    rows: part.rows,
                    depth: depth,
                    columns: inputs.count,
                    into: inputGradients + row * inputStride + first,
                    outputStride: inputStride,
                    accumulates: accumulates
                )
                self.pool.multiply([product])
                self.pauses?.pause()
            }
            row += part.rows
        }
    }
}

extension FeedForwardWeights {
    /// The second matrix of a gated network; of others, which have none, the first.
    fileprivate var gate: PackedMatrix { self.factor ?? self.inner }
}
