// SPDX-License-Identifier: Apache-2.0

import Foundation
import Testing

/// `deploy/check/tests.py` with a program in place of the built tests.
@Suite("The run of the suite", .serialized)
struct SuiteRunTests {
    /// Lists and runs tests as the real program does, and does what a variable says: `FAIL` names a test that fails, and that
    /// passes alone if `ONCE` is set; `CRASH` names one that ends the process, `LOSE` one that leaves no result.
    private static let program = #"""
        #!/usr/bin/env python3
        import os, re, sys
        tests = ["A.One/first()", "A.One/second(of:)", "A.Two/Inner/third()", "B.`a raw name, (free)`()", "C.Three/fourth()"]
        words = sys.argv[1:]
        if "--list-tests" in words:
            print("\n".join(tests))
            sys.exit()
        patterns = [words[at + 1] for at, word in enumerate(words) if word == "--filter"]
        chosen = [test for test in tests if not patterns or any(re.search(p, f"{test}/File.swift:1:2") for p in patterns)]
        if not chosen:
            sys.exit(69)
        results = words[words.index("--xunit-output") + 1]
        cases, status = [], 0
        for test in chosen:
            print(f'◇ Test "{test}" started.', flush=True)
            if test == os.environ.get("CRASH"):
                os.abort()
            suite, name = test.rsplit("/" if "/" in test else ".", 1)
            fails = test == os.environ.get("FAIL") and not ("ONCE" in os.environ and results.endswith("again.xml"))
            failure = '<failure message="it is 1 &#8594; &quot;2&quot;&#27;"/>' if fails else ""
            if test != os.environ.get("LOSE"):
                cases.append(f'<testcase classname="{suite.replace("/", ".")}" name="{name}" time="1">{failure}</testcase>')
            status |= fails
            print(f'{"✘" if fails else "✔"} Test "{test}" ended.')
        open(results, "w").write(f"<testsuites><testsuite>{''.join(cases)}</testsuite></testsuites>")
        sys.exit(status)
        """#

    /// Runs it, and gives its status, what it printed, and the file with all results.
    private static func run(
        _ environment: [String: String] = [:],
        _ arguments: [String] = []
    ) throws -> (status: Int32, text: String, results: String) {
        let folder = FileManager.default.temporaryDirectory.appendingPathComponent("suite-\(UUID().uuidString)")
        try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
        defer { try? FileManager.default.removeItem(at: folder) }
        let swift = folder.appendingPathComponent("swift")
        for (file, text) in [
            (swift, "#!/bin/sh\necho \(folder.path)\n"),
            (folder.appendingPathComponent("somePackageTests.xctest"), Self.program),
        ] {
            try Data(text.utf8).write(to: file)
            try FileManager.default.setAttributes([.posixPermissions: 0o755], ofItemAtPath: file.path)
        }
        let process = Process()
        process.executableURL = URL(fileURLWithPath: "/usr/bin/env")
        process.arguments = ["python3", "deploy/check/tests.py"] + arguments
        process.currentDirectoryURL = Repository.root
        // The run that this test belongs to has its own settings.
        let others = ProcessInfo.processInfo.environment.filter { !$0.key.hasPrefix("SWITCHYARD_") }
        let own = ["SWIFT": swift.path, "SWITCHYARD_TEST_RESULTS": "\(folder.path)/results"]
        process.environment = others.merging(own) { $1 }.merging(environment) { $1 }
        let pipe = Pipe()
        process.standardOutput = pipe
        process.standardError = pipe
        try process.run()
        let text = String(decoding: try pipe.fileHandleForReading.readToEnd() ?? Data(), as: UTF8.self)
        process.waitUntilExit()
        let results = try? String(contentsOfFile: "\(folder.path)/results/all.xml", encoding: .utf8)
        return (process.terminationStatus, text, results ?? "")
    }

    @Test("every test of the list has a result, and pieces are printed whole")
    func passes() throws {
        let run = try Self.run()
        #expect(run.status == 0 && run.text.contains("5 of 5 tests in "), "\(run.text)")
        #expect(run.text.contains("== passed [3/3] ") && !run.text.contains("◇"), "\(run.text)")
        #expect(run.results.components(separatedBy: "<testcase ").count == 6, "\(run.results)")
        let pieces = try Self.run([:], ["--pieces"])
        #expect(pieces.text.contains("    3 A.One A.Two\n"), "\(pieces.text)")
    }

    @Test("a test that fails is named with its message; one that passes alone does not fail the run")
    func fails() throws {
        for test in ["A.One/second(of:)", "A.Two/Inner/third()", "B.`a raw name, (free)`()"] {
            let always = try Self.run(["FAIL": test])
            #expect(always.status == 1 && always.text.contains("They fail alone, too:"), "\(always.text)")
            #expect(always.text.contains("\tit is 1 → \"2\""), "\(always.text)")
            let once = try Self.run(["FAIL": test, "ONCE": "1"])
            #expect(once.status == 0 && once.text.contains("They passed alone."), "\(once.text)")
            let strict = try Self.run(["FAIL": test, "ONCE": "1", "SWITCHYARD_TEST_RERUN": "0"])
            #expect(strict.status == 1 && !strict.text.contains("once more"), "\(strict.text)")
        }
    }

    @Test("a process that crashes is named with its test, and so is a test without a result")
    func crashes() throws {
        let crashed = try Self.run(["CRASH": "A.One/second(of:)"])
        #expect(crashed.status == 1 && crashed.text.contains("== CRASHED "), "\(crashed.text)")
        let words = #"A.One ended with status -6 and without results, in Test "A.One/second(of:)" started."#
        #expect(crashed.text.contains(words), "\(crashed.text)")
        #expect(crashed.text.contains("2 of 5 tests in "), "\(crashed.text)")
        let lost = try Self.run(["LOSE": "C.Three/fourth()"])
        #expect(lost.status == 1 && lost.text.contains("C.Three ran without C.Three/fourth()"), "\(lost.text)")
    }

    @Test("arguments choose tests, and a choice of none fails")
    func chooses() throws {
        let chosen = try Self.run([:], ["--filter", "^A[.]One/"])
        #expect(chosen.status == 0 && chosen.text.contains("2 of 5 tests in "), "\(chosen.text)")
        let none = try Self.run([:], ["--filter", "^Z"])
        #expect(none.status == 1 && none.text.contains("no test has such a name"), "\(none.text)")
    }
}
