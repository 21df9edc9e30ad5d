// SPDX-License-Identifier: Apache-2.0

internal import Foundation
internal import Logging
internal import RPCCore
internal import ServiceKit
internal import SwitchTraining
internal import SwitchyardProtos
internal import Synchronization

/// States on their way between the trainer and hosts, in pieces.
extension ShardLink {
    /// Gives a host the state that the trainer keeps.
    func store(_ replica: Int, step: Int) {
        // The state of this step, though a newer one may come home before the host has the weights below it.
        let (bytes, checksum) = self.state.withLock { $0.kept }
        self.afterBase(replica) { self.storePiece(bytes, checksum, from: 0, replica, step) }
    }

    /// Gives a host the weights below the adapter, where it lacks them, and goes on then.
    private func afterBase(_ replica: Int, _ body: @escaping @Sendable () -> Void) {
        guard let base, self.state.withLock({ $0.baseless.contains(replica) }) else { return body() }
        // Reading a checkpoint may wait for a disk.
        self.background.async { self.basePiece(of: base, from: 0, replica, body) }
    }

    private func basePiece(
        of base: ShardBase,
        from offset: Int,
        _ replica: Int,
        _ body: @escaping @Sendable () -> Void
    ) {
        guard offset < base.byteCount else {
            self.state.withLock { _ = $0.baseless.remove(replica) }
            return body()
        }
        let piece: [UInt8]
        do {
            piece = try base.piece(at: offset, upTo: ShardReplica.mostPieceBytes)
        } catch {
            self.state.notify { $0.fatal = "the weights below the adapter cannot be read: \(error)" }
            return
        }
        let request = StoreStateRequest(session: self.session, offset: UInt64(offset), piece: piece, isBase: true)
        self.call(.trainingStore, to: replica, request) { (result: Result<ShardState, RPCError>) in
            switch result {
            case .failure(let error): self.failed(replica, error)
            case .success:
                self.state.withLock { $0.frozenBytes += piece.count }
                self.background.async { self.basePiece(of: base, from: offset + piece.count, replica, body) }
            }
        }
    }

    private func storePiece(_ bytes: [UInt8], _ checksum: UInt64, from offset: Int, _ replica: Int, _ step: Int) {
        guard offset < bytes.count else {
            let request = LoadStateRequest(session: self.session, step: UInt64(step), checksum: checksum)
            return self.load(request, replica, step)
        }
        let end = min(bytes.count, offset + ShardReplica.mostPieceBytes)
        let request = StoreStateRequest(
            session: self.session,
            offset: UInt64(offset),
            piece: Array(bytes[offset..<end])
        )
        self.call(.trainingStore, to: replica, request) { (result: Result<ShardState, RPCError>) in
            switch result {
            case .failure(let error): self.failed(replica, error)
            case .success:
                self.state.withLock { $0.stateBytes.sent += end - offset }
                self.storePiece(bytes, checksum, from: end, replica, step)
            }
        }
    }

    /// Lets a host take over a snapshot of its own.
    func loadFromDisk(_ replica: Int, step: Int) {
        let checksum = self.state.withLock { $0.checksums[step - 1] ?? 0 }
        let request = LoadStateRequest(
            session: self.session,
            step: UInt64(step),
            isOnDisk: true,
            checksum: checksum
        )
        self.afterBase(replica) { self.load(request, replica, step) }
    }

    private func load(_ request: LoadStateRequest, _ replica: Int, _ step: Int) {
        self.call(.trainingLoad, to: replica, request, within: .seconds(300)) {
            (result: Result<ShardState, RPCError>) in
            switch result {
            case .failure(let error):
                if request.isOnDisk {
                    self.logger.warning(
                        "a snapshot cannot be used",
                        metadata: ["host": "\(self.targets[replica])", "why": "\(error.message)"]
                    )
                    self.event { book, _ in
                        book.refuseSnapshot(replica, step: step)
                        return []
                    }
                }
                self.failed(replica, error)
            case .success:
                self.event { book, state in
                    state.recoveries.loaded(replica, now: .now)
                    return book.loaded(replica, step: step, now: .now)
                }
            }
        }
    }

    // MARK: - Home

    /// Wants the state after the current step at home, or on every replica's disk.
    func wantHome() {
        self.event { book, state in
            state.homeWanted = max(state.homeWanted ?? 0, book.step)
            return []
        }
    }

    /// Wants the state after the current step at home.
    func wantSave() {
        self.event { book, state in
            state.saveWanted = book.step
            return []
        }
    }

    /// Waits for the state that ``wantSave()`` wants.
    func keptState(_ wait: ShardWait) throws -> (bytes: [UInt8], checksum: UInt64) {
        try self.wait(for: wait, "its state") { state in
            guard let book = state.book, book.keptStep == book.step else { return (nil, 0) }
            return (state.kept, 1)
        }
    }

