// SPDX-License-Identifier: Apache-2.0

internal import ExpertPooling
internal import HTTP2Session
internal import NIOCore
internal import RPCCore

// The client's side of calls: what the transport's runner does around `ClientCallState`.
extension FaultCluster {
    static let generate = Method(service: "switchyard.Gateway", name: "Generate")
    static let forward = Method(service: "switchyard.ExpertHost", name: "Forward")
    static let describe = Method(service: "switchyard.ExpertHost", name: "Describe")

    /// Makes a call, which gives up at the deadline in its process's time, in nanoseconds.
    func call(
        _ purpose: OutgoingCall.Purpose,
        _ method: Method,
        _ message: [UInt8],
        on channel: SimulatedChannel,
        deadline: Int64?,
        waitsForReady: Bool
    ) -> OutgoingCall {
        self.nextCall += 1
        var shape = CallShape.unary
        var retry = RetryPolicy.none
        if case .generate = purpose { (shape, retry) = (.serverStreaming, .transparent) }
        let call = OutgoingCall(
            serial: self.nextCall,
            purpose: purpose,
            process: channel.owner,
            method: method,
            shape: shape,
            message: message,
            deadline: deadline,
            waitsForReady: waitsForReady,
            retry: retry
        )
        self.openCalls[call.serial] = call
        if let deadline { self.at(deadline, call.process, .callDeadline(call)) }
        return call
    }

    /// Opens a stream for a call, or lets it wait.
    func start(_ call: OutgoingCall, on channel: SimulatedChannel) {
        guard !call.state.isEnded else { return }
        guard channel.phase == .ready, let link = channel.link, link.takesCalls else {
            if channel.phase == .stopped || (channel.phase == .waiting && !call.waitsForReady) {
                self.neverSent(call, "there is no connection")
            } else {
                if channel.phase == .ready { self.note(.waitedForStream) }
                channel.waiting.append(call)
            }
            return
        }
        self.open(call, on: link)
        self.flush(link, .client)
    }

    /// Gives waiting calls the streams that are free.
    func pump(_ channel: SimulatedChannel) {
        while channel.phase == .ready, let link = channel.link, link.takesCalls, !channel.waiting.isEmpty {
            let call = channel.waiting.removeFirst()
            guard !call.state.isEnded else { continue }
            self.open(call, on: link)
            self.flush(link, .client)
        }
    }

    private func open(_ call: OutgoingCall, on link: WireLink) {
        var timeout: Timeout?
        if let deadline = call.deadline {
            let left = deadline - self.clock(call.process)
            guard left > 0 else {
                self.finish(call, call.state.deadlineExpired())
                return
            }
            timeout = Timeout(coveringNanoseconds: left)
        }
        var fields = RequestHead(method: call.method, authority: "host", timeout: timeout).fields()
        if call.previousAttempts > 0 {
            fields.append(HeaderField("grpc-previous-rpc-attempts", "\(call.previousAttempts)"))
        }
        let codec = link.codec(.client)
        do throws(HTTP2CodecError) {
            let streamID = try codec.submitRequest(fields.map(\.forCodec), endStream: false)
            call.streamID = streamID
            call.link = link
            link.outgoing[streamID] = call
            let pieces = [
                ByteBuffer(bytes: MessagePrefix(length: call.message.count).bytes), ByteBuffer(bytes: call.message),
            ]
            try codec.submitData(streamID: streamID, pieces, endStream: true)
        } catch {
            self.violated("a request could not be sent: \(error)")
        }
    }

    // MARK: - The caller's events

    /// The caller gives up.
    func cancel(_ call: OutgoingCall) {
        if call.streamID == nil, !call.state.isEnded { self.note(.cancelledBeforeSent) }
        if !call.state.isEnded { call.wasGivenUp = true }
        self.finish(call, call.state.cancelled())
    }

