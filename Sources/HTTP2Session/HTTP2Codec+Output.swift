// SPDX-License-Identifier: Apache-2.0

internal import CNGHTTP2
internal import NIOCore

// Frames on their way out: those of the connection first, then requests, then the streams in turn.

extension HTTP2Codec {
    /// Writes frames until nothing can be sent or the output is long enough.
    func pumpOutput() {
        while self.producedBytes < self.outputLimitBytes {
            // The last GOAWAY ends the connection.
            if self.isTerminated { return }
            if let control = self.controls.popFirst() {
                self.write(control)
            } else if self.isTerminating {
                return
            } else if let stream = self.nextRequest() {
                self.write(stream)
            } else if let stream = self.senders.popFirst() {
                stream.isQueued = false
                self.write(stream)
            } else {
                return
            }
        }
        self.outputIsHeldBack = true
    }

    /// Lets a stream wait for its turn, if it has something to send.
    func queue(_ stream: CodecStream) {
        // A request goes out in the order of the requests.
        guard !stream.isQueued, !stream.isBlocked, stream.hasOutput, self.role == .server || stream.headWasSent else {
            return
        }
        stream.isQueued = true
        self.senders.append(stream)
    }

    /// The connection's window has grown: streams that waited for it have their turn.
    func unblockSenders() {
        let blocked = self.blockedSenders
        self.blockedSenders.removeAll(keepingCapacity: true)
        for stream in blocked {
            stream.isBlocked = false
            self.queue(stream)
        }
    }

    /// The next request that may be sent.
    private func nextRequest() -> CodecStream? {
        while let stream = self.requests.front {
            if stream.closeOrigin != nil {
                // Given up before it was sent.
                _ = self.requests.popFirst()
            } else if self.peerRefusesStreams {
                _ = self.requests.popFirst()
                stream.closeOrigin = .neverSent
                self.close(stream.id, code: .refusedStream)
            } else {
                guard self.sentRequests < Int(self.peer.maxConcurrentStreams) else { return nil }
                return self.requests.popFirst()
            }
        }
        return nil
    }

    // MARK: - Streams

    /// Writes a stream's header block, a piece of its body and its trailers, as far as they are there.
    private func write(_ stream: CodecStream) {
        guard stream.closeOrigin == nil, !stream.isEnded else { return }
        if let head = stream.head {
            stream.head = nil
            var isEnd = false
            if case .endStream = stream.bodyEnd, stream.queuedBytes == 0 { isEnd = true }
            guard self.writeBlock(stream, head, endStream: isEnd) else { return }
            stream.headWasSent = true
            self.sentRequests += 1
            if isEnd {
                self.endSent(stream)
                return
            }
        }
        if self.writeBody(stream) { self.queue(stream) }
    }

    /// Writes a frame of the body, and what ends it.
    ///
    /// - Returns: Whether the stream may send more at once.
    private func writeBody(_ stream: CodecStream) -> Bool {
        guard stream.queuedBytes > 0 || stream.bodyIsEnded else { return false }
        let queued = stream.queuedBytes
        var count = min(queued, self.peer.maxFrameBytes, self.configuration.maxFrameBytes)
        if count > 0 {
            count = min(count, stream.sendWindow.available, self.sendWindow.available)
            guard count > 0 else {
                // The stream's own window has it queued again when it grows.
                if stream.sendWindow.available > 0 {
                    stream.isBlocked = true
                    self.blockedSenders.append(stream)
                }
                return false
            }
        }
        let isWhole = count == queued
        var endsHere = false
        if isWhole, case .endStream = stream.bodyEnd { endsHere = true }
        if count > 0 || endsHere {
            self.writeData(stream, count, endStream: endsHere)
            if endsHere {
                self.endSent(stream)
                return false
            }
        }
        guard isWhole else { return true }
        switch stream.bodyEnd {
        case .open, .endStream:
            return false
        case .trailers(let fields):
            if self.writeBlock(stream, .fields(fields), endStream: true) { self.endSent(stream) }
        case .storedTrailers(let block):
            if self.writeBlock(stream, .stored(block, variable: nil), endStream: true) { self.endSent(stream) }
        }
        return false
    }

