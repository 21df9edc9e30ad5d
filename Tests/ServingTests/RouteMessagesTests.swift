// SPDX-License-Identifier: Apache-2.0

import Checkpoints
import RPCCore
import SwitchModel
import SwitchyardProtos
import SwitchyardTypes
import Testing
import Tokenization

@testable import GatewayServing

/// The bytes of routes, and the limits of what a request may ask of the routers.
@Suite("Route messages")
struct RouteMessagesTests {
    private let reader: RequestReader

    init() throws {
        var limits = RequestLimits()
        limits.maxRouteEntries = 40
        limits.maxLogits = 100
        limits.maxDistributionEntries = 40
        self.reader = RequestReader(
            tokenizer: try Tokenizer(directory: TestModel.miniature.directory),
            model: try ModelConfiguration.load(directory: TestModel.miniature.directory),
            limits: limits,
            batchSlots: 8
        )
    }

    @Test("The layout is token-major and little-endian, with the protocol's reasons")
    func layout() throws {
        let layers = [1, 3].map { SparseLayer(stack: .decoder, block: $0) }
        let routes = try #require(
            StackRoutes(
                layers: layers,
                tokenCount: 2,
                experts: [1, 0x0203, 5, 7],
                probabilities: [1, 0.5, 0.25, 0.75],
                reasons: [nil, .badReply, .capacity, nil]
            )
        )
        let message = Routes(routes, stack: .decoder)
        #expect(message.stack == .decoder && message.layers == [1, 3] && message.tokens == 2)
        #expect(message.experts == [1, 0, 3, 2, 5, 0, 7, 0])
        #expect(message.probabilities == [0, 0, 0x80, 0x3F, 0, 0, 0, 0x3F, 0, 0, 0x80, 0x3E, 0, 0, 0x40, 0x3F])
        #expect(message.dropReasons == [0, 5, 1, 0])
        let read = try StackRoutes(try Routes(serialized: message.serialized()), field: "routes", stack: .decoder)
        #expect(read.layers == layers && read.experts == routes.experts && read.reasons == routes.reasons)
        for reason in SwitchyardTypes.DropReason.allCases { #expect(WireDropReason(reason).reason == reason) }
        #expect(WireDropReason.unspecified.reason == nil)
    }

    @Test("Sizes are bounded before any work is done, and the error says the limit")
    func limits() throws {
        func message(_ body: () throws -> Void) -> String {
            do {
                try body()
                return ""
            } catch let error as RPCError {
                return "\(error.code) \(error.message)"
            } catch {
                return "\(error)"
            }
        }
        let input = ModelInput.tokenIDs([5, 6, 1])
        func generate(_ parameters: GenerationParametersMessage, asks: Bool = true) -> String {
            message {
                let request = GenerateRequest(input: input, parameters: parameters, returnRoutes: asks)
                _ = try self.reader.generate(request, deadline: nil)
            }
        }
        var parameters = GenerationParametersMessage()
        parameters.maxNewTokens = 17
        #expect(generate(parameters).isEmpty)
        parameters.numBeams = 2
        // Three tokens at two layers and twice 17 at two.
        #expect(generate(parameters).contains("have 74 entries"))
        #expect(generate(parameters).contains("the limit is 40"))
        #expect(generate(parameters, asks: false).isEmpty)
        let long = ModelInput.tokenIDs([UInt32](repeating: 5, count: 21))
        #expect(
            message { _ = try self.reader.encode(EncodeRequest(input: long, returnRoutes: true), deadline: nil) }
                .contains("the limit is 40")
        )
        let score = ScoreRequest(input: input, target: input, returnLogits: true)
        #expect(message { _ = try self.reader.score(score, deadline: nil) }.contains("return_logits"))
        #expect(message { _ = try self.reader.score(score, deadline: nil) }.contains("the limit is 100"))
    }

    @Test("Distributions that cannot be given are refused by field, limit and value")
    func distributions() {
        let input = ModelInput.tokenIDs([5, 6, 1])
        func message(_ change: (inout ScoreRequest) -> Void) -> String {
            var request = ScoreRequest(input: input, target: input)
            change(&request)
            do throws(RPCError) {
                _ = try self.reader.score(request, deadline: nil)
                return ""
            } catch {
                return error.message
            }
        }
        let vocabulary = UInt32(self.reader.model.vocabularySize)
        #expect(message { $0.distributionTokens = 1 }.isEmpty)
        #expect(message { $0.distributionTokens = vocabulary + 1 }.contains("distribution_tokens is \(vocabulary + 1)"))
        #expect(message { $0.distributionTemperature = 2 }.contains("without distribution_tokens"))
        for temperature: Float in [0, -1, 1001, .nan, .infinity] {
            let refusal = message {
                $0.distributionTokens = 2
                $0.distributionTemperature = temperature
            }
            #expect(refusal.contains("must be from 0.01 to 1000"), "\(temperature)")
        }
        #expect(
            message { $0.distributionTokens = 14 }.contains("makes 42 entries for 3 target tokens; the limit is 40")
        )
    }

    @Test("Numbers that no message can back are refused without being multiplied out")
    func hugeNumbers() {
        let message = Routes(
            stack: .encoder,
            layers: [UInt32](repeating: 1, count: 1_000),
            tokens: .max,
            experts: [0, 0]
        )
        let error = #expect(throws: RPCError.self) {
            _ = try StackRoutes(message, field: "encoder_routes", stack: .encoder)
        }
        #expect(error?.message.contains("encoder_routes has 4294967295 tokens and 1000 layers") == true)
    }
}
