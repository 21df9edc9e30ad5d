// SPDX-License-Identifier: Apache-2.0

import Foundation
import PeerTools
import SwitchyardTypes
import TensorKernels
import Testing

/// What audits find, with real processes whose memory is damaged.
@Suite("The audit benchmark", .serialized)
struct AuditBenchTests {
    @Test(
        "a flipped bit in a host's memory is caught in the first compared call, and the host returns once it is flipped back"
    )
    func damage() async throws {
        let output = try await PeerProcess.run(
            BenchProgram.path,
            ["audit", BenchProgram.miniature, "--draws", "10", "--calls", "500", "--rows", "0"]
        )
        #expect(output.status == 0, "\(output.errors)")
        let all = output.text.split(separator: "\n").first { $0.hasPrefix("all ") }?.split(separator: " ") ?? []
        let numbers = all.dropFirst().prefix(5).compactMap { Int($0) }
        try #require(numbers.count == 5, "\(output.text)")
        // Flipped, without effect, caught, at once, wrong rows of compared calls.
        #expect(numbers[0] == 10 && numbers[1] + numbers[2] == 10 && numbers[2] == numbers[3] && numbers[4] == 0)
        #expect(numbers[2] > 0)
    }

    @Test("hosts with every kernel of this machine agree in each type of weights and rows")
    func alarms() async throws {
        let output = try await PeerProcess.run(
            BenchProgram.path,
            ["audit", BenchProgram.miniature, "--draws", "0", "--rows", "6000"]
        )
        #expect(output.status == 0, "\(output.errors)")
        for level in KernelLevel.available {
            #expect(output.text.contains(level.name.lowercased().replacing("-", with: "")))
        }
        let rows = output.text.split(separator: "\n").filter { $0.hasSuffix(" 0") }
        #expect(rows.count == 6, "\(output.text)")
    }
}
