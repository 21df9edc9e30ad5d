// SPDX-License-Identifier: Apache-2.0

import SwitchyardProtos
import SwitchyardTypes
import Testing

@testable import GatewayServing

@Suite("Files of rollouts")
struct RolloutFollowerTests {
    /// A gateway without weights: loading and hosts do what a test says.
    private struct Bench {
        var rollout: Rollout
        var follower = RolloutFollower()
        /// Why the next checkpoint cannot be loaded.
        var failure: String?
        /// How often the hosts refuse to unload.
        var refusals = 0
        var said: [RolloutFollower.Action] = []
        var steps: [RolloutStep] = []
        private var settled: String?
        var isSettled: Bool { self.settled == self.rollout.serving.checkpoint }

        init(serving checkpoint: String? = nil) { self.rollout = Rollout(checkpoint: checkpoint) }

        var report: RolloutDescription {
            var report = RolloutDescription()
            report.phase =
                switch self.rollout.phase {
                case .steady: .steady
                case .loading: .loading
                case .canary: .canary
                case .leaving: .leaving
                }
            func message(_ model: Rollout.Model) -> LoadedCheckpoint {
                LoadedCheckpoint(checkpoint: model.checkpoint ?? "", fingerprint: 1, running: UInt64(model.running))
            }
            report.serving = message(self.rollout.serving)
            report.other = self.rollout.other.map(message)
            report.share = Float(Double(self.rollout.share) / Double(Rollout.shareUnits))
            report.detail = self.rollout.detail
            return report
        }

        mutating func follow(_ aim: RolloutWish.Aim?) { _ = self.follower.follow(aim.map { RolloutWish($0) }) }

        /// One look at the file, as the runner does it: until there is nothing to do, or a step is refused.
        mutating func look() {
            while let action = self.follower.next(self.report) {
                guard case .step(let step, let checkpoint, let share) = action else {
                    self.said.append(action)
                    continue
                }
                self.steps.append(step)
                do {
                    try self.take(step, checkpoint, share)
                    if let more = self.follower.done(step) { self.said.append(more) }
                } catch {
                    if let more = self.follower.refused(step, error.message) { self.said.append(more) }
                    return
                }
            }
        }

        private mutating func take(_ step: RolloutStep, _ name: String, _ share: Float) throws(Rollout.Refusal) {
            switch step {
            case .rolloutBegin: try self.handle(.begin(checkpoint: name, share: share))
            case .rolloutShare: try self.handle(.share(share))
            case .rolloutPromote: try self.handle(.promote)
            case .rolloutBack: try self.handle(.back)
            case .rolloutFinish: try self.handle(.finish)
            case .rolloutSettle:
                guard self.rollout.phase == .steady else { throw Rollout.Refusal(message: "two are loaded") }
                guard self.refusals == 0 else {
                    self.refusals -= 1
                    throw Rollout.Refusal(message: "a host still uses it")
                }
                self.settled = self.rollout.serving.checkpoint
            case .unspecified: break
            }
        }

        mutating func handle(_ event: Rollout.Event) throws(Rollout.Refusal) {
            for action in try self.rollout.handle(event, now: .now) {
                switch action {
                case .record: try self.handle(.recorded(failure: nil))
                case .load, .unload: break
                }
            }
            #expect(self.rollout.checkInvariants() == nil)
        }

        /// What is being loaded is there, or cannot be.
        mutating func load() throws {
            guard case .loading = self.rollout.phase, let other = self.rollout.other else { return }
            try self.handle(self.failure.map { .failed(other.id, $0) } ?? .loaded(other.id))
        }
    }

    @Test("A canary is loaded and gets its share, another share when the file says so, and all when it is named alone")
    func growing() throws {
        var bench = Bench()
        bench.follow(.canary("new", share: 0.05))
        bench.look()
        #expect(bench.steps == [.rolloutBegin] && bench.said.isEmpty)
        bench.look()
        #expect(bench.steps.count == 1, "it waits while loading")
        try bench.load()
        bench.look()
        #expect(bench.said == [.reached] && bench.rollout.share == 50_000)
        bench.look()
        #expect(bench.said.count == 1, "it says so once")

        bench.follow(.canary("new", share: 0.5))
        bench.look()
        #expect(bench.rollout.share == 500_000 && bench.said.count == 2)

        let old = bench.rollout.begin(point: 999_999)
        bench.follow(.promotion("new"))
        bench.look()
        #expect(bench.rollout.serving.checkpoint == "new" && bench.rollout.phase == .leaving)
        bench.look()
        #expect(bench.said.count == 2, "a request still runs on the old one")
        bench.rollout.ended(on: old)
        bench.refusals = 2
        for _ in 0..<3 { bench.look() }
        #expect(bench.rollout.phase == .steady && bench.isSettled && bench.said.last == .reached)
        #expect(bench.steps.filter { $0 == .rolloutSettle }.count == 3)
    }

