// SPDX-License-Identifier: Apache-2.0

import PeerTools
import Testing

@Suite("simulate-faults")
struct SimulateFaultsTests {
    @Test("seeds are run, added up and can be replayed; two processes print the same")
    func seeds() async throws {
        let arguments = ["simulate-faults", "--seeds", "4", "--first-seed", "20", "--rare-states"]
        let result = try await PeerProcess.run(BenchProgram.path, arguments)
        #expect(result.status == 0, "\(result.errors)")
        #expect(result.text.contains("4 seeds, 0 of which broke a rule"))
        #expect(result.text.contains("virtual seconds in"))
        #expect(result.text.contains("not reached: "))
        let first = try await PeerProcess.run(BenchProgram.path, ["simulate-faults", "--replay", "21"])
        let second = try await PeerProcess.run(BenchProgram.path, ["simulate-faults", "--replay", "21"])
        #expect(first.status == 0 && first.text == second.text)
        #expect(first.text.contains("fault: ") && first.text.contains("seed 21 breaks no rule"))
    }

    @Test("impossible numbers are named with what is allowed")
    func bounds() async throws {
        for (arguments, text) in [
            (["--seeds", "0"], "--seeds is 0; it must be from 1 to 100000000"),
            (["--jobs", "0"], "--jobs is 0; it must be from 1 to 1024"),
            (["--stop-after", "0"], "--stop-after is 0; it must be at least 1"),
            (["--first-seed", "18446744073709551615"], "must stay below 2^64"),
        ] {
            let result = try await PeerProcess.run(BenchProgram.path, ["simulate-faults"] + arguments)
            #expect(result.status != 0 && result.errors.contains(text), "\(result.errors)")
        }
    }
}
