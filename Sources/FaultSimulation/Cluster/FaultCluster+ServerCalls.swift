// SPDX-License-Identifier: Apache-2.0

internal import HTTP2Session
internal import NIOCore
internal import RPCCore

// The server's side of calls: what the transport's runner does around `ServerCallState`.
extension FaultCluster {
    private static let drainPing: UInt64 = 0x6472_6169_6e00_0001
    /// Bytes of responses that may wait on a connection.
    private var outputLimit: Int { self.scenario.budgetBytes * 6 }

    func serverEvent(_ event: HTTP2Event, _ link: WireLink) {
        switch event {
        case .headers(let block):
            let call = link.incoming[block.streamID] ?? self.open(block.streamID, link)
            self.headersReceived(call, block)
        case .headersTooLarge(let streamID, _, _, _):
            self.violated("the headers of stream \(streamID) are too large")
        case .data(let streamID, let bytes):
            link.codec(.server).consume(streamID: streamID, byteCount: bytes.readableBytes)
            if let call = link.incoming[streamID] { self.dataReceived(call, bytes) }
        case .endOfStream(let streamID):
            guard let call = link.incoming[streamID] else { return }
            self.requestEnded(call)
        case .streamClosed(let streamID, _, _):
            guard let call = link.incoming.removeValue(forKey: streamID) else { return }
            self.peerLeft(call)
        case .pingAcknowledged(Self.drainPing):
            self.finishDrain(link)
        case .drained, .settings, .settingsAcknowledged, .ping, .pingAcknowledged, .goAway:
            break
        }
    }

    private func open(_ streamID: Int32, _ link: WireLink) -> IncomingCall {
        let call = IncomingCall(streamID: streamID, link: link)
        link.incoming[streamID] = call
        return call
    }

    private func headersReceived(_ call: IncomingCall, _ block: HTTP2HeaderBlock) {
        let process = call.link.process(.server)
        let fields = block.fields.map { HeaderField($0.name, $0.value) }
        switch call.state.headersReceived(fields, endStream: block.endStream, now: self.time(process)) {
        case .route(let head, let deadline):
            let shape: CallShape = head.method == Self.generate ? .serverStreaming : .unary
            guard call.state.methodFound(shape) else { return }
            call.method = head.method
            call.deadline = deadline
            let late: Int64 = self.scenario.hasLateTimers ? 100_000_000 : 0
            if let deadline { self.at(self.nanoseconds(deadline) + late, process, .serverDeadline(call)) }
        case .end, .reset:
            self.violated("a request's headers were refused")
        case .ignore: break
        }
    }

    private func dataReceived(_ call: IncomingCall, _ bytes: ByteBuffer) {
        guard !call.state.isEnded else { return }
        do throws(RPCError) {
            try call.collector.feed(bytes) { message, isCompressed in
                if case .deliver = call.state.messageReceived(isCompressed: isCompressed) {
                    call.request = message
                } else {
                    self.violated("a request has more than its message")
                }
            }
        } catch {
            self.violated("the bytes of a request are no message: \(error)")
        }
        self.settle(call)
    }

    /// Tells the connection's budget what the call holds.
    private func settle(_ call: IncomingCall) {
        var bytes = 0
        if call.state.isEnded {
            call.collector.discard()
            call.request = nil
        } else {
            bytes = call.collector.held.count + (call.request?.count ?? 0)
        }
        guard bytes != call.heldBytes else { return }
        call.heldBytes = bytes
        _ = call.link.budget.changed(call.streamID, to: bytes, now: UInt64(self.now))
        if call.link.budget.heldBytes > call.link.budget.limitBytes { self.endCostliestCalls(call.link) }
    }

    private func endCostliestCalls(_ link: WireLink) {
        while let worst = link.budget.callToEnd(now: UInt64(self.now)) {
            self.note(.budgetEndedCall)
            if let call = link.incoming[worst] {
                self.end(call, RPCError(.resourceExhausted, "too many bytes of unfinished requests"))
            }
            _ = link.budget.changed(worst, to: 0, now: 0)
        }
    }

    private func requestEnded(_ call: IncomingCall) {
        do throws(RPCError) {
            try call.collector.end()
        } catch {
            self.violated("a request ended inside its message")
        }
        switch call.state.requestEnded() {
        case .deliver:
            guard let request = call.request else { return }
            call.request = nil
            self.settle(call)
            self.requestReceived(call, request)
        case .drop: break
        case .end: self.violated("a request ended without a message")
        }
    }

    // MARK: - Answers

