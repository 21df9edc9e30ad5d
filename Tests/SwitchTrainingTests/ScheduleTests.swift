// SPDX-License-Identifier: Apache-2.0

import Checkpoints
import Foundation
import TensorKernels
import Testing

@testable import SwitchTraining

@Suite("Learning rates, norms and decay")
struct ScheduleTests {
    private struct Golden: Decodable {
        var name: String
        var warmup: Int
        var total: Int
        var rates: [Double]
    }

    private static let shapes: [String: LearningRateSchedule.Shape] = [
        "constant_with_warmup": .constant, "linear": .linear, "cosine": .cosine,
        "inverse_sqrt": .inverseSquareRoot(timescale: nil), "t5": .t5, "noam": .noam(width: 512),
    ]

    @Test("schedules are those of transformers, T5X and the Transformer's paper")
    func schedules() throws {
        let file = URL(filePath: #filePath).deletingLastPathComponent().appending(path: "Fixtures/schedules.json")
        let goldens = try JSONDecoder().decode([Golden].self, from: Data(contentsOf: file))
        #expect(Set(goldens.map(\.name)) == Set(Self.shapes.keys))
        for golden in goldens {
            let schedule = try LearningRateSchedule(
                peak: 0.25,
                shape: try #require(Self.shapes[golden.name]),
                warmUpSteps: golden.warmup,
                totalSteps: golden.total
            )
            for (step, rate) in golden.rates.enumerated() {
                #expect(abs(schedule.rate(at: step) - rate) <= 1e-14, "\(golden.name) \(golden.warmup) at \(step)")
            }
        }
    }

    @Test(
        "schedules that cannot be meant are refused",
        arguments: [
            (0.0, LearningRateSchedule.Shape.linear, 0, 10), (.nan, .linear, 0, 10), (1, .linear, -1, 10),
            (1, .linear, 0, 0), (1, .t5, 0, 10), (1, .noam(width: 0), 5, 10), (1, .noam(width: 8), 0, 10),
            (1, .inverseSquareRoot(timescale: 0), 5, 10),
        ]
    )
    func refused(peak: Double, shape: LearningRateSchedule.Shape, warmUp: Int, total: Int) {
        let error = #expect(throws: TrainingError.self) {
            try LearningRateSchedule(peak: peak, shape: shape, warmUpSteps: warmUp, totalSteps: total)
        }
        #expect(error?.code == .invalidSettings)
    }

    @Test("powers and cosines agree with the C library")
    func portableMath() {
        for base in [1.0, 1.5, 2, 3, 10, 1234.5, 1e6, 0.3] {
            for exponent in [-0.8, -0.5, -1.7, -3, 0.25, 2] {
                let value = PortableMath.power(base, exponent)
                #expect(abs(value / pow(base, exponent) - 1) < 2e-14, "\(base) \(exponent)")
            }
        }
        for count in [0, 1, 2, 3, 100, 99_999] {
            #expect(abs(PortableMath.power(0.999, count) / pow(0.999, Double(count)) - 1) < 1e-11)
        }
        for turns in stride(from: 0.0, through: 1, by: 1 / 64) {
            #expect(abs(PortableMath.cosine(halfTurns: turns) - cos(turns * .pi)) < 1e-15)
        }
    }

    @Test("a gradient that is not finite is named", arguments: [Float.nan, .infinity, -.infinity])
    func notFinite(value: Float) throws {
        let layout = try OptimizerFixture.layout()
        let gradients = Gradients(layout: layout)
        gradients.values[3][1] = value
        let pool = WorkPool(threads: 1)
        #expect(try GradientNorm.norm(of: gradients, scale: 1, pool: pool) == 0)
        gradients.touched[3] = true
        let error = #expect(throws: TrainingError.self) {
            try GradientNorm.norm(of: gradients, scale: 1, pool: pool)
        }
        #expect(error?.code == .notFinite)
        #expect(error?.message.contains(layout.entries[3].name) == true)
    }

    @Test("clipping shrinks and never grows")
    func clip() {
        #expect(GradientNorm.clipFactor(norm: 4, limit: nil) == 1)
        #expect(GradientNorm.clipFactor(norm: 0.5, limit: 1) == 1)
        #expect(GradientNorm.clipFactor(norm: 4, limit: 1) == 1 / (4 + 1e-6))
        #expect(GradientNorm.clipFactor(norm: 0, limit: 1) == 1)
    }

    @Test("decay leaves out norms and biases, and groups go by name")
    func decay() throws {
        let layout = try ParameterLayout(ParameterTests.tiny { $0.routerBias = true })
        let values = try WeightDecay(0.1).values(for: layout)
        for (entry, value) in zip(layout.entries, values) {
            let isExempt = entry.name.contains("layer_norm") || entry.name.contains("bias")
            #expect((value == 0) == isExempt, "\(entry.name)")
        }
        let groups = try WeightDecay(
            0.1,
            groups: [.init(pattern: "*.router.*", value: 0), .init(pattern: "*.experts.expert_*", value: 0.3)]
        )
        .values(for: layout)
        for (entry, value) in zip(layout.entries, groups) {
            if entry.name.contains("router") { #expect(value == 0) }
            if entry.name.contains("expert_") { #expect(value == 0.3) }
        }
    }

    @Test(
        "patterns",
        arguments: [
            ("*", "", true), ("a*c", "abbc", true), ("a*c", "abcd", false), ("*b*b*", "abab", true), ("", "a", false),
            ("a**c", "ac", true), ("*ab", "aab", true), ("a.c", "abc", false),
        ]
    )
    func patterns(pattern: String, name: String, fits: Bool) {
        #expect(WeightDecay.fits(pattern, name) == fits)
    }
}
