// SPDX-License-Identifier: Apache-2.0

/// A trainer's book on one shard: the log of what the shard's experts were told, and how far each replica has got with it.
///
/// A value that takes events and time and returns actions. A replica's state is a function of the state that it began with and of
/// the log's entries since, so a replica that has taken all entries before a step can compute it. Entries go to each replica in
/// their order, one at a time.
struct ShardBook: Sendable {
    /// Steps that a replica may have to repeat before it is given a newer state instead, if another replica has one.
    static let mostRepeatedSteps = 8
    /// The shortest and longest wait before a host is asked again.
    static let pauses = (shortest: Duration.milliseconds(100), longest: Duration.seconds(2))
    /// How long a replica waits for a newer state.
    static let bringHomePatience = Duration.seconds(20)

    private(set) var replicas: [Replica]
    /// What they were told.
    private(set) var log: ShardLog
    /// The attempt at it.
    private(set) var attempt = 0
    /// `Backward` calls of the attempt so far.
    private(set) var records = 0
    /// The step of the state that the trainer keeps.
    private(set) var keptStep: Int

    /// A book whose trainer keeps the state after some steps, and has told no host yet.
    ///
    /// - Parameters:
    ///   - replicas: How many replicas there are.
    ///   - step: Steps that were taken.
    ///   - bounds: How large the log may become.
    ///   - now: The time.
    init(replicas: Int, step: Int, bounds: ShardLog.Bounds = .init(), now: ContinuousClock.Instant) {
        self.replicas = (0..<replicas).map { _ in Replica(phase: .away(until: now)) }
        self.log = ShardLog(step: step, bounds: bounds)
        self.keptStep = step
    }

    /// The step that is being computed.
    var step: Int { self.log.step }

    /// The first step whose entries are kept.
    var firstStep: Int { self.log.firstStep }

    /// The index of the first kept entry.
    var firstIndex: Int { self.log.firstIndex }

    /// The index after the last entry.
    var end: Int { self.log.end }

    /// The index of the current step's first entry.
    var stepStart: Int { self.log.stepStart }

    /// Steps whose entries are kept, the current one included.
    var keptSteps: Int { self.log.keptSteps }

    /// Bytes of all kept entries.
    var byteCount: Int { self.log.byteCount }

    /// Replicas that can compute the current step's rows.
    var current: [Int] {
        self.replicas.indices.filter { self.replicas[$0].phase == .live && self.replicas[$0].next >= self.stepStart }
    }

    /// Replicas that have taken all entries.
    var caughtUp: [Int] {
        self.replicas.indices.filter { self.replicas[$0].phase == .live && self.replicas[$0].next == self.end }
    }

    /// Steps that a replica is behind; nil where it holds no state.
    func lag(of replica: Int) -> Int? {
        guard self.replicas[replica].phase == .live else { return nil }
        return self.log.steps(after: self.replicas[replica].next)
    }

    /// Entries that a replica has not taken; nil where it holds no state.
    func callsBehind(of replica: Int) -> Int? {
        guard self.replicas[replica].phase == .live else { return nil }
        return self.end - self.replicas[replica].next
    }

    // MARK: - The trainer's events

    /// Begins the current step again: what it had so far is void.
    ///
    /// - Returns: What is to be done.
    mutating func beginAttempt() -> [Action] {
        self.attempt += 1
        self.records = 0
        self.log.beginAttempt(self.attempt)
        let start = self.stepStart
        for index in self.replicas.indices where self.replicas[index].next > start {
            self.replicas[index].next = start
        }
        return []
    }

    /// Adds rows with gradients to the log.
    ///
    /// - Parameter bytes: Bytes of the entry.
    /// - Returns: The entry's index and number, and what is to be done.
    mutating func appendBackward(bytes: Int) -> (index: Int, record: Int, [Action]) {
        let record = self.records
        self.records += 1
        let index = self.log.append(.backward(record: record), bytes: bytes)
        return (index, record, self.sends() + self.moves())
    }

    /// Ends the step.
    ///
    /// - Returns: The entry's index, and what is to be done.
    mutating func appendApply() -> (index: Int, [Action]) {
        let index = self.log.append(.apply, bytes: 0)
        self.log.endStep()
        self.attempt = 0
        self.records = 0
        return (index, self.sends())
    }

