// SPDX-License-Identifier: Apache-2.0

import Foundation
import PeerTools
import Testing

@Suite("simulate")
struct SimulateTests {
    @Test("two processes simulate the same to the last digit, and print what cannot be simulated")
    func simulate() async throws {
        let arguments = [
            "simulate", "--json", "--scenario", "crash", "--hosts", "8", "--experts", "16", "--steps", "60", "--seed",
            "3",
        ]
        let first = try await PeerProcess.run(BenchProgram.path, arguments)
        let second = try await PeerProcess.run(BenchProgram.path, arguments)
        #expect(first.status == 0, "\(first.errors)")
        #expect(first.text == second.text)
        #expect(first.text.contains("\"violations\" : ["))
        let wrong = try await PeerProcess.run(BenchProgram.path, ["simulate", "--hosts", "0"])
        #expect(wrong.status != 0)
        #expect(wrong.errors.contains("hosts is 0, but must be from 1 to 65535"))
        let unknown = try await PeerProcess.run(BenchProgram.path, ["simulate", "--scenario", "flood"])
        #expect(unknown.status != 0)
        #expect(unknown.errors.contains("use one of calm, crash"))
    }
}
