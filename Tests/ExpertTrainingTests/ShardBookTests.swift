// SPDX-License-Identifier: Apache-2.0

import Testing

@testable import ExpertTraining

@Suite("A trainer's book on a shard")
struct ShardBookTests {
    /// A host in the simulation: its state is the list of all that it was told, as text.
    private struct Host {
        var place: ShardPlace?
        var state: [String] = []
        var added: [String] = []
        var disk: [Int: [String]] = [:]
        /// What it is busy with; the answer comes when the simulation says so.
        var isBusy = false
        var isStopped = false
    }

    /// A trainer with its hosts, driven by random numbers.
    private struct Simulation {
        var book: ShardBook
        var hosts: [Host]
        var now = ContinuousClock.now
        var random: SplitMix
        var messages: [Int: (step: Int, attempt: Int, record: Int?, records: Int)] = [:]
        var waiting: [(replica: Int, action: ShardBook.Action)] = []
        /// The state that the trainer keeps.
        var kept: [String] = []
        /// What is right: all that was told.
        var truth: [String] = []
        var step: [String] = []
        var history: [[String]] = [[]]
        var wantsHome = false
        let hasDisks: Bool
        /// Entries whose rows are on their way to a file, are in one, and cannot be read any more.
        var moves: [ShardLog.Move] = []
        var inFiles: Set<Int> = []
        var damaged: Set<Int> = []
        var moved = 0
        var refused = 0
        var damages = 0

        init(seed: UInt64, replicas: Int, hasDisks: Bool, bounds: ShardLog.Bounds) {
            self.random = SplitMix(state: seed)
            self.book = ShardBook(replicas: replicas, step: 0, bounds: bounds, now: self.now)
            self.hosts = Array(repeating: Host(), count: replicas)
            self.hasDisks = hasDisks
        }

        mutating func handle(_ actions: [ShardBook.Action]) {
            for action in actions {
                switch action {
                case .open(let replica), .store(let replica, _), .loadFromDisk(let replica, _), .send(let replica, _):
                    self.waiting.append((replica, action))
                case .moveToFile(let move): self.moves.append(move)
                case .bringHome: self.wantsHome = true
                }
            }
            if let fault = self.book.checkInvariants() { Issue.record("\(fault)") }
        }

        /// One random event.
        mutating func event(mayFail: Bool) {
            self.now = self.now.advanced(by: .milliseconds(Int(self.random.next() % 200)))
            self.handle(self.book.tick(now: self.now))
            self.useFiles(mayFail: mayFail)
            switch self.random.next() % (mayFail ? 40 : 36) {
            case 36, 37:
                // A host dies with all that it held in memory, and sometimes with its disk.
                let victim = Int(self.random.next() % UInt64(self.hosts.count))
                let disk = self.random.next() % 4 == 0 ? [:] : self.hosts[victim].disk
                self.hosts[victim] = Host(disk: disk)
                let failed = self.waiting.filter { $0.replica == victim }
                self.waiting.removeAll { $0.replica == victim }
                if !failed.isEmpty || self.random.next() % 2 == 0 {
                    self.handle(self.book.failed(victim, now: self.now))
                }
            case 38:
                // An answer is lost: the host has done what it was told.
                guard let index = self.pick() else { return }
                let (replica, action) = self.waiting.remove(at: index)
                _ = self.perform(replica, action)
                self.handle(self.book.failed(replica, now: self.now))
            case 39:
                let victim = Int(self.random.next() % UInt64(self.hosts.count))
                self.hosts[victim].isStopped.toggle()
            default:
                guard let index = self.pick() else { return }
                let (replica, action) = self.waiting.remove(at: index)
                self.handle(self.perform(replica, action))
            }
        }

