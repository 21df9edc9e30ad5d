// SPDX-License-Identifier: Apache-2.0

/// A trainer's book on one shard: the log of what the shard's experts were told, and how far each replica has got with it.
///
/// A value that takes events and time and returns actions. A replica's state is a function of the state that it began with and of
/// the log's entries since, so a replica that has taken all entries before a step can compute it. Entries go to each replica in
/// their order, one at a time.
struct ShardBook: Sendable {
    /// What experts are told, in order.
    enum Entry: Sendable, Hashable {
        /// Rows with gradients, to be added up.
        case backward(record: Int)
        /// New weights of the gradients; ends the step.
        case apply
    }

    /// What a host said about itself.
    struct HostState: Sendable {
        /// Step, attempt and calls taken; nil where it holds no state of the run.
        var place: (step: Int, attempt: Int, records: Int)?
        /// Steps of the snapshots on its disk.
        var snapshots: [Int]
    }

    /// What is to be done.
    enum Action: Sendable, Hashable {
        /// Ask a host what it holds.
        case open(replica: Int)
        /// Give a host the state that the trainer keeps, of ``keptStep``.
        case store(replica: Int, step: Int)
        /// Let a host take over a snapshot on its own disk.
        case loadFromDisk(replica: Int, step: Int)
        /// Send an entry; answered by ``acknowledged(_:index:isVoid:)`` or ``failed(_:distrusts:now:)``.
        case send(replica: Int, index: Int)
        /// Bring a newer state home, from this replica: the one that was asked for would have to repeat too much.
        case bringHome(replica: Int)
    }

    /// What a replica is doing.
    enum Phase: Sendable, Hashable {
        /// It cannot be reached, or something failed; it is asked again then.
        case away(until: ContinuousClock.Instant)
        /// It is asked what it holds.
        case opening
        /// It waits for a newer state to come home.
        case waiting(until: ContinuousClock.Instant)
        /// It takes over the state after a step.
        case loading(step: Int)
        /// It takes entries.
        case live
    }

    /// One replica.
    struct Replica: Sendable, Hashable {
        var phase: Phase
        /// The entry that it takes next.
        var next = 0
        var isSending = false
        /// Failures since it was last up to date.
        var failures = 0
        /// Whether its state is not trusted: it must take over another one.
        var mustLoad = false
        /// Steps of the snapshots on its disk.
        var opened: [Int] = []
        /// Whether it has ever said what it holds.
        var hasAnswered = false
    }

    /// Steps that a replica may have to repeat before it is given a newer state instead, if another replica has one.
    static let mostRepeatedSteps = 8
    /// The shortest and longest wait before a host is asked again.
    static let pauses = (shortest: Duration.milliseconds(100), longest: Duration.seconds(2))
    /// How long a replica waits for a newer state.
    static let bringHomePatience = Duration.seconds(20)

    private(set) var replicas: [Replica]
    /// The step that is being computed.
    private(set) var step: Int
    /// The attempt at it.
    private(set) var attempt = 0
    /// `Backward` calls of the attempt so far.
    private(set) var records = 0
    /// The first step whose entries are kept.
    private(set) var firstStep: Int
    /// The step of the state that the trainer keeps.
    private(set) var keptStep: Int
    /// The index of each kept step's first entry, the current step's last.
    private var starts: [Int]
    /// The attempt of each kept step that counts.
    private var attempts = [0]
    /// The kept entries, and their bytes.
    private var entries: [(entry: Entry, bytes: Int)] = []
    /// Bytes of all kept entries.
    private(set) var byteCount = 0

    /// A book whose trainer keeps the state after some steps, and has told no host yet.
    ///
    /// - Parameters:
    ///   - replicas: How many replicas there are.
    ///   - step: Steps that were taken.
    ///   - now: The time.
    init(replicas: Int, step: Int, now: ContinuousClock.Instant) {
        self.replicas = (0..<replicas).map { _ in Replica(phase: .away(until: now)) }
        self.step = step
        self.firstStep = step
        self.keptStep = step
        self.starts = [0]
    }

    private var base: Int { self.starts.first ?? 0 }

    /// The index of the first kept entry.
    var firstIndex: Int { self.base }

    /// The index after the last entry.
    var end: Int { self.base + self.entries.count }

    /// The index of the current step's first entry.
    var stepStart: Int { self.starts.last ?? 0 }