    /// Notes that the trainer keeps a newer state.
    ///
    /// - Parameters:
    ///   - step: Steps that were applied to it.
    ///   - now: The time.
    /// - Returns: What is to be done.
    mutating func cameHome(step: Int, now: ContinuousClock.Instant) -> [Action] {
        guard step >= self.keptStep, step <= self.step else { return [] }
        self.keptStep = step
        self.forget(before: step, now: now)
        return self.moves()
            + self.replicas.indices.flatMap { index -> [Action] in
                guard case .waiting = self.replicas[index].phase else { return [] }
                return self.load(index, now: now)
            }
    }

    /// Forgets entries that nothing needs any more: every replica's disk has the state after a step.
    ///
    /// - Parameters:
    ///   - step: Steps that were applied to that state.
    ///   - now: The time.
    mutating func forget(before step: Int, now: ContinuousClock.Instant) {
        if self.log.forget(before: step) { self.dismiss(below: self.firstIndex, now: now) }
    }

    /// Replicas that would have to repeat what is gone take over a newer state.
    private mutating func dismiss(below next: Int, now: ContinuousClock.Instant) {
        for index in self.replicas.indices where self.replicas[index].next < next {
            self.replicas[index].mustLoad = true
            if self.replicas[index].phase == .live { self.replicas[index].phase = .away(until: now) }
        }
    }

    // MARK: - The log's files

    private mutating func moves() -> [Action] { self.log.moves().map { .moveToFile($0) } }

    /// Notes that an entry's rows are in a file.
    ///
    /// - Parameter move: The entry.
    /// - Returns: Whether it is still kept; if not, its place in the file is free.
    mutating func moved(_ move: ShardLog.Move) -> Bool { self.log.moved(move) }

    /// Notes that an entry's rows could not be written, and stay in memory.
    ///
    /// - Parameters:
    ///   - move: The entry.
    ///   - now: The time.
    mutating func couldNotMove(_ move: ShardLog.Move, now: ContinuousClock.Instant) {
        self.log.couldNotMove(move, now: now)
    }

    /// Notes that an entry's rows cannot be read from their file: replicas that have not taken them need a later state.
    ///
    /// - Parameters:
    ///   - index: The entry.
    ///   - now: The time.
    /// - Returns: Whether it belongs to an earlier step. Otherwise the step must begin again, which forgets the entry.
    mutating func damaged(_ index: Int, now: ContinuousClock.Instant) -> Bool {
        guard self.log.damaged(index) else { return false }
        self.dismiss(below: index + 1, now: now)
        return true
    }

    // MARK: - The hosts' events

    /// Lets time pass.
    ///
    /// - Parameter now: The time.
    /// - Returns: What is to be done.
    mutating func tick(now: ContinuousClock.Instant) -> [Action] {
        self.log.tick(now: now)
        var actions = self.moves()
        for index in self.replicas.indices {
            switch self.replicas[index].phase {
            case .away(let until) where until <= now:
                self.replicas[index].phase = .opening
                actions.append(.open(replica: index))
            case .waiting(let until) where until <= now:
                actions += self.load(index, now: now)
            default: break
            }
        }
        return actions
    }

    /// Takes what a host holds.
    ///
    /// - Parameters:
    ///   - replica: The replica.
    ///   - state: What it holds.
    ///   - now: The time.
    /// - Returns: What is to be done.
    mutating func opened(_ replica: Int, _ state: HostState, now: ContinuousClock.Instant) -> [Action] {
        guard self.replicas[replica].phase == .opening else { return [] }
        self.replicas[replica].opened = state.snapshots
        self.replicas[replica].hasAnswered = true
        if !self.replicas[replica].mustLoad, let next = state.place.flatMap({ self.log.index(of: $0) }) {
            return self.goLive(replica, at: next)
        }
        let newest = self.newestState(for: replica)
        if let sibling = self.sibling(of: replica), self.step - (newest ?? .min / 2) > Self.mostRepeatedSteps {
            self.replicas[replica].phase = .waiting(until: now.advanced(by: Self.bringHomePatience))
            return [.bringHome(replica: sibling)]
        }
        return self.load(replica, now: now)
    }

    private func sibling(of replica: Int) -> Int? {
        self.caughtUp.first { $0 != replica } ?? self.current.first { $0 != replica }
    }

    /// The step of the newest state that a replica can go on from; nil where there is none.
    private func newestState(for replica: Int) -> Int? {
        (self.replicas[replica].opened + [self.keptStep]).filter { self.log.start(of: $0) != nil }.max()
    }

    /// Whether no replica has the shard's state, and none can get one.
    var isLost: Bool {
        self.log.start(of: self.keptStep) == nil
            && self.replicas.allSatisfy { replica in
                switch replica.phase {
                case .live, .loading, .waiting: false
                case .opening: true
                // One that was never reached may have a snapshot.
                case .away: replica.hasAnswered
                }
            }
            && self.replicas.indices.allSatisfy { self.newestState(for: $0) == nil }
    }

