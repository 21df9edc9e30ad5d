// SPDX-License-Identifier: Apache-2.0

import BatchScheduling
import Checkpoints
import Metrics
import MetricsTestKit
import RPCCore
import ServiceKit
import SwitchModel
import Synchronization
import Testing
import Tokenization

@testable import GatewayServing

@Suite("The book of requests")
struct RequestBookTests {
    /// Draws random events for a book, and checks its invariants.
    private struct Run {
        static let slots = 4

        var book = RequestBook(
            scheduler: BatchScheduler(configuration: SchedulerConfiguration(batchSlots: Self.slots, queueLimit: 5))
        )
        var numbers: SeededNumbers
        var now = ContinuousClock.now
        var submitted: [SequenceID] = []
        var open: Set<SequenceID> = []
        var joined: Set<SequenceID> = []
        var toldOfEnd: [SequenceID: Int] = [:]
        var ends: [SequenceID: Int] = [:]
        /// Claimed, and not released yet: another thread is about to.
        var claimed: [(id: SequenceID, hasJoined: Bool)] = []

        mutating func submit() {
            let (_, sink) = AsyncStream.makeStream(of: EngineEvent.self)
            var parameters = GenerationParameters()
            parameters.beamCount = Int.random(in: 1...(Self.slots + 1), using: &self.numbers)
            var request = EngineRequest(input: [5, 1], work: .generate(parameters, stops: []))
            if Bool.random(using: &self.numbers) {
                request.deadline = self.now.advanced(by: .milliseconds(Int.random(in: 0...50, using: &self.numbers)))
            }
            let (id, admission) = self.book.submit(request, sink: sink, now: self.now)
            if case .queued = admission {
                #expect(!self.submitted.contains(id))
                self.submitted.append(id)
                self.open.insert(id)
            }
            if parameters.beamCount > Self.slots, case .queued = admission { Issue.record("\(id) cannot fit") }
        }

        /// Several requests of one call: all are accepted or none.
        mutating func submitSeveral() {
            let count = Int.random(in: 1...6, using: &self.numbers)
            var requests: [(EngineRequest, AsyncStream<EngineEvent>.Continuation)] = []
            for _ in 0..<count {
                var parameters = GenerationParameters()
                // Rarely, one cannot fit.
                parameters.beamCount = Int.random(in: 0..<20, using: &self.numbers) == 0 ? Self.slots + 1 : 1
                let request = EngineRequest(input: [5, 1], work: .generate(parameters, stops: []))
                requests.append((request, AsyncStream.makeStream(of: EngineEvent.self).continuation))
            }
            let queued = self.book.scheduler.queuedCount
            let (ids, refusal) = self.book.submit(requests, now: self.now)
            if refusal == nil {
                #expect(ids.count == count && Set(ids).isDisjoint(with: self.submitted))
                self.submitted += ids
                self.open.formUnion(ids)
            } else {
                #expect(ids.isEmpty && self.book.scheduler.queuedCount <= queued)
            }
        }

        mutating func turn() {
            guard let turn = self.book.nextTurn(now: self.now) else { return }
            for arrival in turn.joined {
                #expect(self.open.contains(arrival.id))
                #expect(self.joined.insert(arrival.id).inserted)
                #expect(turn.running.contains(arrival.id))
            }
            for id in turn.ended {
                #expect(self.joined.contains(id))
                self.toldOfEnd[id, default: 0] += 1
            }
            for id in turn.expired { self.claim(id) }
        }

        mutating func claim(_ id: SequenceID) {
            let claim = self.book.claim(id)
            #expect((claim != nil) == self.open.contains(id))
            guard let claim else { return }
            #expect(claim.arrival.id == id)
            #expect(claim.hasJoined == self.joined.contains(id))
            self.open.remove(id)
            self.ends[id, default: 0] += 1
            self.claimed.append((id, claim.hasJoined))
        }

        mutating func release() {
            guard let index = self.claimed.indices.randomElement(using: &self.numbers) else { return }
            let (id, hasJoined) = self.claimed.remove(at: index)
            let isFinished = Bool.random(using: &self.numbers)
            self.book.release(id, hasJoined: hasJoined, isFinished: isFinished, now: self.now)
        }

        mutating func something() {
            switch Int.random(in: 0..<9, using: &self.numbers) {
            case 0, 1: self.submit()
            case 8: self.submitSeveral()
            case 2, 3: self.turn()
            case 4: if let id = self.submitted.randomElement(using: &self.numbers) { self.claim(id) }
            case 5, 6: self.release()
            default: self.now += .milliseconds(Int.random(in: 0...20, using: &self.numbers))
            }
            #expect(self.book.openCount == self.open.count)
            #expect((0...Self.slots).contains(self.book.scheduler.freeSlots))
        }
    }

