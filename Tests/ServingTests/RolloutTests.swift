// SPDX-License-Identifier: Apache-2.0

import Testing

@testable import ExpertServing
@testable import GatewayServing

@Suite("Rollouts as machines")
struct RolloutTests {
    private static let start = ContinuousClock.now

    /// A rollout whose second checkpoint is loaded and gets a share.
    private static func canary(share: Float = 0.25) throws -> Rollout {
        var rollout = Rollout(checkpoint: nil)
        let actions = try rollout.handle(.begin(checkpoint: "new", share: share), now: Self.start)
        #expect(actions == [.load(Rollout.Model(id: 1, checkpoint: "new"), isFor: "new")])
        #expect(rollout.share == 0)
        #expect(try rollout.handle(.loaded(1), now: Self.start).isEmpty)
        #expect(rollout.phase == .canary)
        return rollout
    }

    @Test("A canary's share of the requests follows from their points, and grows without moving one back")
    func share() throws {
        var rollout = try Self.canary()
        let points = (0..<4000).map { ModelLanes.point(of: "request \($0)".utf8) }
        let quarter = points.map { rollout.begin(point: $0) }
        let count = quarter.filter { $0 == 1 }.count
        #expect((800...1200).contains(count), "\(count) of 4000")
        #expect(points.map { rollout.begin(point: $0) } == quarter)
        #expect(try rollout.handle(.share(0.5), now: Self.start).isEmpty)
        let half = points.map { rollout.begin(point: $0) }
        #expect(zip(quarter, half).allSatisfy { $0 == 0 || $1 == 1 })
        #expect(half.filter { $0 == 1 }.count > count)
        #expect(rollout.checkInvariants() == nil)
    }

    @Test(
        "A promotion is recorded before requests change, and the old checkpoint is unloaded only when none runs on it"
    )
    func promote() throws {
        var rollout = try Self.canary(share: 0)
        let old = rollout.begin(point: 7)
        #expect(old == 0)
        #expect(try rollout.handle(.promote, now: Self.start) == [.record("new")])
        #expect(rollout.begin(point: 7) == 0, "not before it is recorded")
        #expect(try rollout.handle(.recorded(failure: nil), now: Self.start).isEmpty)
        #expect(rollout.begin(point: 7) == 1)
        #expect(throws: Rollout.Refusal.self) { try rollout.handle(.finish, now: Self.start) }
        rollout.ended(on: old)
        #expect(throws: Rollout.Refusal.self) { try rollout.handle(.finish, now: Self.start) }
        rollout.ended(on: old)
        #expect(try rollout.handle(.finish, now: Self.start) == [.unload(0)])
        #expect(rollout.phase == .steady && rollout.serving.checkpoint == "new" && rollout.other == nil)
        #expect(rollout.serving.running == 1)
    }

    @Test("A record that cannot be written leaves the old checkpoint in place, with its reason")
    func unrecorded() throws {
        var rollout = try Self.canary(share: 0)
        _ = try rollout.handle(.promote, now: Self.start)
        _ = try rollout.handle(.recorded(failure: "the disk is full"), now: Self.start)
        #expect(rollout.phase == .canary && rollout.serving.checkpoint == nil && rollout.detail == "the disk is full")
        #expect(rollout.begin(point: 1) == 0)
    }

    @Test("Back works while loading, as a canary and after a promotion")
    func back() throws {
        var loading = Rollout(checkpoint: nil)
        _ = try loading.handle(.begin(checkpoint: "new", share: 1), now: Self.start)
        #expect(try loading.handle(.back, now: Self.start) == [.unload(1)])
        #expect(loading.phase == .steady)
        #expect(try loading.handle(.loaded(1), now: Self.start).isEmpty)
        #expect(loading.phase == .steady, "what comes late is not served")

        var canary = try Self.canary(share: 1)
        #expect(canary.begin(point: 3) == 1)
        #expect(try canary.handle(.back, now: Self.start).isEmpty)
        #expect(canary.begin(point: 3) == 0)
        canary.ended(on: 1)
        #expect(try canary.handle(.finish, now: Self.start) == [.unload(1)])

        var promoted = try Self.canary()
        _ = try promoted.handle(.promote, now: Self.start)
        _ = try promoted.handle(.recorded(failure: nil), now: Self.start)
        #expect(try promoted.handle(.back, now: Self.start) == [.record(nil)])
        _ = try promoted.handle(.recorded(failure: nil), now: Self.start)
        #expect(promoted.serving.checkpoint == nil && promoted.other?.checkpoint == "new")
        #expect(try promoted.handle(.back, now: Self.start).isEmpty, "twice changes nothing")
        #expect(promoted.serving.checkpoint == nil)
    }

    @Test("Loading that takes too long is given up")
    func late() throws {
        var rollout = Rollout(checkpoint: nil)
        _ = try rollout.handle(.begin(checkpoint: "new", share: 1), now: Self.start)
        rollout.note("1 of 2 hosts hold it")
        #expect(try rollout.handle(.timer, now: Self.start).isEmpty)
        let due = try #require(rollout.nextTimer)
        #expect(try rollout.handle(.timer, now: due) == [.unload(1)])
        #expect(rollout.detail.contains("1 of 2 hosts hold it"))
        #expect(rollout.nextTimer == nil)
    }