    /// Begins to bring a state home, where one is wanted and a replica has it.
    func pumpHome() {
        let (replicas, step) = self.state.withLock { state -> ([Int], Int) in
            guard let book = state.book, !state.isBringingHome else { return ([], 0) }
            if let wanted = state.homeWanted, book.firstStep >= wanted { state.homeWanted = nil }
            if let wanted = state.saveWanted, book.keptStep >= wanted { state.saveWanted = nil }
            guard state.homeWanted != nil || state.saveWanted != nil else { return ([], 0) }
            let current = book.current
            guard !current.isEmpty else { return ([], 0) }
            state.isBringingHome = true
            return (current, book.step)
        }
        guard !replicas.isEmpty else { return }
        let round = SnapshotRound(replicas: replicas)
        for replica in replicas {
            let request = SnapshotRequest(session: self.session, step: UInt64(step))
            self.call(.trainingSnapshot, to: replica, request, within: .seconds(300)) {
                (result: Result<SnapshotResponse, RPCError>) in
                if case .success(let answer) = result, !answer.diskError.isEmpty {
                    self.state.withLock { $0.troubles[replica] = "snapshot: \(answer.diskError)" }
                    self.logger.warning(
                        "a host cannot write its snapshot",
                        metadata: ["host": "\(self.targets[replica])", "why": "\(answer.diskError)"]
                    )
                }
                if case .success(let answer) = result, answer.isOnDisk {
                    self.event { book, state in
                        state.records[replica, default: Record()].snapshot = (step, .now)
                        book.wroteSnapshot(replica, step: step)
                        return []
                    }
                }
                if case .failure(let error) = result {
                    // A host that has gone on to the next step is asked again; any other that gives no copy is opened again.
                    let isLate = self.state.withLock { ($0.book?.step ?? step) > step }
                    if error.code != .failedPrecondition || !isLate { self.failed(replica, error) }
                }
                if let answers = round.add(replica, try? result.get()) { self.snapshotsMade(answers, step) }
            }
        }
    }

    /// All replicas have answered: either each has its copy on its disk, or one copy comes home.
    private func snapshotsMade(_ answers: [Int: SnapshotResponse], _ step: Int) {
        let isSafe = answers.count == self.targets.count && answers.values.allSatisfy(\.isOnDisk)
        if isSafe, self.state.withLock({ $0.saveWanted == nil }) {
            self.event { book, state in
                state.isBringingHome = false
                book.forget(before: step, now: .now)
                self.forgetMessages(&state, book)
                return []
            }
            return
        }
        guard let (replica, answer) = answers.min(by: { $0.key < $1.key }) else {
            // Too late for this step, or no host: the next tick tries again.
            self.state.withLock { $0.isBringingHome = false }
            return
        }
        self.fetchPiece(answer, replica, step, ArrivingState(byteCount: answer.stateBytes))
    }

    private func fetchPiece(_ copy: SnapshotResponse, _ replica: Int, _ step: Int, _ arriving: ArrivingState) {
        let count = arriving.count
        guard UInt64(count) < copy.stateBytes else { return self.cameHome(arriving.bytes, copy.checksum, step) }
        let request = FetchStateRequest(
            session: self.session,
            step: UInt64(step),
            offset: UInt64(count),
            bytes: UInt64(ShardReplica.mostPieceBytes)
        )
        self.call(.trainingFetch, to: replica, request) { (result: Result<FetchStateResponse, RPCError>) in
            switch result {
            case .success(let answer) where !answer.piece.isEmpty:
                arriving.add(answer.piece)
                self.state.withLock { $0.stateBytes.received += answer.piece.count }
                self.fetchPiece(copy, replica, step, arriving)
            case .success, .failure:
                self.state.withLock { $0.isBringingHome = false }
                if case .failure(let error) = result { self.failed(replica, error) }
            }
        }
    }

    private func cameHome(_ bytes: [UInt8], _ checksum: UInt64, _ step: Int) {
        self.event { book, state in
            state.isBringingHome = false
            state.kept = (bytes, checksum)
            state.keptTime = .now
            let actions = book.cameHome(step: step, now: .now)
            self.forgetMessages(&state, book)
            return actions
        }
    }
}

/// The answers of replicas that were asked for copies of one state.
final class SnapshotRound: Sendable {
    private let state: Mutex<(open: Set<Int>, answers: [Int: SnapshotResponse])>

    init(replicas: [Int]) {
        self.state = Mutex((Set(replicas), [:]))
    }

    /// Takes an answer, nil for a failure.
    ///
    /// - Returns: All answers, once the last one is in.
    func add(_ replica: Int, _ answer: SnapshotResponse?) -> [Int: SnapshotResponse]? {
        self.state.withLock { state in
            state.open.remove(replica)
            state.answers[replica] = answer
            return state.open.isEmpty ? state.answers : nil
        }
    }
}

/// A state that comes in pieces, one after the other.
final class ArrivingState: Sendable {
    private let state: Mutex<[UInt8]>

    init(byteCount: UInt64) {
        var bytes: [UInt8] = []
        bytes.reserveCapacity(Int(clamping: min(byteCount, 1 << 40)))
        self.state = Mutex(bytes)
    }

    var count: Int { self.state.withLock { $0.count } }
    var bytes: [UInt8] { self.state.withLock { $0 } }
    func add(_ piece: [UInt8]) { self.state.withLock { $0 += piece } }
}
