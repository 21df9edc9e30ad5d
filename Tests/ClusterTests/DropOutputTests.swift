// SPDX-License-Identifier: Apache-2.0

import ArgumentParser
import ServiceKit
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

    @Test("an answer that lost more than the request accepts ends the command, and capacity does not count")
    func heavyLoss() {
        var usage = Usage()
        usage.routedTokens = 8
        usage.dropped = self.dropped
        let line = GenerateCommand.heavyLoss(usage, accepted: 0.5)
        #expect(line?.hasPrefix("error: expert hosts lost 87.5% of the routed tokens (7 of 8)") == true)
        #expect(line?.contains("--max-dropped-fraction 1") == true)
        #expect(GenerateCommand.heavyLoss(usage, accepted: 0.875) == nil)
        #expect(GenerateCommand.heavyLoss(usage, accepted: 1) == nil)
        usage.dropped = [DroppedTokens(stack: .encoder, layer: 1, reason: .capacity, tokens: 8)]
        #expect(GenerateCommand.heavyLoss(usage, accepted: 0) == nil)
        #expect(GenerateCommand.heavyLoss(nil, accepted: 0) == nil)
        #expect(GenerateCommand.heavyLoss(Usage(), accepted: 0) == nil)
    }

    @Test("half of the tokens may be lost unless a flag says otherwise, as at a gateway")
    func acceptedLoss() throws {
        let atGateway = CommandSettings.gateway.first { $0.key == "max-dropped-fraction" }?.defaults
        #expect(atGateway == ["\(GenerationOptions.defaultAcceptedLoss)"])
        #expect(try GenerationOptions.parse([]).acceptedLoss == 0.5)
        #expect(try GenerationOptions.parse(["--max-dropped-fraction", "0"]).acceptedLoss == 0.5)
        #expect(try GenerationOptions.parse(["--max-dropped-fraction", "1"]).acceptedLoss == 1)
        #expect(try GenerationOptions.parse(["--max-dropped-fraction", "0.1"]).acceptedLoss == 0.1)
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