    private mutating func load(_ replica: Int, now: ContinuousClock.Instant) -> [Action] {
        guard let newest = self.newestState(for: replica) else {
            self.replicas[replica].phase = .away(until: now.advanced(by: Self.pauses.longest))
            return []
        }
        self.replicas[replica].phase = .loading(step: newest)
        return newest == self.keptStep
            ? [.store(replica: replica, step: newest)] : [.loadFromDisk(replica: replica, step: newest)]
    }

    /// Notes that a host has taken over a state.
    ///
    /// - Parameters:
    ///   - replica: The replica.
    ///   - step: Steps that were applied to it.
    ///   - now: The time.
    /// - Returns: What is to be done.
    mutating func loaded(_ replica: Int, step: Int, now: ContinuousClock.Instant) -> [Action] {
        guard self.replicas[replica].phase == .loading(step: step) else { return [] }
        guard let start = self.log.start(of: step) else {
            // The log went on meanwhile.
            return self.failed(replica, now: now)
        }
        self.replicas[replica].mustLoad = false
        return self.goLive(replica, at: start)
    }

    private mutating func goLive(_ replica: Int, at next: Int) -> [Action] {
        self.replicas[replica].next = next
        self.replicas[replica].phase = .live
        self.replicas[replica].isRepeating = next < self.stepStart
        return self.sends()
    }

    /// Notes that a host has taken an entry.
    ///
    /// - Parameters:
    ///   - replica: The replica.
    ///   - index: The entry.
    ///   - isVoid: Whether it was an entry of a void attempt, whose place another one has taken.
    /// - Returns: What is to be done.
    mutating func acknowledged(_ replica: Int, index: Int, isVoid: Bool) -> [Action] {
        self.replicas[replica].isSending = false
        guard self.replicas[replica].phase == .live else { return [] }
        if !isVoid, self.replicas[replica].next == index { self.replicas[replica].next = index + 1 }
        if self.replicas[replica].next >= self.stepStart { self.replicas[replica].isRepeating = false }
        if self.replicas[replica].next == self.end { self.replicas[replica].failures = 0 }
        return self.sends()
    }

    /// Notes that a call to a host failed, or that its connection is lost.
    ///
    /// - Parameters:
    ///   - replica: The replica.
    ///   - distrusts: Whether its state is not to be used any more.
    ///   - now: The time.
    /// - Returns: What is to be done.
    mutating func failed(_ replica: Int, distrusts: Bool = false, now: ContinuousClock.Instant) -> [Action] {
        self.replicas[replica].isSending = false
        if distrusts { self.replicas[replica].mustLoad = true }
        if case .away = self.replicas[replica].phase { return [] }
        let failures = min(self.replicas[replica].failures, 8)
        self.replicas[replica].failures += 1
        let pause = min(Self.pauses.longest, Self.pauses.shortest * (1 << failures))
        self.replicas[replica].phase = .away(until: now.advanced(by: pause))
        return []
    }

    /// Notes that a host has written a snapshot to its disk: it can go on from there, should it die.
    mutating func wroteSnapshot(_ replica: Int, step: Int) {
        self.replicas[replica].opened = Set(self.replicas[replica].opened + [step]).sorted()
            .filter { $0 >= self.firstStep }
    }

    /// Notes that a snapshot on a host's disk cannot be used.
    mutating func refuseSnapshot(_ replica: Int, step: Int) {
        self.replicas[replica].opened.removeAll { $0 == step }
    }

    private mutating func sends() -> [Action] {
        var actions: [Action] = []
        for index in self.replicas.indices {
            let replica = self.replicas[index]
            guard replica.phase == .live, !replica.isSending, replica.next < self.end else { continue }
            self.replicas[index].isSending = true
            actions.append(.send(replica: index, index: replica.next))
        }
        return actions
    }

    /// What cannot be.
    ///
    /// - Returns: The fault; nil where there is none.
    func checkInvariants() -> String? {
        if let fault = self.log.checkInvariants() { return fault }
        for replica in self.replicas where replica.phase == .live {
            if replica.next < self.firstIndex || replica.next > self.end { return "a replica at \(replica.next)" }
            if !self.log.isReadable(from: replica.next) { return "a replica at \(replica.next), which cannot be read" }
            if replica.mustLoad { return "a replica is live that must load" }
        }
        if self.end - self.stepStart != self.records { return "\(self.records) records" }
        return nil
    }
}
