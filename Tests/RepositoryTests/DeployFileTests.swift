// SPDX-License-Identifier: Apache-2.0

import Foundation
import Testing

@Suite("Deploy files")
struct DeployFileTests {
    @Test(
        "variables, settings and metrics that deploy files name are those that the documents describe",
        arguments: ["variables.sh", "metrics.sh"]
    )
    func names(script: String) throws {
        let (status, output) = try Self.run("/bin/sh", ["deploy/check/\(script)"])
        #expect(status == 0, "\(output)")
        #expect(output.isEmpty, "\(output)")
    }

    @Test("every command, header and module that the project uses is in the package lists")
    func packages() throws {
        let (status, output) = try Self.run("/usr/bin/env", ["python3", "deploy/check/commands.py"])
        #expect(status == 0, "\(output)")
        #expect(output.isEmpty, "\(output)")
    }

    @Test("the check of the package lists finds commands wherever a script can have one")
    func scanner() throws {
        let script = #"""
            if ! [ -e x ] && command -v in-condition >/dev/null; then :; fi   # in-comment
            NAME=value in-assignment "$(in-quotes | in-pipe "$(nested)")" 'in-single-quotes' && after-and
            case $x in pattern | other) in-case ;; *) in-default ;; esac
            helper() { in-function; }
            helper argument; while read -r line; do in-loop; done < <(in-process-substitution)
            cat <<END
            in-document
            END
            timeout 60 in-wrapper --flag; result=`true`; array=(in-array)
            """#
        let (status, output) = try Self.run("/usr/bin/env", ["python3", "deploy/check/commands.py", "--scan", script])
        #expect(status == 0)
        let found = Set(output.split(separator: "\n").map(String.init)).filter { $0.contains("-") || $0 == "nested" }
        #expect(
            found == [
                "in-condition", "in-assignment", "in-quotes", "in-pipe", "nested", "after-and", "in-case", "in-default",
                "in-function", "in-loop", "in-process-substitution", "in-wrapper",
            ]
        )
    }

    /// Runs a program in the root of the repository.
    ///
    /// - Returns: Its status and what it printed.
    private static func run(_ program: String, _ arguments: [String]) throws -> (status: Int32, output: String) {
        let process = Process()
        process.executableURL = URL(fileURLWithPath: program)
        process.arguments = arguments
        process.currentDirectoryURL = Repository.root
        let pipe = Pipe()
        process.standardOutput = pipe
        process.standardError = pipe
        try process.run()
        let output = String(decoding: try pipe.fileHandleForReading.readToEnd() ?? Data(), as: UTF8.self)
        process.waitUntilExit()
        return (process.terminationStatus, output)
    }
}
