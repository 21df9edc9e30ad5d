// SPDX-License-Identifier: Apache-2.0

import PeerTools
import Testing

@Suite("The Python package", .serialized, .timeLimit(.minutes(20)))
struct PythonPackageTests {
    @Test(
        "passes its own tests with the program of this build",
        .enabled(if: Peers.mayRun(Peers.pythonTests), "make test installs what they need")
    )
    func package() async throws {
        // Not written into the sources: caches.
        let arguments = [
            "SWITCHYARD_BINARY=\(TestCluster.executable)", "PYTHONDONTWRITEBYTECODE=1",
            try Peers.path(Peers.pythonTests),
            "-m", "pytest", "-q", "--durations=5", "-p", "no:cacheprovider", "\(Peers.root)/python",
        ]
        let output = try await PeerProcess.run("/usr/bin/env", arguments)
        #expect(output.status == 0, "\(output.text.suffix(8_000))\n\(output.errors.suffix(2_000))")
    }
}
