// SPDX-License-Identifier: Apache-2.0

import Checkpoints
import SwitchyardTypes
import TensorKernels
import Testing

@testable import SwitchTraining

/// Activations and their slopes by their textbook formulas.
enum NaiveActivation {
    private static func logistic(_ x: Rounded) -> Rounded {
        if x.value >= 0 { return .one / (.one + (-x).exponential) }
        let power = x.exponential
        return power / (.one + power)
    }

    /// The argument of the tanh in gelu's approximation, and its slope.
    private static func inner(_ x: Rounded) -> (value: Rounded, slope: Rounded) {
        let factor = Rounded((2 / Double.pi).squareRoot())
        return (
            factor * (x + Rounded(0.044715) * (x * x * x)),
            factor * (.one + Rounded(3 * 0.044715) * (x * x))
        )
    }

    static func value(_ activation: ModelConfiguration.Activation, _ x: Rounded) -> Rounded {
        let half = Rounded(0.5)
        switch activation {
        case .relu: return .larger(x, .zero)
        case .relu6: return -Rounded.larger(-Rounded.larger(x, .zero), Rounded(-6.0))
        case .squaredReLU: return .larger(x, .zero) * .larger(x, .zero)
        case .tanh: return x.hyperbolicTangent
        case .silu: return x * Self.logistic(x)
        case .quickGELU: return x * Self.logistic(Rounded(1.702) * x)
        case .gelu: return half * x * (.one + (x * Rounded(0.5.squareRoot())).errorFunction)
        case .geluTanh: return half * x * (.one + Self.inner(x).value.hyperbolicTangent)
        }
    }

    static func slope(_ activation: ModelConfiguration.Activation, _ x: Rounded) -> Rounded {
        let half = Rounded(0.5)
        switch activation {
        case .relu: return x.isAbove(0)
        case .relu6: return x.isAbove(0) * (.one - x.isAbove(6))
        case .squaredReLU: return Rounded(2.0) * .larger(x, .zero)
        case .tanh: return .one - x.hyperbolicTangent * x.hyperbolicTangent
        case .silu:
            let s = Self.logistic(x)
            return s + x * (s * (.one - s))
        case .quickGELU:
            let s = Self.logistic(Rounded(1.702) * x)
            return s + x * (s * (.one - s)) * Rounded(1.702)
        case .gelu:
            let density = (-(half * (x * x))).exponential * Rounded(1 / (2 * Double.pi).squareRoot())
            return half * (.one + (x * Rounded(0.5.squareRoot())).errorFunction) + x * density
        case .geluTanh:
            let inner = Self.inner(x)
            let t = inner.value.hyperbolicTangent
            return half * (.one + t) + half * x * ((.one - t * t) * inner.slope)
        }
    }
}

/// `wo(mask * activation(wi x))`, or `wo(mask * activation(wi_0 x) * (wi_1 x))`.
struct NaiveFeedForward {
    var activation: ModelConfiguration.Activation
    var isGated: Bool
    /// `wi` and `wo`, or `wi_0`, `wi_1` and `wo`.
    var weights: [Grid]
    /// What dropout multiplies an element of a hidden row with.
    var mask: (_ row: Int, _ column: Int) -> Rounded

    private func hidden(_ inner: Grid, _ factor: Grid?) -> Grid {
        var hidden = inner
        for row in 0..<inner.rows {
            for column in 0..<inner.columns {
                var value = NaiveActivation.value(self.activation, inner[row, column])
                if let factor { value = value * factor[row, column] }
                hidden[row, column] = value * self.mask(row, column)
            }
        }
        return hidden
    }

    func forward(_ x: Grid) -> Grid {
        let inner = NaiveLinear.forward(x, self.weights[0])
        let factor = self.isGated ? NaiveLinear.forward(x, self.weights[1]) : nil
        return NaiveLinear.forward(self.hidden(inner, factor), self.weights[self.weights.count - 1])
    }

    /// The gradients of the input and of each matrix.
    func backward(_ x: Grid, _ dy: Grid) -> (dx: Grid, weights: [Grid]) {
        let inner = NaiveLinear.forward(x, self.weights[0])
        let factor = self.isGated ? NaiveLinear.forward(x, self.weights[1]) : nil
        let last = self.weights[self.weights.count - 1]
        var dInner = NaiveLinear.inputGradient(dy, last)
        var dFactor = dInner
        for row in 0..<inner.rows {
            for column in 0..<inner.columns {
                let gradient = dInner[row, column] * self.mask(row, column)
                let slope = NaiveActivation.slope(self.activation, inner[row, column])
                dInner[row, column] = gradient * (factor.map { $0[row, column] } ?? .one) * slope
                dFactor[row, column] = gradient * NaiveActivation.value(self.activation, inner[row, column])
            }
        }
        let dLast = NaiveLinear.weightGradient(dy, self.hidden(inner, factor))
        let dFirst = NaiveLinear.weightGradient(dInner, x)
        let dx = NaiveLinear.inputGradient(dInner, self.weights[0])
        guard self.isGated else { return (dx, [dFirst, dLast]) }
        return (
            NaiveLinear.inputGradient(dFactor, self.weights[1], addingTo: dx),
            [dFirst, NaiveLinear.weightGradient(dFactor, x), dLast]
        )
    }
}

@Suite("Feed-forward networks against float64")
struct FeedForwardTests {
    struct Network: Sendable, CustomTestStringConvertible {
        var activation: ModelConfiguration.Activation
        var isGated: Bool
        var width = 7
        var hidden = 33
        var dropout = 0.0
        /// The rows of each expert; a dense network where nil.
        var experts: [Int]?
        var rows = 5

