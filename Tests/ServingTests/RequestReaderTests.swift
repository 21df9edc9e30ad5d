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

    @Test("A request that says nothing gets the model's own defaults")
    func defaults() throws {
        let request = try self.reader.generate(GenerateRequest(input: .text("Now is the winter")), deadline: nil)
        #expect(request.input.last == 1)
        #expect(request.dropPolicy == .allow)
        guard case .generate(let parameters, let stops) = request.work else {
            Issue.record("the work is \(request.work)")
            return
        }
        #expect(parameters.maxNewTokens == 20)
        #expect(parameters.beamCount == 1)
        #expect(!parameters.sampling)
        #expect(stops.isEmpty)
    }

    @Test("Ids are taken as they are")
    func ids() throws {
        let request = try self.reader.generate(self.request(.tokenIDs([7, 2047])), deadline: nil)
        #expect(request.input == [7, 2047])
    }

    /// A wrong request: the status and what the message has to say.
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
            $0.parameters?.temperature = -1
        },
        Fault(testDescription: "not a number", code: .invalidArgument, words: ["parameters.temperature", "nan"]) {
            $0.parameters?.temperature = .nan
        },
        Fault(testDescription: "top_p", code: .invalidArgument, words: ["parameters.top_p", "1.5"]) {
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

    @Test("The policy's zero means no limit")
    func policy() throws {
        let strict = try self.reader.generate(self.request(change: { $0.dropPolicy?.strict = true }), deadline: nil)
        #expect(strict.dropPolicy == DropPolicy(strict: true))
        let limited = try self.reader.generate(
            self.request(change: { $0.dropPolicy?.maxDroppedFraction = 0.25 }),
            deadline: nil
        )
        #expect(limited.dropPolicy == DropPolicy(maxDroppedFraction: 0.25))
    }
}