    @Test("in any order of events, each request ends once and gives its slots back", arguments: 1...30)
    func random(seed: Int) {
        var run = Run(numbers: SeededNumbers(state: UInt64(seed)))
        for _ in 0..<600 { run.something() }
        if seed.isMultiple(of: 2) {
            run.book.beginDraining()
            for _ in 0..<100 { run.something() }
        }
        for id in run.book.stop() { run.claim(id) }
        while !run.claimed.isEmpty { run.release() }
        run.turn()
        #expect(run.book.isDone)
        #expect(run.book.openCount == 0)
        #expect(run.book.scheduler.isIdle)
        #expect(run.book.scheduler.freeSlots == Run.slots)
        #expect(run.ends.count == run.submitted.count)
        #expect(run.ends.values.allSatisfy { $0 == 1 })
        // The engine's thread hears once about each request that it has seen.
        #expect(Set(run.toldOfEnd.keys) == run.joined)
        #expect(run.toldOfEnd.values.allSatisfy { $0 == 1 })
        #expect(run.submitted.count > 20)
    }

    @Test("a drained book is done when its last request has been released and reported")
    func draining() {
        var run = Run(numbers: SeededNumbers(state: 99))
        let (_, sink) = AsyncStream.makeStream(of: EngineEvent.self)
        let (id, _) = run.book.submit(EngineRequest(input: [1], work: .encode), sink: sink, now: run.now)
        #expect(run.book.nextTurn(now: run.now)?.joined.map(\.id) == [id])
        run.book.beginDraining()
        #expect(run.book.rejection(now: run.now) == .rejected(.draining, retryAfter: nil))
        #expect(run.book.claim(id)?.hasJoined == true)
        #expect(!run.book.isDone)
        run.book.release(id, hasJoined: true, isFinished: true, now: run.now)
        #expect(!run.book.isDone)
        #expect(run.book.nextTurn(now: run.now)?.ended == [id])
        #expect(run.book.isDone)
    }
}

/// Reproducible numbers (SplitMix64).
struct SeededNumbers: RandomNumberGenerator {
    var state: UInt64

    mutating func next() -> UInt64 {
        self.state &+= 0x9E37_79B9_7F4A_7C15
        var z = self.state
        z = (z ^ (z >> 30)) &* 0xBF58_476D_1CE4_E5B9
        z = (z ^ (z >> 27)) &* 0x94D0_49BB_1331_11EB
        return z ^ (z >> 31)
    }
}

@Suite("The end of a request")
struct RequestEndTests {
    /// Experts that cannot compute, which is the gateway's own fault.
    private struct BrokenExperts: ExpertExecutor {
        struct Pending: PendingExperts {
            func wait() throws -> ExpertOutputs { throw CancellationError() }
            func cancel() {}
        }

        func begin(_ request: ExpertLayerRequest) -> any PendingExperts { Pending() }
    }

    private struct Counts {
        let metrics: TestMetrics

        var all: [GatewayMetrics.Outcome: Int64] {
            get throws {
                var counts: [GatewayMetrics.Outcome: Int64] = [:]
                for outcome in GatewayMetrics.Outcome.allCases {
                    let labels = [("outcome", outcome.rawValue)]
                    let count = try self.metrics.expectCounter("switchyard_requests_total", labels).totalValue
                    if count > 0 { counts[outcome] = count }
                }
                return counts
            }
        }

        var answered: Int {
            self.metrics.timers(label: "switchyard_request_seconds").reduce(0) { $0 + $1.values.count }
        }
    }

    private static let error = RPCError(.internal, "damage")

    private static let ways: [(end: RequestEnd, outcome: GatewayMetrics.Outcome, code: Status.Code?)] = [
        (.finished(EngineResult(output: .scores([]), usage: EngineUsage())), .finished, nil),
        (.expired, .expired, .deadlineExceeded),
        (.cancelled, .cancelled, nil),
        (.lostTokens(RPCError(.unavailable, "lost")), .lostTokens, .unavailable),
        (.stopped, .failed, .unavailable),
        (.failed(Self.error), .failed, .internal),
        (.refused(RPCError(.resourceExhausted, "full")), .refused, .resourceExhausted),
    ]