    /// Sends a message.
    func send(_ call: IncomingCall, _ message: [UInt8]) {
        let codec = call.link.codec(.server)
        if codec.queuedBytes > 0, codec.queuedBytes + message.count > self.outputLimit {
            self.note(.outputLimit)
            self.end(call, RPCError(.resourceExhausted, "too many bytes of responses wait"))
            return
        }
        do throws(HTTP2CodecError) {
            switch call.state.messageSent() {
            case .sendHead(let head):
                try codec.submitResponse(
                    streamID: call.streamID,
                    head.fields().map(\.forCodec),
                    endStream: false
                )
            case .send: break
            case .drop: return
            case .refuse(let status): return self.violated("a message could not be sent: \(status)")
            }
            let pieces = [ByteBuffer(bytes: MessagePrefix(length: message.count).bytes), ByteBuffer(bytes: message)]
            try codec.submitData(streamID: call.streamID, pieces)
        } catch {
            self.violated("an answer could not be sent: \(error)")
        }
    }

    /// Sends the headers of an answer ahead of its first message.
    func sendHead(_ call: IncomingCall) {
        guard let head = call.state.headSent(Metadata()) else { return }
        do throws(HTTP2CodecError) {
            let fields = head.fields().map(\.forCodec)
            try call.link.codec(.server).submitResponse(streamID: call.streamID, fields, endStream: false)
        } catch {
            self.violated("headers could not be sent: \(error)")
        }
        self.flush(call.link, .server)
    }

    /// Ends a call with a status, if it has not ended.
    func finish(_ call: IncomingCall, _ status: Status, metadata: Metadata = Metadata()) {
        guard let ending = call.state.statusSent(status, metadata: metadata) else { return }
        self.settle(call)
        let codec = call.link.codec(.server)
        if let reset = ending.reset {
            codec.resetAfterEnd(streamID: call.streamID, code: HTTP2ErrorCode(rawValue: reset.rawValue))
        }
        do throws(HTTP2CodecError) {
            let fields = ending.fields.map(\.forCodec)
            if case .trailers = ending.block {
                try codec.submitTrailers(streamID: call.streamID, fields)
            } else {
                try codec.submitResponse(streamID: call.streamID, fields, endStream: true)
            }
        } catch {
            self.violated("a status could not be sent: \(error)")
        }
        self.flush(call.link, .server)
    }

    /// Ends a call with an error and cancels what works on it.
    func end(_ call: IncomingCall, _ error: RPCError) {
        guard !call.state.isEnded else { return }
        self.handlerCancelled(call)
        self.finish(call, error.status, metadata: error.metadata)
    }

    func serverDeadlineExpired(_ call: IncomingCall) {
        let process = call.link.process(.server)
        guard let deadline = call.deadline, deadline <= self.time(process), !call.state.isEnded else { return }
        self.note(.serverDeadline)
        if call.link.codec(.server).queuedBytes(streamID: call.streamID) == 0 {
            self.end(call, RPCError(.deadlineExceeded, "the deadline has passed"))
        } else {
            self.note(.serverDeadlineWithQueuedBytes)
            self.abort(call, call.state.deadlineExpired())
        }
    }

    /// The caller has reset its stream, or its connection is lost.
    func peerLeft(_ call: IncomingCall) {
        self.abort(call, call.state.peerLeft())
        self.settle(call)
        if call.work != nil { self.violated("work goes on for a caller that has left") }
    }

    private func abort(_ call: IncomingCall, _ action: ServerCallState.OnAbort) {
        guard case .cancelHandler(let reset) = action else { return }
        self.handlerCancelled(call)
        if let reset {
            let code = HTTP2ErrorCode(rawValue: reset.rawValue)
            call.link.codec(.server).reset(streamID: call.streamID, code: code)
            self.flush(call.link, .server)
        }
        self.settle(call)
    }

    // MARK: - Handlers

    private func requestReceived(_ call: IncomingCall, _ message: [UInt8]) {
        let process = call.link.process(.server)
        switch self.processes[process].target {
        case .gateway(let index):
            self.generateReceived(index, call, message)
        case .host(let index):
            if call.method == Self.describe {
                self.describeReceived(index, call)
            } else {
                self.forwardReceived(index, call, message)
            }
        case .client: break
        }
    }

    private func handlerCancelled(_ call: IncomingCall) {
        switch self.processes[call.link.process(.server)].target {
        case .gateway(let index): self.generateCancelled(index, call)
        case .host(let index): self.forwardCancelled(index, call)
        case .client: break
        }
    }

    // MARK: - Draining

    func beginDrain(_ link: WireLink) {
        guard link.isOpen(.server), link.drain == .none else { return }
        link.drain = .announced
        link.codec(.server).announceShutdown()
        link.codec(.server).ping(opaque: Self.drainPing)
        self.flush(link, .server)
        self.after(1_000_000_000, link.process(.server), .drainOver(link))
    }

    func finishDrain(_ link: WireLink) {
        guard link.isOpen(.server), link.drain == .announced else { return }
        link.drain = .final
        link.codec(.server).goAway()
        self.flush(link, .server)
    }
}
