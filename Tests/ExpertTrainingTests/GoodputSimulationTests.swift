// SPDX-License-Identifier: Apache-2.0

import Testing

@testable import ExpertTraining

@Suite("Goodput of large training clusters in virtual time")
struct GoodputSimulationTests {
    /// What hosts and the trainer take, in seconds.
    private struct Costs {
        /// Work of the trainer before each group of calls.
        var trainer = 2.0
        /// A host's time for a group of `Backward` calls.
        var backward = 1.0
        /// New weights.
        var apply = 0.5
        /// A repeated group of calls: there are no rows' gradients.
        var replay = 0.7
        /// A state on its way: 2,048 experts of switch-base's width over 128 shards at 1 GB/s, with AdamW.
        var state = 12.0
        /// From a host's death until another one is at its address.
        var restart = 60.0
        /// Mean time from a host's start to its death.
        var life = 3600.0
        /// Groups of calls in a step.
        var groups = 4
    }

    private struct Event {
        var time: Double
        var order: Int
        var kind: Kind

        enum Kind {
            case died(shard: Int, host: Int)
            case back(shard: Int, host: Int)
            case done(shard: Int, host: Int, life: Int, ShardBook.Action)
            case home(shard: Int, step: Int)
            case tick(shard: Int)
            case trainer
        }
    }

    /// Shards with replicas, the trainer's books, and one clock.
    private struct Cluster {
        let costs: Costs
        var books: [ShardBook]
        /// When each host is free, and how often it has died.
        var free: [[Double]]
        var lives: [[Int]]
        var isDown: [[Bool]]
        var places: [[ShardPlace?]]
        var heap: [Event] = []
        var order = 0
        var now = 0.0
        var steps = 0
        var group = 0
        var waitsFor: [Int: Int] = [:]
        var waiting = 0
        var messages: [[Int: (step: Int, record: Int?)]]
        var homeStep: [Int?]
        var wantsHome: Set<Int> = []
        var deaths = 0
        var repeated = 0
        var random: ShardBookTests.SplitMix
        let epoch = ContinuousClock.now
        let fails: Bool

        init(shards: Int, replicas: Int, costs: Costs, seed: UInt64, fails: Bool) {
            self.costs = costs
            self.fails = fails
            self.random = .init(state: seed)
            let now = self.epoch
            self.books = (0..<shards).map { _ in ShardBook(replicas: replicas, step: 0, now: now) }
            self.free = Array(repeating: Array(repeating: 0, count: replicas), count: shards)
            self.lives = Array(repeating: Array(repeating: 0, count: replicas), count: shards)
            self.isDown = Array(repeating: Array(repeating: false, count: replicas), count: shards)
            self.places = Array(repeating: Array(repeating: nil, count: replicas), count: shards)
            self.messages = Array(repeating: [:], count: shards)
            self.homeStep = Array(repeating: nil, count: shards)
        }

        var instant: ContinuousClock.Instant { self.epoch.advanced(by: .seconds(self.now)) }

        mutating func push(_ delay: Double, _ kind: Event.Kind) {
            self.order += 1
            self.heap.append(Event(time: self.now + delay, order: self.order, kind: kind))
            var index = self.heap.count - 1
            while index > 0, self.isBefore(index, (index - 1) / 2) {
                self.heap.swapAt(index, (index - 1) / 2)
                index = (index - 1) / 2
            }
        }

        private func isBefore(_ one: Int, _ two: Int) -> Bool {
            (self.heap[one].time, self.heap[one].order) < (self.heap[two].time, self.heap[two].order)
        }

        mutating func pop() -> Event? {
            guard let first = self.heap.first, let last = self.heap.popLast() else { return nil }
            if !self.heap.isEmpty {
                self.heap[0] = last
                var index = 0
                while true {
                    var least = index
                    for child in [2 * index + 1, 2 * index + 2]
                    where child < self.heap.count && self.isBefore(child, least) {
                        least = child
                    }
                    if least == index { break }
                    self.heap.swapAt(least, index)
                    index = least
                }
            }
            return first
        }

        private mutating func exponential() -> Double {
            // -log(u) by the mean of 12 uniform numbers is not exponential; the sum of its series is cheap enough here.
            let unit = Double(self.random.next() >> 11) * 0x1p-53
            var (term, sum) = (1.0, 0.0)
            for count in 1...60 {
                term *= unit
                sum += term / Double(count)
            }
            return sum * self.costs.life
        }

        /// Runs until this many steps are done.
        mutating func run(steps limit: Int) {
            for shard in self.books.indices {
                self.push(0, .tick(shard: shard))
                for host in self.lives[shard].indices where self.fails {
                    self.push(self.exponential(), .died(shard: shard, host: host))
                }
            }
            self.push(self.costs.trainer, .trainer)
            while self.steps < limit, self.now < 1e6, let event = self.pop() {
                self.now = event.time
                self.handle(event.kind)
            }
        }

        private mutating func handle(_ kind: Event.Kind) {
            switch kind {
            case .tick(let shard):
                let actions = self.books[shard].tick(now: self.instant)
                self.perform(actions, shard)
                if self.wantsHome.contains(shard) { self.bringHome(shard) }
                self.push(1, .tick(shard: shard))
            case .died(let shard, let host):
                self.deaths += 1
                self.lives[shard][host] += 1
                self.isDown[shard][host] = true
                self.places[shard][host] = nil
                let actions = self.books[shard].failed(host, now: self.instant)
                self.perform(actions, shard)
                self.push(self.costs.restart, .back(shard: shard, host: host))
            case .back(let shard, let host):
                self.isDown[shard][host] = false
                self.free[shard][host] = self.now
                self.push(self.exponential(), .died(shard: shard, host: host))
            case .done(let shard, let host, let life, let action):
                guard self.lives[shard][host] == life, !self.isDown[shard][host] else {
                    let actions = self.books[shard].failed(host, now: self.instant)
                    return self.perform(actions, shard)
                }
                self.finish(shard, host, action)
            case .home(let shard, let step):
                self.homeStep[shard] = nil
                let actions = self.books[shard].cameHome(step: step, now: self.instant)
                let first = self.books[shard].firstIndex
                self.messages[shard] = self.messages[shard].filter { $0.key >= first }
                self.perform(actions, shard)
            case .trainer: self.tell()
            }
        }

