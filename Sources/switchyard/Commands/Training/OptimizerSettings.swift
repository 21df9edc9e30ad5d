// SPDX-License-Identifier: Apache-2.0

import Checkpoints
import ServiceKit
import SwitchTraining
import TrainingRuns

/// An optimizer's name.
enum OptimizerName: String, CaseIterable, Sendable {
    case adafactor
    case adamw
    case adam
}

/// A learning rate schedule's name.
enum ScheduleName: String, CaseIterable, Sendable {
    case constant
    case linear
    case cosine
    case inverseSquareRoot = "inverse-sqrt"
    case t5
    case noam
}

/// Settings of what makes new weights of gradients.
struct OptimizerSettings: SettingTable {
    static let table = OptimizerSettings()

    let optimizer = Setting.choice(
        "optimizer",
        of: OptimizerName.allCases,
        default: .adafactor,
        name: \.rawValue,
        placeholder: "name",
        "What makes new weights of gradients; adam is labml's."
    )
    let learningRate = Setting.number("learning-rate", in: 1e-12...1000, default: 1e-3, "The schedule's highest rate.")
    let schedule = Setting.choice(
        "schedule",
        of: ScheduleName.allCases,
        default: .constant,
        name: \.rawValue,
        placeholder: "name",
        "How the learning rate goes on after the warm-up; linear and cosine end at 0 and need --steps."
    )
    let warmUp = Setting.whole(
        "warm-up",
        in: 0...100_000_000,
        default: 0,
        placeholder: "steps",
        "Steps in which the learning rate rises from 0."
    )
    let weightDecay = Setting.number(
        "weight-decay",
        in: 0...1000,
        default: 0,
        "How much weights decay, times the learning rate; not norms and biases."
    )
    let clip = Setting.number("clip", in: 0...1_000_000, default: 1, "The gradients' greatest norm; 0 for any.")
    let beta1 = Setting.number("beta1", in: 0...0.999999, default: 0.9, "How much of Adam's mean gradient stays.")
    let beta2 = Setting.number("beta2", in: 0...0.999999, default: 0.999, "How much of Adam's mean square stays.")
    let epsilon = Setting.number("epsilon", in: 1e-30...1, default: 1e-8, "Added to the root of Adam's mean square.")
    let scaleByWeights = Setting.toggle(
        "scale-by-weights",
        "Make Adam's steps proportional to each tensor's root mean square, as Adafactor's are."
    )

    /// Sets the optimizer and its schedule.
    ///
    /// - Parameters:
    ///   - settings: The settings.
    ///   - plan: The run.
    ///   - configuration: The model.
    /// - Throws: ``Settings/Failure`` naming what cannot be used.
    func apply(_ settings: Settings, to plan: inout RunPlan, of configuration: ModelConfiguration) throws {
        let isLabml = configuration.design.isDecoderOnly
        let width = configuration.modelWidth
        func value<Value>(_ setting: Setting<Value>, labml: Value) throws -> Value {
            isLabml && !settings.isSet(setting) ? labml : try settings.value(setting)
        }
        // labml's experiment has rate 1 with Noam's schedule, and OptimizerConfigs' warm-up of 2000 steps.
        plan.learningRate = try value(self.learningRate, labml: 1)
        let schedule = try value(self.schedule, labml: .noam)
        plan.warmUpSteps =
            schedule == .noam ? try value(self.warmUp, labml: 2000) : try settings.value(self.warmUp)
        let clip = try settings.value(self.clip)
        plan.clipNorm = clip > 0 ? clip : nil
        switch schedule {
        case .constant: plan.schedule = .constant
        case .linear: plan.schedule = .linear
        case .cosine: plan.schedule = .cosine
        case .inverseSquareRoot: plan.schedule = .inverseSquareRoot(timescale: nil)
        case .t5: plan.schedule = .t5
        case .noam: plan.schedule = .noam(width: width)
        }
        let decay = WeightDecay(try settings.value(self.weightDecay))
        switch try value(self.optimizer, labml: .adam) {
        case .adamw, .adam:
            var adam = AdamW.Settings()
            adam.beta1 = try settings.value(self.beta1)
            adam.beta2 = try settings.value(self.beta2)
            adam.epsilon = try settings.value(self.epsilon)
            adam.scaleParameter = try settings.value(self.scaleByWeights)
            adam.decay = decay
            plan.optimizer =
                try value(self.optimizer, labml: .adam) == .adam ? .adam(adam) : .adamW(adam)
        case .adafactor:
            for (key, isSet) in [
                (self.beta1.key, settings.isSet(self.beta1)), (self.beta2.key, settings.isSet(self.beta2)),
                (self.epsilon.key, settings.isSet(self.epsilon)),
                (self.scaleByWeights.key, try settings.value(self.scaleByWeights)),
            ] where isSet {
                throw Settings.Failure(
                    "\(key) is a setting of Adam; leave it out, or set the optimizer to adamw or adam"
                )
            }
            var adafactor = Adafactor.Settings()
            adafactor.relativeStep = false
            // An adapter's B begins as zeros, and steps in proportion to it would be a thousandth of the rate.
            adafactor.scaleParameter = plan.lowRank == nil
            adafactor.decay = decay
            plan.optimizer = .adafactor(adafactor)
        }
    }
}