    /// Steps whose entries are kept, the current one included.
    var keptSteps: Int { self.step - self.firstStep + 1 }

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
        return self.starts.count { $0 > self.replicas[replica].next }
    }

    // MARK: - The trainer's events

    /// Begins the current step again: what it had so far is void.
    ///
    /// - Returns: What is to be done.
    mutating func beginAttempt() -> [Action] {
        self.attempt += 1
        self.attempts[self.attempts.count - 1] = self.attempt
        self.records = 0
        let start = self.stepStart
        for (_, bytes) in self.entries[(start - self.base)...] { self.byteCount -= bytes }
        self.entries.removeSubrange((start - self.base)...)
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
        let (index, record) = (self.end, self.records)
        self.records += 1
        self.entries.append((.backward(record: record), bytes))
        self.byteCount += bytes
        return (index, record, self.sends())
    }

    /// Ends the step.
    ///
    /// - Returns: The entry's index, and what is to be done.
    mutating func appendApply() -> (index: Int, [Action]) {
        let index = self.end
        self.entries.append((.apply, 0))
        self.step += 1
        self.attempt = 0
        self.records = 0
        self.starts.append(self.end)
        self.attempts.append(0)
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
        return self.replicas.indices.flatMap { index -> [Action] in
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
        let count = min(step, self.step) - self.firstStep
        guard count > 0 else { return }
        let removed = self.starts[count] - self.base
        for (_, bytes) in self.entries[..<removed] { self.byteCount -= bytes }
        self.entries.removeSubrange(..<removed)
        self.starts.removeSubrange(..<count)
        self.attempts.removeSubrange(..<count)
        self.firstStep += count
        for index in self.replicas.indices where self.replicas[index].next < self.base {
            // It would have to repeat what is gone: it takes over a newer state.
            self.replicas[index].mustLoad = true
            if self.replicas[index].phase == .live { self.replicas[index].phase = .away(until: now) }
        }
    }

    // MARK: - The hosts' events

    /// Lets time pass.
    ///
    /// - Parameter now: The time.
    /// - Returns: What is to be done.
    mutating func tick(now: ContinuousClock.Instant) -> [Action] {
        var actions: [Action] = []
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
        if !self.replicas[replica].mustLoad, let next = self.index(of: state) {
            self.replicas[replica].next = next
            self.replicas[replica].phase = .live
            return self.sends()
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
        let kept = self.keptStep >= self.firstStep ? self.keptStep : nil
        return [self.bestSnapshot(of: replica), kept].compactMap { $0 }.max()
    }

    /// Whether no replica has the shard's state, and none can get one.
    var isLost: Bool {
        self.keptStep < self.firstStep
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

    /// The entry that a host takes next which is where it says; nil where the log does not reach back so far.
    private func index(of state: HostState) -> Int? {
        guard let place = state.place, place.step >= self.firstStep, place.step <= self.step else { return nil }
        let kept = place.step - self.firstStep
        let start = self.starts[kept]
        // Of another attempt, the host forgets what it has at the first entry.
        guard place.attempt == self.attempts[kept] else { return start }
        let end = place.step == self.step ? self.end : self.starts[kept + 1] - 1
        return min(start + place.records, end)
    }

    private func bestSnapshot(of replica: Int) -> Int? {
        self.replicas[replica].opened.last { $0 >= self.firstStep && $0 <= self.step }
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
        guard step >= self.firstStep, step <= self.step else {
            // The log went on meanwhile.
            return self.failed(replica, now: now)
        }
        self.replicas[replica].mustLoad = false
        self.replicas[replica].next = self.starts[step - self.firstStep]
        self.replicas[replica].phase = .live
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

    /// An entry, with its step.
    ///
    /// - Parameter index: The entry's index.
    /// - Returns: The entry, its step, and how many `Backward` calls the step has so far; nil where it is not kept.
    func entry(_ index: Int) -> (entry: Entry, step: Int, records: Int)? {
        guard index >= self.base, index < self.end else { return nil }
        let place = (self.starts.lastIndex { $0 <= index }) ?? 0
        let end = place + 1 < self.starts.count ? self.starts[place + 1] - 1 : self.end
        return (self.entries[index - self.base].entry, self.firstStep + place, end - self.starts[place])
    }

    /// What cannot be.
    ///
    /// - Returns: The fault; nil where there is none.
    func checkInvariants() -> String? {
        if self.starts.count != self.step - self.firstStep + 1 { return "\(self.starts.count) starts" }
        if zip(self.starts, self.starts.dropFirst()).contains(where: { $0 >= $1 }) { return "starts \(self.starts)" }
        if self.byteCount != self.entries.reduce(0, { $0 + $1.bytes }) { return "\(self.byteCount) bytes" }
        for replica in self.replicas where replica.phase == .live {
            if replica.next < self.base || replica.next > self.end { return "a replica at \(replica.next)" }
            if replica.mustLoad { return "a replica is live that must load" }
        }
        let records = self.entries.dropFirst(self.stepStart - self.base).count { $0.entry != .apply }
        if records != self.records { return "\(self.records) records" }
        return nil
    }
}
