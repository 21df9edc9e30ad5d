// SPDX-License-Identifier: Apache-2.0

import Checkpoints
import SwitchModel
import SwitchyardTypes
import TensorKernels
import Testing

@testable import SwitchTraining

@Suite("A step's bits")
struct SameBitsTests {
    /// Wide enough that threads share the work, with everything random switched on.
    static func busy(recomputes: Bool = false, capacity: CapacityPolicy = .factor(1)) -> TrainingCase {
        var test = ModelGradientTests.make(
            "busy",
            lengths: [(33, 20), (1, 3), (40, 1), (17, 29), (25, 25), (9, 30)]
        ) { settings in
            settings.dropout = 0.1
            settings.expertDropout = 0.3
            settings.jitter = 0.02
            settings.balance = 0.1
            settings.routerZ = 0.01
            settings.softmaxZ = 0.001
            settings.labelSmoothing = 0.05
            settings.recomputesBlocks = recomputes
            settings.capacity = capacity
        } _: {
            $0.vocabularySize = 150
            $0.modelWidth = 48
            $0.keyWidth = 16
            $0.feedForwardWidth = 70
            $0.routerBias = true
        }
        test.name = "busy"
        return test
    }

    static func expectSame(
        _ a: (StepReport, Gradients),
        _ b: (StepReport, Gradients),
        _ what: Comment
    ) {
        #expect(a.0 == b.0, what)
        #expect(a.1.touched == b.1.touched, what)
        #expect(a.1.values.all.elementsEqual(b.1.values.all) { $0.bitPattern == $1.bitPattern }, what)
    }

    @Test("The threads do not show", arguments: [2, 3])
    func threads(count: Int) throws {
        let test = Self.busy()
        Self.expectSame(try test.gradients(), try test.gradients(threads: count), "\(count) threads")
    }

    @Test("The instruction set does not show", arguments: KernelLevel.available)
    func levels(level: KernelLevel) throws {
        let test = Self.busy()
        Self.expectSame(try test.gradients(), try test.gradients(threads: 2, level: level), "\(level.name)")
    }

    @Test("Computing blocks again does not show")
    func recomputation() throws {
        Self.expectSame(try Self.busy().gradients(), try Self.busy(recomputes: true).gradients(), "recomputed")
    }

    @Test("Computing blocks again takes less than half the memory for the same bits")
    func recomputationMemory() throws {
        // Long enough for the arena to grow several times: attention probabilities alone are 2 MB a layer.
        func pass(recomputes: Bool) throws -> (result: (StepReport, Gradients), bytes: Int) {
            let test = ModelGradientTests.make("deep", lengths: Array(repeating: (180, 180), count: 4)) {
                $0.dropout = 0.1
                $0.jitter = 0.02
                $0.recomputesBlocks = recomputes
            } _: {
                $0.headCount = 4
                $0.encoderBlocks = 6
                $0.decoderBlocks = 6
            }
            let step = try TrainingStep(test.configuration, settings: test.settings, pool: WorkPool(threads: 2))
            let gradients = Gradients(layout: step.layout)
            let report = try step.gradients(test.batch, weights: try test.weights(), into: gradients, step: 3)
            return ((report, gradients), step.activationBytes)
        }
        let (kept, recomputed) = (try pass(recomputes: false), try pass(recomputes: true))
        Self.expectSame(kept.result, recomputed.result, "recomputed")
        #expect(2 * recomputed.bytes < kept.bytes, "\(recomputed.bytes) and \(kept.bytes) bytes")
    }

    @Test(
        "How a step is cut into parts does not show",
        arguments: [[0..<1, 1..<6], [0..<3, 3..<6], [0..<1, 1..<2, 2..<3, 3..<4, 4..<5, 5..<6]],
        [CapacityPolicy.factor(1), .unlimited]
    )
    func parts(parts: [Range<Int>], capacity: CapacityPolicy) throws {
        let test = Self.busy(capacity: capacity)
        let whole = try test.gradients(threads: 2)
        if case .factor = capacity { #expect(whole.0.dropped > 0) }
        Self.expectSame(whole, try test.gradients(parts: parts, threads: 2), "\(parts)")
    }

    @Test("A second step in the same memory is the step itself")
    func repeated() throws {
        let test = Self.busy()
        let step = try TrainingStep(test.configuration, settings: test.settings, pool: WorkPool(threads: 2))
        let weights = try test.weights()
        let gradients = Gradients(layout: step.layout)
        _ = try step.gradients(test.batch, weights: weights, into: gradients, step: 1)
        let first = try step.gradients(test.batch, weights: weights, into: gradients, step: 3)
        let bytes = step.activationBytes
        _ = try step.evaluate(test.batch, weights: weights)
        Self.expectSame((first, gradients), try test.gradients(), "again")
        #expect(step.activationBytes == bytes)
    }

    @Test("Other seeds and steps draw other numbers")
    func seeds() throws {
        var test = Self.busy()
        let first = try test.gradients().0.loss
        #expect(try test.gradients(step: 4).0.loss != first)
        test.settings.seed = 1
        #expect(try test.gradients().0.loss != first)
    }

    @Test("Steps before do not show: neither their gradients, nor their memory, nor the experts that they used")
    func stepsBefore() throws {
        let test = Self.busy(capacity: .unlimited)
        let step = try TrainingStep(test.configuration, settings: test.settings, pool: WorkPool(threads: 2))
        let weights = try test.weights()
        let gradients = Gradients(layout: step.layout)
        var small = test
        // Four tokens leave experts without any.
        small.batch = TrainingBatch([test.batch.examples[1]])
        for (number, batch) in [test.batch, small.batch, test.batch, small.batch].enumerated() {
            let report = try step.gradients(batch, weights: weights, into: gradients, step: number)
            var alone = test
            alone.batch = batch
            Self.expectSame((report, gradients), try alone.gradients(step: number), "step \(number)")
            #expect(step.times.forward > 0 && step.times.head > 0 && step.times.backward > 0 && step.times.finish > 0)
        }
        #expect(gradients.touched.contains(false))
    }
}
