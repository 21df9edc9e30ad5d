// SPDX-License-Identifier: Apache-2.0

import FaultTools
import Foundation
import Testing

/// Rows of the fault suite, as short as they can be: what must hold at any speed.
@Suite("Rows of the fault suite", .serialized)
struct FaultRowTests {
    @Test(
        "hold in what does not depend on times",
        arguments: [
            ["nan/replica", "shape/alone", "garbage/replica"],
            ["checkpoint/replica", "checkpoint/alone", "rolling/replica"],
            ["gateway-sigterm/replica", "gateway-sigkill/replica"],
            ["rubbish/replica", "rubbish/alone", "plausible/replica", "flapping/replica"],
            ["zeroed/replica", "overwritten/replica", "rewritten/alone", "gateway-truncated/replica"],
            ["descriptors/replica", "ligature/replica"],
            ["rollout/alone"],
        ]
    )
    func rows(names: [String]) async throws {
        var workspace = try FaultWorkspace(executable: TestCluster.executable)
        // A layer that is late loses tokens, and on a busy machine any layer may be late.
        workspace.gatewayArguments = ["--encoder-deadline-ms", "60000", "--decoder-deadline-ms", "60000"]
        defer { workspace.discard() }
        let context = try RowContext(workspace: workspace, timing: .brief, requestLimit: 3, passageTokens: 12)
        for name in names {
            let row = try #require(FaultRow.named(name).first)
            let result = await row.run(context)
            print(FaultTable.words(result))
            #expect(result.reason.isEmpty, "\(name): \(result.reason)")
            #expect(!result.checks.isEmpty, "\(name) checks nothing")
            for check in result.checks where !check.isAboutSpeed {
                #expect(check.holds, "\(name): \(check.name): \(check.found)")
            }
        }
    }
}
