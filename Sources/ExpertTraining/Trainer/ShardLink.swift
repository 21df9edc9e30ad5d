// SPDX-License-Identifier: Apache-2.0

internal import Foundation
internal import Logging
internal import NIOCore
internal import RPCCore
internal import RPCTransport
internal import ServiceKit
internal import SwitchTraining
internal import SwitchyardProtos
internal import SwitchyardTypes
internal import TensorKernels

/// Rows on their way to a shard's hosts: the message without what differs from replica to replica.
struct ShardRows: Sendable {
    var envelope: TrainingRowsEnvelope
    /// Token rows, then gradients if there are any.
    let tensor: ByteBuffer

    /// The message.
    func payload(isReplay: Bool) -> Payload {
        var envelope = self.envelope
        envelope.isReplay = isReplay
        return Payload(
            segments: [ByteBuffer(bytes: envelope.header(tensorByteCount: self.tensor.readableBytes)), self.tensor]
        )
    }
}

/// A trainer's connections to the replicas of one shard, and what it knows of them.
///
/// Decisions are ``ShardBook``'s; this sends what it says, keeps the messages of the log, and lets the trainer's thread wait.
final class ShardLink: Sendable {
    /// What an entry of the log sends.
    enum Message: Sendable {
        case rows(ShardRows)
        case apply(ApplyStepRequest)
    }

    /// Rows whose outputs are wanted.
    struct Read: Sendable {
        let rows: ShardRows
        var answer: FloatMatrix?
        /// The replicas that were asked and have not answered.
        var asked: [Int] = []
        var askedAt: ContinuousClock.Instant?
    }

    /// All that changes.
    struct State: ~Copyable {
        var book: ShardBook?
        var messages: [Int: Message] = [:]
        /// The gradients of the current attempt's rows, by entry.
        var answers: [Int: FloatMatrix] = [:]
        var reads: [Int: Read] = [:]
        var nextRead = 0
        /// Replicas whose answers the current attempt has used.
        var used: Set<Int> = []
        /// Why the current attempt is void.
        var void: String?
        /// Why no call can succeed.
        var fatal: String?
        /// What replicas said of the current attempt's gradients.
        var prepared: [Int: PrepareStepResponse] = [:]
        var preparing: Set<Int> = []
        /// The checksum of the state after a step, as the first replica that got there gave it.
        var checksums: [Int: UInt64] = [:]
        var disputes = 0
        /// Why each replica is not used.
        var troubles: [Int: String] = [:]
        /// The state after ``ShardBook/keptStep``.
        var kept: (bytes: [UInt8], checksum: UInt64) = ([], 0)
        var isBringingHome = false
        /// The step at which a newer state is wanted at least.
        var homeWanted: Int?
        /// The step whose state is wanted at home for a save.
        var saveWanted: Int?
        /// How long a call with rows takes: the longest of late.
        var callTime = Duration.zero
        var failures = 0
        var repeats = 0
        var sentBytes = 0
        var receivedBytes = 0
    }

    let name: String
    let targets: [String]
    let plan: ShardPlan
    let session: TrainingSession
    let configuration: [UInt8]
    let encodedPlan: [UInt8]
    let patience: Duration
    let channels: [RPCChannel]
    let logger: Logger
    let state = Monitor(State())
    /// Where states are taken apart and compared, beside the trainer's thread and the event loops.
    let background: DispatchQueue

    /// Names a shard and its hosts.
    init(
        _ name: String,
        targets: [(host: String, port: Int)],
        plan: ShardPlan,
        configuration: [UInt8],
        session: TrainingSession,
        patience: Duration,
        channel: RPCChannelConfiguration,
        logger: Logger
    ) throws {
        self.name = name
        self.targets = targets.map { AddressText.of(host: $0.host, port: $0.port) }
        self.plan = plan
        self.session = session
        self.configuration = configuration
        let encoder = JSONEncoder()
        encoder.outputFormatting = .sortedKeys
        self.encodedPlan = [UInt8](try encoder.encode(plan))
        self.patience = patience
        self.channels = targets.map { RPCChannel(target: $0, configuration: channel, logger: logger) }
        self.logger = logger
        self.background = DispatchQueue(label: "shard \(name)")
    }

    // MARK: - Calls

    private func options(_ time: Duration? = nil) -> CallOptions {
        CallOptions(deadline: .now.advanced(by: time ?? self.patience))
    }

    /// Makes a call, and reads its answer.
    func call<Response: ProtoMessage & Sendable>(
        _ method: Method,
        to replica: Int,
        _ request: some ProtoMessage,
        within time: Duration? = nil,
        _ completion: @escaping @Sendable (Result<Response, RPCError>) -> Void
    ) {
        let payload = Payload(bytes: request.serialized())
        self.channels[replica]
            .unary(method, payload, options: self.options(time)) { result in
                completion(
                    result.flatMap { reply in
                        do throws(ProtoError) {
                            return .success(try Response(serialized: Array(reply.message.readableBytesView)))
                        } catch {
                            return .failure(RPCError(.internal, error.description))
                        }
                    }
                )
            }
    }