        /// Writes some rows to files, and damages others there.
        private mutating func useFiles(mayFail: Bool) {
            if !self.moves.isEmpty, self.random.next() % 3 == 0 {
                let move = self.moves.remove(at: Int(self.random.next() % UInt64(self.moves.count)))
                if mayFail, self.random.next() % 8 == 0 {
                    self.book.couldNotMove(move, now: self.now)
                    self.refused += 1
                } else if self.book.moved(move) {
                    self.inFiles.insert(move.index)
                    self.moved += 1
                }
            }
            let kept = self.book.firstIndex..<self.book.end
            self.inFiles = self.inFiles.filter { kept.contains($0) }
            self.damaged = self.damaged.filter { kept.contains($0) }
            if mayFail, self.random.next() % 300 == 0, let index = self.inFiles.min() { self.damaged.insert(index) }
        }

        private mutating func pick() -> Int? {
            let ready = self.waiting.indices.filter { !self.hosts[self.waiting[$0].replica].isStopped }
            return ready.isEmpty ? nil : ready[Int(self.random.next() % UInt64(ready.count))]
        }

        /// Lets a host do what it is told.
        private mutating func perform(_ replica: Int, _ action: ShardBook.Action) -> [ShardBook.Action] {
            switch action {
            case .open:
                let place = self.hosts[replica].place
                return self.book.opened(
                    replica,
                    .init(
                        place: place.map { ($0.step, $0.attempt, $0.records) },
                        snapshots: self.hosts[replica].disk.keys.sorted()
                    ),
                    now: self.now
                )
            case .store(_, let step):
                guard step == self.book.keptStep else { return self.book.failed(replica, now: self.now) }
                self.hosts[replica].place = ShardPlace(step: step)
                self.hosts[replica].state = self.kept
                return self.book.loaded(replica, step: step, now: self.now)
            case .loadFromDisk(_, let step):
                guard let state = self.hosts[replica].disk[step] else {
                    return self.book.failed(replica, now: self.now)
                }
                self.hosts[replica].place = ShardPlace(step: step)
                self.hosts[replica].state = state
                return self.book.loaded(replica, step: step, now: self.now)
            case .send(_, let index): return self.take(replica, index)
            case .bringHome, .moveToFile: return []
            }
        }

        private mutating func take(_ replica: Int, _ index: Int) -> [ShardBook.Action] {
            if self.damaged.contains(index), self.messages[index] != nil {
                self.damages += 1
                // Of the current step, it begins again.
                if !self.book.damaged(index, now: self.now) { self.void() }
                return self.book.failed(replica, now: self.now)
            }
            guard let message = self.messages[index], var place = self.hosts[replica].place else {
                return self.messages[index] == nil
                    ? self.book.acknowledged(replica, index: index, isVoid: true)
                    : self.book.failed(replica, now: self.now)
            }
            let verdict =
                message.record.map { place.backward(step: message.step, attempt: message.attempt, record: $0) }
                ?? place.apply(step: message.step, attempt: message.attempt, records: message.records)
            switch verdict {
            case .refused: return self.book.failed(replica, now: self.now)
            case .known: break
            case .taken(let forgets):
                if forgets { self.hosts[replica].added = [] }
                if let record = message.record {
                    self.hosts[replica].added.append("\(message.step).\(message.attempt).\(record)")
                } else {
                    self.hosts[replica].state.append("\(self.hosts[replica].added)")
                    self.hosts[replica].added = []
                }
                self.hosts[replica].place = place
            }
            let isVoid = index >= self.book.stepStart && message.attempt != self.book.attempt
            return self.book.acknowledged(replica, index: index, isVoid: isVoid)
        }

        mutating func append() {
            let (index, record, actions) = self.book.appendBackward(bytes: 10)
            self.messages[index] = (self.book.step, self.book.attempt, record, 0)
            self.step.append("\(self.book.step).\(self.book.attempt).\(record)")
            self.handle(actions)
        }

        mutating func apply() {
            let (step, attempt, records) = (self.book.step, self.book.attempt, self.book.records)
            let (index, actions) = self.book.appendApply()
            self.messages[index] = (step, attempt, nil, records)
            self.truth.append("\(self.step)")
            self.step = []
            self.history.append(self.truth)
            self.handle(actions)
        }

