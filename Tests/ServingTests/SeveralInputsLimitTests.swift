// SPDX-License-Identifier: Apache-2.0

import Checkpoints
import RPCCore
import SwitchModel
import SwitchyardProtos
import Testing
import Tokenization

@testable import GatewayServing

/// What a call with several inputs may hold: every error names the input, the field, the limit and the value.
@Suite("Limits of several inputs")
struct SeveralInputsLimitTests {
    private let reader: RequestReader

    init() throws {
        var limits = RequestLimits()
        limits.maxInputTokens = 12
        limits.maxTargetTokens = 9
        limits.maxInputs = 6
        limits.maxTokensOfInputs = 30
        limits.maxAnswerBytes = 17_500
        self.reader = RequestReader(
            tokenizer: try Tokenizer(directory: TestModel.miniature.directory),
            model: try ModelConfiguration.load(directory: TestModel.miniature.directory),
            limits: limits,
            batchSlots: 8
        )
    }

    private static let short = ModelInput.tokenIDs([5, 1])

    private func refusal(of body: () throws -> Void) -> String {
        do {
            try body()
            return ""
        } catch let error as RPCError {
            return "\(error.code) \(error.message)"
        } catch {
            return "\(error)"
        }
    }

    private func encode(_ inputs: [ModelInput?], _ change: (inout EncodeRequest) -> Void = { _ in }) -> String {
        var request = EncodeRequest(pooling: .mean, inputs: inputs.map { EncodeInput(input: $0) })
        change(&request)
        return self.refusal { _ = try self.reader.encodeAll(request, deadline: nil) }
    }

    private func score(_ inputs: [ScoreInput], _ change: (inout ScoreRequest) -> Void = { _ in }) -> String {
        var request = ScoreRequest(inputs: inputs)
        change(&request)
        return self.refusal { _ = try self.reader.scoreAll(request, deadline: nil) }
    }

