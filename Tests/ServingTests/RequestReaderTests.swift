// SPDX-License-Identifier: Apache-2.0

import Checkpoints
import RPCCore
import SwitchModel
import SwitchyardProtos
import Testing
import Tokenization

@testable import GatewayServing

@Suite
struct RequestReaderTests {
    private let reader: RequestReader

    init() throws {
        var limits = RequestLimits()
        limits.maxInputTokens = 12
        limits.maxNewTokens = 50
        limits.maxTargetTokens = 5
        limits.maxTextBytes = 200
        self.reader = RequestReader(
            tokenizer: try Tokenizer(directory: TestModel.miniature.directory),
            model: try ModelConfiguration.load(directory: TestModel.miniature.directory),
            limits: limits,
            batchSlots: 8
        )
    }

    private func request(
        _ input: ModelInput? = .tokenIDs([5, 1]),
        _ change: (inout GenerateRequest) -> Void = { _ in }
    ) -> GenerateRequest {
        var request = GenerateRequest(input: input, parameters: .init(), dropPolicy: .init())
        change(&request)
        return request
    }

    @Test("A request without parameters gets the model's own defaults")
    func defaults() throws {
        let request = try self.reader.generate(GenerateRequest(input: .text("Now is the winter")), deadline: nil)
        #expect(request.input.last == 1)
        // A request that says nothing of losses gets the gateway's limit: an answer from few tokens is worth little.
        #expect(request.dropPolicy == DropPolicy(maxDroppedFraction: 0.5, isGatewayLimit: true))
        guard case .generate(let parameters, let stops) = request.work else {
            Issue.record("the work is \(request.work)")
            return
        }
        #expect(parameters.maxNewTokens == 20)
        #expect(parameters.beamCount == 1)
        #expect(!parameters.sampling)
        #expect(stops.isEmpty)
    }

    /// What each field of a message asks for.
    private func parameters(
        _ message: GenerationParametersMessage = .init(),
        defaults: GenerationDefaults = .init()
    ) throws -> SwitchModel.GenerationParameters {
        var model = self.reader.model
        model.generation = defaults
        let reader = RequestReader(
            tokenizer: self.reader.tokenizer,
            model: model,
            limits: self.reader.limits,
            batchSlots: self.reader.batchSlots
        )
        let request = GenerateRequest(input: .tokenIDs([5, 1]), parameters: message)
        guard case .generate(let parameters, let stops) = try reader.generate(request, deadline: nil).work else {
            throw RPCError(.internal, "not a request to generate")
        }
        #expect(stops == message.stop)
        return parameters
    }

    @Test("Every field reaches its parameter")
    func fields() throws {
        var message = GenerationParametersMessage()
        message.maxNewTokens = 31
        message.minNewTokens = 4
        message.lengthPenalty = 0.5
        message.doSample = true
        message.temperature = 0.75
        message.topK = 7
        message.topP = 0.875
        message.repetitionPenalty = 1.25
        message.seed = 11
        message.stop = ["a"]
        message.numReturnSequences = 3
        message.topLogprobs = 2
        var expected = SwitchModel.GenerationParameters()
        expected.maxNewTokens = 31
        expected.minNewTokens = 4
        expected.lengthPenalty = 0.5
        expected.sampling = true
        expected.temperature = 0.75
        expected.topK = 7
        expected.topP = 0.875
        expected.repetitionPenalty = 1.25
        expected.seed = 11
        expected.returnedSequences = 3
        expected.topLogprobs = 2
        #expect(try self.parameters(message) == expected)
        message = GenerationParametersMessage()
        message.numBeams = 5
        message.skipScores = true
        expected = SwitchModel.GenerationParameters()
        expected.beamCount = 5
        expected.skipsScores = true
        #expect(try self.parameters(message) == expected)
    }