    @Test("Steps that make no sense change nothing and say what to do")
    func refusals() throws {
        var steady = Rollout(checkpoint: "old")
        let before = steady
        for event in [Rollout.Event.promote, .back, .finish, .share(0.5), .begin(checkpoint: "old", share: 0)] {
            #expect(throws: Rollout.Refusal.self) { try steady.handle(event, now: Self.start) }
        }
        #expect(steady == before)
        var canary = try Self.canary()
        for event in [Rollout.Event.begin(checkpoint: "third", share: 0), .share(.nan), .share(1.5), .finish] {
            let error = #expect(throws: Rollout.Refusal.self) { try canary.handle(event, now: Self.start) }
            #expect(error?.message.isEmpty == false)
        }
    }

    @Test("Invariants hold, and every request ends where it began, over random steps", arguments: 0..<40)
    func random(seed: UInt64) {
        var random = SeededNumbers(state: seed)
        var rollout = Rollout(checkpoint: nil)
        var running: [Rollout.ModelID] = []
        var loaded: Set<Rollout.ModelID> = [0]
        var (now, recorded, awaitsRecord) = (Self.start, String?.none, false)
        var pending: String?
        for _ in 0..<2000 {
            now = now.advanced(by: .milliseconds(Int64(random.next() % 5000)))
            var actions: [Rollout.Action] = []
            func handle(_ event: Rollout.Event) { actions += (try? rollout.handle(event, now: now)) ?? [] }
            switch random.next() % 16 {
            case 0: handle(.begin(checkpoint: "c\(random.next() % 5)", share: Float(random.next() % 5) / 4))
            case 1, 2: if let other = rollout.other { handle(.loaded(other.id)) }
            case 3: if let other = rollout.other { handle(.failed(other.id, "broken")) }
            case 4: handle(.share(Float(random.next() % 5) / 4))
            case 5: handle(.promote)
            case 6: handle(.back)
            case 7: handle(.finish)
            case 8: handle(.timer)
            case 9 where awaitsRecord:
                let fails = random.next() % 4 == 0
                if !fails { recorded = pending }
                awaitsRecord = false
                handle(.recorded(failure: fails ? "no" : nil))
            case 10...12:
                let id = rollout.begin(point: random.next())
                #expect(loaded.contains(id))
                running.append(id)
            default:
                guard !running.isEmpty else { break }
                rollout.ended(on: running.remove(at: Int(random.next() % UInt64(running.count))))
            }
            for action in actions {
                switch action {
                case .load(let model, isFor: _): loaded.insert(model.id)
                case .record(let name): (pending, awaitsRecord) = (name, true)
                case .unload(let id):
                    #expect(!running.contains(id), "\(id) is unloaded under a request")
                    loaded.remove(id)
                }
            }
            #expect(rollout.checkInvariants() == nil)
            // What a restart would serve is what gets the requests.
            if !awaitsRecord { #expect(rollout.serving.checkpoint == recorded) }
        }
    }

    // MARK: - Hosts

    private static let old = HostHoldings.Checkpoint(name: nil, fingerprint: 1)
    private static let new = HostHoldings.Checkpoint(name: "new", fingerprint: 2)
    private static let third = HostHoldings.Checkpoint(name: "third", fingerprint: 3)

    @Test("A host loads one checkpoint beside its own, and refuses a third")
    func hold() {
        var holdings = HostHoldings(serving: Self.old)
        #expect(holdings.wanted(Self.old, now: Self.start) == .describe)
        #expect(holdings.wanted(Self.new, now: Self.start) == .load)
        #expect(holdings.wanted(Self.new, now: Self.start) == .wait)
        guard case .refuse = holdings.wanted(Self.third, now: Self.start) else { return #expect(Bool(false)) }
        let isKept = holdings.loaded(2)
        #expect(isKept)
        #expect(holdings.held == [1, 2])
        #expect(holdings.wanted(Self.new, now: Self.start) == .describe)
        guard case .refuse(let reason) = holdings.wanted(Self.third, now: Self.start) else {
            return #expect(Bool(false))
        }
        #expect(reason.contains("--promote"))
        #expect(holdings.checkInvariants() == nil)
    }

    @Test("A host keeps what was called for within the last second, and loads nothing that is no longer wanted")
    func settle() {
        var holdings = HostHoldings(serving: Self.old)
        _ = holdings.wanted(Self.new, now: Self.start)
        let isKept = holdings.loaded(2)
        #expect(isKept)
        guard case .refuse = holdings.stays(2, idle: .milliseconds(10)) else { return #expect(Bool(false)) }
        guard case .refuse = holdings.stays(9, idle: nil) else { return #expect(Bool(false)) }
        #expect(holdings.stays(2, idle: .seconds(3)) == .settle(Self.new, letGo: [1]))
        holdings.settled(Self.new)
        #expect(holdings.held == [2])
        #expect(holdings.wanted(Self.third, now: Self.start) == .load)
        #expect(holdings.stays(2, idle: nil) == .settle(Self.new, letGo: []))
        holdings.settled(Self.new)
        let isStillWanted = holdings.loaded(3)
        #expect(!isStillWanted, "it came after the host had settled")
        #expect(holdings.held == [2] && holdings.checkInvariants() == nil)
    }

    @Test("A host says why it could not load, and tries again later")
    func failed() {
        var holdings = HostHoldings(serving: Self.old)
        _ = holdings.wanted(Self.new, now: Self.start)
        holdings.failed(2, "no memory", now: Self.start)
        #expect(holdings.wanted(Self.new, now: Self.start) == .refuse("no memory"))
        #expect(holdings.wanted(Self.new, now: Self.start.advanced(by: .seconds(3))) == .load)
        #expect(holdings.checkInvariants() == nil)
    }
}
