// SPDX-License-Identifier: Apache-2.0

internal import CNGHTTP2

// Rules for the peer that the library does not enforce.

extension HTTP2Codec {
    /// Records an error that ends the connection and makes the library return.
    func fail(_ code: HTTP2ErrorCode, _ error: HTTP2CodecError) -> Int32 {
        if self.pendingConnectionError == nil { self.pendingConnectionError = (code, error) }
        return HTTP2Codec.callbackFailure
    }

    func spend(_ cost: Int, on what: String) -> Int32 {
        guard self.budget.spend(cost, now: self.now) else {
            return self.fail(
                .enhanceYourCalm,
                HTTP2CodecError(
                    code: .flooded,
                    message:
                        "the peer sent more than \(self.configuration.idleFrameBurst) units of useless frames, "
                        + "the last of them \(what)"
                )
            )
        }
        return 0
    }

    /// Gives a piece to the library, after its frame headers have passed the rules.
    ///
    /// What came before a frame has to be processed before the frame is judged, or the verdict would depend on how the
    /// stream of bytes was split. For the same reason a header is given to the library whole: it counts the reads that
    /// a `CONTINUATION` header takes as if each were a frame, and ends the connection after eight.
    ///
    /// - Returns: What the library returned last: a negative number is an error.
    func feed(_ bytes: UnsafeRawBufferPointer) -> Int {
        var scanner = self.scanner
        self.inputBase = bytes.baseAddress
        defer {
            self.scanner = scanner
            self.inputBase = nil
        }
        var index = 0
        var fedCount = 0
        while let header = scanner.next(bytes, from: &index) {
            // A priority's header comes a second time, with its dependency.
            if header.dependency == nil { self.receivedFrames &+= 1 }
            // Negative where the header began in an earlier piece; then nothing else of this piece was passed. A
            // priority's dependency comes after its header, which the library has seen by then.
            let start = header.dependency == nil ? index - FrameHeaderScanner.headerBytes : index
            let needsVerdict = self.needsVerdict(header)
            if needsVerdict {
                if start > fedCount {
                    let result = self.feedLibrary(UnsafeRawBufferPointer(rebasing: bytes[fedCount..<start]))
                    if result < 0 { return result }
                    fedCount = start
                }
                self.judge(header)
                guard self.pendingConnectionError == nil else { return 0 }
            }
            self.noteEnd(header)
            if start < 0 {
                let result = header.bytes.withUnsafeBytes { self.feedLibrary($0) }
                if result < 0 { return result }
                fedCount = index
            }
        }
        let end = bytes.count - scanner.partialCount
        return fedCount < end ? self.feedLibrary(UnsafeRawBufferPointer(rebasing: bytes[fedCount..<end])) : 0
    }

    private func feedLibrary(_ bytes: UnsafeRawBufferPointer) -> Int {
        guard let base = bytes.baseAddress else { return 0 }
        let result = nghttp2_session_mem_recv(self.session, base.assumingMemoryBound(to: UInt8.self), bytes.count)
        return self.pendingConnectionError == nil ? result : min(result, -1)
    }

    /// Whether the rules must judge a frame; keeps track of bodies whose frames need no judgement.
    private func needsVerdict(_ header: FrameHeader) -> Bool {
        switch UInt32(header.type) {
        case NGHTTP2_HEADERS.rawValue, NGHTTP2_DATA.rawValue:
            let isFollower = header.streamID == self.bodyStreamID
            self.bodyStreamID = header.endsStream ? 0 : header.streamID
            return self.role == .server && !isFollower
        case NGHTTP2_CONTINUATION.rawValue:
            return false
        case NGHTTP2_PRIORITY.rawValue:
            self.bodyStreamID = 0
            return header.dependency != nil || header.payloadBytes < FrameHeaderScanner.dependencyBytes
        case NGHTTP2_RST_STREAM.rawValue, NGHTTP2_SETTINGS.rawValue, NGHTTP2_PING.rawValue, NGHTTP2_GOAWAY.rawValue,
            NGHTTP2_WINDOW_UPDATE.rawValue, NGHTTP2_PUSH_PROMISE.rawValue:
            self.bodyStreamID = 0
            return false
        default:
            self.bodyStreamID = 0
            return true
        }
    }

    /// Charges a reset of the peer to its allowance: each was a request that was begun for nothing.
    func countReset() -> Int32 {
        guard self.role == .server, !self.resetBudget.spend(1, now: self.now) else { return 0 }
        return self.fail(
            .enhanceYourCalm,
            HTTP2CodecError(
                code: .flooded,
                message: "the peer reset more than \(self.configuration.resetBurst) streams, and more than "
                    + "\(self.configuration.resetsPerSecond) a second since"
            )
        )
    }

    /// Applies the rules that can be read from a frame's header alone, before the library sees the frame.
    private func judge(_ header: FrameHeader) {
        switch UInt32(header.type) {
        case NGHTTP2_HEADERS.rawValue, NGHTTP2_DATA.rawValue:
            self.judgeStream(header)
        case NGHTTP2_PRIORITY.rawValue:
            self.judgePriority(header)
        default:
            _ = self.spend(FrameBudget.Cost.unused, on: "a frame of type \(header.type)")
        }
    }

    /// Remembers the streams that the peer ended its side of, or reset.
    private func noteEnd(_ header: FrameHeader) {
        guard self.role == .server, header.streamID & 1 == 1, header.endsStream else { return }
        self.history.endedByPeer(header.streamID)
    }

    /// The library ignores priorities; a faulty one stays a fault (RFC 7540, section 5.3.1 and 6.3).
    private func judgePriority(_ header: FrameHeader) {
        if header.streamID == 0 {
            _ = self.fail(.protocolError, HTTP2CodecError(code: .peerFault, message: "a PRIORITY frame on stream 0"))
        } else if header.dependency == header.streamID {
            _ = self.fail(
                .protocolError,
                HTTP2CodecError(code: .peerFault, message: "stream \(header.streamID) depends on itself")
            )
        } else {
            _ = self.spend(FrameBudget.Cost.unused, on: "PRIORITY")
        }
    }

    private func judgeStream(_ header: FrameHeader) {
        let streamID = header.streamID
        guard self.role == .server, streamID & 1 == 1, self.streams[streamID] == nil else { return }
        switch self.history.verdict(streamID) {
        case .unremarkable:
            if UInt32(header.type) == NGHTTP2_HEADERS.rawValue { self.history.opened(streamID) }
        case .skipped:
            _ = self.fail(
                .protocolError,
                HTTP2CodecError(
                    code: .peerFault,
                    message: "stream \(streamID) is below the last one and was never opened"
                )
            )
        case .endedByPeer:
            _ = self.fail(
                .streamClosed,
                HTTP2CodecError(
                    code: .peerFault,
                    message: "stream \(streamID) got another frame after the peer had ended it"
                )
            )
        }
    }
}
