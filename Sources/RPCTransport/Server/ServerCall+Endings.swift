// SPDX-License-Identifier: Apache-2.0

internal import HTTP2Session
internal import NIOCore
internal import RPCCore

extension ServerCall {
    // MARK: - The handler's events

    /// The handler of a method with one response has ended.
    func finish(_ result: Result<Payload, RPCError>) {
        self.connection.stages?.mark(.answered)
        switch result {
        case .success(let payload):
            guard !self.state.isEnded else { return }
            self.submit(payload)
            self.finish(.ok)
        case .failure(let error):
            self.finish(error.status, metadata: error.metadata)
        }
    }

    /// The handler has ended with a status.
    func finish(_ status: Status, metadata: Metadata = Metadata()) {
        var trailing = self.shared.trailing
        trailing.add(contentsOf: metadata)
        guard let ending = self.state.statusSent(status, metadata: trailing) else { return }
        self.gate?.close(RPCError(.internal, "the call has ended; write before the handler returns"))
        self.inbox?.fail(RPCError(.cancelled, "the call has ended"))
        self.shared.finish()
        self.send(ending)
    }

    /// Sends one message of the handler.
    func submit(_ payload: Payload) {
        let codec = self.connection.codec
        let count = payload.byteCount + MessagePrefix.byteCount
        defer {
            if let gate = self.gate {
                codec.notifyDrained(streamID: self.streamID, atOrBelow: gate.drainMark)
                gate.submitted(byteCount: count, queuedBytes: codec.queuedBytes(streamID: self.streamID))
            }
        }
        guard payload.byteCount <= Int(UInt32.max) else {
            self.end(
                RPCError(.internal, "a message of \(payload.byteCount) bytes is over gRPC's limit of 4 GiB; send less")
            )
            return
        }
        let limit = self.connection.limits.connectionOutputBytes
        guard codec.queuedBytes == 0 || codec.queuedBytes + count <= limit else {
            self.end(
                RPCError(
                    .resourceExhausted,
                    "\(codec.queuedBytes) bytes of responses wait on this connection and the limit is \(limit); "
                        + "read them before asking for more"
                )
            )
            return
        }
        switch self.state.messageSent(initialMetadata: self.shared.initial) {
        case .sendHead(let head):
            var head = head
            head.encoding = self.compression.encoding
            guard self.connection.submitHead(self, head) else { return }
            self.connection.submitBody(self, payload)
        case .send:
            self.connection.submitBody(self, payload)
        case .drop:
            break
        case .refuse(let status):
            self.end(RPCError(status.code, status.message))
        }
    }

    /// Ends the call with an error that did not come from its handler.
    func end(_ error: RPCError) {
        guard !self.state.isEnded else { return }
        let ending = self.state.statusSent(error.status, metadata: error.metadata)
        self.cancelHandler(error.message)
        if let ending { self.send(ending) }
    }

    // MARK: - Ends

    func abort(_ action: ServerCallState.OnAbort, _ reason: String) {
        guard case .cancelHandler(let reset) = action else { return }
        self.cancelHandler(reason)
        if let reset {
            self.connection.codec.reset(streamID: self.streamID, code: HTTP2ErrorCode(reset))
            self.connection.setNeedsFlush()
        }
        self.settle()
    }

    func cancelHandler(_ reason: String) {
        let error = RPCError(.cancelled, reason)
        self.request = nil
        // First: a writer or a reader that wakes up with the error may ask whether the call was cancelled.
        self.shared.cancel()
        self.gate?.close(error)
        self.inbox?.fail(error)
    }

    func send(_ ending: ServerCallState.Ending) {
        switch ending.block {
        case .trailers(let trailers), .trailersOnly(let trailers, _): self.count(trailers.status.code)
        // No call of gRPC.
        case .http: self.isCounted = true
        }
        self.connection.submitEnd(self, ending)
        self.settle()
    }

    /// Counts the call's first end.
    func count(_ code: Status.Code) {
        guard !self.isCounted else { return }
        self.isCounted = true
        (self.counts ?? self.connection.counts.counts(of: nil)).add(code)
        if self.counts != nil { self.connection.counts.callEnded() }
    }
}
