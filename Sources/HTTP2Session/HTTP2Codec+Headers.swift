// SPDX-License-Identifier: Apache-2.0

internal import NIOCore

/// The header block that is arriving.
struct BlockIntake {
    /// Whether frames of a block are missing.
    var isOpen = false
    var streamID: Int32 = 0
    var endStream = false
    /// The stream that it belongs to; nil for a block that is only decoded, for the compression table's sake.
    var stream: CodecStream?
    var check = MessageCheck(part: .request)
    var fields: [HTTP2HeaderField] = []
    var variable: HTTP2HeaderField?
    var sizeBytes = 0
    /// Whether anything of it went to the decoder.
    var isDecoding = false
    var continuations = 0
}

// Header blocks on their way in.

extension HTTP2Codec {
    /// How many frames may continue a block.
    private static let continuationLimit = 8

    /// Prepares for a frame with padding and other fields before its content.
    ///
    /// - Returns: Whether the frame is long enough for them.
    func prepare(_ header: FrameHeader, prefixBytes: Int) -> Bool {
        guard header.payloadBytes >= prefixBytes else {
            // A missing length of the padding is a padding that does not fit.
            let code: HTTP2ErrorCode = header.has(FrameFlag.padded) ? .protocolError : .frameSizeError
            self.fail(code, "a frame of type \(header.type) with \(header.payloadBytes) bytes")
            return false
        }
        self.prefixMissing = prefixBytes
        self.contentMissing = header.payloadBytes - prefixBytes
        self.paddingBytes = header.type == FrameType.data ? prefixBytes : 0
        if !self.collected.isEmpty { self.collected.removeAll(keepingCapacity: true) }
        return true
    }

    /// Takes what comes before the content of a frame: the length of its padding, and a priority.
    ///
    /// - Returns: How many bytes of the piece that is; nil if it is not complete, or wrong.
    func takePrefix(_ piece: UnsafeRawBufferPointer) -> Int? {
        guard self.prefixMissing > 0 else { return 0 }
        let count = min(self.prefixMissing, piece.count)
        self.collected.append(contentsOf: piece[..<count])
        self.prefixMissing -= count
        guard self.prefixMissing == 0 else { return nil }
        let header = self.frame
        if header.has(FrameFlag.padded) {
            let padding = Int(self.collected[0])
            self.contentMissing -= padding
            self.paddingBytes += padding
            guard self.contentMissing >= 0 else {
                self.fail(.protocolError, "a frame on stream \(header.streamID) with more padding than payload")
                return nil
            }
        }
        if header.type == FrameType.headers, header.has(FrameFlag.priority) {
            let dependency = self.collected.withUnsafeBytes { Self.number($0, $0.count - 5) & 0x7fff_ffff }
            guard Int32(bitPattern: dependency) != header.streamID else {
                self.fail(.protocolError, "stream \(header.streamID) depends on itself")
                return nil
            }
        }
        return count
    }

    /// A HEADERS frame begins.
    func headersBegan(_ header: FrameHeader) {
        guard header.streamID != 0 else {
            self.fail(.protocolError, "a HEADERS frame on stream 0")
            return
        }
        let prefix = (header.has(FrameFlag.padded) ? 1 : 0) + (header.has(FrameFlag.priority) ? 5 : 0)
        guard self.prepare(header, prefixBytes: prefix) else { return }
        self.judgeStream(header)
        guard self.pendingConnectionError == nil else { return }
        self.noteEnd(header)
        self.block.streamID = header.streamID
        self.block.endStream = header.has(FrameFlag.endStream)
        self.block.stream = nil
        self.block.continuations = 0
        self.block.isDecoding = false
        self.block.sizeBytes = 0
        self.block.variable = nil
        if !self.block.fields.isEmpty { self.block.fields = [] }
        self.block.isOpen = !header.has(FrameFlag.endHeaders)
        self.intake = .fields
        switch self.role {
        case .server: self.requestBegan(header)
        case .client: self.responseBegan(header)
        }
    }

    private func requestBegan(_ header: FrameHeader) {
        let streamID = header.streamID
        guard streamID & 1 == 1 else {
            self.fail(.protocolError, "a HEADERS frame on stream \(streamID), which a client cannot open")
            return
        }
        if let stream = self.stream(streamID) {
            self.laterBlockBegan(stream)
            return
        }
        // A block for a stream that is over crossed its end, if the history knows no better.
        guard streamID > self.highestPeerID else { return }
        self.highestPeerID = streamID
        let isFull = self.streams.count >= self.configuration.maxConcurrentStreams
        if isFull, self.settingsInFlight == 0 {
            self.fail(
                .protocolError,
                "stream \(streamID) exceeds the limit of \(self.configuration.maxConcurrentStreams) concurrent streams"
            )
            return
        }
        guard !self.refusesStreams else { return }
        guard !isFull else {
            // The client may not have seen the limit.
            self.controls.append(.refusal(streamID))
            self.spend(FrameBudget.Cost.ping, on: "one that ended its stream: \(HTTP2ErrorCode.refusedStream)")
            return
        }
        let stream = self.makeStream(streamID)
        stream.anyBlockSeen = true
        self.add(stream)
        self.lastProcessedID = streamID
        self.block.stream = stream
        self.block.check = MessageCheck(part: .request)
    }

