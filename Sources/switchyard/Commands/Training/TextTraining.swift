// SPDX-License-Identifier: Apache-2.0

import Checkpoints
import Foundation
import GatewayServing
import ServiceKit
import SwitchModel
import SwitchTraining
import TrainingData
import TrainingRuns

/// What `switchyard train` does for models without an encoder: labml's Switch Transformer, which learns to continue a text.
///
/// Where a setting is not given, it is that of labml's experiment (`labml_nn/transformers/switch/experiment.py` of labml_nn
/// 0.5.1) or of the model's `config.json`.
enum TextTraining {
    /// The keys of a drawn model's `config.json`, with the values of labml's experiment.
    private static var defaults: [String: Any] {
        [
            "model_type": "labml_switch", "d_model": 128, "heads": 4, "d_ff": 256, "n_layers": 6, "n_experts": 4,
            "capacity_factor": 1.2, "drop_tokens": true, "is_scale_prob": true, "dropout": 0.0,
            "load_balancing_loss_ceof": 0.01,
        ]
    }

    /// The model that `--family` draws for a text.
    ///
    /// - Parameter settings: The settings.
    /// - Returns: The model, and its shape.
    /// - Throws: ``Settings/Failure`` naming what cannot be used, `DataError` for a text that cannot be read,
    ///   `CheckpointError` for sizes out of range.
    static func model(_ settings: Settings) throws -> (RunModel, ModelConfiguration) {
        let table = TrainSettings.table
        let files = try settings.value(TrainingDataSettings.table.text)
        guard !files.isEmpty else {
            throw Settings.Failure("a model of the family labml has the characters of a text; give it with --text FILE")
        }
        guard !settings.isSet(table.tokenizer) else {
            throw Settings.Failure(
                "\(table.tokenizer.key) is for models of word pieces; leave it out with --family labml"
            )
        }
        var fields = Self.defaults
        for size in try settings.value(table.size) {
            guard fields[size.key] != nil, size.key != "model_type" else {
                throw Settings.Failure(
                    "\(table.size.key) names \(size.key), but must name one of "
                        + fields.keys.filter { $0 != "model_type" }.sorted().joined(separator: ", ")
                )
            }
            guard let value = try? JSONSerialization.jsonObject(with: Data(size.value.utf8), options: .fragmentsAllowed)
            else {
                throw Settings.Failure(
                    "\(table.size.key) sets \(size.key) to \(size.value), but must set a number, true or false"
                )
            }
            fields[size.key] = value
        }
        // The characters of all that the run reads: what it evaluates with may have others.
        let characters = try TextWindows.characters(of: files + (try settings.value(table.pace.eval)))
        fields["characters"] = characters
        let data = try JSONSerialization.data(withJSONObject: fields, options: [.prettyPrinted, .sortedKeys])
        let contents = [UInt8](data) + [UInt8(ascii: "\n")]
        let initialisation =
            settings.isSet(table.initialisation)
            ? try settings.value(table.initialisation).initialisation : Initialisation.labml
        return (
            .drawn(configuration: contents, characters: characters, initialisation),
            try ModelConfiguration.load(contents: contents, name: "the new model's config.json")
        )
    }

    /// The new model that a file like `config.json` describes.
    ///
    /// - Parameters:
    ///   - file: The file.
    ///   - initialisation: How its weights are drawn.
    /// - Returns: The model.
    /// - Throws: ``Settings/Failure`` for a file that lists no characters.
    static func model(describedBy file: String, _ initialisation: Initialisation) throws -> RunModel {
        let contents = [UInt8](FileManager.default.contents(atPath: file) ?? Data())
        guard let characters = Self.fields(contents)["characters"] as? String else {
            throw Settings.Failure(
                "\(file) has no characters, by which a text becomes tokens; list them, or use --family labml"
            )
        }
        return .drawn(configuration: contents, characters: characters, initialisation)
    }

    private static func fields(_ contents: [UInt8]) -> [String: Any] {
        (try? JSONSerialization.jsonObject(with: Data(contents))) as? [String: Any] ?? [:]
    }

    /// Sets what a run has by default where its model has no encoder.
    ///
    /// - Parameters:
    ///   - settings: The settings.
    ///   - plan: The run.
    ///   - configuration: The model.
    /// - Throws: ``Settings/Failure`` for a value that cannot be read, `RunError` for a `config.json` that cannot.
    static func apply(_ settings: Settings, to plan: inout RunPlan, of configuration: ModelConfiguration) throws {
        let table = LossSettings.table
        let fields = Self.fields(try plan.model.configurationContents())
        func number(_ key: String, _ value: Double) -> Double { (fields[key] as? NSNumber)?.doubleValue ?? value }
        if !settings.isSet(table.dropout) { plan.training.dropout = number("dropout", 0) }
        if !settings.isSet(table.expertDropout) { plan.training.expertDropout = nil }
        if !settings.isSet(table.jitter) { plan.training.jitter = 0 }
        if !settings.isSet(table.balance) { plan.training.balance = number("load_balancing_loss_ceof", 0.01) }
        if !settings.isSet(table.capacity) {
            plan.training.capacity =
                configuration.dropsTokens
                ? .floor(configuration.capacityFactor, .drawn(seed: 0)) : .unlimited
        }
        // A cluster serves such a model without drops, unless it is told to.
        if !settings.isSet(table.evalCapacity) { plan.training.evaluationCapacity = .unlimited }
        if !settings.isSet(BatchSettings.table.batchTokens), !settings.isSet(BatchSettings.table.batchExamples) {
            plan.batch.targetTokens = nil
            plan.batch.examples = 32
        }
        if !settings.isSet(BatchSettings.table.epochEnd) { plan.batch.endsWithEpoch = true }
    }
}
