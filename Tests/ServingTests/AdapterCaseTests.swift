// SPDX-License-Identifier: Apache-2.0

import Checkpoints
import Foundation
import SwitchyardProtos
import Testing

@testable import GatewayServing

/// Adapters as peft saves them, from `Tests/Fixtures/make_adapter_cases.py`: the model answers as transformers does once
/// peft has merged the adapter.
@Suite("Adapter cases")
struct AdapterCaseTests {
    static let cases = CheckpointCaseTests.cases.deletingLastPathComponent().appendingPathComponent("adapters")

    static let names = ((try? FileManager.default.contentsOfDirectory(atPath: cases.path)) ?? []).sorted()

    @Test("there are cases")
    func present() {
        #expect(Self.names.count >= 12)
    }

    @Test("a model with a merged adapter gives transformers' answers", arguments: names)
    func answers(name: String) async throws {
        let description = try CheckpointCaseTests.description(Self.cases.appendingPathComponent(name))
        let folder = try CheckpointCaseTests.assemble(Self.cases.appendingPathComponent(name), description)
        defer { try? FileManager.default.removeItem(at: folder) }
        var configuration = CheckpointCaseTests.configuration(folder, description)
        let base = try? Checkpoint.open(folder.path, overrides: configuration.modelOverrides)
        configuration.adapterDirectory = folder.appendingPathComponent("adapter").path
        try await CheckpointCaseTests.checkAnswers(configuration, description)
        let merged = try Checkpoint.open(
            folder.path,
            overrides: configuration.modelOverrides,
            adapter: configuration.adapterDirectory
        )
        #expect(merged.fingerprint != base?.fingerprint)
        #expect(merged.adapter?.notes.first?.contains("made for tiny/plain") == true)
    }
}