        /// Tells all shards the next group of calls, or to apply.
        private mutating func tell() {
            for shard in self.books.indices {
                let step = self.books[shard].step
                let (index, record, actions) = self.books[shard].appendBackward(bytes: 1)
                self.messages[shard][index] = (step, record)
                self.waitsFor[shard] = index
                self.perform(actions, shard)
            }
            self.waiting = self.books.count
        }

        private mutating func answered(_ shard: Int, _ index: Int) {
            guard self.waitsFor[shard] == index else { return }
            self.waitsFor[shard] = nil
            self.waiting -= 1
            guard self.waiting == 0 else { return }
            self.group += 1
            if self.group == self.costs.groups {
                self.group = 0
                self.steps += 1
                for shard in self.books.indices {
                    let step = self.books[shard].step
                    let (index, actions) = self.books[shard].appendApply()
                    self.messages[shard][index] = (step, nil)
                    self.perform(actions, shard)
                    if self.steps % 10 == shard % 10 { self.wantsHome.insert(shard) }
                }
            }
            self.push(self.costs.trainer, .trainer)
        }

        private mutating func bringHome(_ shard: Int) {
            guard self.homeStep[shard] == nil, let host = self.books[shard].current.first,
                self.places[shard][host]?.step == self.books[shard].step
            else { return }
            self.wantsHome.remove(shard)
            self.homeStep[shard] = self.books[shard].step
            self.push(self.costs.state, .home(shard: shard, step: self.books[shard].step))
        }

        private mutating func perform(_ actions: [ShardBook.Action], _ shard: Int) {
            for action in actions {
                switch action {
                case .open(let host): self.queue(shard, host, 0.01, action)
                case .store(let host, _), .loadFromDisk(let host, _): self.queue(shard, host, self.costs.state, action)
                case .send(let host, let index):
                    let isReplay = index < self.books[shard].stepStart
                    if isReplay { self.repeated += 1 }
                    let isApply = self.messages[shard][index]?.record == nil
                    let time = isApply ? self.costs.apply : isReplay ? self.costs.replay : self.costs.backward
                    self.queue(shard, host, time, action)
                case .bringHome: self.wantsHome.insert(shard)
                case .moveToFile: break
                }
            }
            if let fault = self.books[shard].checkInvariants() { Issue.record("\(fault)") }
        }

        private mutating func queue(_ shard: Int, _ host: Int, _ time: Double, _ action: ShardBook.Action) {
            self.free[shard][host] = max(self.now, self.free[shard][host]) + time
            self.push(
                self.free[shard][host] - self.now,
                .done(shard: shard, host: host, life: self.lives[shard][host], action)
            )
        }

        private mutating func finish(_ shard: Int, _ host: Int, _ action: ShardBook.Action) {
            var actions: [ShardBook.Action] = []
            switch action {
            case .open:
                let place = self.places[shard][host].map { ($0.step, $0.attempt, $0.records) }
                actions = self.books[shard].opened(host, .init(place: place, snapshots: []), now: self.instant)
            case .store(_, let step):
                self.places[shard][host] = ShardPlace(step: step)
                actions = self.books[shard].loaded(host, step: step, now: self.instant)
            case .send(_, let index):
                guard let message = self.messages[shard][index], var place = self.places[shard][host] else {
                    return self.perform(self.books[shard].failed(host, now: self.instant), shard)
                }
                let verdict =
                    message.record.map { place.backward(step: message.step, attempt: 0, record: $0) }
                    ?? place.apply(step: message.step, attempt: 0, records: self.costs.groups)
                if case .refused(let reason) = verdict { Issue.record("\(reason)") }
                self.places[shard][host] = place
                actions = self.books[shard].acknowledged(host, index: index, isVoid: false)
                self.perform(actions, shard)
                return self.answered(shard, index)
            case .loadFromDisk, .bringHome, .moveToFile: break
            }
            self.perform(actions, shard)
        }
    }

    @Test("256 hosts with 2,048 experts, of which each dies once an hour, lose less than 3 % of a calm run's steps")
    func goodput() {
        func run(replicas: Int, fails: Bool, restart: Double) -> Cluster {
            var costs = Costs()
            costs.restart = restart
            var cluster = Cluster(shards: 256 / replicas, replicas: replicas, costs: costs, seed: 11, fails: fails)
            cluster.run(steps: 60)
            return cluster
        }
        for (replicas, restart, least) in [(2, 20.0, 0.85), (3, 60.0, 0.97)] {
            let calm = run(replicas: replicas, fails: false, restart: restart)
            let failing = run(replicas: replicas, fails: true, restart: restart)
            #expect(failing.steps == 60 && failing.deaths > 20, "\(failing.deaths) deaths")
            let goodput = calm.now / failing.now
            print("goodput of \(replicas) replicas, back after \(restart) s: \(goodput), \(failing.deaths) deaths")
            #expect(goodput >= least, "\(replicas) replicas: \(goodput)")
        }
    }
}
