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
        case NGHTTP2_RST_STREAM.rawValue, NGHTTP2_SETTINGS.rawValue, NGHTTP2_PING.rawValue, NGHTTP2_GOAWAY.rawValue,
            NGHTTP2_WINDOW_UPDATE.rawValue, NGHTTP2_CONTINUATION.rawValue, NGHTTP2_PUSH_PROMISE.rawValue:
            break
        default:
            // Priorities have no meaning here, nor have frames of unknown types.
            _ = self.spend(FrameBudget.Cost.unused, on: "a frame of type \(header.type)")
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