        mutating func void() {
            for index in self.book.stepStart..<self.book.end {
                self.messages[index] = nil
                self.inFiles.remove(index)
                self.damaged.remove(index)
            }
            self.step = []
            self.handle(self.book.beginAttempt())
        }

        /// Keeps the state of a replica that is at the current step.
        mutating func bringHome() {
            let current = self.book.current.filter {
                !self.hosts[$0].isStopped && self.hosts[$0].place?.step == self.book.step
            }
            guard let replica = current.first else { return }
            self.wantsHome = false
            if self.hasDisks {
                for replica in current {
                    self.hosts[replica].disk[self.book.step] = self.hosts[replica].state
                    self.book.wroteSnapshot(replica, step: self.book.step)
                    for old in self.hosts[replica].disk.keys.sorted().dropLast(2) {
                        self.hosts[replica].disk[old] = nil
                    }
                }
            }
            if self.hasDisks, current.count == self.hosts.count, self.random.next() % 2 == 0 {
                self.book.forget(before: self.book.step, now: self.now)
            } else {
                self.kept = self.hosts[replica].state
                self.handle(self.book.cameHome(step: self.book.step, now: self.now))
            }
            let first = self.book.firstIndex
            self.messages = self.messages.filter { $0.key >= first }
        }
    }

    struct SplitMix {
        var state: UInt64
        mutating func next() -> UInt64 {
            self.state &+= 0x9E37_79B9_7F4A_7C15
            var z = self.state
            z = (z ^ (z >> 30)) &* 0xBF58_476D_1CE4_E5B9
            z = (z ^ (z >> 27)) &* 0x94D0_49BB_1331_11EB
            return z ^ (z >> 31)
        }
    }

    @Test(
        "Whatever dies when, replicas that are up to date hold the very state that the log says",
        arguments: 0..<36
    )
    func random(seed: Int) {
        var simulation = Simulation(
            seed: UInt64(seed) &* 977 &+ 5,
            replicas: seed % 3 + 1,
            hasDisks: seed % 2 == 1,
            bounds: seed % 4 < 2 ? .init() : .init(memory: 60, files: seed % 8 < 4 ? 100_000 : 90)
        )
        var steps = 0
        for _ in 0..<6000 {
            simulation.event(mayFail: true)
            if simulation.book.isLost { break }
            switch simulation.random.next() % 12 {
            case 0: simulation.append()
            case 1 where simulation.random.next() % 3 == 0 && !simulation.book.current.isEmpty:
                simulation.apply()
                steps += 1
            case 2 where simulation.random.next() % 20 == 0 && simulation.book.records > 0: simulation.void()
            case 3 where simulation.wantsHome || simulation.random.next() % 20 == 0: simulation.bringHome()
            default: break
            }
            if simulation.book.keptSteps > 40 { simulation.wantsHome = true }
        }
        for index in simulation.hosts.indices { simulation.hosts[index].isStopped = false }
        for _ in 0..<20_000 where simulation.book.caughtUp.count < simulation.hosts.count && !simulation.book.isLost {
            simulation.event(mayFail: false)
            if simulation.wantsHome { simulation.bringHome() }
        }
        for _ in 0..<500 where !simulation.moves.isEmpty || simulation.book.log.filesAreAway {
            simulation.event(mayFail: false)
        }
        guard !simulation.book.isLost else {
            #expect(simulation.hasDisks || simulation.damages > 0, "a state that the trainer keeps was lost")
            for host in simulation.hosts {
                #expect(
                    host.disk.keys.allSatisfy { simulation.book.log.start(of: $0) == nil },
                    "a snapshot was overlooked"
                )
            }
            return
        }
        #expect(simulation.book.caughtUp.count == simulation.hosts.count, "\(simulation.book.replicas)")
        for replica in simulation.hosts.indices {
            #expect(simulation.hosts[replica].state == simulation.truth, "replica \(replica) after \(steps) steps")
            #expect(simulation.hosts[replica].added == simulation.step)
        }
        #expect(steps > 0)
        // What can be in files is: half of the memory's bound is free for what is on its way.
        let log = simulation.book.log
        guard log.bounds.files > 0 else { return #expect(simulation.moved == 0) }
        #expect(simulation.moved > 0)
        #expect(log.memoryByteCount - log.movingByteCount <= 30 || log.fileByteCount + 10 > log.bounds.files)
    }

