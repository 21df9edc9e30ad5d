// SPDX-License-Identifier: Apache-2.0

internal import NIOCore
internal import RPCCore
internal import ServiceKit
internal import SwitchTraining
internal import SwitchyardProtos
internal import TensorKernels

/// What the trainer's thread asks of a shard; each of these may block.
extension ShardLink {
    /// Begins the current step, or begins it again where something of it has been sent.
    func begin() {
        self.event { book, state in
            let isAgain = book.records > 0 || state.void != nil
            state.answers = [:]
            state.reads = [:]
            state.used = []
            state.prepared = [:]
            state.preparing = []
            state.void = nil
            guard isAgain else { return [] }
            let actions = book.beginAttempt()
            self.forgetMessages(&state, book)
            return actions
        }
    }

    /// The step, and the attempt at it.
    var place: (step: Int, attempt: Int) {
        self.state.withLock { ($0.book?.step ?? 0, $0.book?.attempt ?? 0) }
    }

    /// Asks for outputs.
    ///
    /// - Returns: What ``outputs(_:wait:)`` needs.
    func beginForward(_ rows: [ShardRows]) -> [Int] {
        let ids = self.state.withLock { state in
            rows.map { rows in
                defer { state.nextRead += 1 }
                state.reads[state.nextRead] = Read(rows: rows)
                return state.nextRead
            }
        }
        self.event { _, _ in [] }
        return ids
    }

    /// Waits for outputs.
    func outputs(_ ids: [Int], _ wait: ShardWait) throws -> [FloatMatrix] {
        try self.wait(for: wait, "outputs") { state in
            let answers = ids.compactMap { state.reads[$0]?.answer }
            guard answers.count == ids.count else { return (nil, answers.count) }
            for id in ids { state.reads[id] = nil }
            return (answers, answers.count)
        }
    }

    /// Adds rows with gradients to the log, and sends them to all replicas.
    ///
    /// - Returns: What ``gradients(_:_:)`` needs.
    func beginBackward(_ rows: [ShardRows]) -> [Int] {
        var indices: [Int] = []
        self.event { book, state in
            var actions: [ShardBook.Action] = []
            for rows in rows {
                let bytes = rows.tensor.readableBytes + rows.envelope.places.count
                let (index, record, sends) = book.appendBackward(bytes: bytes)
                var rows = rows
                rows.envelope.attempt = UInt32(book.attempt)
                rows.envelope.record = UInt64(record)
                state.messages[index] = .rows(rows)
                indices.append(index)
                actions += sends
            }
            return actions
        }
        return indices
    }

    /// Waits for rows' gradients.
    func gradients(_ indices: [Int], _ wait: ShardWait) throws -> [FloatMatrix] {
        try self.wait(for: wait, "gradients") { state in
            let answers = indices.compactMap { state.answers[$0] }
            return (answers.count == indices.count ? answers : nil, answers.count)
        }
    }

    /// The squares of the step's gradients, once the replicas that were used have compared their memory.
    func squares(_ wait: ShardWait) throws -> PrepareStepResponse {
        var firstAt: ContinuousClock.Instant?
        while true {
            let (ask, request) = self.state.withLock { state -> ([Int], PrepareStepRequest) in
                let ask = (state.book?.caughtUp ?? [])
                    .filter { state.prepared[$0] == nil && !state.preparing.contains($0) }
                state.preparing.formUnion(ask)
                return (
                    ask,
                    PrepareStepRequest(
                        session: self.session,
                        step: UInt64(state.book?.step ?? 0),
                        attempt: UInt32(state.book?.attempt ?? 0),
                        records: UInt64(state.book?.records ?? 0)
                    )
                )
            }
            for replica in ask { self.prepare(request, replica) }
            let answer: PrepareStepResponse? = try self.wait(
                for: wait,
                "the gradients' size",
                atMost: .milliseconds(50)
            ) {
                state in
                guard let first = state.prepared.values.first else { return (nil, 0) }
                let since = firstAt ?? .now
                firstAt = since
                // A replica whose answers were used is waited for, but not for long: it may have stopped.
                let open = state.used.contains { replica in
                    state.prepared[replica] == nil && state.book?.current.contains(replica) == true
                }
                let patience = max(.milliseconds(250), state.callTime * 4)
                return (open && .now - since < patience ? nil : first, state.prepared.count)
            }
            if let answer { return answer }
        }
    }

    private func prepare(_ request: PrepareStepRequest, _ replica: Int) {
        self.call(.trainingPrepare, to: replica, request) { (result: Result<PrepareStepResponse, RPCError>) in
            switch result {
            case .failure(let error):
                self.state.withLock { _ = $0.preparing.remove(replica) }
                self.failed(replica, error)
            case .success(let answer):
                self.event { book, state in
                    state.preparing.remove(replica)
                    guard Int(clamping: request.step) == book.step, Int(request.attempt) == book.attempt else {
                        return []
                    }
                    if let first = state.prepared.values.first, !first.hasSameBits(as: answer) {
                        // Either may be wrong: both take over the state before, and the step is computed again.
                        state.void = "two replicas of \(self.name) give different gradients"
                        return state.used.union([replica])
                            .flatMap {
                                book.failed($0, distrusts: true, now: .now)
                            }
                    }
                    state.prepared[replica] = answer
                    state.records[replica, default: Record()].checks += 1
                    return []
                }
            }
        }
    }