        var testDescription: String {
            "\(self.isGated ? "gated" : "plain") \(self.activation), \(self.width) -> \(self.hidden),"
                + " dropout \(self.dropout), \(self.experts.map { "experts with \($0) rows" } ?? "\(self.rows) rows")"
        }
    }

    static let networks: [Network] = ModelConfiguration.Activation.allCases.flatMap { activation in
        [false, true]
            .flatMap { isGated in
                [
                    Network(activation: activation, isGated: isGated),
                    Network(activation: activation, isGated: isGated, width: 1, hidden: 1, rows: 1),
                    Network(activation: activation, isGated: isGated, hidden: 17, dropout: 0.4),
                    Network(activation: activation, isGated: isGated, hidden: 9, dropout: 0.2, experts: [3, 0, 1]),
                ]
            }
    }

    /// Where each row stands: in the order of dispatched rows, so anywhere.
    static func place(_ row: Int) -> (sequence: Int, position: Int) { (3 + row % 2, 7 * row % 5) }

    static func reference(
        _ network: Network,
        _ bench: OperationBench,
        _ matrices: [Weight],
        firstRow: Int
    ) -> NaiveFeedForward {
        let random = NaiveRandom(seed: bench.run.settings.seed, step: 9)
        return NaiveFeedForward(
            activation: network.activation,
            isGated: network.isGated,
            weights: matrices.map { bench.grid($0) }
        ) { row, column in
            let place = Self.place(firstRow + row)
            return random.mask(
                RandomSite(kind: .inner, stack: .encoder, block: 1),
                rate: network.dropout,
                sequence: place.sequence,
                position: place.position,
                column: column
            )
        }
    }

    @Test("Outputs and gradients", arguments: Self.networks)
    func network(_ network: Network) throws {
        let configuration = ParameterTests.tiny {
            $0.activation = network.activation
            $0.gatedFeedForward = network.isGated
            $0.modelWidth = network.width
            $0.feedForwardWidth = network.hidden
        }
        let bench = try OperationBench(configuration, step: 9) { $0.dropout = network.dropout }
        let blocks = try #require(bench.parameters.blocks[.encoder])
        let all = try network.experts == nil ? [#require(blocks[0].dense)] : #require(blocks[1].sparse).experts
        var next = 0
        let counts = network.experts ?? [network.rows]
        let groups = zip(all, counts)
            .map { parameters, count in
                defer { next += count }
                return FeedForwards.Group(parameters: parameters, rows: next..<next + count)
            }
        let networks = FeedForwards(
            run: bench.run,
            // Experts without a row are no group, as in a plan.
            groups: groups.filter { !$0.rows.isEmpty },
            dropout: bench.run.dropout(.inner, .encoder, 1),
            place: Self.place
        )
        let x = bench.rows(next, network.width, seed: 1, scale: 3)
        let (y, dx) = (bench.garbage(next, network.width), bench.garbage(next, network.width))
        let kept = networks.forward(x, into: y)
        let dy = bench.rows(next, network.width, seed: 2)
        networks.backward(kept, outputGradient: dy, inputGradient: dx, gradients: bench.gradients)
        for (index, group) in groups.enumerated() {
            let matrices = [group.parameters.inner, group.parameters.factor, group.parameters.wo].compactMap { $0 }
            for matrix in matrices { #expect(bench.gradients.touched[matrix.index] == !group.rows.isEmpty) }
            guard !group.rows.isEmpty else { continue }
            let reference = Self.reference(network, bench, matrices, firstRow: group.rows.lowerBound)
            let name = "network \(index)"
            let rows = Grid(x.slice(group.rows))
            expectRounded(Grid(y.slice(group.rows)), reference.forward(rows), "\(name): y", scale: 1)
            let expected = reference.backward(rows, Grid(dy.slice(group.rows)))
            expectRounded(Grid(dx.slice(group.rows)), expected.dx, "\(name): dx", scale: 1)
            for (matrix, gradient) in zip(matrices, expected.weights) {
                let entry = bench.gradients.values.layout.entries[matrix.index]
                expectRounded(bench.gradient(matrix), gradient, "\(name): \(entry.name)", scale: 1)
            }
        }
        #expect(
            bench.gradients.touched.count { $0 } == groups.count { !$0.rows.isEmpty } * (network.isGated ? 3 : 2)
        )
    }

    @Test("The reference's gradients are slopes", arguments: ModelConfiguration.Activation.allCases, [false, true])
    func slopes(activation: ModelConfiguration.Activation, isGated: Bool) {
        func grid(_ rows: Int, _ columns: Int, _ seed: UInt32) -> Grid {
            Grid((0..<rows * columns).map { 2 * TrainingCase.number($0, seed: seed) }, rows, columns)
        }
        let x = grid(3, 4, 1)
        let dy = grid(3, 4, 2)
        let weights = [grid(6, 4, 3)] + (isGated ? [grid(6, 4, 4)] : []) + [grid(4, 6, 5)]
        func network(_ weights: [Grid]) -> NaiveFeedForward {
            NaiveFeedForward(activation: activation, isGated: isGated, weights: weights) { row, column in
                Rounded(Float((row + column) % 3))
            }
        }
        let gradients = network(weights).backward(x, dy)
        expectSlopes([x] + weights, [gradients.dx] + gradients.weights, step: 1e-5) {
            network(Array($0.dropFirst())).forward($0[0]).along(dy)
        }
    }
}
