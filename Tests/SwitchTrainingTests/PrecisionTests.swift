// SPDX-License-Identifier: Apache-2.0

import Checkpoints
import Foundation
import SwitchModel
import SwitchyardTypes
import TensorKernels
import Testing

@testable import SwitchTraining

@Suite("Selective precision")
struct PrecisionTests {
    /// How far PyTorch's bfloat16 model with float32 routers is from float64.
    struct TorchErrors: Decodable {
        var lossError: Double
        var errors: [String: Double]

        static let folder = TorchGradients.folder.deletingLastPathComponent().appending(path: "bfloat16")

        static func load(_ name: String) throws -> TorchErrors {
            try JSONDecoder().decode(Self.self, from: Data(contentsOf: Self.folder.appending(path: "\(name).json")))
        }
    }

    @Test(
        "Loss and gradients are as near to float64 as those of PyTorch's bfloat16",
        arguments: try TorchGradients.names(in: TorchErrors.folder)
    )
    func errors(name: String) throws {
        let torch = try TorchGradients.load(name)
        let allowed = try TorchErrors.load(name)
        var test = torch.test(named: name)
        test.settings.precision = .bfloat16
        let reference = ReferenceModel(test.configuration, settings: test.settings, weights: try test.weights())
        reference.tape.backward(reference.loss(test.batch))
        let (report, gradients) = try test.gradients(threads: 2)
        // One number's error may be small by chance: the limit is PyTorch's greatest of all cases.
        let lossErrors = try TorchGradients.names(in: TorchErrors.folder).map { try TorchErrors.load($0).lossError }
        let lossLimit = try #require(lossErrors.max())
        #expect(abs(report.loss - torch.loss) <= lossLimit * abs(torch.loss))
        var ratios: [Double] = []
        for (index, entry) in gradients.values.layout.entries.enumerated() {
            guard let limit = allowed.errors[entry.name] else {
                #expect(!gradients.touched[index], "\(entry.name)")
                continue
            }
            let expected = try #require(reference.parameters[entry.name]?.gradient)
            let error = relativeError(gradients.values[index].lazy.map(Double.init), expected)
            // Which numbers round where is chance: single tensors may be further off, but not all of them.
            #expect(error <= 2.5 * limit, "\(entry.name): \(error), PyTorch's \(limit)")
            ratios.append(error / limit)
        }
        let mean = ratios.reduce(0, +) / Double(ratios.count)
        #expect(mean <= 1.1 && mean > 0.1, "on average \(mean) times PyTorch's error")
    }

    private static func busy(recomputes: Bool = false) -> TrainingCase {
        var test = SameBitsTests.busy(recomputes: recomputes)
        test.settings.precision = .bfloat16
        return test
    }

    @Test("Neither threads, nor the instruction set, nor parts show", arguments: KernelLevel.available)
    func sameBits(level: KernelLevel) throws {
        let first = try Self.busy().gradients(level: .scalar)
        for threads in [2, 3] {
            SameBitsTests.expectSame(first, try Self.busy().gradients(threads: threads, level: level), "\(level.name)")
        }
        let parts = [0..<1, 1..<4, 4..<6]
        SameBitsTests.expectSame(first, try Self.busy().gradients(parts: parts, level: level), "\(level.name), parts")
    }

    @Test("Activations that are packed to bfloat16 are those that are computed again")
    func packed() throws {
        SameBitsTests.expectSame(try Self.busy().gradients(), try Self.busy(recomputes: true).gradients(), "packed")
        let test = Self.busy()
        let step = try TrainingStep(test.configuration, settings: test.settings, pool: WorkPool(threads: 2))
        let gradients = Gradients(layout: step.layout)
        _ = try step.gradients(test.batch, weights: try test.weights(), into: gradients, step: 1)
        let again = try step.gradients(test.batch, weights: try test.weights(), into: gradients, step: 3)
        SameBitsTests.expectSame((again, gradients), try test.gradients(), "a second step in the same memory")
    }

