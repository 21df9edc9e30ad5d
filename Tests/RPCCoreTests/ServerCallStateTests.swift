// SPDX-License-Identifier: Apache-2.0

import Testing

@testable import RPCCore

@Suite struct ServerCallStateTests {
    private static let now = ContinuousClock.now

    /// A call whose handler runs.
    private func running(
        _ shape: CallShape,
        endStream: Bool = false,
        encodings: [String] = [],
        fields: [HeaderField] = requestFields()
    ) -> ServerCallState {
        var call = ServerCallState(encodings: encodings)
        _ = call.headersReceived(fields, endStream: endStream, now: Self.now)
        let isFound = call.methodFound(shape)
        #expect(isFound)
        return call
    }

    private func status(_ fields: [HeaderField]) -> Status.Code {
        Trailers.parse(fields).status.code
    }

    @Test func `a unary call goes through`() {
        var call = ServerCallState()
        let timeout = HeaderField("grpc-timeout", "2S")
        let action = call.headersReceived(requestFields(adding: [timeout]), endStream: false, now: Self.now)
        guard case .route(let head, let deadline) = action else {
            Issue.record("not routed")
            return
        }
        #expect(head.method.path == "/s.v1.Service/Call")
        #expect(deadline == Self.now.advanced(by: .seconds(2)))
        #expect(call.phase == .routing(requestOpen: true))
        let isFound = call.methodFound(.unary)
        #expect(isFound)
        #expect(call.phase == .open(requestOpen: true, received: 0, sent: 0))
        #expect(call.messageReceived(isCompressed: false) == .deliver)
        #expect(call.requestEnded() == .deliver)
        #expect(call.phase == .open(requestOpen: false, received: 1, sent: 0))
        #expect(call.messageSent() == .sendHead(ResponseHead()))
        #expect(call.phase == .open(requestOpen: false, received: 1, sent: 1))
        let ending = call.statusSent(.ok)
        #expect(ending?.block == .trailers(Trailers(status: .ok)))
        #expect(ending?.fields == Trailers(status: .ok).fields())
        #expect(ending?.reset == nil)
        #expect(call.phase == .ended)
    }

    @Test func `after the end everything is dropped`() {
        var call = self.running(.bidirectional)
        #expect(call.peerLeft() == .cancelHandler(reset: nil))
        #expect(call.phase == .ended)
        #expect(call.headersReceived(requestFields(), endStream: true, now: Self.now) == .ignore)
        #expect(call.messageReceived(isCompressed: false) == .drop)
        #expect(call.requestEnded() == .drop)
        #expect(call.messageSent() == .drop)
        #expect(call.headSent(Metadata()) == nil)
        #expect(call.statusSent(.ok) == nil)
        let isFound = call.methodFound(.unary)
        #expect(!isFound)
        #expect(call.deadlineExpired() == .ignore)
        #expect(call.cancelled() == .ignore)
        #expect(call.peerLeft() == .ignore)
        #expect(call.phase == .ended)
    }

    @Test func `an unknown method is answered in one block`() {
        var call = ServerCallState()
        _ = call.headersReceived(requestFields(), endStream: false, now: Self.now)
        let status = Status(code: .unimplemented, message: "no such method")
        let ending = call.statusSent(status)
        #expect(ending?.fields == Trailers(status: status).trailersOnlyFields())
        #expect(ending?.reset == .noError)
        #expect(call.phase == .ended)
    }

    @Test func `a request that is not gRPC is answered with HTTP`() {
        var call = ServerCallState()
        let action = call.headersReceived(requestFields([":method": "GET"]), endStream: true, now: Self.now)
        guard case .end(let ending) = action else {
            Issue.record("not ended")
            return
        }
        #expect(ending.fields.first == HeaderField(":status", "405"))
        #expect(ending.reset == nil)
        #expect(call.phase == .ended)
    }

    @Test func `a broken timeout is answered with a status`() {
        var call = ServerCallState()
        let fields = requestFields(adding: [HeaderField("grpc-timeout", "soon")])
        guard case .end(let ending) = call.headersReceived(fields, endStream: false, now: Self.now) else {
            Issue.record("not ended")
            return
        }
        #expect(self.status(ending.fields) == .internal)
        #expect(ending.reset == .noError)
        #expect(call.phase == .ended)
    }

    @Test func `a second header block resets the stream`() {
        var routing = ServerCallState()
        _ = routing.headersReceived(requestFields(), endStream: false, now: Self.now)
        let first = routing.headersReceived(requestFields(), endStream: true, now: Self.now)
        #expect(first == .reset(.protocolError, cancelHandler: false))
        #expect(routing.phase == .ended)
        var open = self.running(.unary)
        let second = open.headersReceived(requestFields(), endStream: true, now: Self.now)
        #expect(second == .reset(.protocolError, cancelHandler: true))
        #expect(open.phase == .ended)
    }

