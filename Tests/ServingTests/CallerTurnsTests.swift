// SPDX-License-Identifier: Apache-2.0

import BatchScheduling
import Checkpoints
import RPCCore
import SwitchModel
import SwitchyardProtos
import Synchronization
import Testing
import Tokenization

@testable import GatewayServing

@Suite("Turns of callers in the engine", .timeLimit(.minutes(5)))
struct CallerTurnsTests {
    private static let start = ContinuousClock.now

    /// Callers in the order in which their requests end.
    private final class Endings: Sendable {
        let names = Mutex<[String]>([])
    }

    @Test("three requests with all slots' beams and long answers do not hold up another caller's one token")
    func greedyBeams() async throws {
        var configuration = EngineConfiguration()
        configuration.scheduler.batchSlots = 4
        try await TestEngine.run(configuration: configuration) { test in
            let ended = Endings()
            try await withThrowingTaskGroup(of: Void.self) { group in
                for _ in 0..<3 {
                    group.addTask {
                        _ = try await test.result(of: Self.request(test, caller: "greedy", beams: 4, tokens: 120))
                        ended.names.withLock { $0.append("greedy") }
                    }
                }
                let isBusy = await eventually { test.engine.load.queued == 2 && test.engine.load.usedSlots == 4 }
                #expect(isBusy)
                group.addTask {
                    _ = try await test.result(of: Self.request(test, caller: "small", beams: 1, tokens: 1))
                    ended.names.withLock { $0.append("small") }
                }
                try await group.waitForAll()
            }
            let order = ended.names.withLock { $0 }
            #expect(order.count == 4)
            // The greedy caller's first request may just have ended.
            #expect(order.prefix(2).contains("small"), "\(order)")
        }
    }

    @Test("a caller that fills the queue loses its last place to one that has none, and is told so with a hint")
    func displaced() throws {
        var configuration = SchedulerConfiguration(batchSlots: 4, queueLimit: 3)
        configuration.guestSlots = 0
        var book = RequestBook(scheduler: BatchScheduler(configuration: configuration))
        let (_, sink) = AsyncStream.makeStream(of: EngineEvent.self)
        var ids: [SequenceID] = []
        for _ in 0..<3 {
            ids.append(book.submit(Self.encode("many"), sink: sink, now: Self.start).id)
        }
        #expect(book.rejection(from: "many", now: Self.start) != nil)
        #expect(book.rejection(from: "few", now: Self.start) == nil)
        let (few, admission) = book.submit(Self.encode("few"), sink: sink, now: Self.start)
        #expect(admission == .queued(ahead: 2))
        let next = book.nextTurn(now: Self.start)
        let turn = try #require(next)
        #expect(turn.rejected.map(\.id) == [ids[2]])
        #expect(Set(turn.joined.map(\.id)) == [ids[0], ids[1], few])
    }

    @Test("a request whose queue time-out passes ends with RESOURCE_EXHAUSTED and a hint while others run")
    func queueTimeout() async throws {
        var configuration = EngineConfiguration()
        configuration.scheduler.batchSlots = 1
        try await TestEngine.run(configuration: configuration) { test in
            let long = Task { try await test.result(of: Self.request(test, caller: "a", beams: 1, tokens: 400)) }
            let isBusy = await eventually { test.engine.load.usedSlots == 1 }
            #expect(isBusy)
            var waiting = Self.request(test, caller: "a", beams: 1, tokens: 1)
            waiting.queueTimeout = .milliseconds(1)
            let request = waiting
            let error = await rpcError { _ = try await test.result(of: request) }
            #expect(error?.code == .resourceExhausted)
            #expect(error?.message.contains("queue time-out") == true)
            #expect(error?.metadata.first("grpc-retry-pushback-ms") != nil)
            let answer = try await long.value
            #expect(answer.usage.outputTokens == 400)
        }
    }

    @Test("priority and queue time-out come from the request, or else from the settings")
    func settings() throws {
        var limits = RequestLimits()
        limits.defaultPriority = .low
        limits.queueTimeout = .seconds(7)
        let model = try ModelConfiguration.load(directory: TestModel.miniature.directory)
        let reader = RequestReader(tokenizer: nil, model: model, limits: limits, batchSlots: 8)
        let input = ModelInput.tokenIDs([5, 1])
        let plain = try reader.encode(EncodeRequest(input: input), deadline: nil)
        #expect(plain.priority == .low && plain.queueTimeout == .seconds(7))
        let asked = try reader.generate(
            GenerateRequest(input: input, priority: .high, queueTimeoutMilliseconds: 250),
            deadline: nil
        )
        #expect(asked.priority == .high && asked.queueTimeout == .milliseconds(250))
        let without = try reader.score(
            ScoreRequest(input: input, target: .tokenIDs([6, 1]), priority: .normal, queueTimeoutMilliseconds: 0),
            deadline: nil
        )
        #expect(without.priority == .normal && without.queueTimeout == nil)
        let usual = RequestReader(tokenizer: nil, model: model, limits: RequestLimits(), batchSlots: 8)
        let unbounded = try usual.encode(EncodeRequest(input: input), deadline: nil)
        #expect(unbounded.queueTimeout == nil)
    }

    @Test("the work of a request is its rows times its longest answer, and its input")
    func work() throws {
        var parameters = SwitchModel.GenerationParameters()
        parameters.beamCount = 32
        parameters.maxNewTokens = 1_024
        let beams = EngineRequest(input: [1, 2, 3], work: .generate(parameters, stops: []))
        #expect(beams.needs.work == 3 + 32 * 1_024 && beams.needs.slots == 32)
        let score = EngineRequest(input: [1, 2], work: .score(target: [4, 5, 6], topLogprobs: 0))
        #expect(score.needs.work == 5 && score.needs.slots == 1)
        #expect(Self.encode("a").needs.work == 2)
    }

    private static func encode(_ caller: String) -> EngineRequest {
        var request = EngineRequest(input: [5, 1], work: .encode)
        request.caller = caller
        return request
    }

    private static func request(_ test: TestEngine, caller: String, beams: Int, tokens: Int) -> EngineRequest {
        var parameters = SwitchModel.GenerationParameters()
        parameters.beamCount = beams
        parameters.returnedSequences = 1
        parameters.maxNewTokens = tokens
        parameters.minNewTokens = tokens
        var request = EngineRequest(
            input: test.tokenizer.encode("Now is the winter of our <extra_id_0> Made glorious summer"),
            work: .generate(parameters, stops: [])
        )
        request.caller = caller
        return request
    }
}
