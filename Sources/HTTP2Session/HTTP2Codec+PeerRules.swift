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
                        "the peer sent more than \(self.configuration.idleFrameBurst) units of frames without use, "
                        + "the last of them \(what)"
                )
            )
        }
        return 0
    }

    /// Applies the rules that can be read from a frame's header alone, before the library sees the frame.
    func frameBegan(_ header: FrameHeader) {
        switch UInt32(header.type) {
        case NGHTTP2_HEADERS.rawValue, NGHTTP2_DATA.rawValue:
            self.judgeStream(header)
            if UInt32(header.flags) & NGHTTP2_FLAG_END_STREAM.rawValue != 0 { self.peerEnds(header.streamID) }
        case NGHTTP2_RST_STREAM.rawValue:
            self.peerEnds(header.streamID)
        case NGHTTP2_PRIORITY.rawValue:
            self.judgePriority(header)
        case NGHTTP2_SETTINGS.rawValue, NGHTTP2_PING.rawValue, NGHTTP2_GOAWAY.rawValue,
            NGHTTP2_WINDOW_UPDATE.rawValue, NGHTTP2_CONTINUATION.rawValue, NGHTTP2_PUSH_PROMISE.rawValue:
            break
        default:
            // Priorities have no meaning here, nor have frames of unknown types.
            _ = self.spend(FrameBudget.Cost.unused, on: "a frame of type \(header.type)")
        }
    }

    /// The peer ended its side of a stream, or the whole stream.
    ///
    /// Recorded here and not when the stream closes: the frames that follow may be in the same piece of input.
    private func peerEnds(_ streamID: Int32) {
        if self.role == .server, streamID & 1 == 1 { self.history.endedByPeer(streamID) }
    }

    /// The library ignores priorities; what makes one a fault stays a fault (RFC 7540, section 5.3.1 and 6.3).
    private func judgePriority(_ header: FrameHeader) {
        if header.streamID == 0 {
            _ = self.fail(.protocolError, HTTP2CodecError(code: .peerFault, message: "a PRIORITY frame on stream 0"))
        } else if header.dependency == header.streamID {
            _ = self.fail(
                .protocolError,
                HTTP2CodecError(code: .peerFault, message: "stream \(header.streamID) was made to depend on itself")
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
                    message: "stream \(streamID) was ended by the peer and got another frame"
                )
            )
        }
    }
}
