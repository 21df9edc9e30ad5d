// SPDX-License-Identifier: Apache-2.0

internal import ExpertPooling
internal import HTTP2Session
internal import NIOCore
internal import RPCCore

/// Puts a stream's bytes together to messages.
struct MessageCollector {
    private var deframer: MessageDeframer
    private(set) var held: [UInt8] = []

    init(maxMessageBytes: Int) { self.deframer = MessageDeframer(maxMessageBytes: maxMessageBytes) }

    /// Whether no message is incomplete.
    var isBetweenMessages: Bool { self.deframer.isBetweenMessages }

    mutating func feed(_ bytes: ByteBuffer, _ body: (_ message: [UInt8], _ isCompressed: Bool) -> Void) throws(RPCError)
    {
        var rest = bytes.readableBytesView[...]
        var isCompressed = false
        while true {
            let result: Result<MessageDeframer.Step, RPCError> = rest.withUnsafeBytes { pointer in
                do throws(RPCError) { return .success(try self.deframer.next(pointer)) } catch {
                    return .failure(error)
                }
            }
            let step = try result.get()
            switch step.event {
            case .needsBytes: return
            case .began(let prefix):
                isCompressed = prefix.isCompressed
                self.held = []
            case .body(let isLast):
                self.held.append(contentsOf: rest.prefix(step.consumed))
                if isLast {
                    let message = self.held
                    self.held = []
                    body(message, isCompressed)
                }
            }
            rest = rest.dropFirst(step.consumed)
        }
    }

    mutating func end() throws(RPCError) { try self.deframer.end() }

    mutating func discard() { self.held = [] }
}

/// A call as its client sees it: the real ``ClientCallState``, and what a runner keeps beside it.
final class OutgoingCall {
    enum Purpose {
        case generate(request: Int)
        case forward(gateway: Int, lane: Int, layer: Int, attempt: AttemptID, replica: ReplicaID)
        case proof(gateway: Int, replica: ReplicaID, expected: [UInt64])
        case describe(gateway: Int, replica: ReplicaID)
    }

    let serial: Int
    let purpose: Purpose
    let process: Int
    let method: Method
    let shape: CallShape
    let message: [UInt8]
    /// When it gives up, in its process's time.
    let deadline: Int64?
    /// Whether it waits for a connection however long that takes.
    let waitsForReady: Bool
    var state: ClientCallState
    var collector = MessageCollector(maxMessageBytes: 1 << 22)
    var retries: CallRetries
    var previousAttempts = 0
    weak var link: WireLink?
    var streamID: Int32?
    var response: [UInt8]?
    /// Whether this side ended it, and so must have reset its stream.
    var wasGivenUp = false
    /// How often its end was reported; once is right.
    var ends = 0

    init(
        serial: Int,
        purpose: Purpose,
        process: Int,
        method: Method,
        shape: CallShape,
        message: [UInt8],
        deadline: Int64?,
        waitsForReady: Bool,
        retry: RetryPolicy
    ) {
        self.serial = serial
        self.purpose = purpose
        self.process = process
        self.method = method
        self.shape = shape
        self.message = message
        self.deadline = deadline
        self.waitsForReady = waitsForReady
        self.state = ClientCallState(shape: shape)
        self.retries = CallRetries(policy: retry)
        _ = self.state.messageSent()
        _ = self.state.requestEnded()
    }
}

/// A call as its server sees it: the real ``ServerCallState``, and what a runner keeps beside it.
final class IncomingCall {
    let streamID: Int32
    let link: WireLink
    var state = ServerCallState()
    var collector = MessageCollector(maxMessageBytes: 1 << 22)
    var method: Method?
    /// When it is over, in its process's time.
    var deadline: ContinuousClock.Instant?
    var request: [UInt8]?
    /// Bytes that are counted against the connection's budget.
    var heldBytes = 0
    /// What a host or a gateway knows it by.
    var work: UInt64?

    init(streamID: Int32, link: WireLink) {
        self.streamID = streamID
        self.link = link
    }
}

extension HeaderField {
    var forCodec: HTTP2HeaderField {
        HTTP2HeaderField(self.name, self.value, isNeverIndexed: self.name == "grpc-timeout")
    }
}