    /// Ends the step; the hosts go on by themselves.
    func apply(rate: Double, scale: Double) {
        self.event { book, state in
            let request = ApplyStepRequest(
                session: self.session,
                step: UInt64(book.step),
                attempt: UInt32(book.attempt),
                records: UInt64(book.records),
                learningRate: rate,
                gradientScale: scale
            )
            let (index, actions) = book.appendApply()
            state.messages[index] = .apply(request)
            state.answers = [:]
            state.reads = [:]
            state.used = []
            state.prepared = [:]
            state.preparing = []
            let oldest = book.firstStep
            state.checksums = state.checksums.filter { $0.key >= oldest }
            return actions
        }
    }

    /// Waits for something, however long hosts are away.
    ///
    /// - Parameters:
    ///   - wait: How long nothing may happen.
    ///   - what: What is waited for, for people.
    ///   - time: How long this call waits at most, after which it returns nil.
    ///   - body: The result, if it is there, and a number that grows with what has come.
    /// - Returns: The result; nil only after `time`.
    /// - Throws: `VoidStep`, or `ShardFailure` in words.
    func wait<Result>(
        for wait: ShardWait,
        _ what: String,
        atMost time: Duration,
        _ body: (inout State) -> (Result?, Int)
    ) throws -> Result? {
        let end = ContinuousClock.now.advanced(by: time)
        let outcome: Swift.Result<Result, any Error>? = self.state.wait(until: end) { state in
            if let fatal = state.fatal { return .failure(ShardFailure(fatal)) }
            if let void = state.void { return .failure(VoidStep(void)) }
            if let result = body(&state).0 { return .success(result) }
            return nil
        }
        switch outcome {
        case .success(let result): return result
        case .failure(let error): throw error
        case nil:
            try wait.check(self, what)
            return nil
        }
    }

    /// Waits for something until it is there.
    func wait<Result>(
        for wait: ShardWait,
        _ what: String,
        _ body: (inout State) -> (Result?, Int)
    ) throws -> Result {
        var progress = -1
        while true {
            let result: Result? = try self.wait(for: wait, what, atMost: .milliseconds(200)) { state in
                let (result, count) = body(&state)
                if count > progress {
                    progress = count
                    wait.restart()
                }
                return (result, count)
            }
            if let result { return result }
        }
    }

    /// Why replicas are not used, as a sentence.
    var troubleInWords: String {
        let troubles = self.state.withLock { $0.troubles }
        return self.targets.enumerated()
            .map { "\($0.element) \(troubles[$0.offset].map { "(\($0))" } ?? "(it holds no state yet, or is behind)")" }
            .joined(separator: ", ")
    }
}

/// How long the trainer waits while nothing happens.
final class ShardWait {
    private let patience: Duration
    private let isStopping: @Sendable () -> Bool
    private var since = ContinuousClock.now

    init(_ patience: Duration, isStopping: @escaping @Sendable () -> Bool) {
        self.patience = patience
        self.isStopping = isStopping
    }

    /// Something has happened.
    func restart() { self.since = .now }

    /// Throws once nothing has happened for too long, or the run is to end.
    func check(_ link: ShardLink, _ what: String) throws {
        let (isLost, damage) = link.state.withLock {
            ($0.book?.isLost ?? false, $0.book?.log.isDamaged ?? false ? $0.logTrouble : nil)
        }
        if isLost {
            throw ShardFailure(
                "the state of \(link.name) is lost: "
                    + (damage.map { "its hosts have none that is later than what was lost of the log (\($0))" }
                        ?? "its hosts died, and the snapshots on their disks with them")
                    + "; go on from the last save with --resume"
            )
        }
        let waited = ContinuousClock.now - self.since
        let isStopping = self.isStopping()
        guard waited > self.patience || (isStopping && waited > .seconds(5)) else { return }
        throw ShardFailure(
            "no host of \(link.name) gave \(what)"
                + (isStopping ? ", and the run was told to end" : " in \(self.patience)")
                + ": \(link.troubleInWords); start the hosts again, and go on with --resume"
        )
    }
}

/// Why a run with experts on hosts cannot go on, in words.
public struct ShardFailure: Error, Sendable, CustomStringConvertible {
    /// The reason, and what to do.
    public var description: String

    init(_ description: String) {
        self.description = description
    }
}

extension PrepareStepResponse {
    /// Whether two answers are the same, bit for bit.
    fileprivate func hasSameBits(as other: Self) -> Bool {
        self.touched == other.touched && self.squares.map(\.bitPattern) == other.squares.map(\.bitPattern)
    }
}
