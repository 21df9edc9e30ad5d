// SPDX-License-Identifier: Apache-2.0

import Checkpoints
import Foundation
import SwitchModel
import SwitchyardTypes
import TensorKernels
import Testing

/// The routers' losses against transformers (Tests/Fixtures/make_router_losses.py).
@Suite("Router losses")
struct RouterLossesTests {
    /// |a - b| / max(1, |b|): transformers adds float32, and its router probabilities differ by up to 5e-5.
    private static let tolerance = 2e-4

    private struct Golden: Decodable {
        /// The encoder's load balancing and z loss, then the decoder's.
        var transformers: [Double]
        /// The load balancing and the z loss of each sparse layer.
        var layers: [[Double]]
    }

    private func isClose(_ found: Double, _ golden: Double) -> Bool {
        abs(found - golden) <= Self.tolerance * max(1, abs(golden))
    }

    @Test(
        "are transformers' for each stack, and the papers' for each layer",
        arguments: ["asymmetric", "capacity", "step4"]
    )
    func parity(name: String) throws {
        let fixture = try ParityFixture(name)
        let file = URL(fileURLWithPath: ParityFixture.directory(name) + "/router_losses.json")
        let goldens = try JSONDecoder().decode([Golden].self, from: Data(contentsOf: file))
        #expect(goldens.count == fixture.goldens.prompts.count)
        let configuration = fixture.configuration
        var options = StepOptions(logits: .all)
        options.collectRouterStatistics = true
        for (prompt, golden) in zip(fixture.goldens.prompts, goldens) {
            var encoder = RoutingRecord()
            let encoded = try fixture.model.encode(
                [prompt.ids],
                experts: fixture.experts,
                options: options,
                record: &encoder
            )
            var decoder = RoutingRecord()
            let row = DecoderInput(cache: DecoderCache(encoded[0]), tokens: prompt.decoder)
            _ = try fixture.model.decode([row], experts: fixture.experts, options: options, record: &decoder)
            let losses = RouterLosses(
                (encoder.statistics[0] ?? []) + (decoder.statistics[0] ?? []),
                sparseSteps: [.encoder: configuration.encoderSparseStep, .decoder: configuration.decoderSparseStep]
            )
            #expect(losses.layers.map(\.layer) == configuration.sparseLayers)
            for (layer, golden) in zip(losses.layers, golden.layers) {
                #expect(self.isClose(layer.losses.balance, golden[0]), "\(layer) \(golden)")
                #expect(self.isClose(layer.losses.z, golden[1]), "\(layer) \(golden)")
            }
            let found = Stack.allCases.flatMap { stack in
                losses.transformers[stack].map { [$0.balance, $0.z] } ?? []
            }
            #expect(found.count == 4)
            for (found, golden) in zip(found, golden.transformers) {
                #expect(self.isClose(found, golden), "\(found) \(golden)")
            }
            #expect(self.isClose(losses.total.balance, golden.layers.reduce(0) { $0 + $1[0] }))
            #expect(self.isClose(losses.total.z, golden.layers.reduce(0) { $0 + $1[1] }))
        }
    }

    @Test("of a sequence do not depend on its neighbours")
    func neighbours() throws {
        let fixture = try ParityFixture("capacity")
        var options = StepOptions(microBatches: 2)
        options.collectRouterStatistics = true
        let inputs = fixture.goldens.prompts.suffix(5).map(\.ids)
        var together = RoutingRecord()
        _ = try fixture.model.encode(inputs, experts: fixture.experts, options: options, record: &together)
        for (index, input) in inputs.enumerated() {
            var alone = RoutingRecord()
            _ = try fixture.model.encode([input], experts: fixture.experts, options: options, record: &alone)
            #expect(alone.statistics[0] == together.statistics[index])
            #expect(alone.statistics[0]?.isEmpty == false)
        }
    }
}