    private func responseBegan(_ header: FrameHeader) {
        if let stream = self.stream(header.streamID), stream.headWasSent {
            self.laterBlockBegan(stream)
        } else if self.isIdle(header.streamID) {
            self.fail(.protocolError, "a HEADERS frame on stream \(header.streamID), which this side did not open")
        }
    }

    /// A block on a stream that is known: trailers, or a response.
    private func laterBlockBegan(_ stream: CodecStream) {
        guard !stream.peerEnded else {
            self.fail(.streamClosed, "stream \(stream.id) got a header block after the peer had ended it")
            return
        }
        guard stream.closeOrigin == nil else { return }
        stream.anyBlockSeen = true
        self.block.stream = stream
        let trailers: MessageCheck.Part = self.role == .server ? .requestTrailers : .responseTrailers
        self.block.check = MessageCheck(part: stream.firstBlockSeen ? trailers : .response)
    }

    func continuationBegan(_ header: FrameHeader) {
        self.block.continuations += 1
        guard self.block.continuations <= Self.continuationLimit else {
            self.fail(
                .enhanceYourCalm,
                "the peer is flooding the connection: a header block of more than \(Self.continuationLimit + 1) frames",
                .flooded
            )
            return
        }
        // Padding is for the first frame alone; CONTINUATION knows no such flag.
        self.frame.flags &= FrameFlag.endHeaders
        _ = self.prepare(self.frame, prefixBytes: 0)
        self.block.isOpen = !header.has(FrameFlag.endHeaders)
        self.intake = .fields
    }

    /// A piece of a header block's frame.
    func fields(_ piece: UnsafeRawBufferPointer, isLast: Bool) {
        guard let skipped = self.takePrefix(piece) else { return }
        let count = min(piece.count - skipped, self.contentMissing)
        self.contentMissing -= count
        let content = UnsafeRawBufferPointer(rebasing: piece[skipped..<skipped + count])
        let isEnd = isLast && !self.block.isOpen
        if isEnd, !self.block.isDecoding {
            self.wholeBlock(content)
        } else {
            // In pieces it cannot be recognised, nor told whether it changes the table.
            if !self.block.isDecoding { self.knownBlocks.tableChanged() }
            self.block.isDecoding = true
            if self.decode(content, isLast: isEnd), isEnd { self.blockEnded(recurrence: self.remember(nil)) }
        }
        if isEnd { self.block.stream = nil }
    }

    // MARK: - Whole blocks

    private func wholeBlock(_ bytes: UnsafeRawBufferPointer) {
        if self.block.stream != nil, self.recognise(bytes) { return }
        let shape = HPACKText.shape(of: bytes)
        if shape?.keepsTable != true { self.knownBlocks.tableChanged() }
        guard self.decode(bytes, isLast: true) else { return }
        var own: UnsafeRawBufferPointer?
        if let shape, shape.keepsTable { own = self.withoutVariable(bytes, lastField: shape.lastField) }
        self.blockEnded(recurrence: self.remember(own))
    }

    /// Finds the block among those that came before.
    private func recognise(_ bytes: UnsafeRawBufferPointer) -> Bool {
        var value: Range<Int>?
        var rest = UnsafeRawBufferPointer(start: nil, count: 0)
        let found = self.knownBlocks.find(bytes, part: self.block.check.part) { tail in
            guard let name = self.configuration.variableFieldName,
                let place = HPACKText.value(of: tail, named: name), place.count <= Self.variableBytes
            else { return false }
            value = place
            rest = tail
            return true
        }
        guard let found else { return false }
        var size = found.sizeBytes
        if let value, let name = self.configuration.variableFieldName {
            let text = UnsafeRawBufferPointer(rebasing: rest[value])
            // What is unusual takes the long way.
            guard text.allSatisfy({ $0 > 0x20 && $0 < 0x7f }) else { return false }
            self.block.variable = HTTP2HeaderField(name, String(decoding: text, as: UTF8.self))
            size += HTTP2HeaderField.listSizeBytes(nameBytes: name.utf8.count, valueBytes: text.count)
        }
        guard size <= self.configuration.maxHeaderListBytes else {
            self.block.variable = nil
            return false
        }
        self.block.sizeBytes = size
        self.block.fields = found.fields
        self.block.check = found.check
        self.blockEnded(recurrence: found.id)
        return true
    }

    /// The bytes of a block without a variable field at its end; nil if that field is elsewhere.
    private func withoutVariable(_ bytes: UnsafeRawBufferPointer, lastField: Int) -> UnsafeRawBufferPointer? {
        guard let variable = self.block.variable else { return bytes }
        let last = UnsafeRawBufferPointer(rebasing: bytes[lastField...])
        // A second field of that name would be mistaken for the one that is kept apart.
        guard HPACKText.value(of: last, named: variable.name) != nil,
            !self.block.fields.contains(where: { $0.name == variable.name })
        else { return nil }
        return UnsafeRawBufferPointer(rebasing: bytes[..<lastField])
    }