    @Test("each kind of end is counted once and reported once, and a second end changes nothing", arguments: 0..<7)
    func once(index: Int) async throws {
        let (end, outcome, code) = Self.ways[index]
        let metrics = TestMetrics()
        // This engine is not running, so that nothing else ends a request.
        let test = try TestEngine(metrics: metrics)
        let ticket = try test.engine.submit(test.request())
        #expect(test.engine.load.queued == 1)
        #expect(test.engine.end(ticket.id, as: end))
        for (other, _, _) in Self.ways { #expect(!test.engine.end(ticket.id, as: other)) }
        var events: [EngineEvent] = []
        for await event in ticket.events { events.append(event) }
        #expect(events.count == (outcome == .cancelled ? 0 : 1))
        switch events.first {
        case .failed(let error): #expect(error.code == code)
        case .finished: #expect(code == nil)
        case .token: Issue.record("no token was chosen")
        case nil: break
        }
        #expect(try Counts(metrics: metrics).all == [outcome: 1])
        #expect(Counts(metrics: metrics).answered == (outcome == .finished ? 1 : 0))
        #expect(test.engine.load.queued == 0)
        #expect(test.engine.load.usedSlots == 0)
    }

    @Test("a request refused before it has a name is counted too")
    func refused() throws {
        let metrics = TestMetrics()
        let test = try TestEngine(metrics: metrics)
        test.engine.beginDraining()
        #expect(throws: RPCError.self) { try test.engine.requirePlace() }
        #expect(throws: RPCError.self) { try test.engine.submit(test.request()) }
        #expect(try Counts(metrics: metrics).all == [.refused: 2])
    }

    @Test("a step that fails ends its requests, and the engine continues")
    func brokenStep() async throws {
        let metrics = TestMetrics()
        let loaded = try TestModel.miniature.load()
        let engine = InferenceEngine(
            model: loaded.model,
            experts: BrokenExperts(),
            tokenizer: try Tokenizer(directory: TestModel.miniature.directory),
            metricsFactory: metrics,
            logger: quietLogger
        )
        let life = Task { try await engine.run() }
        for _ in 0..<2 {
            var last: EngineEvent?
            for await event in try engine.submit(EngineRequest(input: [5, 1], work: .encode)).events { last = event }
            guard case .failed(let error) = last else {
                Issue.record("the last event is \(String(describing: last))")
                continue
            }
            #expect(error.code == .internal)
        }
        life.cancel()
        _ = await life.result
        #expect(try Counts(metrics: metrics).all == [.failed: 2])
        #expect(engine.load.usedSlots == 0)
    }

    @Test("with cancelling clients, deadlines and a stop in the middle, every request ends once")
    func storm() async throws {
        let metrics = TestMetrics()
        let count = 80
        var configuration = EngineConfiguration()
        configuration.scheduler.batchSlots = 6
        configuration.scheduler.queueLimit = 20
        let test = try TestEngine(configuration: configuration, metrics: metrics)
        let life = Task { try await test.engine.run() }
        let ends = await withTaskGroup(of: Int.self) { group in
            for index in 0..<count {
                group.addTask { await Self.run(index, test) }
            }
            group.addTask {
                // In the middle: some have been answered, others wait.
                _ = await eventually { (try? Counts(metrics: metrics).all[.finished] ?? 0) ?? 0 > 4 }
                life.cancel()
                return 0
            }
            return await group.reduce(0, +)
        }
        _ = await life.result
        let counts = try Counts(metrics: metrics).all
        #expect(counts.values.reduce(0, +) == Int64(count), "\(counts)")
        #expect(ends == count - Int(counts[.cancelled] ?? 0), "\(counts)")
        #expect(counts[.finished] ?? 0 > 0)
        #expect(Counts(metrics: metrics).answered == Int(counts[.finished] ?? 0))
        #expect(test.engine.load.usedSlots == 0)
        #expect(test.engine.load.queued == 0)
        #expect(test.engine.shared.withLock { $0.book.openCount } == 0)
    }

    /// One of many requests: some are cancelled, some are late.
    ///
    /// - Returns: How often the request was told its end.
    private static func run(_ index: Int, _ test: TestEngine) async -> Int {
        var request = test.request(TestEngine.Kind.allCases[index % 4])
        if index % 5 == 0 { request.deadline = .now.advanced(by: .milliseconds(index)) }
        let ticket: EngineTicket
        do {
            ticket = try test.engine.submit(request)
        } catch {
            return 1
        }
        if index % 3 == 0 {
            await Task.yield()
            test.engine.cancel(ticket.id)
        }
        var ends = 0
        for await event in ticket.events {
            if case .token = event { continue }
            ends += 1
            test.engine.cancel(ticket.id)
        }
        return ends
    }
}
