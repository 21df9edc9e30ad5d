// SPDX-License-Identifier: Apache-2.0

import ServiceKit
import TrainingData

/// A kind of file with training data.
enum DataForm: String, CaseIterable, Sendable {
    case jsonl
    case tsv
    case text
}

/// Settings of how lines become examples, for `train` and `evaluate`.
struct TrainingDataSettings: SettingTable {
    static let table = TrainingDataSettings()

    let data = Setting.texts("data", placeholder: "file", "A file of examples; may be given several times.")
    let text = Setting.texts(
        "text",
        placeholder: "file",
        "A text that a model without an encoder learns to continue, in place of --data; may be given several times."
    )
    let sequence = Setting.whole(
        "sequence",
        in: 2...65_536,
        default: 64,
        placeholder: "tokens",
        "Tokens of each window of --text."
    )
    let format = Setting.parsed(
        "format",
        default: DataForm?.none,
        written: nil,
        defaultInWords: "by the file's name: .jsonl, .tsv, .txt",
        allowed: "jsonl, tsv or text",
        range: "jsonl, tsv or text",
        "How a line holds an example: fields of a JSON object, columns, or plain text whose spans are hidden."
    ) { text in DataForm(rawValue: text).map { .some($0) } }
    let inputField = Setting.text(
        "input-field",
        default: "input",
        placeholder: "name",
        "The input's field in JSON lines."
    )
    let targetField = Setting.text(
        "target-field",
        default: "target",
        placeholder: "name",
        "The target's field in JSON lines."
    )
    let inputColumn = Setting.whole("input-column", in: 1...1000, default: 1, "The input's column in TSV, from 1.")
    let targetColumn = Setting.whole("target-column", in: 1...1000, default: 2, "The target's column in TSV, from 1.")
    let prefix = Setting.text("prefix", placeholder: "text", "Text in front of each input, such as \"summarize: \".")
    let maxInput = Setting.whole(
        "max-input",
        in: 2...65_536,
        default: 512,
        placeholder: "tokens",
        "Tokens of an input at most, the end token included."
    )
    let maxTarget = Setting.whole(
        "max-target",
        in: 2...65_536,
        default: 512,
        placeholder: "tokens",
        "Tokens of a target at most, the end token included."
    )
    let tooLong = Setting.choice(
        "too-long",
        of: ExampleSettings.LengthRule.allCases,
        default: .refuse,
        name: { $0 == .refuse ? "skip" : "cut" },
        placeholder: "rule",
        "Whether a line over these limits is left out and counted, or cut."
    )
    let badLines = Setting.choice(
        "bad-lines",
        of: ExampleSettings.FaultRule.allCases,
        default: .count,
        name: { $0 == .count ? "skip" : "fail" },
        placeholder: "rule",
        "Whether a line that cannot be used is left out and counted, or ends the command."
    )
    let noiseDensity = Setting.number(
        "noise-density",
        in: 0.001...0.9,
        default: SpanCorruption.t5.density,
        "Share of a plain text's tokens that is hidden."
    )
    let meanSpan = Setting.number(
        "mean-span",
        in: 1...100,
        default: SpanCorruption.t5.meanSpanLength,
        "Tokens of a hidden span on average."
    )

    /// How lines become examples.
    ///
    /// - Parameter settings: The settings.
    /// - Returns: The same, as the reader takes it.
    /// - Throws: ``Settings/Failure`` naming what cannot be used.
    func examples(_ settings: Settings) throws -> ExampleSettings {
        if try !settings.value(self.text).isEmpty { return try self.windows(settings) }
        guard !settings.isSet(self.sequence) else {
            throw Settings.Failure(
                "\(self.sequence.key) is for the windows of a text; give --text FILE, or leave it out"
            )
        }
        let files = try settings.value(self.data)
        guard let first = files.first else {
            throw Settings.Failure(
                "no data is given; name a file of examples with --data FILE, or for a model without an encoder --text FILE"
            )
        }
        let forms = try files.map { file in
            guard let form = try settings.value(self.format) ?? Self.form(of: file) else {
                throw Settings.Failure(
                    "the name of \(file) does not tell how it holds examples; give --format jsonl, tsv or text"
                )
            }
            return form
        }
        guard let form = forms.first, forms.allSatisfy({ $0 == form }) else {
            throw Settings.Failure(
                "\(first) and other files hold examples in different ways; give files of one kind, or --format"
            )
        }
        var examples = ExampleSettings(format: try self.format(form, settings))
        examples.inputPrefix = try settings.value(self.prefix) ?? ""
        examples.maximumInputTokens = try settings.value(self.maxInput)
        examples.maximumTargetTokens = try settings.value(self.maxTarget)
        examples.lengthRule = try settings.value(self.tooLong)
        examples.faultRule = try settings.value(self.badLines)
        examples.corruption.density = try settings.value(self.noiseDensity)
        examples.corruption.meanSpanLength = try settings.value(self.meanSpan)
        return examples
    }

    /// The files of examples, or of a text.
    ///
    /// - Parameter settings: The settings.
    /// - Returns: The files.
    /// - Throws: ``Settings/Failure`` for a value that cannot be read.
    func files(_ settings: Settings) throws -> [String] {
        let text = try settings.value(self.text)
        return text.isEmpty ? try settings.value(self.data) : text
    }

    /// Windows of a text, with none of the settings that lines have.
    private func windows(_ settings: Settings) throws -> ExampleSettings {
        let others = self.definitions.filter { ![self.text.key, self.sequence.key].contains($0.key) }
        if let other = others.first(where: { settings.isSet(key: $0.key) }) {
            throw Settings.Failure("\(other.key) is for lines of examples; leave it out, or --text")
        }
        let length = try settings.value(self.sequence)
        var examples = ExampleSettings(format: .next(length: length))
        examples.maximumInputTokens = length
        examples.maximumTargetTokens = length
        // Each character is known before the run begins, so a window that cannot be used is a fault of its own.
        examples.faultRule = .fail
        return examples
    }

    private func format(_ form: DataForm, _ settings: Settings) throws -> ExampleFormat {
        switch form {
        case .jsonl:
            .jsonLines(
                input: try settings.value(self.inputField) ?? "input",
                target: try settings.value(self.targetField) ?? "target"
            )
        case .tsv:
            .tabSeparated(input: try settings.value(self.inputColumn), target: try settings.value(self.targetColumn))
        case .text: .text
        }
    }

    /// How a file of this name usually holds examples.
    static func form(of file: String) -> DataForm? {
        let name = file.lowercased()
        for (suffixes, form) in [
            ([".jsonl", ".ndjson", ".json"], DataForm.jsonl), ([".tsv", ".tab"], .tsv), ([".txt", ".text"], .text),
        ] where suffixes.contains(where: { name.hasSuffix($0) }) {
            return form
        }
        return nil
    }
}
