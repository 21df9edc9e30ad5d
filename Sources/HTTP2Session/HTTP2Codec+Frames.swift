// SPDX-License-Identifier: Apache-2.0

internal import NIOCore

/// What happens to the payload of the frame that is arriving.
enum Intake {
    /// It has no meaning.
    case skip
    /// This number of its first bytes is kept until it is complete.
    case collect(Int)
    /// It is a piece of a stream's body.
    case data(CodecStream)
    /// It is a piece of a header block.
    case fields
}

// Frames on their way in: what their headers say, and frames of the connection.

extension HTTP2Codec {
    /// Reads a piece of what the peer sends, up to a fault of the peer.
    func feed(_ bytes: UnsafeRawBufferPointer) {
        var index = 0
        while self.pendingConnectionError == nil {
            switch self.reader.next(bytes, from: &index) {
            case .needsBytes:
                return
            case .badPreface:
                self.fail(.protocolError, "the peer does not speak HTTP/2 with prior knowledge")
            case .began(let header):
                self.receivedFrames &+= 1
                self.frame = header
                self.began(header)
            case .payload(let start, let count, let isLast):
                let piece = UnsafeRawBufferPointer(rebasing: bytes[start..<start + count])
                switch self.intake {
                case .skip: break
                case .collect(let most): self.collect(piece, most: most, isLast: isLast)
                case .data(let stream): self.data(stream, piece, at: start, isLast: isLast)
                case .fields: self.fields(piece, isLast: isLast)
                }
            }
        }
    }

    /// Applies the rules that can be read from a frame's header, and decides what its payload is.
    private func began(_ header: FrameHeader) {
        self.intake = .skip
        guard header.payloadBytes <= self.configuration.maxFrameBytes else {
            self.fail(
                .frameSizeError,
                "a frame of \(header.payloadBytes) bytes, more than the limit of \(self.configuration.maxFrameBytes)"
            )
            return
        }
        if self.block.isOpen {
            guard header.type == FrameType.continuation, header.streamID == self.block.streamID else {
                self.fail(
                    .protocolError,
                    "a frame of type \(header.type) within the header block of stream "
                        + "\(self.block.streamID)"
                )
                return
            }
            self.continuationBegan(header)
            return
        }
        guard self.settingsCame || (header.type == FrameType.settings && !header.has(FrameFlag.acknowledgement)) else {
            self.fail(.protocolError, "the peer's first frame is of type \(header.type) and not its SETTINGS")
            return
        }
        switch header.type {
        case FrameType.data:
            self.dataBegan(header)
        case FrameType.headers:
            self.headersBegan(header)
        case FrameType.continuation:
            self.fail(.protocolError, "a CONTINUATION frame without a header block")
        case FrameType.pushPromise:
            self.fail(.protocolError, "a PUSH_PROMISE frame, although push is off")
        case FrameType.priority:
            self.expect(header, bytes: 5, onStream: true)
        case FrameType.reset:
            if self.expect(header, bytes: 4, onStream: true) { self.noteEnd(header) }
        case FrameType.windowUpdate:
            self.expect(header, bytes: 4, onStream: nil)
        case FrameType.ping:
            self.expect(header, bytes: 8, onStream: false)
        case FrameType.settings:
            self.settingsBegan(header)
        case FrameType.goAway:
            guard header.payloadBytes >= 8 else {
                self.fail(.frameSizeError, "a GOAWAY frame of \(header.payloadBytes) bytes")
                return
            }
            // Only the first bytes of its text are shown.
            self.expect(header, bytes: header.payloadBytes, keeping: 8 + 200, onStream: false)
        default:
            self.spend(FrameBudget.Cost.unused, on: "a frame of type \(header.type)")
        }
    }

    /// Prepares for a frame of a fixed size.
    ///
    /// - Parameters:
    ///   - header: The frame.
    ///   - bytes: The size of its payload.
    ///   - most: How much of it is kept.
    ///   - onStream: Whether it belongs to a stream or to the connection; nil for either.
    /// - Returns: Whether it is such a frame.
    @discardableResult
    private func expect(_ header: FrameHeader, bytes: Int, keeping most: Int? = nil, onStream: Bool?) -> Bool {
        guard onStream == nil || onStream == (header.streamID != 0) else {
            self.fail(.protocolError, "a frame of type \(header.type) on stream \(header.streamID)")
            return false
        }
        guard header.payloadBytes == bytes else {
            self.fail(
                .frameSizeError,
                "a frame of type \(header.type) with \(header.payloadBytes) bytes instead of \(bytes)"
            )
            return false
        }
        self.collected.removeAll(keepingCapacity: true)
        self.intake = .collect(most ?? bytes)
        return true
    }

