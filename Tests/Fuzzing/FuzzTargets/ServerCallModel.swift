// SPDX-License-Identifier: Apache-2.0

import HTTP2Session
import NIOCore
import RPCCore

/// One call on the fuzzed server: the call machine and the deframer, run as the transport runs them.
final class ServerCallModel {
    let streamID: Int32
    private let codec: HTTP2Codec
    private var state = ServerCallState(encodings: ["gzip"])
    private var deframer: MessageDeframer
    private var uncreditedBytes = 0
    private var headsSent = 0
    private var endingsSent = 0
    private let creditsLate: Bool
    /// Every other call sends its blocks by way of the codec's store.
    private var storesBlocks: Bool { self.streamID & 2 != 0 }

    init(streamID: Int32, codec: HTTP2Codec, creditsLate: Bool) {
        self.streamID = streamID
        self.codec = codec
        self.creditsLate = creditsLate
        self.deframer = MessageDeframer(maxMessageBytes: 4_096)
    }

    // MARK: - The peer's events

    func headersReceived(
        _ block: HTTP2HeaderBlock,
        now: ContinuousClock.Instant,
        _ random: inout SplitMix64,
        _ trace: inout Trace
    ) throws(FuzzFinding) {
        let fields = block.callFields
        switch self.state.headersReceived(fields, endStream: block.endStream, now: now) {
        case .route(let head, let deadline):
            trace.note(200)
            if let timeout = head.timeout, timeout.duration <= Timeout.horizon {
                try expect(deadline != nil, "a timeout gives a deadline")
            }
            let shape = CallShape.allCases[random.below(CallShape.allCases.count)]
            if random.once(in: 6) {
                try self.finish(Status(code: .unimplemented, message: "no method \(head.method)"), Metadata())
            } else {
                _ = self.state.methodFound(shape)
            }
            if block.endStream { try self.requestEnded(&trace) }
        case .end(let ending):
            trace.note(201)
            try self.send(ending)
        case .reset(let code, _):
            trace.note(202)
            self.codec.reset(streamID: self.streamID, code: HTTP2ErrorCode(rawValue: code.rawValue))
        case .ignore:
            trace.note(203)
        }
    }

    func headersTooLarge() throws(FuzzFinding) {
        switch self.state.phase {
        case .idle:
            let status = Status(code: .resourceExhausted, message: "too many header bytes")
            _ = self.state.cancelled()
            try self.submitHead(Trailers(status: status).trailersOnlyFields(), endStream: true)
            self.codec.resetAfterEnd(streamID: self.streamID, code: .noError)
        case .routing, .open, .ended:
            self.abort(self.state.cancelled(reset: .protocolError))
        }
    }

    func dataReceived(_ bytes: ByteBuffer, _ trace: inout Trace) throws(FuzzFinding) {
        self.uncreditedBytes += bytes.readableBytes
        var rest = Array(bytes.readableBytesView)[...]
        while true {
            let outcome = rest.withUnsafeBytes { piece -> Result<MessageDeframer.Step, RPCError> in
                Result { () throws(RPCError) in try self.deframer.next(piece) }
            }
            switch outcome {
            case .failure(let error):
                trace.note(210)
                if let ending = self.state.statusSent(error.status) { try self.send(ending) }
                self.credit()
                return
            case .success(let step):
                try expect(step.consumed <= rest.count, "the deframer accepts every input")
                rest = rest.dropFirst(step.consumed)
                switch step.event {
                case .needsBytes:
                    if !self.creditsLate { self.credit() }
                    return
                case .began(let prefix):
                    if prefix.isCompressed { trace.note(211) }
                    self.isCompressed = prefix.isCompressed
                case .body(isLast: true):
                    try self.messageReceived(&trace)
                case .body(isLast: false):
                    break
                }
            }
        }
    }

    private var isCompressed = false

    private func messageReceived(_ trace: inout Trace) throws(FuzzFinding) {
        switch self.state.messageReceived(isCompressed: self.isCompressed) {
        case .deliver: trace.note(212)
        case .decompress(let encoding):
            trace.note(213)
            try expect(encoding == "gzip", "only offered encodings are decompressed", encoding)
        case .drop: trace.note(214)
        case .end(let ending):
            trace.note(215)
            try self.send(ending)
        }
    }

    func requestEnded(_ trace: inout Trace) throws(FuzzFinding) {
        do throws(RPCError) {
            try self.deframer.end()
        } catch {
            trace.note(220)
            if let ending = self.state.statusSent(error.status) { try self.send(ending) }
            return
        }
        if case .end(let ending) = self.state.requestEnded() {
            trace.note(221)
            try self.send(ending)
        }
    }

    func peerLeft() throws(FuzzFinding) {
        if case .cancelHandler(let reset) = self.state.peerLeft() {
            try expect(reset == nil, "no closed stream is reset")
        }
        try expect(self.state.isEnded, "a call is over when its stream is")
    }

    // MARK: - The handler's events