    @Test("Fields left out take the model's default, and the request's fields win")
    func modelDefaults() throws {
        var defaults = GenerationDefaults()
        defaults.maxLength = 31
        defaults.minLength = 5
        defaults.beamCount = 4
        defaults.lengthPenalty = 2
        defaults.earlyStopping = .never
        defaults.temperature = 0.5
        defaults.topK = 9
        defaults.topP = 0.25
        defaults.repetitionPenalty = 1.5
        defaults.returnedSequences = 2
        var expected = SwitchModel.GenerationParameters()
        // The start token is not a new one.
        expected.maxNewTokens = 30
        expected.minNewTokens = 4
        expected.beamCount = 4
        expected.lengthPenalty = 2
        expected.earlyStopping = .never
        expected.repetitionPenalty = 1.5
        expected.returnedSequences = 2
        #expect(try self.parameters(defaults: defaults) == expected)
        // Only sampling reads the rest.
        let drawn = try self.parameters(.init(numBeams: 1, doSample: true), defaults: defaults)
        #expect(drawn.temperature == 0.5 && drawn.topK == 9 && drawn.topP == 0.25)
        var message = GenerationParametersMessage()
        message.numBeams = 3
        message.repetitionPenalty = 1.125
        message.numReturnSequences = 1
        expected.beamCount = 3
        expected.repetitionPenalty = 1.125
        expected.returnedSequences = 1
        #expect(try self.parameters(message, defaults: defaults) == expected)
        // The model's own lengths give way to the gateway's limit and to the request.
        defaults.maxNewTokens = 1_000
        message.maxNewTokens = 2
        #expect(try self.parameters(defaults: defaults).maxNewTokens == 50)
        #expect(try self.parameters(message, defaults: defaults).minNewTokens == 2)
        // Two answers of greedy search would be the same; transformers refuses them too.
        defaults.returnedSequences = 2
        message = GenerationParametersMessage()
        message.numBeams = 1
        let error = #expect(throws: RPCError.self) { try self.parameters(message, defaults: defaults) }
        #expect(error?.message.contains("set do_sample or num_beams") == true)
    }

    @Test("Ids are taken as they are")
    func ids() throws {
        let request = try self.reader.generate(self.request(.tokenIDs([7, 2047])), deadline: nil)
        #expect(request.input == [7, 2047])
    }

    /// A wrong request: the status and the required words of the message.
    struct Fault: Sendable, CustomTestStringConvertible {
        let testDescription: String
        let code: Status.Code
        let words: [String]
        let change: @Sendable (inout GenerateRequest) -> Void
    }