    private func writeData(_ stream: CodecStream, _ count: Int, endStream: Bool) {
        self.sentMessageFrames &+= 1
        self.appendFrameHeader(FrameType.data, endStream ? FrameFlag.endStream : 0, stream.id, payloadBytes: count)
        guard count > 0 else { return }
        _ = stream.take(count) { self.appendOutput($0) }
        self.queuedBytes -= count
        stream.sendWindow.sent(count)
        self.sendWindow.sent(count)
        self.budget.earn(1 + count >> 10)
        if let mark = stream.drainMark, stream.queuedBytes <= mark {
            stream.drainMark = nil
            self.events.append(.drained(streamID: stream.id))
        }
    }

    /// This side's END_STREAM was sent.
    private func endSent(_ stream: CodecStream) {
        stream.isEnded = true
        if stream.peerEnded {
            self.close(stream.id, code: .noError)
        } else if let code = stream.resetAfterEnd {
            self.reset(streamID: stream.id, code: code)
        }
    }

    // MARK: - Header blocks

    /// Writes a header block.
    ///
    /// - Returns: Whether it was sent; if not, the stream is closed or will be reset.
    private func writeBlock(_ stream: CodecStream, _ head: CodecStream.Head, endStream: Bool) -> Bool {
        let isSent: Bool
        switch head {
        case .fields(let fields):
            self.encoded.removeAll(keepingCapacity: true)
            isSent = self.withFieldVectors(fields) { self.encoder.encode($0, into: &self.encoded) }
            if isSent { self.encoded.withUnsafeBytes { self.appendBlock(stream.id, $0, endStream: endStream) } }
        case .stored(let block, let variable):
            isSent = self.writeStored(stream.id, self.storedBlocks[block.index], variable, endStream: endStream)
        }
        guard isSent else {
            self.blockIsUnsendable(stream)
            return false
        }
        self.sentMessageFrames &+= 1
        return true
    }

    private func writeStored(
        _ streamID: Int32,
        _ block: StoredFields,
        _ variable: HTTP2HeaderField?,
        endStream: Bool
    ) -> Bool {
        if block.generation != self.encoder.generation {
            block.encoded.removeAll(keepingCapacity: true)
            let before = self.encoder.generation
            let isEncoded = block.vectors.withUnsafeBufferPointer { self.encoder.encode($0, into: &block.encoded) }
            guard isEncoded else { return false }
            // A block that changed the table would be another one the next time.
            block.generation = self.encoder.generation == before ? before : -1
        }
        guard let variable else {
            block.encoded.withUnsafeBytes { self.appendBlock(streamID, $0, endStream: endStream) }
            return true
        }
        self.encoded.removeAll(keepingCapacity: true)
        self.encoded.append(contentsOf: block.encoded)
        HPACKText.append(variable, to: &self.encoded)
        self.encoded.withUnsafeBytes { self.appendBlock(streamID, $0, endStream: endStream) }
        return true
    }

    private func blockIsUnsendable(_ stream: CodecStream) {
        if self.role == .client, !stream.headWasSent {
            stream.closeOrigin = .neverSent
            self.close(stream.id, code: .refusedStream)
        } else {
            // An answer or trailers that are too long to send: without them the peer would wait for ever.
            self.reset(streamID: stream.id, code: .internalError)
        }
    }

    /// Writes an encoded block, in several frames if it is long.
    private func appendBlock(_ streamID: Int32, _ bytes: UnsafeRawBufferPointer, endStream: Bool) {
        // Every peer takes frames of this size.
        let most = FrameHeader.payloadRange.lowerBound
        var start = 0
        repeat {
            let count = min(most, bytes.count - start)
            var flags = start + count == bytes.count ? FrameFlag.endHeaders : 0
            if start == 0, endStream { flags |= FrameFlag.endStream }
            let type = start == 0 ? FrameType.headers : FrameType.continuation
            self.appendOutput(FrameHeader.byteCount + count) { room in
                Self.put(type, flags, streamID, payloadBytes: count, into: room)
                let part = UnsafeRawBufferPointer(rebasing: bytes[start..<start + count])
                UnsafeMutableRawBufferPointer(rebasing: room[FrameHeader.byteCount...]).copyMemory(from: part)
            }
            start += count
        } while start < bytes.count
    }

