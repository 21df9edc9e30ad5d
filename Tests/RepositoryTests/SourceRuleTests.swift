// SPDX-License-Identifier: Apache-2.0

import Testing

@Suite("Rules for every file")
struct SourceRuleTests {
    @Test("every file begins with its licence, unless a program wrote it")
    func licence() throws {
        let ours: Set<String> = ["swift", "c", "h", "cpp", "hpp", "proto", "py", "sh"]
        let files = try ["Sources", "Tests", "Protos", "deploy", "python"]
            .flatMap { folder in
                try Repository.files(in: folder, extensions: ours)
            }
        #expect(!files.isEmpty)
        let offences = files.filter { !$0.isGenerated && !SourceRules.hasLicence($0) }
            .map { file in
                Offence(path: file.path, line: 1, what: "the line `SPDX-License-Identifier: Apache-2.0` is missing")
            }
        #expect(offences.isEmpty, "\(report(offences))")
    }

    @Test("no file of the sources is longer than one can read, unless a program wrote it")
    func length() throws {
        let files = try Repository.files(in: "Sources", extensions: ["swift", "c", "h", "cpp", "hpp"])
        let offences = files.filter { !$0.isGenerated && $0.lineCount > SourceRules.maxLines }
            .map { file in
                Offence(path: file.path, line: SourceRules.maxLines, what: "\(file.lineCount) lines: split it")
            }
        #expect(offences.isEmpty, "\(report(offences))")
    }

    @Test("the sources neither force nor give up")
    func forbiddenWords() throws {
        let offences = try Repository.swiftSources.get()
            .flatMap {
                SourceRules.forbiddenWords(in: $0)
            }
        #expect(offences.isEmpty, "\(report(offences))")
    }

    @Test("all that the program prints goes through one writer")
    func output() throws {
        let offences = try Repository.swiftSources.get().filter { $0.path.hasPrefix("Sources/switchyard") }
            .flatMap { SourceRules.strayOutput(in: $0) }
        #expect(offences.isEmpty, "\(report(offences))")
    }

    @Test("every unchecked promise says why it holds")
    func promises() throws {
        let offences = try Repository.swiftSources.get()
            .flatMap {
                SourceRules.unexplainedPromises(in: $0)
            }
        #expect(offences.isEmpty, "\(report(offences))")
    }
}