    static let faults: [Fault] = [
        Fault(testDescription: "no input", code: .invalidArgument, words: ["input", "text"]) { $0.input = nil },
        Fault(testDescription: "no ids", code: .invalidArgument, words: ["input_ids"]) { $0.input = .tokenIDs([]) },
        Fault(testDescription: "unknown id", code: .invalidArgument, words: ["input_ids.ids[1]", "2048", "2047"]) {
            $0.input = .tokenIDs([1, 2048])
        },
        Fault(testDescription: "an id beyond Int32", code: .invalidArgument, words: ["4294967295"]) {
            $0.input = .tokenIDs([.max])
        },
        Fault(testDescription: "long input", code: .resourceExhausted, words: ["input_ids", "13", "12"]) {
            $0.input = .tokenIDs(Array(repeating: 5, count: 13))
        },
        Fault(testDescription: "long text", code: .resourceExhausted, words: ["text", "201", "200"]) {
            $0.input = .text(String(repeating: "a", count: 201))
        },
        Fault(testDescription: "new tokens", code: .invalidArgument, words: ["parameters.max_new_tokens", "51", "50"]) {
            $0.parameters?.maxNewTokens = 51
        },
        Fault(
            testDescription: "least tokens",
            code: .invalidArgument,
            words: ["parameters.min_new_tokens", "21", "20"]
        ) {
            $0.parameters?.minNewTokens = 21
        },
        Fault(testDescription: "beams", code: .invalidArgument, words: ["parameters.num_beams", "9", "8"]) {
            $0.parameters?.numBeams = 9
        },
        Fault(testDescription: "returned", code: .invalidArgument, words: ["num_return_sequences", "9", "8"]) {
            $0.parameters?.numReturnSequences = 9
        },
        Fault(testDescription: "returned, greedy", code: .invalidArgument, words: ["num_return_sequences", "2"]) {
            $0.parameters?.numReturnSequences = 2
        },
        Fault(testDescription: "temperature", code: .invalidArgument, words: ["parameters.temperature", "-1"]) {
            $0.parameters?.doSample = true
            $0.parameters?.temperature = -1
        },
        Fault(testDescription: "not a number", code: .invalidArgument, words: ["parameters.temperature", "nan"]) {
            $0.parameters?.doSample = true
            $0.parameters?.temperature = .nan
        },
        Fault(testDescription: "top_p", code: .invalidArgument, words: ["parameters.top_p", "1.5"]) {
            $0.parameters?.doSample = true
            $0.parameters?.topP = 1.5
        },
        Fault(testDescription: "logprobs", code: .invalidArgument, words: ["parameters.top_logprobs", "21", "20"]) {
            $0.parameters?.topLogprobs = 21
        },
        Fault(testDescription: "empty stop", code: .invalidArgument, words: ["parameters.stop[1]", "0"]) {
            $0.parameters?.stop = ["a", ""]
        },
        Fault(testDescription: "long stop", code: .invalidArgument, words: ["parameters.stop[0]", "257", "256"]) {
            $0.parameters?.stop = [String(repeating: "a", count: 257)]
        },
        Fault(testDescription: "many stops", code: .invalidArgument, words: ["parameters.stop", "17", "16"]) {
            $0.parameters?.stop = Array(repeating: "a", count: 17)
        },
        Fault(testDescription: "stop and beams", code: .invalidArgument, words: ["parameters.stop", "num_beams of 2"]) {
            $0.parameters?.stop = ["a"]
            $0.parameters?.numBeams = 2
        },
        Fault(testDescription: "fraction", code: .invalidArgument, words: ["max_dropped_fraction", "1.5"]) {
            $0.dropPolicy?.maxDroppedFraction = 1.5
        },
        Fault(testDescription: "fraction that is no number", code: .invalidArgument, words: ["max_dropped_fraction"]) {
            $0.dropPolicy?.maxDroppedFraction = .nan
        },
    ]

    @Test("Every field is checked, and named with its limit and its value", arguments: Self.faults)
    func refusals(fault: Fault) {
        let error = #expect(throws: RPCError.self) {
            try self.reader.generate(self.request(change: fault.change), deadline: nil)
        }
        #expect(error?.code == fault.code)
        for word in fault.words {
            #expect(error?.message.contains(word) == true, "\(error?.message ?? "no error") lacks \(word)")
        }
    }

    private func request(change: (inout GenerateRequest) -> Void) -> GenerateRequest {
        self.request(.tokenIDs([5, 1]), change)
    }

    @Test("A target has limits of its own")
    func target() throws {
        let request = ScoreRequest(input: .tokenIDs([1]), target: .tokenIDs([4, 5, 1]))
        guard case .score(let target, _) = try self.reader.score(request, deadline: nil).work else {
            Issue.record("not a score")
            return
        }
        #expect(target == [4, 5, 1])
        let long = ScoreRequest(input: .tokenIDs([1]), target: .tokenIDs(Array(repeating: 4, count: 6)))
        let error = #expect(throws: RPCError.self) { try self.reader.score(long, deadline: nil) }
        #expect(error?.code == .resourceExhausted)
        #expect(error?.message.contains("target_ids") == true)
        let missing = #expect(throws: RPCError.self) {
            try self.reader.score(ScoreRequest(input: .tokenIDs([1])), deadline: nil)
        }
        #expect(missing?.message.contains("target") == true)
    }

    @Test("A limit of zero in the policy is the gateway's")
    func policy() throws {
        let strict = try self.reader.generate(self.request(change: { $0.dropPolicy?.strict = true }), deadline: nil)
        #expect(strict.dropPolicy == DropPolicy(strict: true, maxDroppedFraction: 0.5, isGatewayLimit: true))
        let limited = try self.reader.generate(
            self.request(change: { $0.dropPolicy?.maxDroppedFraction = 0.25 }),
            deadline: nil
        )
        #expect(limited.dropPolicy == DropPolicy(maxDroppedFraction: 0.25))
    }
}