    private func settingsBegan(_ header: FrameHeader) {
        if header.has(FrameFlag.acknowledgement) {
            self.expect(header, bytes: 0, onStream: false)
        } else if !header.payloadBytes.isMultiple(of: Setting.byteCount) {
            self.fail(.frameSizeError, "a SETTINGS frame of \(header.payloadBytes) bytes")
        } else if header.payloadBytes > Setting.limit * Setting.byteCount {
            let count = header.payloadBytes / Setting.byteCount
            self.fail(
                .enhanceYourCalm,
                "a SETTINGS frame with \(count) settings, more than the limit of \(Setting.limit)",
                .flooded
            )
        } else {
            self.expect(header, bytes: header.payloadBytes, onStream: false)
        }
    }

    private func collect(_ piece: UnsafeRawBufferPointer, most: Int, isLast: Bool) {
        if isLast, self.collected.isEmpty, piece.count <= most {
            // The whole frame came at once, as nearly always.
            self.complete(piece)
            return
        }
        self.collected.append(contentsOf: piece.prefix(most - self.collected.count))
        guard isLast else { return }
        let bytes = self.collected
        self.collected = []
        bytes.withUnsafeBytes { self.complete($0) }
    }

    /// A frame other than those of bodies and header blocks is complete.
    private func complete(_ payload: UnsafeRawBufferPointer) {
        let header = self.frame
        switch header.type {
        case FrameType.priority:
            self.judgePriority(header, dependency: Int32(bitPattern: Self.number(payload, 0) & 0x7fff_ffff))
        case FrameType.reset: self.resetCame(header.streamID, HTTP2ErrorCode(rawValue: Self.number(payload, 0)))
        case FrameType.settings:
            if header.has(FrameFlag.acknowledgement) { self.settingsAcknowledged() } else { self.settings(payload) }
        case FrameType.ping: self.pingCame(payload, isAcknowledgement: header.has(FrameFlag.acknowledgement))
        case FrameType.goAway: self.goAwayCame(payload)
        case FrameType.windowUpdate:
            self.windowUpdate(header.streamID, Int(Self.number(payload, 0) & 0x7fff_ffff))
        default: break
        }
    }

    static func number(_ bytes: UnsafeRawBufferPointer, _ offset: Int) -> UInt32 {
        UInt32(bigEndian: bytes.loadUnaligned(fromByteOffset: offset, as: UInt32.self))
    }

    // MARK: - Frames of the connection

    private func resetCame(_ streamID: Int32, _ code: HTTP2ErrorCode) {
        guard !self.isIdle(streamID) else {
            self.fail(.protocolError, "a RST_STREAM frame on stream \(streamID), which is not open yet")
            return
        }
        if let stream = self.stream(streamID) {
            stream.closeOrigin = .peer
            stream.peerEnded = true
        }
        self.countReset()
        self.close(streamID, code: code)
    }

    private func pingCame(_ payload: UnsafeRawBufferPointer, isAcknowledgement: Bool) {
        let opaque = UInt64(Self.number(payload, 0)) << 32 | UInt64(Self.number(payload, 4))
        if isAcknowledgement {
            self.events.append(.pingAcknowledged(opaque: opaque))
            self.spend(FrameBudget.Cost.ping, on: "an acknowledgement of PING")
        } else {
            self.events.append(.ping(opaque: opaque))
            self.acknowledge(.ping(opaque, isAcknowledgement: true))
            self.spend(FrameBudget.Cost.ping, on: "PING")
        }
    }

    /// Queues an acknowledgement; a peer that reads none of them must not pile them up.
    private func acknowledge(_ control: Control) {
        self.controls.append(control)
        self.acknowledgements += 1
        let limit = self.configuration.maxOutboundAcknowledgements
        guard self.acknowledgements > limit else { return }
        self.fail(
            .enhanceYourCalm,
            "the peer is flooding the connection: more than \(limit) acknowledgements wait for it",
            .flooded
        )
    }

    private func goAwayCame(_ payload: UnsafeRawBufferPointer) {
        let last = Int32(bitPattern: Self.number(payload, 0) & 0x7fff_ffff)
        guard last == 0 || (last & 1 == 1) == (self.role == .client), last <= self.peerLastStreamID else {
            self.fail(.protocolError, "a GOAWAY frame that names stream \(last) as the last")
            return
        }
        self.peerLastStreamID = last
        self.peerRefusesStreams = true
        let debug = UnsafeRawBufferPointer(rebasing: payload[8...])
        self.events.append(
            .goAway(
                lastStreamID: last,
                code: HTTP2ErrorCode(rawValue: Self.number(payload, 4)),
                debug: String(decoding: debug, as: UTF8.self)
            )
        )
        self.spend(FrameBudget.Cost.settings, on: "GOAWAY")
        guard self.role == .client else { return }
        for stream in self.streams.values where stream.id > last && stream.headWasSent {
            self.close(stream.id, code: .refusedStream)
        }
    }