    @Test("What is kept takes about half the memory")
    func memory() throws {
        func bytes(_ precision: TrainingPrecision) throws -> Int {
            let test = ModelGradientTests.make("deep", lengths: [(300, 300)]) { settings in
                settings.precision = precision
            } _: {
                $0.modelWidth = 64
                $0.keyWidth = 16
                $0.headCount = 4
                $0.feedForwardWidth = 256
                $0.encoderBlocks = 12
                $0.decoderBlocks = 12
            }
            let step = try TrainingStep(test.configuration, settings: test.settings, pool: WorkPool(threads: 2))
            let gradients = Gradients(layout: step.layout)
            _ = try step.gradients(test.batch, weights: try test.weights(), into: gradients, step: 0)
            return step.activationBytes
        }
        let (half, whole) = (try bytes(.bfloat16), try bytes(.float32))
        #expect(Double(half) < 0.7 * Double(whole), "\(half) of \(whole)")
    }

    @Test("Weights are rounded for the step, routers' are not, and the masters stay")
    func weights() throws {
        var test = ModelGradientTests.make("masters")
        test.settings.precision = .bfloat16
        let step = try TrainingStep(test.configuration, settings: test.settings, pool: WorkPool(threads: 1))
        let masters = try test.weights()
        let rounded = try test.weights()
        for (index, entry) in step.layout.entries.enumerated() where entry.kind != .router {
            for place in rounded[index].indices {
                let bits = rounded[index][place].bitPattern
                // The middle between two bfloat16 numbers goes to the even one; nothing else is near it here.
                let low = Float(bitPattern: bits & 0xFFFF_0000)
                let high = Float(bitPattern: (bits & 0xFFFF_0000) + 0x1_0000)
                let value = rounded[index][place]
                rounded[index][place] = abs(value - low) < abs(high - value) ? low : high
            }
        }
        let gradients = Gradients(layout: step.layout)
        let other = Gradients(layout: step.layout)
        let before = try test.weights()
        let report = try step.gradients(test.batch, weights: masters, into: gradients, step: 0)
        #expect(masters.all.elementsEqual(before.all))
        #expect(try step.gradients(test.batch, weights: rounded, into: other, step: 0) == report)
        #expect(gradients.values.all.elementsEqual(other.values.all))
        let evaluation = try step.evaluate(test.batch, weights: masters)
        #expect(try step.evaluate(test.batch, weights: rounded) == evaluation)
        // A change that bfloat16 does not hold moves a router alone.
        let router = try #require(step.layout.index(of: .router(SparseLayer(stack: .encoder, block: 1))))
        for place in masters[router].indices { masters[router][place] *= 1 + 0x1p-14 }
        #expect(try step.gradients(test.batch, weights: masters, into: other, step: 0) != report)
    }

    @Test("Rounding is that of the kernels, NaN and infinity included")
    func rounding() {
        var values: [Float] = [
            0, -0.0, 1, 1.001, 1.003_906_25, 1.011_718_75, -3.1415, .infinity, -.infinity, .nan,
            .greatestFiniteMagnitude,
            .leastNonzeroMagnitude, 0x1p-130,
        ]
        values += (0..<1_000).map { Float(TrainingCase.number($0, seed: 3) * 100) }
        var bytes = [UInt16](repeating: 0, count: values.count)
        bytes.withUnsafeMutableBytes { target in
            if let base = target.baseAddress { DType.bfloat16.write(values, count: values.count, to: base) }
        }
        let count = values.count
        values.withUnsafeMutableBufferPointer { values in
            if let base = values.baseAddress { Rounding.round(base, count: count) }
        }
        #expect(values.map { UInt16($0.bitPattern >> 16) } == bytes)
        #expect(values.allSatisfy { $0.bitPattern & 0xFFFF == 0 })
    }
}
