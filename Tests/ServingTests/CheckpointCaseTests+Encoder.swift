// SPDX-License-Identifier: Apache-2.0

import Checkpoints
import RPCCore
import SwitchModel
import SwitchyardProtos
import TensorKernels
import Testing

@testable import GatewayServing

extension CheckpointCaseTests {
    /// An encoder alone encodes as transformers does, and says what it cannot do.
    func checkEncoder(_ configuration: LocalGatewayConfiguration, _ hidden: Case.Hidden) async throws {
        let checkpoint = try Checkpoint.open(configuration.modelDirectory)
        let pool = WorkPool(threads: 1)
        let model = try SwitchTransformer(checkpoint: checkpoint, pool: pool)
        let experts = try LocalExperts(checkpoint: checkpoint, pool: pool)
        var record = RoutingRecord()
        let encoded = try model.encode([hidden.prompt], experts: experts, record: &record)
        let states = encoded.flatMap { sequence in
            (0..<sequence.hidden.rows).flatMap { Array(sequence.hidden.row($0)) }
        }
        #expect(states.count == hidden.states.count)
        for (found, wanted) in zip(states, hidden.states) { #expect(abs(found - wanted) < 2e-4) }

        let gateway = try LocalGateway(configuration: configuration, logger: quietLogger)
        try await gateway.whileRunning {
            let error = await #expect(throws: RPCError.self) {
                _ = try await gateway.generate(GenerateRequest(input: .tokenIDs([5, 1])))
            }
            #expect(error?.code == .failedPrecondition)
            #expect(error?.message.contains("call Encode") == true)
        }
    }
}