    private func windowUpdate(_ streamID: Int32, _ increment: Int) {
        if streamID == 0 {
            guard self.takesIncrement(streamID, increment) else { return }
            guard self.sendWindow.grow(by: increment) else {
                self.fail(.flowControlError, "WINDOW_UPDATE frames make the connection's window larger than 2^31 - 1")
                return
            }
            self.unblockSenders()
        } else if self.isIdle(streamID) {
            self.fail(.protocolError, "a WINDOW_UPDATE frame on stream \(streamID), which is not open yet")
            return
        } else if let stream = self.stream(streamID) {
            guard self.takesIncrement(streamID, increment) else { return }
            if stream.sendWindow.grow(by: increment) {
                self.queue(stream)
            } else {
                self.fault(stream, .flowControlError)
            }
        }
        self.spend(FrameBudget.Cost.windowUpdate, on: "WINDOW_UPDATE")
    }

    private func takesIncrement(_ streamID: Int32, _ increment: Int) -> Bool {
        if increment == 0 { self.fail(.protocolError, "a WINDOW_UPDATE frame of 0 bytes on stream \(streamID)") }
        return increment > 0
    }

    // MARK: - Settings

    private func settingsAcknowledged() {
        guard self.settingsInFlight > 0 else {
            self.fail(.protocolError, "an acknowledgement of SETTINGS that were not sent")
            return
        }
        self.settingsInFlight -= 1
        // From now on the peer sends by our settings.
        for stream in self.streams.values {
            stream.receiveWindow.size = self.configuration.streamWindowBytes
            // In a smaller window, bytes that were consumed before may be due now.
            self.creditStream(stream, 0)
        }
        self.events.append(.settingsAcknowledged)
    }

    private func settings(_ payload: UnsafeRawBufferPointer) {
        if !self.settingsCame {
            self.settingsCame = true
            // Without a setting there is no limit.
            self.peer.maxConcurrentStreams = .max
        }
        for offset in stride(from: 0, to: payload.count, by: Setting.byteCount) {
            let number = UInt16(payload[offset]) << 8 | UInt16(payload[offset + 1])
            self.apply(number, Self.number(payload, offset + 2))
            guard self.pendingConnectionError == nil else { return }
        }
        self.peer.noPriorities = self.peer.noPriorities ?? 0
        self.acknowledge(.settingsAcknowledgement)
        self.events.append(
            .settings(
                HTTP2PeerSettings(
                    maxConcurrentStreams: self.peer.maxConcurrentStreams,
                    initialWindowBytes: UInt32(self.peer.initialWindowBytes),
                    maxFrameBytes: UInt32(self.peer.maxFrameBytes),
                    maxHeaderListBytes: self.peer.maxHeaderListBytes
                )
            )
        )
        self.spend(FrameBudget.Cost.settings, on: "SETTINGS")
    }

    private func apply(_ number: UInt16, _ value: UInt32) {
        switch number {
        case Setting.headerTableSize:
            guard self.encoder.changeTableSize(Int(value)) else {
                self.fail(.internalError, "libnghttp2 has no memory for a compression table", .library)
                return
            }
        case Setting.enablePush:
            guard value == 0 || (value == 1 && self.role == .server) else { return self.refuse(number, value) }
        case Setting.maxConcurrentStreams:
            self.peer.maxConcurrentStreams = value
        case Setting.initialWindowSize:
            guard value <= UInt32(Int32.max) else {
                self.fail(.flowControlError, "SETTINGS_INITIAL_WINDOW_SIZE is \(value), more than 2^31 - 1")
                return
            }
            self.changeInitialWindow(to: Int(value))
        case Setting.maxFrameSize:
            guard FrameHeader.payloadRange.contains(Int(value)) else { return self.refuse(number, value) }
            self.peer.maxFrameBytes = Int(value)
        case Setting.maxHeaderListSize:
            self.peer.maxHeaderListBytes = value
        case Setting.enableConnectProtocol:
            guard value == 1 || (value == 0 && !self.peer.connectsProtocols) else { return self.refuse(number, value) }
            self.peer.connectsProtocols = self.role == .client && value == 1
        case Setting.noPriorities:
            guard value <= 1, value == self.peer.noPriorities ?? value else { return self.refuse(number, value) }
            self.peer.noPriorities = value
        default:
            // Unknown settings are ignored (RFC 9113, section 6.5.2).
            break
        }
    }

    private func refuse(_ number: UInt16, _ value: UInt32) {
        self.fail(.protocolError, "setting \(number) has the value \(value), which it cannot take")
    }

    private func changeInitialWindow(to bytes: Int) {
        let change = bytes - self.peer.initialWindowBytes
        self.peer.initialWindowBytes = bytes
        guard change != 0 else { return }
        for stream in self.streams.values {
            guard stream.sendWindow.grow(by: change) else {
                self.fail(
                    .flowControlError,
                    "the initial window makes that of stream \(stream.id) too large"
                )
                return
            }
            self.queue(stream)
        }
    }
}
