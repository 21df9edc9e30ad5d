// SPDX-License-Identifier: Apache-2.0

import HTTP2Session
import NIOCore
import RPCCore

/// One call of the fuzzed client: the call machine and the deframer, run as the transport runs them.
final class ClientCallModel {
    let streamID: Int32
    private let codec: HTTP2Codec
    private var state: ClientCallState
    private var deframer = MessageDeframer(maxMessageBytes: 4_096)
    private var isCompressed = false
    private var uncreditedBytes = 0
    private var endsSeen = 0
    private let creditsLate: Bool

    init(streamID: Int32, shape: CallShape, codec: HTTP2Codec, creditsLate: Bool) {
        self.streamID = streamID
        self.codec = codec
        self.state = ClientCallState(shape: shape, encodings: ["gzip"])
        self.creditsLate = creditsLate
    }

    var isEnded: Bool { self.state.isEnded }

    // MARK: - The peer's events

    func headersReceived(_ block: HTTP2HeaderBlock, _ trace: inout Trace) throws(FuzzFinding) {
        let fields = block.callFields
        switch self.state.headersReceived(fields, endStream: block.endStream) {
        case .ignore: trace.note(500)
        case .response: trace.note(501)
        case .end(let end): try self.finish(end, &trace)
        }
    }

    func headersTooLarge(_ trace: inout Trace) throws(FuzzFinding) {
        try self.finish(self.state.failed(RPCError(.resourceExhausted, "too many header bytes")), &trace)
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
                try self.finish(self.state.failed(error), &trace)
                self.credit()
                return
            case .success(let step):
                rest = rest.dropFirst(step.consumed)
                switch step.event {
                case .needsBytes:
                    if !self.creditsLate { self.credit() }
                    return
                case .began(let prefix):
                    self.isCompressed = prefix.isCompressed
                case .body(isLast: true):
                    try self.messageReceived(&trace)
                case .body(isLast: false):
                    break
                }
            }
        }
    }

    private func messageReceived(_ trace: inout Trace) throws(FuzzFinding) {
        switch self.state.messageReceived(isCompressed: self.isCompressed) {
        case .deliver: trace.note(510)
        case .decompress: trace.note(511)
        case .drop: trace.note(512)
        case .end(let end): try self.finish(end, &trace)
        }
    }

    func endedWithoutTrailers(_ trace: inout Trace) throws(FuzzFinding) {
        try self.finish(self.state.streamEndedWithoutTrailers(), &trace)
    }

    func streamClosed(
        code: HTTP2ErrorCode,
        origin: StreamCloseOrigin,
        _ trace: inout Trace
    ) throws(FuzzFinding) {
        switch origin {
        case .peer:
            try self.finish(self.state.resetReceived(ResetCode(rawValue: code.rawValue)), &trace)
        case .neverProcessed, .neverSent:
            try self.finish(self.state.connectionLost("not taken", isUnprocessed: true), &trace)
        case .fault:
            try self.finish(self.state.failed(RPCError(.internal, "\(code)")), &trace)
        case .local:
            try self.finish(self.state.streamEndedWithoutTrailers(), &trace)
        }
        try expect(self.state.isEnded, "a call is over when its stream is")
    }

    func connectionLost(_ trace: inout Trace) throws(FuzzFinding) {
        try self.finish(self.state.connectionLost("lost"), &trace)
        try expect(self.state.isEnded && self.endsSeen == 1, "a call ends exactly once")
    }

    // MARK: - The caller's events

    /// Lets the caller do something, left to chance.
    func act(_ random: inout SplitMix64, _ trace: inout Trace) throws(FuzzFinding) {
        switch random.below(10) {
        case 0, 1, 2: try self.send(random.below(3) == 0 ? 20_000 : random.below(300))
        case 3, 4: try self.endRequest()
        case 5: try self.finish(self.state.cancelled(), &trace)
        case 6: try self.finish(self.state.deadlineExpired(), &trace)
        case 7: self.credit()
        case 8: self.codec.notifyDrained(streamID: self.streamID, atOrBelow: random.below(1_000))
        default: break
        }
    }

    /// Sends a message of `byteCount` bytes.
    func send(_ byteCount: Int) throws(FuzzFinding) {
        guard case .send = self.state.messageSent() else { return }
        let prefix = ByteBuffer(bytes: MessagePrefix(length: byteCount).bytes)
        try self.submit([prefix, ByteBuffer(repeating: 0x61, count: byteCount)], endStream: false)
    }

    /// Sends the end of the request.
    func endRequest() throws(FuzzFinding) {
        guard case .send = self.state.requestEnded() else { return }
        try self.submit([], endStream: true)
    }

    private func submit(_ pieces: [ByteBuffer], endStream: Bool) throws(FuzzFinding) {
        do throws(HTTP2CodecError) {
            try self.codec.submitData(streamID: self.streamID, pieces, endStream: endStream)
        } catch {
            throw FuzzFinding("what the call machine lets through can be sent", error.description)
        }
    }

    private func credit() {
        self.codec.consume(streamID: self.streamID, byteCount: self.uncreditedBytes)
        self.uncreditedBytes = 0
    }

    private func finish(_ end: ClientCallState.End?, _ trace: inout Trace) throws(FuzzFinding) {
        guard let end else { return }
        self.endsSeen += 1
        try expect(self.endsSeen == 1 && self.state.isEnded, "a call ends once")
        trace.note(520 + Int(end.status.code.rawValue))
        if let reset = end.reset {
            self.codec.reset(streamID: self.streamID, code: HTTP2ErrorCode(rawValue: reset.rawValue))
        }
    }
}
