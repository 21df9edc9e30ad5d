// SPDX-License-Identifier: Apache-2.0

public import NIOCore

extension HTTP2Codec {
    /// Opens a stream with a request (client only).
    ///
    /// - Parameters:
    ///   - fields: The request's fields, pseudo-header fields first.
    ///   - endStream: Whether the request has no body.
    /// - Returns: The new stream's identifier.
    /// - Throws: ``HTTP2CodecError`` when a field is invalid or the connection takes no new streams.
    public func submitRequest(_ fields: [HTTP2HeaderField], endStream: Bool) throws(HTTP2CodecError) -> Int32 {
        try HTTP2Codec.validate(fields)
        return try self.openStream(.fields(fields), endStream: endStream)
    }

    /// Answers a request with its header block (server only).
    ///
    /// - Parameters:
    ///   - streamID: The request's stream. Ignored if the stream has closed in the meantime.
    ///   - fields: The response's fields, `:status` first.
    ///   - endStream: Whether nothing follows.
    /// - Throws: ``HTTP2CodecError`` when a field is invalid or the response was already begun.
    public func submitResponse(
        streamID: Int32,
        _ fields: [HTTP2HeaderField],
        endStream: Bool
    ) throws(HTTP2CodecError) {
        guard let stream = try self.streamForResponse(streamID) else { return }
        try HTTP2Codec.validate(fields)
        self.answer(stream, .fields(fields), endStream: endStream)
    }

    /// Queues pieces of a body; their memory is handed to the socket without being joined or copied.
    ///
    /// - Parameters:
    ///   - streamID: The stream, whose header block was submitted. A closed stream drops the bytes.
    ///   - pieces: The bytes in order.
    ///   - endStream: Whether the body ends with them.
    /// - Throws: ``HTTP2CodecError`` when the header block is missing or the body has already ended.
    public func submitData(
        streamID: Int32,
        _ pieces: [ByteBuffer],
        endStream: Bool = false
    ) throws(HTTP2CodecError) {
        guard let stream = try self.streamForBody(streamID) else { return }
        for piece in pieces {
            stream.append(piece)
            self.queuedBytes += piece.readableBytes
        }
        if endStream { stream.bodyEnd = .endStream }
        self.queue(stream)
    }

    /// Queues one piece of a body.
    ///
    /// - Parameters:
    ///   - streamID: The stream, whose header block was submitted. A closed stream drops the bytes.
    ///   - piece: The bytes.
    ///   - endStream: Whether the body ends with them.
    /// - Throws: ``HTTP2CodecError`` when the header block is missing or the body has already ended.
    public func submitData(
        streamID: Int32,
        _ piece: ByteBuffer,
        endStream: Bool = false
    ) throws(HTTP2CodecError) {
        guard let stream = try self.streamForBody(streamID) else { return }
        stream.append(piece)
        self.queuedBytes += piece.readableBytes
        if endStream { stream.bodyEnd = .endStream }
        self.queue(stream)
    }

    /// Ends a body with trailers.
    ///
    /// - Parameters:
    ///   - streamID: The stream, whose header block was submitted. A closed stream ignores the command.
    ///   - fields: The trailer fields.
    /// - Throws: ``HTTP2CodecError`` when a field is invalid, the header block is missing or the body has already
    ///   ended.
    public func submitTrailers(streamID: Int32, _ fields: [HTTP2HeaderField]) throws(HTTP2CodecError) {
        guard let stream = try self.streamForBody(streamID) else { return }
        // They are sent after the body, when no error can be reported any more.
        try HTTP2Codec.validate(fields)
        stream.bodyEnd = .trailers(fields)
        self.queue(stream)
    }

    /// Resets a stream; does nothing if it has closed in the meantime.
    ///
    /// - Parameters:
    ///   - streamID: The stream.
    ///   - code: The code for the peer.
    public func reset(streamID: Int32, code: HTTP2ErrorCode) {
        guard let stream = self.stream(streamID), stream.closeOrigin == nil else { return }
        stream.closeOrigin = .local
        self.controls.append(.reset(streamID, code))
    }

    /// Resets a stream once this side's body and trailers have been sent, unless both sides have ended by then.
    ///
    /// A server that answers before the request is complete tells the client so with `NO_ERROR`.
    ///
    /// - Parameters:
    ///   - streamID: The stream.
    ///   - code: The code for the peer.
    public func resetAfterEnd(streamID: Int32, code: HTTP2ErrorCode) {
        self.stream(streamID)?.resetAfterEnd = code
    }

    /// Gives the peer credit for received bytes that were processed or dropped.
    ///
    /// - Parameters:
    ///   - streamID: The stream they came on. Nothing is left to credit for a closed stream.
    ///   - byteCount: How many bytes of ``HTTP2Event/data(streamID:bytes:)`` to credit.
    public func consume(streamID: Int32, byteCount: Int) {
        guard let stream = self.stream(streamID) else { return }
        let credit = min(byteCount, stream.unconsumedBytes)
        guard credit > 0 else { return }
        stream.unconsumedBytes -= credit
        self.creditStream(stream, credit)
        if !self.configuration.creditsConnectionOnArrival { self.creditConnection(credit) }
    }