    @Test("A checkpoint that is named alone goes all the way by itself, and the way back works at each step")
    func alone() throws {
        var bench = Bench(serving: "old")
        bench.follow(.promotion("new"))
        bench.look()
        try bench.load()
        bench.look()
        #expect(bench.rollout.serving.checkpoint == "new" && bench.isSettled && bench.said == [.reached])

        for isLoaded in [false, true] {
            var bench = Bench(serving: "old")
            bench.follow(.canary("new", share: 1))
            bench.look()
            if isLoaded { try bench.load() }
            bench.follow(.back)
            bench.look()
            #expect(bench.rollout.serving.checkpoint == "old" && bench.rollout.phase == .steady && bench.isSettled)
            #expect(bench.said.last == .reached)
        }
        // After the promotion, while a request still runs on the old one.
        var late = Bench(serving: "old")
        let running = late.rollout.begin(point: 0)
        late.follow(.promotion("new"))
        late.look()
        try late.load()
        late.look()
        #expect(late.rollout.phase == .leaving)
        late.follow(.back)
        late.look()
        #expect(late.rollout.serving.checkpoint == "old" && late.isSettled)
        late.rollout.ended(on: running)
    }

    @Test("Another name in the file takes the place of what is loading, of a canary, and of what leaves")
    func another() throws {
        for steps in 0..<3 {
            var bench = Bench(serving: "old")
            bench.follow(.canary("wrong", share: 1))
            bench.look()
            if steps > 0 { try bench.load() }
            if steps > 1 {
                bench.follow(.back)
                let held = bench.rollout.begin(point: 0)
                bench.look()
                bench.rollout.ended(on: held)
            }
            bench.follow(.canary("new", share: 0.25))
            bench.look()
            bench.look()
            try bench.load()
            bench.look()
            #expect(bench.rollout.other?.checkpoint == "new" && bench.rollout.share == 250_000, "\(steps)")
            #expect(bench.said.last == .reached)
        }
    }

    @Test("What cannot be loaded, or is served already, is said once and not tried again until the file changes")
    func failing() throws {
        var bench = Bench(serving: "old")
        bench.failure = "the files are not there"
        bench.follow(.promotion("new"))
        bench.look()
        try bench.load()
        for _ in 0..<5 { bench.look() }
        #expect(bench.steps == [.rolloutBegin])
        #expect(bench.said == [.failed("new is not served: the files are not there")])

        bench.failure = nil
        bench.follow(.promotion("new"))
        bench.look()
        #expect(bench.steps == [.rolloutBegin], "the same file")
        bench.follow(nil)
        bench.follow(.promotion("new"))
        bench.look()
        try bench.load()
        bench.look()
        #expect(bench.rollout.serving.checkpoint == "new" && bench.said.last == .reached)

        bench.follow(.canary("new", share: 0.5))
        bench.look()
        #expect(bench.said.last == .failed("new is what this gateway serves already"))
        #expect(bench.rollout.phase == .steady)
    }

    @Test("What a person does after the file was followed stays")
    func person() throws {
        var bench = Bench(serving: "old")
        bench.follow(.canary("new", share: 0.5))
        bench.look()
        try bench.load()
        bench.look()
        try bench.handle(.back)
        try bench.handle(.finish)
        let steps = bench.steps.count
        for _ in 0..<3 { bench.look() }
        #expect(bench.steps.count == steps && bench.rollout.serving.checkpoint == "old")
        // And during it, it is said that the file's wish was not reached.
        bench.follow(.canary("newer", share: 0.5))
        bench.look()
        try bench.handle(.back)
        bench.look()
        guard case .failed? = bench.said.last else {
            Issue.record("\(bench.said)")
            return
        }
        #expect(bench.rollout.phase == .steady)
    }

