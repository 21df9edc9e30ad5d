// SPDX-License-Identifier: Apache-2.0

import SwitchyardProtos
import SwitchyardTypes
import Testing

@testable import switchyard

@Suite("What commands say about dropped tokens")
struct DropOutputTests {
    private let dropped = [
        DroppedTokens(stack: .encoder, layer: 1, reason: .badReply, tokens: 3),
        DroppedTokens(stack: .decoder, layer: 3, reason: .timeout, tokens: 4),
    ]

    @Test("generate names each layer and reason, as text and as JSON")
    func generate() throws {
        var usage = Usage()
        usage.routedTokens = 64
        #expect(GenerateCommand.noteOnDrops(usage) == nil)
        #expect(GenerateCommand.noteOnDrops(nil) == nil)
        usage.dropped = self.dropped
        let note = "note: 7 of 64 routed tokens were dropped (encoder 1 BAD_REPLY: 3, decoder 3 TIMEOUT: 4)"
        #expect(GenerateCommand.noteOnDrops(usage) == note)
        let report = GenerationReport(GenerateResponse(usage: usage))
        #expect(report.routedTokens == 64)
        #expect(report.dropped.map(\.stack) == ["ENCODER", "DECODER"])
        #expect(report.dropped.map(\.layer) == [1, 3])
        #expect(report.dropped.map(\.reason) == ["BAD_REPLY", "TIMEOUT"])
        #expect(report.dropped.map(\.tokens) == [3, 4])
    }

    @Test("status names each layer and reason")
    func status() {
        var cluster = ClusterDescription()
        cluster.routedTokens = 640
        cluster.dropped = self.dropped
        let text = ClusterReport(model: ModelDescription(), cluster: cluster).text
        #expect(text.contains("dropped: 7 of 640 routed tokens"))
        #expect(text.contains("encoder 1  BAD_REPLY  3"))
        #expect(text.contains("decoder 3  TIMEOUT  4"))
    }
}
