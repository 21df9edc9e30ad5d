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
        let process = Process()
        process.executableURL = URL(fileURLWithPath: "/bin/sh")
        process.arguments = [Repository.root.appendingPathComponent("deploy/check/\(script)").path]
        let pipe = Pipe()
        process.standardOutput = pipe
        process.standardError = pipe
        try process.run()
        let output = String(decoding: try pipe.fileHandleForReading.readToEnd() ?? Data(), as: UTF8.self)
        process.waitUntilExit()
        #expect(process.terminationStatus == 0, "\(output)")
        #expect(output.isEmpty, "\(output)")
    }
}