    /// Asks for one ``HTTP2Event/drained(streamID:)`` when the stream's queue is at or below a mark.
    ///
    /// - Parameters:
    ///   - streamID: The stream.
    ///   - mark: The queue length in bytes.
    /// - Returns: True when the queue is that short already; no event comes then.
    @discardableResult
    public func notifyDrained(streamID: Int32, atOrBelow mark: Int) -> Bool {
        guard let stream = self.stream(streamID), stream.queuedBytes > mark else { return true }
        stream.drainMark = mark
        return false
    }

    /// Sends a ping; ``HTTP2Event/pingAcknowledged(opaque:)`` reports the answer.
    ///
    /// - Parameter opaque: Eight bytes that come back.
    public func ping(opaque: UInt64) {
        self.controls.append(.ping(opaque, isAcknowledgement: false))
    }

    /// Announces that the connection will soon take no new streams (server only): a `GOAWAY` that excludes none yet.
    public func announceShutdown() {
        guard self.role == .server else { return }
        self.controls.append(.goAway(GoAway(lastStreamID: .max, code: .noError, debug: [], kind: .notice)))
    }

    /// Refuses streams from now on: a `GOAWAY` with the last accepted stream.
    ///
    /// Open streams go on.
    ///
    /// - Parameters:
    ///   - code: Why.
    ///   - debug: Text for the peer's log.
    ///   - lastStreamID: The last accepted stream; nil names the last one that arrived.
    public func goAway(code: HTTP2ErrorCode = .noError, debug: String = "", lastStreamID: Int32? = nil) {
        let last = max(0, min(lastStreamID ?? self.lastProcessedID, self.announcedLastID))
        self.announcedLastID = last
        self.refusesStreams = true
        self.controls.append(.goAway(GoAway(lastStreamID: last, code: code, debug: Array(debug.utf8), kind: .last)))
    }

    /// Ends the connection for the peer's behaviour, with a text for its log; ``isFinished`` becomes true when the
    /// `GOAWAY` has left.
    ///
    /// - Parameters:
    ///   - code: Why.
    ///   - debug: Text for the peer's log.
    public func endConnection(code: HTTP2ErrorCode, debug: String) {
        self.goAway(code: code, debug: debug)
        self.failure = self.failure ?? HTTP2CodecError(code: .flooded, message: debug)
    }

    /// Ends the connection: a last `GOAWAY`, after which ``isFinished`` becomes true.
    ///
    /// - Parameter code: Why.
    public func terminate(code: HTTP2ErrorCode) {
        guard !self.isTerminating else { return }
        self.isTerminating = true
        let last = min(self.lastProcessedID, self.announcedLastID)
        self.controls.append(.goAway(GoAway(lastStreamID: last, code: code, debug: [], kind: .terminating)))
    }

    // MARK: - Private

    /// Opens a stream with fields that were checked.
    func openStream(_ head: CodecStream.Head, endStream: Bool) throws(HTTP2CodecError) -> Int32 {
        precondition(self.role == .client, "only a client opens streams")
        guard self.acceptsNewStreams else {
            throw HTTP2CodecError(code: .noNewStreams, message: "the connection is going away; use another connection")
        }
        let stream = self.makeStream(self.nextStreamID)
        // The last identifier leaves -2^31, which ``acceptsNewStreams`` knows.
        self.nextStreamID &+= 2
        stream.head = head
        stream.headersSubmitted = true
        if endStream { stream.bodyEnd = .endStream }
        self.add(stream)
        self.requests.append(stream)
        return stream.id
    }

    /// Answers with fields that were checked.
    func answer(_ stream: CodecStream, _ head: CodecStream.Head, endStream: Bool) {
        stream.head = head
        stream.headersSubmitted = true
        if endStream { stream.bodyEnd = .endStream }
        self.queue(stream)
    }

    func streamForResponse(_ streamID: Int32) throws(HTTP2CodecError) -> CodecStream? {
        precondition(self.role == .server, "only a server answers")
        guard let stream = self.stream(streamID) else { return nil }
        guard !stream.headersSubmitted else {
            throw HTTP2CodecError(code: .noSuchStream, message: "stream \(streamID) already has a response")
        }
        return stream
    }

    func streamForBody(_ streamID: Int32) throws(HTTP2CodecError) -> CodecStream? {
        guard let stream = self.stream(streamID) else { return nil }
        guard stream.headersSubmitted, !stream.bodyIsEnded else {
            throw HTTP2CodecError(
                code: .noSuchStream,
                message: "stream \(streamID) takes no body: "
                    + (stream.headersSubmitted ? "it has already ended" : "its header block comes first")
            )
        }
        return stream
    }
}