    @Test("Whatever is wished and whenever, a gateway comes to the last wish", arguments: 0..<200)
    func wishes(seed: Int) throws {
        var random = SplitMix64(seed: UInt64(seed))
        var bench = Bench(serving: "a")
        var running: [Rollout.ModelID] = []
        for _ in 0..<60 {
            switch random.next() % 6 {
            case 0: bench.follow(Self.wish(&random))
            case 1: running.append(bench.rollout.begin(point: random.next()))
            case 2 where !running.isEmpty:
                bench.rollout.ended(on: running.remove(at: Int(random.next() % UInt64(running.count))))
            case 3: try bench.load()
            case 4: bench.refusals = Int(random.next() % 3)
            default: bench.look()
            }
        }
        let last = Self.wish(&random)
        bench.follow(nil)
        bench.follow(last)
        for id in running { bench.rollout.ended(on: id) }
        let before = bench.rollout.serving.checkpoint
        for _ in 0..<20 {
            bench.look()
            try bench.load()
        }
        #expect(bench.follower.isOver)
        switch last {
        case .promotion(let name):
            #expect(bench.rollout.serving.checkpoint == name && bench.rollout.phase == .steady && bench.isSettled)
        case .canary(let name, let share) where before != name:
            #expect(bench.rollout.other?.checkpoint == name && bench.report.share == share)
        case .canary: #expect(bench.rollout.serving.checkpoint == before)
        case .back: #expect(bench.rollout.phase == .steady && bench.isSettled)
        }
    }

    private static func wish(_ random: inout SplitMix64) -> RolloutWish.Aim {
        let name = ["a", "b", "c"][Int(random.next() % 3)]
        return switch random.next() % 3 {
        case 0: .promotion(name)
        case 1: .canary(name, share: [0, 0.25, 1][Int(random.next() % 3)])
        default: .back
        }
    }

    @Test("A file says what to serve, and what is wrong with it is named")
    func reading() throws {
        func read(_ text: String) throws -> RolloutWish.Aim? { try RolloutWish(reading: Array(text.utf8))?.aim }
        #expect(try read(#"{"checkpoint": "tuned-2", "canary": "5%"}"#) == .canary("tuned-2", share: 0.05))
        #expect(try read(#"{"canary": 0.25, "checkpoint": "tuned-2"}"#) == .canary("tuned-2", share: 0.25))
        #expect(try read("{\"checkpoint\": \"tuned-2\"}\n") == .promotion("tuned-2"))
        #expect(try read(#"{"back": true}"#) == .back)
        #expect(try read(" \n") == nil)
        for (text, reason) in [
            ("tuned-2", "is not JSON"), ("[]", "an array"), ("{}", "names no checkpoint"),
            (#"{"checkpoint": 2}"#, "checkpoint is the integer 2"), (#"{"checkpoint": "../x"}"#, "name is"),
            (#"{"checkpoint": "x", "canary": "a lot"}"#, "canary is the string \"a lot\""),
            (#"{"checkpoint": "x", "canary": 1.5}"#, "canary is the number 1.5"),
            (#"{"checkpoint": "x", "canary": "-1%"}"#, "canary is"),
            (#"{"checkpoint": "x", "canary": null}"#, "canary is null"),
            (#"{"checkpoint": "x", "share": 1}"#, "\"share\", which is no key"),
            (#"{"back": false}"#, "back is the boolean false"), (#"{"back": true, "checkpoint": "x"}"#, "stand alone"),
            (#"{"checkpoint": "x", "checkpoint": "y"}"#, "is not JSON"),
            (String(repeating: " ", count: 5000), "5000 bytes, over the limit of 4096"),
        ] {
            do {
                let aim = try read(text)
                Issue.record("\(text) was read as \(String(describing: aim))")
            } catch {
                #expect("\(error)".contains(reason), "\(text): \(error)")
            }
        }
    }

    @Test("A request that names a checkpoint is counted on it, and none that leaves takes one")
    func named() throws {
        var rollout = Rollout(checkpoint: nil)
        _ = try rollout.handle(.begin(checkpoint: "new", share: 0), now: .now)
        let early = rollout.begin(on: 1)
        #expect(!early, "not while it is loading")
        _ = try rollout.handle(.loaded(1), now: .now)
        let taken = [1, 0, 2].map { rollout.begin(on: $0) }
        #expect(taken == [true, true, false])
        #expect(rollout.other?.running == 1 && rollout.serving.running == 1)
        _ = try rollout.handle(.back, now: .now)
        let late = rollout.begin(on: 1)
        #expect(!late, "not while it leaves")
        #expect(throws: Rollout.Refusal.self) { try rollout.handle(.finish, now: .now) }
        rollout.ended(on: 1)
        #expect(try rollout.handle(.finish, now: .now) == [.unload(1)])
        #expect(rollout.checkInvariants() == nil)
    }
}

/// Source: https://prng.di.unimi.it/splitmix64.c.
private struct SplitMix64: RandomNumberGenerator {
    private var state: UInt64

    init(seed: UInt64) { self.state = seed }

    mutating func next() -> UInt64 {
        self.state &+= 0x9e37_79b9_7f4a_7c15
        var z = self.state
        z = (z ^ (z >> 30)) &* 0xbf58_476d_1ce4_e5b9
        z = (z ^ (z >> 27)) &* 0x94d0_49bb_1331_11eb
        return z ^ (z >> 31)
    }
}