    /// Sends rows, and reads the rows that come back.
    func send(
        _ rows: ShardRows,
        to replica: Int,
        isBackward: Bool,
        isReplay: Bool,
        _ completion: @escaping @Sendable (Result<FloatMatrix, RPCError>) -> Void
    ) {
        let payload = rows.payload(isReplay: isReplay)
        let start = ContinuousClock.now
        let count = isReplay ? 0 : rows.envelope.rows.rowCount
        let columns = Int(rows.envelope.rows.tokensShape[1])
        let method: Method = isBackward ? .trainingBackward : .trainingForward
        self.channels[replica]
            .unary(method, payload, options: self.options()) { result in
                let answer = result.flatMap { Self.matrix($0.message, rows: count, columns: columns) }
                self.state.withLock { state in
                    state.sentBytes += payload.byteCount
                    guard case .success(let matrix) = answer else { return }
                    state.receivedBytes += matrix.rows * matrix.columns * MemoryLayout<Float>.stride
                    // Falls by an eighth from call to call.
                    state.callTime = max(.now - start, state.callTime - state.callTime / 8)
                }
                completion(answer)
            }
    }

    private static func matrix(_ message: ByteBuffer, rows: Int, columns: Int) -> Result<FloatMatrix, RPCError> {
        message.withUnsafeReadableBytes { bytes in
            do throws(ProtoError) {
                let (envelope, tensor) = try ForwardResponseEnvelope.parse(bytes)
                guard envelope.outputsDType == .float32, envelope.outputsShape == [UInt32(rows), UInt32(columns)] else {
                    return .failure(
                        RPCError(
                            .internal,
                            "the answer has the shape \(envelope.outputsShape), not [\(rows), \(columns)]"
                        )
                    )
                }
                let matrix = FloatMatrix(uninitializedRows: rows, columns: columns)
                UnsafeMutableRawBufferPointer(start: matrix.pointer, count: tensor.count)
                    .copyMemory(from: UnsafeRawBufferPointer(rebasing: bytes[tensor]))
                return .success(matrix)
            } catch {
                return .failure(RPCError(.internal, error.description))
            }
        }
    }

    // MARK: - Events

    /// Hands an event to the book, and does what it says.
    func event(_ body: (inout ShardBook, inout State) -> [ShardBook.Action]) {
        let actions = self.state.notify { state -> [ShardBook.Action] in
            guard var book = state.book else { return [] }
            // The book is a value inside the state; take it out so that the body may change both.
            state.book = nil
            defer { state.book = book }
            return body(&book, &state)
        }
        self.perform(actions)
        self.pumpReads()
        self.pumpHome()
    }

    /// Lets time pass.
    func tick() {
        self.event { book, _ in book.tick(now: .now) }
    }

    private func perform(_ actions: [ShardBook.Action]) {
        for action in actions {
            switch action {
            case .open(let replica): self.open(replica)
            case .store(let replica, let step): self.store(replica, step: step)
            case .loadFromDisk(let replica, let step): self.loadFromDisk(replica, step: step)
            case .send(let replica, let index): self.sendEntry(index, to: replica)
            case .bringHome: self.state.withLock { $0.homeWanted = max($0.homeWanted ?? 0, $0.book?.step ?? 0) }
            }
        }
    }

    private func open(_ replica: Int) {
        let request = OpenShardRequest(
            session: self.session,
            configuration: self.configuration,
            plan: self.encodedPlan,
            shard: self.name
        )
        self.call(.trainingOpen, to: replica, request, within: .seconds(10)) {
            (result: Result<ShardState, RPCError>) in
            switch result {
            case .failure(let error): self.failed(replica, error)
            case .success(let state):
                self.event { book, own in
                    own.troubles[replica] = nil
                    return book.opened(
                        replica,
                        ShardBook.HostState(
                            place: state.isLoaded
                                ? (Int(clamping: state.step), Int(state.attempt), Int(clamping: state.records)) : nil,
                            snapshots: state.snapshots.map { Int(clamping: $0) }
                        ),
                        now: .now
                    )
                }
            }
        }
    }

    /// Notes that a call failed.
    func failed(_ replica: Int, _ error: RPCError) {
        let isCorrupt = error.code == .dataLoss
        self.event { book, state in
            state.failures += 1
            state.troubles[replica] = Self.words(error)
            if error.code == .invalidArgument { state.fatal = "\(self.targets[replica]) refuses: \(error.message)" }
            if isCorrupt, state.used.contains(replica) {
                state.void = "\(self.targets[replica]): \(error.message)"
            }
            return book.failed(replica, distrusts: isCorrupt, now: .now)
        }
        if isCorrupt {
            self.logger.error("a host's memory has changed", metadata: ["host": "\(self.targets[replica])"])
        }
    }