    func deadlineExpired(_ call: OutgoingCall) {
        guard let deadline = call.deadline else { return }
        if self.clock(call.process) < deadline { return }
        if case .receiving(_, let messages) = call.state.phase {
            if !call.collector.isBetweenMessages {
                self.note(.deadlineInsideMessage)
            } else if messages == 0 {
                self.note(.deadlineBetweenHeadersAndData)
            }
        }
        if call.streamID == nil, !call.state.isEnded { self.note(.deadlineBeforeSent) }
        if !call.state.isEnded { call.wasGivenUp = true }
        self.finish(call, call.state.deadlineExpired())
    }

    /// The call never left this process.
    func neverSent(_ call: OutgoingCall, _ reason: String) {
        guard let end = call.state.connectionLost(reason, isUnprocessed: true) else { return }
        self.report(call, end)
    }

    func connectionLost(_ call: OutgoingCall, _ reason: String) {
        if !call.collector.isBetweenMessages { self.note(.cutInsideMessage) }
        call.streamID = nil
        call.link = nil
        let end = call.state.connectionLost(reason)
        if !self.tryAgain(call, end, .unknown) { self.finish(call, end) }
    }

    // MARK: - The peer's events

    func clientEvent(_ event: HTTP2Event, _ link: WireLink) {
        switch event {
        case .headers(let block):
            guard let call = link.outgoing[block.streamID] else { return }
            self.headersReceived(call, block)
        case .headersTooLarge(let streamID, _, _, _):
            self.violated("the headers of stream \(streamID) are too large")
        case .data(let streamID, let bytes):
            link.codec(.client).consume(streamID: streamID, byteCount: bytes.readableBytes)
            if let call = link.outgoing[streamID] { self.dataReceived(call, bytes) }
        case .endOfStream(let streamID):
            guard let call = link.outgoing[streamID] else { return }
            self.finish(call, call.state.streamEndedWithoutTrailers())
        case .streamClosed(let streamID, let code, let origin):
            guard let call = link.outgoing.removeValue(forKey: streamID) else { return }
            self.streamClosed(call, code, origin)
        case .settings:
            link.hasSettings = true
            let channel = link.channel
            guard channel.link === link, channel.phase == .connecting else { return }
            channel.phase = .ready
            channel.failures = 0
            self.channelReady(channel)
            self.pump(channel)
        case .goAway:
            if link.outgoing.keys.contains(where: { link.codec(.client).queuedBytes(streamID: $0) > 0 }) {
                self.note(.goAwayWhileWaitingForWindow)
            }
            if !link.outgoing.isEmpty { self.note(.goAwayWithOpenCalls) }
            link.isLeaving = true
            self.connectionGone(link.channel, link)
        case .drained, .settingsAcknowledged, .ping, .pingAcknowledged:
            break
        }
    }

    private func headersReceived(_ call: OutgoingCall, _ block: HTTP2HeaderBlock) {
        let fields = block.fields.map { HeaderField($0.name, $0.value) }
        switch call.state.headersReceived(fields, endStream: block.endStream) {
        case .ignore: break
        case .response: call.retries.commit()
        case .end(let end):
            if end.status.isOK, !call.collector.isBetweenMessages {
                self.violated("call \(call.serial) ended well inside a message")
            }
            if !self.tryAgain(call, end, .unknown) { self.finish(call, end) }
        }
    }

    private func dataReceived(_ call: OutgoingCall, _ bytes: ByteBuffer) {
        do throws(RPCError) {
            var collector = call.collector
            try collector.feed(bytes) { message, isCompressed in
                switch call.state.messageReceived(isCompressed: isCompressed) {
                case .deliver:
                    call.response = message
                    if case .generate(let request) = call.purpose { self.tokenReceived(request, message) }
                case .decompress: self.violated("a message of call \(call.serial) is compressed")
                case .drop: break
                case .end(let end): self.finish(call, end)
                }
            }
            call.collector = collector
        } catch {
            self.violated("the bytes of call \(call.serial) are no messages: \(error)")
        }
    }

