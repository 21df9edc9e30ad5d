// SPDX-License-Identifier: Apache-2.0

import RPCCore
import Testing

@Suite struct ClientCallStateTests {
    private static let head = ResponseHead().fields()
    private static let ok = Trailers(status: .ok).fields()

    private func end(_ action: ClientCallState.OnHeaders) -> ClientCallState.End? {
        guard case .end(let end) = action else {
            return nil
        }
        return end
    }

    @Test func `a unary call goes through`() {
        var call = ClientCallState(shape: .unary)
        #expect(call.phase == .waiting(requestOpen: true))
        #expect(call.messageSent() == .send)
        #expect(call.requestEnded() == .send)
        #expect(call.phase == .waiting(requestOpen: false))
        #expect(call.headersReceived(Self.head, endStream: false) == .response(ResponseHead()))
        #expect(call.phase == .receiving(requestOpen: false, messages: 0))
        #expect(call.messageReceived(isCompressed: false) == .deliver)
        #expect(call.phase == .receiving(requestOpen: false, messages: 1))
        #expect(call.headersReceived(Self.ok, endStream: true) == .end(.init(status: .ok)))
        #expect(call.phase == .ended)
    }

    @Test func `after the end everything is dropped`() {
        var call = ClientCallState(shape: .bidirectional)
        #expect(call.cancelled()?.status.code == .cancelled)
        #expect(call.phase == .ended)
        #expect(call.messageSent() == .drop)
        #expect(call.requestEnded() == .drop)
        #expect(call.headersReceived(Self.head, endStream: false) == .ignore)
        #expect(call.messageReceived(isCompressed: false) == .drop)
        #expect(call.streamEndedWithoutTrailers() == nil)
        #expect(call.resetReceived(.noError) == nil)
        #expect(call.connectionLost("gone") == nil)
        #expect(call.deadlineExpired() == nil)
        #expect(call.cancelled() == nil)
        #expect(call.failed(RPCError(.internal, "")) == nil)
        #expect(call.phase == .ended)
    }

    @Test func `trailers before the end of the request ask for a reset without error`() {
        var call = ClientCallState(shape: .bidirectional)
        #expect(call.messageSent() == .send)
        let trailers = Trailers(status: Status(code: .permissionDenied, message: "no"))
        let action = call.headersReceived(trailers.trailersOnlyFields(), endStream: true)
        #expect(action == .end(.init(status: trailers.status, reset: .noError)))
        #expect(call.phase == .ended)
    }

    @Test func `a second request message to a method that takes one is refused`() {
        var call = ClientCallState(shape: .serverStreaming)
        #expect(call.messageSent() == .send)
        guard case .refuse = call.messageSent() else {
            Issue.record("not refused")
            return
        }
        #expect(call.requestEnded() == .send)
        guard case .refuse = call.messageSent(), case .refuse = call.requestEnded() else {
            Issue.record("not refused")
            return
        }
        #expect(call.phase == .waiting(requestOpen: false))
    }

    @Test(arguments: [CallShape.unary, .clientStreaming])
    func `OK without the message is unimplemented`(shape: CallShape) {
        var call = ClientCallState(shape: shape)
        _ = call.requestEnded()
        let action = call.headersReceived(Trailers(status: .ok).trailersOnlyFields(), endStream: true)
        #expect(self.end(action)?.status.code == .unimplemented)
        #expect(call.phase == .ended)
    }

    @Test func `an error without a message is that error`() {
        var call = ClientCallState(shape: .unary)
        _ = call.requestEnded()
        _ = call.headersReceived(Self.head, endStream: false)
        let status = Status(code: .aborted, message: "again")
        #expect(call.headersReceived(Trailers(status: status).fields(), endStream: true) == .end(.init(status: status)))
    }

    @Test func `a second response message of a method that answers with one is unimplemented`() {
        var call = ClientCallState(shape: .unary)
        _ = call.headersReceived(Self.head, endStream: false)
        #expect(call.messageReceived(isCompressed: false) == .deliver)
        guard case .end(let end) = call.messageReceived(isCompressed: false) else {
            Issue.record("delivered")
            return
        }
        #expect(end.status.code == .unimplemented)
        #expect(end.reset == .cancel)
        #expect(call.phase == .ended)
    }

    @Test func `a stream of messages is delivered`() {
        var call = ClientCallState(shape: .serverStreaming)
        _ = call.headersReceived(Self.head, endStream: false)
        for count in 1...5 {
            #expect(call.messageReceived(isCompressed: false) == .deliver)
            #expect(call.phase == .receiving(requestOpen: true, messages: count))
        }
    }

