// SPDX-License-Identifier: Apache-2.0

import CommandKit
import PeerTools
import Testing

@testable import switchyard

@Suite("The page of the HTTP listener", .serialized, .timeLimit(.minutes(15)))
struct PageTests {
    @Test(
        "Chromium shows every view, a conversation and the loss of a host",
        .enabled(if: Peers.mayRun(Peers.python, "chromium"), "needs SWITCHYARD_TEST_PYTHON and chromium")
    )
    func page() async throws {
        try await WebCluster.run(replicas: 2) { web in
            let victim = try #require(web.cluster.hosts.running.first { $0.name.hasPrefix("pool-0") })
            let report = try await PeerProcess.script(
                "page_check.py",
                ["http://\(web.address)", "\(victim.processIdentifier)"]
            )
            #expect((report["wrong"] as? [String])?.isEmpty == true, "\(report["wrong"] ?? "")")

            let filled = "A horse! a horse! my kingdom for a horse!"
            #expect(report["filled"] as? String == filled)
            let states = try #require(report["states"] as? [String])
            #expect(states.count > 1 && states.last == filled, "\(states)")
            #expect(report["beams"] as? String == filled)
            #expect(report["same_seed"] as? Bool == true)
            let chips = try #require(report["chips"] as? [String])
            #expect(chips.count == 4 && chips[2].hasPrefix("kingdom: expert "), "\(chips)")
            #expect((report["colours"] as? Int ?? 0) > 1)
            #expect((report["layers"] as? [String])?.count == 4)
            #expect(report["inputs"] as? Int == 13)
            #expect((report["error"] as? String)?.contains("more than 2048 tokens") == true, "\(report)")
            #expect(report["error_gone"] as? Bool == true)
            #expect(report["gaps"] as? String == "<extra_id_0><extra_id_1>")

            #expect(report["skipped_to"] as? String == "main")
            #expect(report["view_after_skip"] as? String == "#cluster")
            #expect(report["stops"] as? [String] == ["gap", "most", "beams", "sample", "go", "layer"])

            #expect(report["ready"] as? [Int] == [4, 3])
            #expect(report["complete"] as? String == "yes")
            #expect(report["filled_after_loss"] as? String == filled)
        }
    }
}