    private func streamClosed(_ call: OutgoingCall, _ code: HTTP2ErrorCode, _ origin: StreamCloseOrigin) {
        call.streamID = nil
        call.link = nil
        switch origin {
        case .peer:
            let isLate = call.deadline.map { $0 <= self.clock(call.process) } ?? false
            let end = call.state.resetReceived(ResetCode(rawValue: code.rawValue), deadlineHasPassed: isLate)
            let progress: CallRetries.Progress = code == .refusedStream ? .refused : .unknown
            if !self.tryAgain(call, end, progress) { self.finish(call, end) }
        case .neverProcessed, .neverSent:
            if !call.state.isEnded { self.note(.streamRefused) }
            let end = call.state.connectionLost("the server did not take the call", isUnprocessed: true)
            if !self.tryAgain(call, end, origin == .neverSent ? .neverSent : .refused) { self.finish(call, end) }
        case .fault:
            self.violated("stream of call \(call.serial) broke the protocol: \(code)")
        case .local:
            self.finish(call, call.state.streamEndedWithoutTrailers())
        }
    }

    // MARK: - Ends

    private func tryAgain(_ call: OutgoingCall, _ end: ClientCallState.End?, _ progress: CallRetries.Progress) -> Bool {
        guard let end, !end.status.isOK, case .generate(let request) = call.purpose,
            let channel = self.clientChannels[self.requests[request].request.client]
        else { return false }
        var budget = RetryBudget(maxTokens: 10)
        let decision = call.retries.failed(
            code: end.status.code,
            pushback: RetryPushback(end.metadata),
            progress: progress,
            timeLeft: call.deadline.map { .nanoseconds($0 - self.clock(call.process)) },
            budget: &budget,
            chance: 0.5
        )
        guard case .again(let wait, let previous) = decision else { return false }
        self.note(.callRetriedByTransport)
        if let reset = end.reset, let link = call.link, let streamID = call.streamID {
            link.codec(.client).reset(streamID: streamID, code: HTTP2ErrorCode(rawValue: reset.rawValue))
        }
        call.previousAttempts = previous
        call.state = ClientCallState(shape: call.shape)
        _ = call.state.messageSent()
        _ = call.state.requestEnded()
        call.collector = MessageCollector(maxMessageBytes: 1 << 22)
        call.streamID = nil
        call.link = nil
        let parts = wait.components
        self.after(
            parts.seconds * 1_000_000_000 + parts.attoseconds / 1_000_000_000,
            call.process,
            .retry(call, channel)
        )
        return true
    }

    func finish(_ call: OutgoingCall, _ end: ClientCallState.End?) {
        guard let end else { return }
        if let reset = end.reset, let streamID = call.streamID, let link = call.link {
            link.codec(.client).reset(streamID: streamID, code: HTTP2ErrorCode(rawValue: reset.rawValue))
            self.flush(link, .client)
        }
        self.report(call, end)
    }

    private func report(_ call: OutgoingCall, _ end: ClientCallState.End) {
        call.ends += 1
        if call.ends > 1 { self.violated("call \(call.serial) ended \(call.ends) times") }
        if let deadline = call.deadline {
            let late = self.clock(call.process) - deadline
            if late > 0, self.processes[call.process].lastStall < self.now - late {
                self.violated("call \(call.serial) ended \(milliseconds(late)) after its deadline")
            }
            if end.status.code == .deadlineExceeded, late < -2_000_000, case .generate = call.purpose {
                // The server's clock may have jumped; the client's has not.
                self.note(.serverSawDeadlineFirst)
            }
        }
        self.openCalls[call.serial] = nil
        switch call.purpose {
        case .generate(let request): self.requestEnded(request, call, end)
        case .forward(let gateway, let lane, let layer, let attempt, let replica):
            self.forwardEnded(gateway, lane, layer, attempt, replica, call, end)
        case .proof(let gateway, let replica, let expected):
            self.proofEnded(gateway, replica, expected, call, end)
        case .describe(let gateway, let replica): self.describeEnded(gateway, replica, call, end)
        }
    }
}