    // MARK: - Frames of the connection

    private func write(_ control: Control) {
        if control.isAcknowledgement { self.acknowledgements -= 1 }
        switch control {
        case .settingsAcknowledgement:
            self.appendFrameHeader(FrameType.settings, FrameFlag.acknowledgement, 0, payloadBytes: 0)
        case .ping(let opaque, let isAcknowledgement):
            self.appendFrameHeader(
                FrameType.ping,
                isAcknowledgement ? FrameFlag.acknowledgement : 0,
                0,
                payloadBytes: 8
            )
            self.appendOutput(
                bytes: Self.bigEndian(UInt32(opaque >> 32)) + Self.bigEndian(UInt32(truncatingIfNeeded: opaque))
            )
        case .reset(let streamID, let code):
            guard let stream = self.stream(streamID) else { return }
            guard self.role == .server || stream.headWasSent else {
                // The peer never heard of it.
                self.close(streamID, code: .refusedStream)
                return
            }
            self.appendReset(streamID, code)
            self.close(streamID, code: code)
        case .refusal(let streamID):
            self.appendReset(streamID, .refusedStream)
        case .windowUpdate(let streamID, let increment):
            guard streamID == 0 || self.stream(streamID) != nil else { return }
            self.appendWindowUpdate(streamID, increment)
        case .goAway(let goAway):
            self.write(goAway)
        }
    }

    private func write(_ goAway: GoAway) {
        self.appendFrameHeader(FrameType.goAway, 0, 0, payloadBytes: 8 + goAway.debug.count)
        self.appendOutput(
            bytes: Self.bigEndian(UInt32(goAway.lastStreamID)) + Self.bigEndian(goAway.code.rawValue) + goAway.debug
        )
        switch goAway.kind {
        case .notice:
            break
        case .last:
            guard self.role == .server else { return }
            for stream in self.streams.values where stream.id > goAway.lastStreamID {
                self.close(stream.id, code: .refusedStream)
            }
        case .terminating:
            self.isTerminated = true
        }
    }

    private func appendReset(_ streamID: Int32, _ code: HTTP2ErrorCode) {
        self.appendFrameHeader(FrameType.reset, 0, streamID, payloadBytes: 4)
        self.appendOutput(bytes: Self.bigEndian(code.rawValue))
    }

    func appendWindowUpdate(_ streamID: Int32, _ increment: UInt32) {
        self.appendFrameHeader(FrameType.windowUpdate, 0, streamID, payloadBytes: 4)
        self.appendOutput(bytes: Self.bigEndian(increment))
    }

    func appendFrameHeader(_ type: UInt8, _ flags: UInt8, _ streamID: Int32, payloadBytes: Int) {
        self.appendOutput(FrameHeader.byteCount) {
            Self.put(type, flags, streamID, payloadBytes: payloadBytes, into: $0)
        }
    }

    func appendOutput(bytes: [UInt8]) {
        bytes.withUnsafeBytes { bytes in
            guard bytes.count > 0 else { return }
            self.appendOutput(bytes.count) { $0.copyMemory(from: bytes) }
        }
    }

    static func bigEndian(_ number: UInt32) -> [UInt8] {
        withUnsafeBytes(of: number.bigEndian) { Array($0) }
    }

    private static func put(
        _ type: UInt8,
        _ flags: UInt8,
        _ streamID: Int32,
        payloadBytes: Int,
        into room: UnsafeMutableRawBufferPointer
    ) {
        let number = UInt32(bitPattern: streamID)
        let high =
            UInt64(payloadBytes) << 40 | UInt64(type) << 32 | UInt64(flags) << 24 | UInt64(number >> 8)
        room.storeBytes(of: high.bigEndian, as: UInt64.self)
        room[8] = UInt8(truncatingIfNeeded: number)
    }
}
