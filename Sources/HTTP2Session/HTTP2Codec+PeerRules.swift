// SPDX-License-Identifier: Apache-2.0

// Rules for the peer.

extension HTTP2Codec {
    /// Records an error that ends the connection.
    func fail(_ code: HTTP2ErrorCode, _ message: String, _ kind: HTTP2CodecError.Code = .peerFault) {
        guard self.pendingConnectionError == nil else { return }
        self.pendingConnectionError = (code, HTTP2CodecError(code: kind, message: message))
    }

    /// Resets a stream for a fault of the peer.
    func fault(_ stream: CodecStream, _ code: HTTP2ErrorCode) {
        guard stream.closeOrigin == nil else { return }
        stream.closeOrigin = .fault
        self.controls.append(.reset(stream.id, code))
        self.spend(FrameBudget.Cost.fault, on: "one that ended its stream: \(code)")
    }

    /// Charges a useless frame to the peer's allowance.
    func spend(_ cost: Int, on what: @autoclosure () -> String) {
        guard !self.budget.spend(cost, now: self.now) else { return }
        self.fail(
            .enhanceYourCalm,
            "the peer sent more than \(self.configuration.idleFrameBurst) units of useless frames, the last of them "
                + what(),
            .flooded
        )
    }

    /// Whether a stream was never opened.
    func isIdle(_ streamID: Int32) -> Bool {
        switch self.role {
        case .server: streamID & 1 == 0 || streamID > self.highestPeerID
        case .client:
            streamID & 1 == 0 || (self.nextStreamID > 0 && streamID >= self.nextStreamID)
                || self.stream(streamID)?.headWasSent == false
        }
    }

    /// Charges a reset of the peer to its allowance: each was a request that was begun for nothing.
    func countReset() {
        guard self.role == .server, !self.resetBudget.spend(1, now: self.now) else { return }
        self.fail(
            .enhanceYourCalm,
            "the peer reset more than \(self.configuration.resetBurst) streams, and more than "
                + "\(self.configuration.resetsPerSecond) a second since",
            .flooded
        )
    }

    /// Remembers the streams that the peer ended its side of, or reset.
    func noteEnd(_ header: FrameHeader) {
        guard self.role == .server, header.streamID & 1 == 1, header.endsStream else { return }
        self.history.endedByPeer(header.streamID)
    }

    /// Priorities are ignored; a faulty one stays a fault (RFC 7540, section 5.3.1).
    func judgePriority(_ header: FrameHeader, dependency: Int32) {
        if dependency == header.streamID {
            self.fail(.protocolError, "stream \(header.streamID) depends on itself")
        } else {
            self.spend(FrameBudget.Cost.unused, on: "PRIORITY")
        }
    }

    /// Judges a frame on a stream that is not open by what is known of past streams.
    func judgeStream(_ header: FrameHeader) {
        let streamID = header.streamID
        guard self.role == .server, streamID & 1 == 1, self.stream(streamID) == nil else { return }
        switch self.history.verdict(streamID) {
        case .unremarkable:
            if header.type == FrameType.headers { self.history.opened(streamID) }
        case .skipped:
            self.fail(.protocolError, "stream \(streamID) is below the last one and was never opened")
        case .endedByPeer:
            self.fail(.streamClosed, "stream \(streamID) got another frame after the peer had ended it")
        }
    }
}
