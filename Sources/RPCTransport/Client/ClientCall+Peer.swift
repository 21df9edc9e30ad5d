// SPDX-License-Identifier: Apache-2.0

internal import HTTP2Session
internal import NIOCore
internal import RPCCore

// What the server does to a call.
extension ClientCall {
    func headersReceived(_ block: ResponseFields, endStream: Bool) {
        switch self.state.headersReceived(block, endStream: endStream) {
        case .ignore:
            break
        case .response(let head):
            self.commit()
            self.initialMetadata = head.metadata
            if case .stream(_, let details) = self.sink { details.setInitial(head.metadata) }
        case .end(let end):
            do throws(RPCError) {
                if end.status.isOK { try self.assembler.end() }
                if !self.tryAgain(end) { self.finish(end) }
            } catch {
                self.complete(.failure(error))
            }
        }
    }

    func headersTooLarge(sizeBytes: Int, limitBytes: Int) {
        let limit = "the response's header list has \(sizeBytes) bytes, more than the limit of \(limitBytes)"
        self.fail(RPCError(.resourceExhausted, limit + "; raise maxHeaderListBytes"))
    }

    func dataReceived(_ bytes: ByteBuffer, _ memory: inout BufferShelf) {
        self.uncreditedBytes += bytes.readableBytes
        do throws(RPCError) {
            try self.assembler.feed(bytes, &memory) { self.messageReceived($0) }
        } catch {
            self.fail(error)
        }
        self.creditIfEmptied()
    }

    func endedWithoutTrailers() {
        let end = self.state.streamEndedWithoutTrailers()
        if !self.tryAgain(end) { self.finish(end) }
    }

    func streamClosed(code: HTTP2ErrorCode, origin: StreamCloseOrigin) {
        let farewell = self.connection?.farewell.map { ": \($0)" } ?? ""
        self.streamID = nil
        self.connection = nil
        switch origin {
        case .peer:
            let isLate = self.options.dueTime.map { $0 <= .now() } ?? false
            let end = self.state.resetReceived(ResetCode(code), deadlineHasPassed: isLate)
            if !self.tryAgain(end, code == .refusedStream ? .refused : .unknown) { self.finish(end) }
        case .neverProcessed, .neverSent:
            let message = "the server is going away and did not take the call\(farewell)"
            let end = self.state.connectionLost(message, isUnprocessed: true)
            if !self.tryAgain(end, origin == .neverSent ? .neverSent : .refused) { self.finish(end) }
        case .fault:
            self.fail(RPCError(.internal, "the server broke the protocol: \(code)"))
        case .local:
            let end = self.state.streamEndedWithoutTrailers()
            if !self.tryAgain(end) { self.finish(end) }
        }
    }

    func connectionLost(_ reason: String) {
        self.streamID = nil
        self.connection = nil
        let end = self.state.connectionLost(reason)
        if !self.tryAgain(end) { self.finish(end) }
    }

    /// The stream's queue has drained.
    func drained() {
        guard let streamID = self.streamID, let connection = self.connection else { return }
        self.gate?.drained(queuedBytes: connection.codec.queuedBytes(streamID: streamID))
    }

    private func messageReceived(_ message: MessageAssembler.Message) {
        self.configuration.compressionLog?.add(message.isCompressed)
        switch self.state.messageReceived(isCompressed: message.isCompressed) {
        case .deliver:
            self.deliver(message.bytes)
        case .decompress:
            do throws(RPCError) {
                let limit = self.configuration.limits.maxReceiveMessageBytes
                self.deliver(try Gzip.decompressed(message.bytes, limitBytes: limit))
            } catch {
                self.fail(error)
            }
        case .drop:
            break
        case .end(let end):
            self.finish(end)
        }
    }

    private func deliver(_ message: ByteBuffer) {
        switch self.sink {
        case .unary: self.response = message
        case .stream(let inbox, _): inbox.push(message)
        case .none: break
        }
    }
}