    private static func words(_ error: RPCError) -> String {
        switch error.code {
        case .unimplemented: "it does not train; start it with --train"
        case .unavailable: "it cannot be reached"
        case .deadlineExceeded: "it does not answer"
        default: error.message
        }
    }

    // MARK: - Entries

    private func sendEntry(_ index: Int, to replica: Int) {
        let (message, isReplay) = self.state.withLock { state -> (Message?, Bool) in
            let isReplay = state.answers[index] != nil || index < (state.book?.stepStart ?? 0)
            if isReplay { state.repeats += 1 }
            return (state.messages[index], isReplay)
        }
        switch message {
        case nil: self.event { book, _ in book.acknowledged(replica, index: index, isVoid: true) }
        case .rows(let rows):
            self.send(rows, to: replica, isBackward: true, isReplay: isReplay) { result in
                switch result {
                case .failure(let error): self.failed(replica, error)
                case .success(let matrix):
                    self.acknowledged(index, replica, attempt: Int(rows.envelope.attempt)) { state in
                        if !isReplay { self.take(matrix, index, replica, &state) }
                    }
                }
            }
        case .apply(let request):
            self.call(.trainingApply, to: replica, request) { (result: Result<ShardState, RPCError>) in
                switch result {
                case .failure(let error): self.failed(replica, error)
                case .success(let answer): self.applied(index, replica, Int(clamping: request.step), answer.checksum)
                }
            }
        }
    }

    private func acknowledged(
        _ index: Int,
        _ replica: Int,
        attempt: Int,
        _ body: @Sendable (inout State) -> Void
    ) {
        self.event { book, state in
            let isVoid = index >= book.stepStart && attempt != book.attempt
            if !isVoid { body(&state) }
            return book.acknowledged(replica, index: index, isVoid: isVoid)
        }
    }

    /// Keeps rows' gradients; those of a second replica must have the same bits.
    private func take(_ matrix: FloatMatrix, _ index: Int, _ replica: Int, _ state: inout State) {
        guard let first = state.answers[index] else {
            state.answers[index] = matrix
            state.used.insert(replica)
            return
        }
        let size = first.rows * first.columns * MemoryLayout<Float>.stride
        if first.rows == matrix.rows, memcmp(first.pointer, matrix.pointer, size) != 0 {
            state.void = "two replicas of \(self.name) give different gradients"
        }
    }

    /// Compares the state after a step with that of other replicas.
    private func applied(_ index: Int, _ replica: Int, _ step: Int, _ checksum: UInt64) {
        self.event { book, state in
            if let first = state.checksums[step], first != checksum {
                state.disputes += 1
                state.troubles[replica] = "its weights after step \(step + 1) differ from another replica's"
                if state.disputes > 8 {
                    state.fatal =
                        "replicas of \(self.name) do not agree about the weights after step \(step + 1), time after time:"
                        + " one of \(self.targets.joined(separator: ", ")) computes wrongly; take it away, and resume"
                }
                return book.failed(replica, distrusts: true, now: .now)
            }
            state.checksums[step] = checksum
            return book.acknowledged(replica, index: index, isVoid: false)
        }
    }

    // MARK: - Reads

    /// Sends rows that no replica has been asked for, or that take too long.
    private func pumpReads() {
        let sends = self.state.withLock { state -> [(Int, Int, ShardRows)] in
            guard let current = state.book?.current, !current.isEmpty else { return [] }
            let patience = max(.milliseconds(250), state.callTime * 4)
            var load = Dictionary(uniqueKeysWithValues: current.map { ($0, 0) })
            for read in state.reads.values where read.answer == nil {
                for replica in read.asked { load[replica]? += 1 }
            }
            var sends: [(Int, Int, ShardRows)] = []
            for (id, read) in state.reads.sorted(by: { $0.key < $1.key }) where read.answer == nil {
                let isLate = read.askedAt.map { .now - $0 > patience } ?? true
                guard read.asked.isEmpty || isLate else { continue }
                guard
                    let replica = current.filter({ !read.asked.contains($0) })
                        .min(by: { (load[$0] ?? 0, $0) < (load[$1] ?? 0, $1) })
                else { continue }
                load[replica]? += 1
                state.reads[id]?.asked.append(replica)
                state.reads[id]?.askedAt = .now
                sends.append((id, replica, read.rows))
            }
            return sends
        }
        for (id, replica, rows) in sends {
            self.send(rows, to: replica, isBackward: false, isReplay: false) { result in
                switch result {
                case .failure(let error):
                    self.state.withLock { $0.reads[id]?.asked.removeAll { $0 == replica } }
                    self.failed(replica, error)
                case .success(let matrix):
                    self.state.notify { state in
                        guard state.reads[id] != nil, state.reads[id]?.answer == nil else { return }
                        state.reads[id]?.answer = matrix
                        state.used.insert(replica)
                    }
                }
            }
        }
    }
}
