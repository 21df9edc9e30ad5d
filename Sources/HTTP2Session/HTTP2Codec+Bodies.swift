// SPDX-License-Identifier: Apache-2.0

internal import NIOCore

// Bodies on their way in, and the credit for them.

extension HTTP2Codec {
    /// A DATA frame begins: all its bytes count against the windows (RFC 9113, section 6.9.1).
    func dataBegan(_ header: FrameHeader) {
        let streamID = header.streamID
        guard streamID != 0 else {
            self.fail(.protocolError, "a DATA frame on stream 0")
            return
        }
        self.judgeStream(header)
        guard self.pendingConnectionError == nil,
            self.prepare(header, prefixBytes: header.has(FrameFlag.padded) ? 1 : 0)
        else { return }
        self.noteEnd(header)
        guard self.receiveWindow.received(header.payloadBytes) else {
            self.fail(
                .flowControlError,
                "DATA frames exceed the connection's window of \(self.receiveWindow.size) bytes"
            )
            return
        }
        if self.configuration.creditsConnectionOnArrival { self.creditConnection(header.payloadBytes) }
        if let stream = self.stream(streamID) {
            if self.takesData(stream, header.payloadBytes) { return }
        } else if self.isIdle(streamID) {
            self.fail(.protocolError, "a DATA frame on stream \(streamID), which is not open yet")
        }
        guard self.pendingConnectionError == nil else { return }
        // A stream that is over, or about to be: the frame crossed its end.
        if !self.configuration.creditsConnectionOnArrival { self.creditConnection(header.payloadBytes) }
        if header.payloadBytes == 0 { self.spend(FrameBudget.Cost.emptyData, on: "an empty DATA frame") }
    }

    /// Whether a stream takes a piece of its body.
    private func takesData(_ stream: CodecStream, _ byteCount: Int) -> Bool {
        guard !stream.peerEnded else {
            self.fail(.streamClosed, "stream \(stream.id) got data after the peer had ended it")
            return false
        }
        guard stream.closeOrigin == nil else { return false }
        guard stream.anyBlockSeen else {
            self.fail(.protocolError, "a DATA frame on stream \(stream.id) before its header block")
            return false
        }
        // An interim response has no body.
        guard stream.firstBlockSeen else {
            self.fault(stream, .protocolError)
            return false
        }
        guard stream.receiveWindow.received(byteCount) else {
            self.fault(stream, .flowControlError)
            return false
        }
        self.intake = .data(stream)
        return true
    }

    /// A piece of a DATA frame's payload.
    ///
    /// - Parameters:
    ///   - stream: Its stream.
    ///   - piece: The bytes.
    ///   - start: Where they are in the input.
    ///   - isLast: Whether the frame ends with them.
    func data(_ stream: CodecStream, _ piece: UnsafeRawBufferPointer, at start: Int, isLast: Bool) {
        guard let skipped = self.takePrefix(piece) else { return }
        let count = min(piece.count - skipped, self.contentMissing)
        self.contentMissing -= count
        let padding = piece.count - count
        if padding > 0 { self.credit(stream, padding) }
        if count > 0 { self.bodyCame(stream, count, at: start + skipped) }
        guard isLast, stream.closeOrigin == nil else { return }
        let length = self.frame.payloadBytes - self.paddingBytes
        // Counted by frame and not by piece, or a sender of single bytes would earn the most; padding does not count.
        if length > 0 { self.budget.earn(1 + length >> 10) }
        if self.frame.has(FrameFlag.endStream) {
            guard self.peerEnds(stream) else { return }
            self.events.append(.endOfStream(streamID: stream.id))
            if stream.isEnded { self.close(stream.id, code: .noError) }
        } else if length <= 0 {
            self.spend(FrameBudget.Cost.emptyData, on: "an empty DATA frame")
        }
    }

    private func bodyCame(_ stream: CodecStream, _ count: Int, at start: Int) {
        guard stream.closeOrigin == nil else {
            self.credit(stream, count)
            return
        }
        stream.receivedBytes += count
        if let expected = stream.expectedBytes, stream.receivedBytes > expected {
            self.credit(stream, count)
            self.fault(stream, .protocolError)
            return
        }
        guard let slice = self.input.getSlice(at: self.input.readerIndex + start, length: count) else { return }
        stream.unconsumedBytes += count
        self.events.append(.data(streamID: stream.id, bytes: slice))
    }

    /// The peer ends its side of a stream.
    ///
    /// - Returns: False if its body is shorter than announced, and the stream is reset for it.
    func peerEnds(_ stream: CodecStream) -> Bool {
        if let expected = stream.expectedBytes, stream.receivedBytes != expected {
            self.fault(stream, .protocolError)
            return false
        }
        stream.peerEnded = true
        return true
    }

    // MARK: - Credit

    /// Gives back bytes that no owner sees.
    private func credit(_ stream: CodecStream, _ count: Int) {
        self.creditStream(stream, count)
        if !self.configuration.creditsConnectionOnArrival { self.creditConnection(count) }
    }

    /// Bytes of a stream were consumed; the peer learns that in large steps, and not after its end.
    func creditStream(_ stream: CodecStream, _ count: Int) {
        let credit = stream.receiveWindow.consume(count)
        guard credit > 0, !stream.peerEnded, stream.closeOrigin == nil else { return }
        self.controls.append(.windowUpdate(stream.id, UInt32(credit)))
    }

    /// Bytes of the connection were consumed.
    func creditConnection(_ count: Int) {
        let credit = self.receiveWindow.consume(count)
        if credit > 0 { self.controls.append(.windowUpdate(0, UInt32(credit))) }
    }
}
