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
        /// Rows in a file.
        case file(LogFiles.Place)
        case apply(ApplyStepRequest)
    }

    /// What became of a replica so far, for people.
    struct Record: Sendable {
        /// The last snapshot on its disk, and when it was written, if that was while this trainer ran.
        var snapshot: (step: Int, time: ContinuousClock.Instant?)?
        /// Comparisons of its memory with the checksum of its last step that were right.
        var checks = 0
        /// Those that were wrong.
        var changes = 0
        /// Steps after which its state had the checksum of another replica's.
        var agreements = 0
        /// Those after which it had another one.
        var differences = 0
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
        /// The replica that gave it, until another one has given the same.
        var checksumGivers: [Int: Int] = [:]
        var disputes = 0
        var records: [Int: Record] = [:]
        var recoveries = RecoveryTimes()
        /// Why the log's files are not used.
        var logTrouble: String?
        /// Why each replica is not used.
        var troubles: [Int: String] = [:]
        /// The state after ``ShardBook/keptStep``.
        var kept: (bytes: [UInt8], checksum: UInt64) = ([], 0)
        /// When it came.
        var keptTime = ContinuousClock.now
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
        /// Bytes of states that went to hosts, and came home.
        var stateBytes = (sent: 0, received: 0)
        /// Bytes of weights below an adapter that went to hosts.
        var frozenBytes = 0
        /// Replicas that lack the weights below the adapter.
        var baseless: Set<Int> = []
    }

    let name: String
    let targets: [String]
    let plan: ShardPlan
    /// The weights below an adapter; nil where all weights are trained.
    let base: ShardBase?
    let session: TrainingSession
    let configuration: [UInt8]
    let encodedPlan: [UInt8]
    let patience: Duration
    let channels: [RPCChannel]
    let logger: Logger
    let state = Monitor(State())
    /// Files of the log; nil where all of it is in memory.
    let files: LogFiles?
    /// Where files are written and read, beside the trainer's thread and the event loops.
    let background: DispatchQueue

    /// Names a shard and its hosts.
    init(
        _ name: String,
        targets: [(host: String, port: Int)],
        plan: ShardPlan,
        base: ShardBase?,
        configuration: [UInt8],
        session: TrainingSession,
        patience: Duration,
        channel: RPCChannelConfiguration,
        files: LogFiles?,
        logger: Logger
    ) throws {
        self.name = name
        self.targets = targets.map { AddressText.of(host: $0.host, port: $0.port) }
        self.plan = plan
        self.base = base
        self.session = session
        self.configuration = configuration
        let encoder = JSONEncoder()
        encoder.outputFormatting = .sortedKeys
        self.encodedPlan = [UInt8](try encoder.encode(plan))
        self.patience = patience
        self.channels = targets.map { RPCChannel(target: $0, configuration: channel, logger: logger) }
        self.logger = logger
        self.files = files
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
                guard envelope.outputsDType == .float32,
                    envelope.outputsShape == TensorShape(rows: rows, columns: columns)
                else {
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
            defer {
                for replica in book.current { state.recoveries.serves(replica, step: book.step, now: .now) }
                state.book = book
            }
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
            case .store(let replica, let step):
                self.state.withLock { $0.recoveries.loads(replica, step: step, now: .now) }
                self.store(replica, step: step)
            case .loadFromDisk(let replica, let step):
                self.state.withLock { $0.recoveries.loads(replica, step: step, now: .now) }
                self.loadFromDisk(replica, step: step)
            case .send(let replica, let index): self.sendEntry(index, to: replica)
            case .moveToFile(let move): self.moveToFile(move)
            case .bringHome: self.state.withLock { $0.homeWanted = max($0.homeWanted ?? 0, $0.book?.step ?? 0) }
            }
        }
    }

    private func open(_ replica: Int) {
        let request = OpenShardRequest(
            session: self.session,
            configuration: self.configuration,
            plan: self.encodedPlan,
            shard: self.name,
            baseChecksum: self.base?.checksum ?? 0
        )
        self.call(.trainingOpen, to: replica, request, within: .seconds(10)) {
            (result: Result<ShardState, RPCError>) in
            switch result {
            case .failure(let error): self.failed(replica, error)
            case .success(let state):
                self.event { book, own in
                    own.troubles[replica] = nil
                    if let step = state.snapshots.last.map({ Int(clamping: $0) }),
                        own.records[replica]?.snapshot?.step != step
                    {
                        own.records[replica, default: Record()].snapshot = (step, nil)
                    }
                    if state.needsBase { own.baseless.insert(replica) } else { own.baseless.remove(replica) }
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
            state.recoveries.failed(replica)
            if isCorrupt { state.records[replica, default: Record()].changes += 1 }
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
}