    @Test func `a message before the headers is a fault of the peer`() {
        var call = ClientCallState(shape: .serverStreaming)
        guard case .end(let end) = call.messageReceived(isCompressed: false) else {
            Issue.record("delivered")
            return
        }
        #expect(end.status.code == .internal)
        #expect(call.phase == .ended)
    }

    @Test(
        arguments: [
            (nil, [], nil), ("gzip", [], nil), ("gzip", ["gzip"], "gzip"), ("deflate", ["gzip"], nil),
        ] as [(String?, [String], String?)]
    )
    func `a compressed message needs an encoding that is known`(encoding: String?, known: [String], result: String?) {
        var call = ClientCallState(shape: .serverStreaming, encodings: known)
        _ = call.headersReceived(ResponseHead(encoding: encoding).fields(), endStream: false)
        let action = call.messageReceived(isCompressed: true)
        if let result {
            #expect(action == .decompress(result))
            #expect(call.phase == .receiving(requestOpen: true, messages: 1))
        } else {
            guard case .end(let end) = action else {
                Issue.record("not refused")
                return
            }
            #expect(end.status.code == .internal)
            #expect(call.phase == .ended)
        }
    }

    @Test func `an interim response changes nothing`() {
        var call = ClientCallState(shape: .unary)
        #expect(call.headersReceived([HeaderField(":status", "103")], endStream: false) == .ignore)
        #expect(call.phase == .waiting(requestOpen: true))
    }

    @Test func `a proxy's answer has the code of its HTTP status`() {
        var call = ClientCallState(shape: .unary)
        _ = call.requestEnded()
        let action = call.headersReceived([HeaderField(":status", "502")], endStream: false)
        #expect(self.end(action)?.status.code == .unavailable)
        #expect(self.end(action)?.reset == .cancel)
        #expect(call.phase == .ended)
    }

    @Test func `a second header block must end the response`() {
        var call = ClientCallState(shape: .unary)
        _ = call.headersReceived(Self.head, endStream: false)
        let end = self.end(call.headersReceived(Self.ok, endStream: false))
        #expect(end?.status.code == .internal)
        #expect(end?.reset == .protocolError)
        #expect(call.phase == .ended)
    }

    @Test func `a stream that ends with data has no status`() {
        var open = ClientCallState(shape: .unary)
        let end = open.streamEndedWithoutTrailers()
        #expect(end?.status.code == .unknown)
        #expect(end?.reset == .cancel)
        #expect(open.phase == .ended)
        var closed = ClientCallState(shape: .unary)
        _ = closed.requestEnded()
        #expect(closed.streamEndedWithoutTrailers()?.reset == nil)
    }

    @Test(arguments: [
        (ResetCode.refusedStream, Status.Code.unavailable, true), (.cancel, .cancelled, false),
        (.noError, .internal, false),
    ])
    func `a reset ends the call and only a refusal is safe to retry`(code: ResetCode, status: Status.Code, isSafe: Bool)
    {
        var call = ClientCallState(shape: .unary)
        let end = call.resetReceived(code)
        #expect(end?.status.code == status)
        #expect(end?.isSafeToRetry == isSafe)
        #expect(end?.reset == nil)
        #expect(call.phase == .ended)
    }

    @Test func `a reset with CANCEL after the deadline is the deadline, and any other reset is what it says`() {
        var late = ClientCallState(shape: .unary)
        let end = late.resetReceived(.cancel, deadlineHasPassed: true)
        #expect(end?.status.code == .deadlineExceeded)
        #expect(end?.reset == nil)
        var refused = ClientCallState(shape: .unary)
        #expect(refused.resetReceived(.refusedStream, deadlineHasPassed: true)?.status.code == .unavailable)
    }

    @Test func `a lost connection is unavailable`() {
        var call = ClientCallState(shape: .unary)
        let expected = ClientCallState.End(status: Status(code: .unavailable, message: "gone"), isSafeToRetry: true)
        #expect(call.connectionLost("gone", isUnprocessed: true) == expected)
        #expect(call.phase == .ended)
    }

    @Test func `a deadline resets the stream and later trailers do not count`() {
        var call = ClientCallState(shape: .unary)
        _ = call.headersReceived(Self.head, endStream: false)
        let end = call.deadlineExpired()
        #expect(end?.status.code == .deadlineExceeded)
        #expect(end?.reset == .cancel)
        #expect(call.phase == .ended)
        #expect(call.headersReceived(Self.ok, endStream: true) == .ignore)
    }

    @Test func `a message that cannot be read has the status of its error`() {
        var call = ClientCallState(shape: .serverStreaming)
        let end = call.failed(RPCError(.resourceExhausted, "too long"))
        #expect(end == .init(status: Status(code: .resourceExhausted, message: "too long"), reset: .cancel))
        #expect(call.phase == .ended)
    }
}