    @Test(
        "A shard whose last host dies is not lost while that host may come back with a snapshot that it wrote meanwhile"
    )
    func snapshotAlone() {
        let now = ContinuousClock.now
        var book = ShardBook(replicas: 1, step: 0, now: now)
        _ = book.tick(now: now)
        _ = book.opened(0, .init(place: (0, 0, 0), snapshots: []), now: now)
        for _ in 0..<4 {
            let (index, _) = book.appendApply()
            _ = book.acknowledged(0, index: index, isVoid: false)
        }
        book.wroteSnapshot(0, step: 4)
        book.forget(before: 4, now: now)
        _ = book.failed(0, now: now)
        #expect(!book.isLost)
        var other = book
        let later = now.advanced(by: .seconds(3))
        #expect(book.tick(now: later) == [.open(replica: 0)])
        #expect(book.opened(0, .init(place: nil, snapshots: [4]), now: later) == [.loadFromDisk(replica: 0, step: 4)])
        // Without its disk it is.
        _ = other.tick(now: later)
        _ = other.opened(0, .init(place: nil, snapshots: []), now: later)
        #expect(other.isLost)
    }

    @Test("Rows leave the memory oldest first, within both bounds, and a full disk is tried again after a while")
    func files() {
        let now = ContinuousClock.now
        var book = ShardBook(replicas: 1, step: 0, bounds: .init(memory: 40, files: 45), now: now)
        func moves(_ actions: [ShardBook.Action]) -> [ShardLog.Move] {
            actions.compactMap { if case .moveToFile(let move) = $0 { move } else { nil } }
        }
        #expect(moves(book.appendBackward(bytes: 10).2).isEmpty)
        #expect(moves(book.appendBackward(bytes: 10).2).isEmpty)
        let first = moves(book.appendBackward(bytes: 10).2)
        #expect(first.map(\.index) == [0])
        #expect(book.log.movingByteCount == 10 && book.log.memoryByteCount == 30)
        book.couldNotMove(first[0], now: now)
        #expect(book.log.filesAreAway && book.log.movingByteCount == 0)
        #expect(moves(book.appendBackward(bytes: 10).2).isEmpty)
        let again = moves(book.tick(now: now.advanced(by: ShardLog.filePause)))
        #expect(again.map(\.index) == [0, 1])
        for move in again { #expect(book.moved(move) == true) }
        #expect(book.moved(again[0]) == false, "a place in a file is taken twice")
        #expect(book.log.fileByteCount == 20 && book.log.memoryByteCount == 20 && book.byteCount == 40)
        // No more than 45 bytes go to files.
        for _ in 0..<4 { for move in moves(book.appendBackward(bytes: 10).2) { #expect(book.moved(move) == true) } }
        #expect(book.log.fileByteCount == 40 && book.log.memoryByteCount == 40)
        // Another attempt has its indices, but not its numbers.
        _ = book.beginAttempt()
        #expect(book.byteCount == 0 && book.log.fileByteCount == 0)
        for _ in 0..<2 { _ = book.appendBackward(bytes: 10) }
        let other = moves(book.appendBackward(bytes: 10).2)
        #expect(other.map(\.index) == [0] && other != first)
        #expect(book.moved(first[0]) == false)
        #expect(book.checkInvariants() == nil)
    }

    @Test("An entry that cannot be read is no loss to a replica that has taken it; another one needs a later state")
    func damaged() {
        let now = ContinuousClock.now
        var book = ShardBook(replicas: 2, step: 0, bounds: .init(memory: 0, files: 1000), now: now)
        _ = book.tick(now: now)
        _ = book.opened(0, .init(place: (0, 0, 0), snapshots: []), now: now)
        for _ in 0..<2 {
            for action in book.appendBackward(bytes: 10).2 {
                if case .moveToFile(let move) = action { #expect(book.moved(move) == true) }
            }
            let (index, _) = book.appendApply()
            for taken in (index - 1)...index { _ = book.acknowledged(0, index: taken, isVoid: false) }
        }
        #expect(book.caughtUp == [0])
        let wasEarlier = book.damaged(2, now: now)
        #expect(wasEarlier)
        #expect(book.caughtUp == [0], "a replica that has taken the entry is in the way")
        // The state before it is of no use to the other one: it waits for the first one's.
        #expect(book.opened(1, .init(place: (1, 0, 0), snapshots: [0, 1]), now: now) == [.bringHome(replica: 0)])
        #expect(!book.isLost)
        var alone = book
        #expect(book.cameHome(step: 2, now: now) == [.store(replica: 1, step: 2)])
        // If that one dies first, nothing is left to go on from.
        _ = alone.failed(0, distrusts: true, now: now)
        _ = alone.tick(now: now.advanced(by: .seconds(30)))
        _ = alone.opened(0, .init(place: nil, snapshots: [1]), now: now)
        #expect(alone.isLost)
        #expect(alone.checkInvariants() == nil && book.checkInvariants() == nil)
        // An entry of the current step is forgotten when the step begins again.
        let index = book.appendBackward(bytes: 10).index
        let isEarlier = book.damaged(index, now: now)
        #expect(!isEarlier)
    }

    @Test("A replica that would have to repeat many steps gets a sibling's state instead")
    func sibling() {
        let now = ContinuousClock.now
        var book = ShardBook(replicas: 2, step: 0, now: now)
        _ = book.tick(now: now)
        #expect(book.opened(0, .init(place: nil, snapshots: []), now: now) == [.store(replica: 0, step: 0)])
        _ = book.loaded(0, step: 0, now: now)
        for _ in 0...ShardBook.mostRepeatedSteps {
            let (index, actions) = book.appendApply()
            #expect(actions == [.send(replica: 0, index: index)])
            _ = book.acknowledged(0, index: index, isVoid: false)
        }
        #expect(book.opened(1, .init(place: nil, snapshots: []), now: now) == [.bringHome(replica: 0)])
        #expect(book.cameHome(step: 9, now: now) == [.store(replica: 1, step: 9)])
        #expect(book.keptSteps == 1 && book.byteCount == 0)
        // One that lost a sibling to copy takes the old state after a while.
        #expect(book.lag(of: 1) == nil)
    }

    @Test("A host with a state of the run goes on where it is, and an older snapshot of its own is better than none")
    func whereItIs() {
        let now = ContinuousClock.now
        var book = ShardBook(replicas: 1, step: 10, now: now)
        for _ in 0..<3 {
            _ = book.appendBackward(bytes: 5)
            _ = book.appendBackward(bytes: 5)
            _ = book.appendApply()
        }
        #expect(book.byteCount == 30)
        _ = book.tick(now: now)
        var other = book
        // In the middle of step 11: the second of its calls is next.
        #expect(book.opened(0, .init(place: (11, 0, 1), snapshots: []), now: now) == [.send(replica: 0, index: 4)])
        #expect(book.lag(of: 0) == 2)
        var third = other
        #expect(
            other.opened(0, .init(place: (9, 0, 0), snapshots: [7, 12]), now: now) == [
                .loadFromDisk(replica: 0, step: 12)
            ]
        )
        #expect(third.opened(0, .init(place: (14, 0, 0), snapshots: [9]), now: now) == [.store(replica: 0, step: 10)])
    }
}