    @Test("A wrong input fails the call by its index and field")
    func wrongInputs() {
        let short = Self.short
        #expect(self.encode([short, short]).isEmpty)
        #expect(self.encode([short, nil]) == "INVALID_ARGUMENT inputs[1]: input is missing; set text or input_ids")
        #expect(self.encode([.tokenIDs([])]).hasPrefix("INVALID_ARGUMENT inputs[0]: input_ids.ids is empty"))
        let unknown = self.encode([short, short, .tokenIDs([5, 2048])])
        #expect(unknown == "INVALID_ARGUMENT inputs[2]: input_ids.ids[1] is 2048; the vocabulary ends at 2047")
        let long = self.encode([short, .tokenIDs([UInt32](repeating: 5, count: 13))])
        #expect(long.hasPrefix("RESOURCE_EXHAUSTED inputs[1]: input_ids has 13 tokens; the limit is 12"))
        let routes = self.encode([short]) { $0.inputs[0].encoderRoutes = Routes(stack: .decoder) }
        #expect(routes.hasPrefix("INVALID_ARGUMENT inputs[0]: encoder_routes.stack is decoder"))

        let pair = ScoreInput(input: short, target: short)
        #expect(self.score([pair, pair]).isEmpty)
        #expect(
            self.score([pair, ScoreInput(input: short)]).hasPrefix("INVALID_ARGUMENT inputs[1]: target is missing")
        )
        #expect(self.score([ScoreInput(target: short)]).hasPrefix("INVALID_ARGUMENT inputs[0]: input is missing"))
        let target = ScoreInput(input: short, target: .tokenIDs([UInt32](repeating: 5, count: 10)))
        #expect(
            self.score([pair, target])
                .hasPrefix("RESOURCE_EXHAUSTED inputs[1]: target_ids has 10 tokens; the limit is 9")
        )
        let wrong = self.score([pair]) { $0.inputs[0].decoderRoutes = Routes(stack: .encoder) }
        #expect(wrong.hasPrefix("INVALID_ARGUMENT inputs[0]: decoder_routes.stack is encoder"))
    }

    @Test(
        "What holds for all inputs is refused under its own name, and a single input's fields beside several by theirs"
    )
    func sharedFields() {
        let pair = ScoreInput(input: Self.short, target: Self.short)
        let fraction = self.encode([Self.short]) { $0.dropPolicy = .init(maxDroppedFraction: 2) }
        #expect(fraction.hasPrefix("INVALID_ARGUMENT drop_policy.max_dropped_fraction is 2.0"))
        #expect(
            self.score([pair]) { $0.topLogprobs = 21 } == "INVALID_ARGUMENT top_logprobs is 21; it must be from 0 to 20"
        )
        let beside = "is set beside inputs; leave it out, and give each of the inputs its own"
        #expect(self.encode([Self.short]) { $0.input = Self.short } == "INVALID_ARGUMENT input \(beside)")
        #expect(self.encode([Self.short]) { $0.encoderRoutes = .init() } == "INVALID_ARGUMENT encoder_routes \(beside)")
        #expect(self.score([pair]) { $0.input = Self.short } == "INVALID_ARGUMENT input \(beside)")
        #expect(self.score([pair]) { $0.target = Self.short } == "INVALID_ARGUMENT target \(beside)")
        #expect(self.score([pair]) { $0.encoderRoutes = .init() } == "INVALID_ARGUMENT encoder_routes \(beside)")
        #expect(self.score([pair]) { $0.decoderRoutes = .init() } == "INVALID_ARGUMENT decoder_routes \(beside)")
    }

    @Test("The number of inputs, their tokens and the bytes of the answers are bounded")
    func totals() {
        let six = [ModelInput](repeating: Self.short, count: 6)
        #expect(self.encode(six).isEmpty)
        #expect(
            self.encode(six + [Self.short])
                == "RESOURCE_EXHAUSTED inputs has 7 entries; the limit is 6; send the others in another call"
        )
        let ten = ModelInput.tokenIDs([UInt32](repeating: 5, count: 10))
        #expect(self.encode([ten, ten, ten]).isEmpty)
        #expect(
            self.encode([ten, ten, ten, Self.short])
                == "RESOURCE_EXHAUSTED inputs[3]: it brings the tokens of the call's inputs to 32; the limit is 30; send it and "
                + "what follows in another call"
        )
        // Targets count too.
        let five = ModelInput.tokenIDs([5, 6, 7, 8, 1])
        let pair = ScoreInput(input: ten, target: five)
        #expect(self.score([pair, pair]).isEmpty)
        #expect(self.score([pair, pair, pair]).contains("inputs[2]: it brings the tokens of the call's inputs to 45"))
        // Hidden states: 512 bytes for a token.
        let states = self.encode([ten, ten, ten]) { $0.pooling = .perToken }
        #expect(self.encode([ten, ten]) { $0.pooling = .perToken }.isEmpty)
        #expect(states.hasPrefix("RESOURCE_EXHAUSTED inputs[2]: it brings the call's answers to 1"))
        // Logits: 8 KiB for a token.
        #expect(self.score([ScoreInput(input: Self.short, target: Self.short)]) { $0.returnLogits = true }.isEmpty)
        let logits = self.score([ScoreInput(input: Self.short, target: five)]) { $0.returnLogits = true }
        #expect(logits.hasPrefix("RESOURCE_EXHAUSTED inputs[0]: it brings the call's answers to 4"))
        #expect(
            logits.hasSuffix(
                "bytes; the limit is 17500; send it and what follows in another call, or ask for less with each"
            )
        )
    }

    @Test("The estimate of an answer's size is no less than the answer")
    func estimate() async throws {
        let inputs = (0..<5)
            .map { index in
                ScoreInput(
                    input: .tokenIDs([UInt32](repeating: 2000, count: 3 + index) + [1]),
                    target: .tokenIDs([UInt32](repeating: 2047, count: 5))
                )
            }
        var limits = RequestLimits()
        let bytes = try await TestEngine.run { test -> Int in
            let handler = RequestHandler(
                reader: RequestReader(
                    tokenizer: nil,
                    model: self.reader.model,
                    limits: limits,
                    batchSlots: 8
                ),
                engine: test.engine
            )
            let request = ScoreRequest(
                topLogprobs: 20,
                returnRoutes: true,
                returnRouterLosses: true,
                inputs: inputs
            )
            return try await handler.score(request, .init()).serialized().count
        }
        // With one byte less than the answer takes, the request is refused.
        limits.maxAnswerBytes = bytes - 1
        let reader = RequestReader(tokenizer: nil, model: self.reader.model, limits: limits, batchSlots: 8)
        let refusal = self.refusal {
            let request = ScoreRequest(topLogprobs: 20, returnRoutes: true, returnRouterLosses: true, inputs: inputs)
            _ = try reader.scoreAll(request, deadline: nil)
        }
        #expect(refusal.contains("the call's answers"))
    }
}