    /// Remembers a block that is in order.
    ///
    /// - Parameter bytes: What it can be recognised by.
    /// - Returns: Its number.
    private func remember(_ bytes: UnsafeRawBufferPointer?) -> Int? {
        let size = self.block.sizeBytes - (self.block.variable?.listSizeBytes ?? 0)
        guard self.block.stream != nil, self.block.sizeBytes <= self.configuration.maxHeaderListBytes,
            size <= KnownBlocks.blockBytes, !self.block.fields.isEmpty,
            self.block.check.isComplete(endStream: self.block.endStream)
        else { return nil }
        return self.knownBlocks.remember(
            self.block.fields,
            sizeBytes: size,
            check: self.block.check,
            bytes: bytes ?? UnsafeRawBufferPointer(start: nil, count: 0)
        )
    }

    // MARK: - Decoding

    /// Decodes a piece of the block.
    ///
    /// - Returns: Whether the connection can go on.
    private func decode(_ bytes: UnsafeRawBufferPointer, isLast: Bool) -> Bool {
        if self.decoder.decode(bytes, isLast: isLast, { self.fieldCame($0, $1) }) { return true }
        if self.pendingConnectionError == nil {
            self.fail(.compressionError, "the header block on stream \(self.block.streamID) cannot be decoded")
        }
        return false
    }

    /// A value of the variable field up to this size is kept apart.
    private static let variableBytes = 64

    /// - Returns: Whether the block may go on.
    private func fieldCame(_ name: UnsafeBufferPointer<UInt8>, _ value: UnsafeBufferPointer<UInt8>) -> Bool {
        let limit = self.configuration.maxHeaderListBytes
        self.block.sizeBytes += HTTP2HeaderField.listSizeBytes(nameBytes: name.count, valueBytes: value.count)
        let size = self.block.sizeBytes
        // The compression table needs the block decoded to its end, but a few bytes can expand to very many fields.
        guard size <= 8 * limit else {
            self.fail(
                .enhanceYourCalm,
                "a header list exceeded 8 times the advertised limit of \(limit) bytes",
                .flooded
            )
            return false
        }
        guard self.block.stream != nil, self.block.check.takes(name, value) else { return true }
        guard size <= limit else {
            self.block.fields = []
            self.block.variable = nil
            return true
        }
        let text = String(decoding: value, as: UTF8.self)
        if let expected = self.configuration.variableFieldName, self.block.variable == nil,
            value.count <= Self.variableBytes, name.elementsEqual(expected.utf8)
        {
            self.block.variable = HTTP2HeaderField(expected, text)
        } else {
            self.block.fields.append(HTTP2HeaderField(String(decoding: name, as: UTF8.self), text))
        }
        return true
    }

    // MARK: - Complete blocks

    private func blockEnded(recurrence: Int?) {
        // A stream can end between two pieces of a block.
        guard let stream = self.block.stream, stream.closeOrigin == nil else { return }
        let endStream = self.block.endStream
        guard self.block.check.isComplete(endStream: endStream) else {
            self.fault(stream, .protocolError)
            return
        }
        self.budget.earn(1)
        let kind: HTTP2HeaderBlock.Kind
        switch self.block.check.part {
        case .request: kind = .request
        case .requestTrailers, .responseTrailers: kind = .trailers
        case .response: kind = self.block.check.isInterim ? .interim : .response
        }
        if kind == .interim {
            // A response may have any number of them, and none advances the call.
            self.spend(FrameBudget.Cost.ping, on: "an interim response")
        } else if kind != .trailers {
            stream.firstBlockSeen = true
            stream.expectedBytes = self.block.check.expectedBodyBytes
        } else if let expected = self.block.check.expectedBodyBytes {
            guard stream.expectedBytes == nil else {
                self.fault(stream, .protocolError)
                return
            }
            stream.expectedBytes = expected
        }
        if endStream { guard self.peerEnds(stream) else { return } }
        self.report(stream, kind, recurrence: recurrence)
        if endStream, stream.isEnded { self.close(stream.id, code: .noError) }
    }

    private func report(_ stream: CodecStream, _ kind: HTTP2HeaderBlock.Kind, recurrence: Int?) {
        let limit = self.configuration.maxHeaderListBytes
        let size = self.block.sizeBytes
        if size > limit {
            self.events.append(.headersTooLarge(streamID: stream.id, kind: kind, sizeBytes: size, limitBytes: limit))
            if self.block.endStream { self.events.append(.endOfStream(streamID: stream.id)) }
            return
        }
        self.events.append(
            .headers(
                HTTP2HeaderBlock(
                    streamID: stream.id,
                    kind: kind,
                    fields: self.block.fields,
                    variable: self.block.variable,
                    recurrence: recurrence,
                    endStream: self.block.endStream
                )
            )
        )
    }
}