    /// Lets the handler do something, left to chance.
    func act(_ random: inout SplitMix64, _ trace: inout Trace) throws(FuzzFinding) {
        switch random.below(12) {
        case 0, 1, 2:
            try self.submitMessage(random.below(3) == 0 ? 20_000 : random.below(300), &random)
        case 3, 4:
            try self.finish(Self.someStatus(&random), Self.someMetadata(&random))
        case 5:
            if let head = self.state.headSent(Self.someMetadata(&random)) {
                try self.submitHead(head.fields(), endStream: false)
            }
        case 6:
            self.abort(self.state.deadlineExpired())
        case 7:
            self.credit()
        case 8:
            self.codec.consume(streamID: self.streamID, byteCount: random.below(5_000))
        case 9:
            self.codec.notifyDrained(streamID: self.streamID, atOrBelow: random.below(1_000))
        default:
            break
        }
        trace.note(self.state.isEnded ? 230 : 231)
    }

    /// Ends the call if it is open.
    func finish(_ status: Status, _ metadata: Metadata) throws(FuzzFinding) {
        guard let ending = self.state.statusSent(status, metadata: metadata) else { return }
        try self.send(ending)
    }

    private func submitMessage(_ byteCount: Int, _ random: inout SplitMix64) throws(FuzzFinding) {
        switch self.state.messageSent(initialMetadata: Self.someMetadata(&random)) {
        case .sendHead(let head):
            try self.submitHead(head.fields(), endStream: false)
        case .send:
            break
        case .drop, .refuse:
            return
        }
        let prefix = ByteBuffer(bytes: MessagePrefix(length: byteCount).bytes)
        let body = ByteBuffer(repeating: 0x61, count: byteCount)
        do throws(HTTP2CodecError) {
            try self.codec.submitData(streamID: self.streamID, [prefix, body])
        } catch {
            throw FuzzFinding("a message that the call machine lets through can be sent", error.description)
        }
    }

    // MARK: - Private

    private func submitHead(_ fields: [HeaderField], endStream: Bool) throws(FuzzFinding) {
        self.headsSent += 1
        try expect(self.headsSent == 1, "a call sends one head")
        do throws(HTTP2CodecError) {
            let fields = Self.codecFields(fields)
            if self.storesBlocks, let block = try self.codec.store(fields) {
                try self.codec.submitResponse(streamID: self.streamID, block, endStream: endStream)
            } else {
                try self.codec.submitResponse(streamID: self.streamID, fields, endStream: endStream)
            }
        } catch {
            throw FuzzFinding("a head that the call machine makes can be sent", error.description)
        }
    }

    private func send(_ ending: ServerCallState.Ending) throws(FuzzFinding) {
        self.endingsSent += 1
        try expect(self.endingsSent == 1 && self.state.isEnded, "a call ends once")
        if let reset = ending.reset {
            self.codec.resetAfterEnd(streamID: self.streamID, code: HTTP2ErrorCode(rawValue: reset.rawValue))
        }
        if ending.fields.first?.name == ":status" {
            try self.submitHead(ending.fields, endStream: true)
            return
        }
        do throws(HTTP2CodecError) {
            let fields = Self.codecFields(ending.fields)
            if self.storesBlocks, let block = try self.codec.store(fields) {
                try self.codec.submitTrailers(streamID: self.streamID, block)
            } else {
                try self.codec.submitTrailers(streamID: self.streamID, fields)
            }
        } catch {
            throw FuzzFinding("trailers that the call machine makes can be sent", error.description)
        }
    }

    private func abort(_ action: ServerCallState.OnAbort) {
        guard case .cancelHandler(let reset) = action, let reset else { return }
        self.codec.reset(streamID: self.streamID, code: HTTP2ErrorCode(rawValue: reset.rawValue))
    }

    private func credit() {
        self.codec.consume(streamID: self.streamID, byteCount: self.uncreditedBytes)
        self.uncreditedBytes = 0
    }

    static func codecFields(_ fields: [HeaderField]) -> [HTTP2HeaderField] {
        fields.map { HTTP2HeaderField($0.name, $0.value, isNeverIndexed: $0.name == "grpc-timeout") }
    }

    /// A status as a handler may choose it, with characters that are hard to send.
    static func someStatus(_ random: inout SplitMix64) -> Status {
        let texts = ["", "plain", " spaces ", "50 %", "line\nbreak\0", "größer 🦊", "%41%", "\u{7f}\t"]
        let code = Status.Code(rawValue: UInt8(random.below(17))) ?? .ok
        return Status(code: code, message: texts[random.below(texts.count)])
    }

    /// Metadata as a handler may add it.
    static func someMetadata(_ random: inout SplitMix64) -> Metadata {
        var metadata = Metadata()
        guard random.once(in: 3) else { return metadata }
        do throws(MetadataError) {
            try metadata.add("", forKey: "empty")
            try metadata.add("value", forKey: "X-Key")
            try metadata.add(binary: Array("bytes".utf8.prefix(random.below(6))), forKey: "x-bin")
        } catch {
            return Metadata()
        }
        return metadata
    }
}

extension HTTP2HeaderBlock {
    /// All fields, as the call machines take them.
    var callFields: [HeaderField] {
        (self.fields + (self.variable.map { [$0] } ?? [])).map { HeaderField($0.name, $0.value) }
    }
}
