// SPDX-License-Identifier: Apache-2.0

internal import Checkpoints
internal import SwitchModel
internal import SwitchyardTypes
internal import TensorKernels

/// What feed-forward networks keep for their backward pass.
struct FeedForwardActivations {
    let input: Rows
    /// `wi x`, before the activation; nil where the hidden rows tell enough (relu without a gate).
    let inner: Rows?
    /// `wi_1 x` of gated networks.
    let factor: Rows?
    /// The activations after dropout: what `wo` is multiplied with.
    let hidden: Rows
}

/// Feed-forward networks, dense or experts, each over a range of rows: `wo(activation(wi x))`, or
/// `wo(activation(wi_0 x) * (wi_1 x))`, each product with its bias in families that have biases.
struct FeedForwards {
    /// One network and its rows.
    struct Group {
        let parameters: FeedForwardParameters
        let rows: Range<Int>
    }

    let run: PartRun
    let groups: [Group]
    let dropout: Dropout?
    /// The sequence and position of each row.
    let place: (Int) -> (sequence: Int, position: Int)

    private var activation: Activation { Activation(self.run.configuration.activation) }
    private var isGated: Bool { self.run.configuration.gatedFeedForward }
    private var isPlainReLU: Bool { self.activation == .relu && !self.isGated }

    func forward(_ input: Rows, into output: Rows) -> FeedForwardActivations {
        let kept = self.activations(of: input)
        self.run.pool.multiply(
            self.groups.map { group in
                Linear.forward(
                    self.run,
                    group.parameters.wo,
                    kept.hidden.slice(group.rows),
                    into: output.slice(group.rows)
                )
            },
            level: self.run.level
        )
        for group in self.groups {
            Linear.addBias(self.run, group.parameters.wo, to: output.slice(group.rows))
        }
        return kept
    }

    /// Computes what the backward pass needs, without the outputs.
    func activations(of input: Rows) -> FeedForwardActivations {
        let run = self.run
        let width = run.configuration.feedForwardWidth
        let hidden = run.arena.rows(input.count, columns: width)
        let inner = self.isPlainReLU ? nil : run.arena.rows(input.count, columns: width)
        let factor = self.isGated ? run.arena.rows(input.count, columns: width) : nil
        var products: [MatrixProduct] = []
        products.reserveCapacity(2 * self.groups.count)
        for group in self.groups {
            let rows = input.slice(group.rows)
            let target = (inner ?? hidden).slice(group.rows)
            products.append(
                Linear.forward(
                    run,
                    group.parameters.inner,
                    rows,
                    into: target,
                    relu: self.isPlainReLU && group.parameters.inner.bias == nil
                )
            )
            if let weight = group.parameters.factor, let factor {
                products.append(Linear.forward(run, weight, rows, into: factor.slice(group.rows)))
            }
        }
        run.pool.multiply(products, level: run.level)
        for group in self.groups {
            let target = (inner ?? hidden).slice(group.rows)
            Linear.addBias(run, group.parameters.inner, to: target, relu: self.isPlainReLU)
            if let weight = group.parameters.factor, let factor {
                Linear.addBias(run, weight, to: factor.slice(group.rows))
            }
        }
        run.settle(inner)
        run.settle(factor)
        if inner != nil || self.dropout != nil {
            run.share(input.count, width: 2 * width) { range in
                for row in range {
                    if let inner {
                        hidden.row(row).update(from: inner.row(row), count: width)
                        let factors = factor.map { UnsafePointer($0.row(row)) }
                        self.activation.apply(hidden.row(row), times: factors, count: width, level: run.level)
                    }
                    self.dropout?.apply(hidden.row(row), count: width, place: self.place(row))
                }
            }
        }
        run.settle(hidden)
        return FeedForwardActivations(input: input, inner: inner, factor: factor, hidden: hidden)
    }

    /// Adds to the weights' gradients, and computes the input's, unless there is no place for it.
    func backward(
        _ kept: FeedForwardActivations,
        outputGradient: Rows,
        inputGradient: Rows?,
        gradients: Gradients
    ) {
        let run = self.run
        let mark = run.arena.mark
        defer { run.arena.release(to: mark) }
        let width = run.configuration.feedForwardWidth
        let inner = run.arena.rows(kept.input.count, columns: width)
        let factor = self.isGated ? run.arena.rows(kept.input.count, columns: width) : nil
        var products: [MatrixProduct] = []
        for group in self.groups {
            let dy = outputGradient.slice(group.rows)
            products.append(Linear.inputGradient(run, group.parameters.wo, dy, into: inner.slice(group.rows)))
            products.append(
                Linear.weightGradient(gradients, group.parameters.wo, dy, kept.hidden.slice(group.rows))
            )
            Linear.biasGradient(run, gradients, group.parameters.wo, dy)
        }
        run.pool.multiply(products, level: run.level)
        self.activationBackward(kept, inner: inner, factor: factor)
        run.settle(inner)
        run.settle(factor)
        products.removeAll(keepingCapacity: true)
        for group in self.groups {
            let rows = kept.input.slice(group.rows)
            let dz = inner.slice(group.rows)
            if let inputGradient {
                products.append(
                    Linear.inputGradient(run, group.parameters.inner, dz, into: inputGradient.slice(group.rows))
                )
            }
            products.append(Linear.weightGradient(gradients, group.parameters.inner, dz, rows))
            Linear.biasGradient(run, gradients, group.parameters.inner, dz)
            if let weight = group.parameters.factor, let factor {
                products.append(Linear.weightGradient(gradients, weight, factor.slice(group.rows), rows))
                Linear.biasGradient(run, gradients, weight, factor.slice(group.rows))
            }
        }
        run.pool.multiply(products, level: run.level)
        guard let factor, let inputGradient else { return }
        // A second product adds to what the first one wrote.
        run.pool.multiply(
            self.groups.compactMap { group in
                group.parameters.factor.map { weight in
                    Linear.inputGradient(
                        run,
                        weight,
                        factor.slice(group.rows),
                        into: inputGradient.slice(group.rows),
                        accumulates: true
                    )
                }
            },
            level: run.level
        )
    }

    /// Turns the hidden rows' gradients, in `inner`, into those of the products before the activation.
    private func activationBackward(_ kept: FeedForwardActivations, inner: Rows, factor: Rows?) {
        let run = self.run
        let width = run.configuration.feedForwardWidth
        let activation = self.activation
        run.share(inner.count, width: 2 * width) { range in
            withUnsafeTemporaryAllocation(of: Float.self, capacity: width) { room in
                guard let room = room.baseAddress else { return }
                for row in range {
                    let gradient = inner.row(row)
                    self.dropout?.apply(gradient, count: width, place: self.place(row))
                    guard let z = kept.inner?.row(row) else {
                        // Where dropout or relu made a hidden number 0, nothing flows back.
                        Activation.reluBackward(gradient, hidden: kept.hidden.row(row), count: width, level: run.level)
                        continue
                    }
                    var gate: (value: UnsafePointer<Float>, gradient: UnsafeMutablePointer<Float>)?
                    if let factor, let kept = kept.factor {
                        gate = (UnsafePointer(kept.row(row)), factor.row(row))
                    }
                    activation.backward(gradient, inner: z, factor: gate, room: room, count: width, level: run.level)
                }
            }
        }
    }
}
