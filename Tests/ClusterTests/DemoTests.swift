// SPDX-License-Identifier: Apache-2.0

import CommandKit
import Testing

@Suite("The demo")
struct DemoTests {
    private static let textModel = "\(TestCluster.root)/deploy/models/labml-mini"

    @Test("answers of both miniatures are those of transformers and labml_nn")
    func both() async throws {
        let output = try await Commands.run(
            TestCluster.executable,
            [
                "demo", "--model", TestCluster.miniature, "--text-model", Self.textModel, "--pools", "2", "--prompts",
                "2",
            ]
        )
        #expect(output.status == 0, "\(output.errors)")
        #expect(output.text.contains("2 of 2 answers match transformers, token for token; 0 of"), "\(output.text)")
        #expect(output.text.contains("48 characters, the same as labml_nn's."), "\(output.text)")
    }

    @Test("the decoder-only model can be left out")
    func first() async throws {
        let output = try await Commands.run(
            TestCluster.executable,
            ["demo", "--model", TestCluster.miniature, "--text-model", "none", "--pools", "1", "--prompts", "1"]
        )
        #expect(output.status == 0, "\(output.errors)")
        #expect(output.text.contains("1 of 1 answers match transformers"), "\(output.text)")
        #expect(!output.text.contains("labml"), "\(output.text)")
    }
}