    @Test(arguments: [CallShape.unary, .serverStreaming])
    func `a second request message to a method that takes one is unimplemented`(shape: CallShape) {
        var call = self.running(shape)
        #expect(call.messageReceived(isCompressed: false) == .deliver)
        guard case .end(let ending) = call.messageReceived(isCompressed: false) else {
            Issue.record("delivered")
            return
        }
        #expect(self.status(ending.fields) == .unimplemented)
        #expect(ending.reset == .noError)
        #expect(call.phase == .ended)
    }

    @Test func `a request without the message is unimplemented`() {
        var call = self.running(.unary)
        guard case .end(let ending) = call.requestEnded() else {
            Issue.record("delivered")
            return
        }
        #expect(self.status(ending.fields) == .unimplemented)
        #expect(ending.reset == nil)
        #expect(call.phase == .ended)
        var streaming = self.running(.clientStreaming)
        #expect(streaming.requestEnded() == .deliver)
        #expect(streaming.phase == .open(requestOpen: false, received: 0, sent: 0))
    }

    @Test func `a compressed message without an encoding is internal`() {
        var call = self.running(.unary)
        guard case .end(let ending) = call.messageReceived(isCompressed: true) else {
            Issue.record("delivered")
            return
        }
        #expect(self.status(ending.fields) == .internal)
        #expect(call.phase == .ended)
    }

    @Test func `an unknown encoding is unimplemented and the known ones are named`() {
        let fields = requestFields(adding: [HeaderField("grpc-encoding", "zstd")])
        var call = self.running(.unary, encodings: ["gzip"], fields: fields)
        guard case .end(let ending) = call.messageReceived(isCompressed: true) else {
            Issue.record("delivered")
            return
        }
        #expect(self.status(ending.fields) == .unimplemented)
        #expect(ending.fields.contains(HeaderField("grpc-accept-encoding", "gzip")))
        #expect(call.phase == .ended)
    }

    @Test func `a message in a known encoding is decompressed`() {
        let fields = requestFields(adding: [HeaderField("grpc-encoding", "gzip")])
        var call = self.running(.clientStreaming, encodings: ["gzip"], fields: fields)
        #expect(call.messageReceived(isCompressed: true) == .decompress("gzip"))
        #expect(call.messageReceived(isCompressed: false) == .deliver)
        #expect(call.phase == .open(requestOpen: true, received: 2, sent: 0))
    }

    @Test func `a stream sends one head and then messages`() throws {
        var metadata = Metadata()
        try metadata.add("v", forKey: "k")
        var call = self.running(.serverStreaming, endStream: true)
        #expect(call.messageSent(initialMetadata: metadata) == .sendHead(ResponseHead(metadata: metadata)))
        #expect(call.messageSent() == .send)
        #expect(call.headSent(metadata) == nil)
        #expect(call.phase == .open(requestOpen: false, received: 0, sent: 2))
        #expect(call.statusSent(.ok)?.fields == [HeaderField("grpc-status", "0")])
    }

    @Test func `initial metadata may go ahead of the messages`() {
        var call = self.running(.serverStreaming, endStream: true)
        #expect(call.headSent(Metadata()) == ResponseHead())
        #expect(call.messageSent() == .send)
        #expect(call.phase == .open(requestOpen: false, received: 0, sent: 1))
    }

    @Test func `a second response message of a method that answers with one is refused`() {
        var call = self.running(.unary)
        _ = call.messageSent()
        guard case .refuse(let status) = call.messageSent() else {
            Issue.record("not refused")
            return
        }
        #expect(status.code == .internal)
        #expect(call.phase == .open(requestOpen: true, received: 0, sent: 1))
    }

    @Test func `OK without the message becomes internal`() {
        var call = self.running(.unary, endStream: true)
        let ending = call.statusSent(.ok)
        #expect(ending.map { self.status($0.fields) } == .internal)
        #expect(call.phase == .ended)
        var streaming = self.running(.serverStreaming, endStream: true)
        #expect(streaming.statusSent(.ok)?.fields == Trailers(status: .ok).trailersOnlyFields())
    }

    @Test func `a deadline cancels the handler and resets the stream`() {
        var call = self.running(.unary)
        #expect(call.deadlineExpired() == .cancelHandler(reset: .cancel))
        #expect(call.phase == .ended)
        #expect(call.statusSent(.ok) == nil)
    }

    @Test func `a drain cancels with the reset that it names`() {
        var call = self.running(.unary)
        #expect(call.cancelled(reset: .refusedStream) == .cancelHandler(reset: .refusedStream))
        #expect(call.phase == .ended)
    }

    @Test func `before the headers nothing but headers counts`() {
        var call = ServerCallState()
        #expect(call.messageReceived(isCompressed: false) == .drop)
        #expect(call.requestEnded() == .drop)
        #expect(call.messageSent() == .drop)
        #expect(call.statusSent(.ok) == nil)
        let isFound = call.methodFound(.unary)
        #expect(!isFound)
        #expect(call.phase == .idle)
    }
}
