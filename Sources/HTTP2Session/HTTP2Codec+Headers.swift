// SPDX-License-Identifier: Apache-2.0

internal import CNGHTTP2

// Header blocks on their way in, field by field.

extension HTTP2Codec {
    func headersBegan(_ frame: UnsafePointer<nghttp2_frame>) -> Int32 {
        self.forgetBlock()
        self.recall.begin()
        if frame.pointee.headers.cat == NGHTTP2_HCAT_REQUEST {
            self.add(CodecStream(id: frame.pointee.hd.stream_id))
        }
        return 0
    }

    func fieldReceived(_ buffers: BlockRecall.Buffers) -> Int32 {
        if self.recall.isMatching {
            if self.recall.matches(buffers) { return 0 }
            if self.takeVariable(buffers) { return 0 }
            self.stopMatching()
        } else if self.blockVariable == nil, self.takeVariable(buffers) {
            return 0
        }
        let name = HTTP2Codec.bytes(of: buffers.name)
        let value = HTTP2Codec.bytes(of: buffers.value)
        self.blockSizeBytes += HTTP2HeaderField.listSizeBytes(nameBytes: name.count, valueBytes: value.count)
        let limit = self.configuration.maxHeaderListBytes
        if self.blockSizeBytes > limit {
            let size = self.blockSizeBytes
            self.forgetBlock()
            self.blockSizeBytes = size
            // HPACK needs the block decoded to its end, but a few bytes can expand to very many fields.
            if size > 8 * limit {
                return self.fail(
                    .enhanceYourCalm,
                    HTTP2CodecError(
                        code: .flooded,
                        message: "a header list exceeded 8 times the advertised limit of \(limit) bytes"
                    )
                )
            }
            return 0
        }
        self.blockFields.append(
            HTTP2HeaderField(String(decoding: name, as: UTF8.self), String(decoding: value, as: UTF8.self))
        )
        if self.blockSizeBytes <= BlockRecall.blockBytes {
            buffers.retain()
            self.blockBuffers.append(buffers)
        }
        return 0
    }

    /// The block is complete.
    func headersReceived(streamID: Int32, endStream: Bool) {
        guard let stream = self.stream(streamID) else {
            self.forgetBlock()
            return
        }
        let recurrence = self.completeBlock()
        let fields = self.blockFields
        let variable = self.blockVariable
        let size = self.blockSizeBytes
        self.blockFields = []
        self.blockVariable = nil
        self.blockSizeBytes = 0
        let kind: HTTP2HeaderBlock.Kind
        switch self.role {
        case .server:
            kind = stream.firstBlockSeen ? .trailers : .request
            stream.firstBlockSeen = true
        case .client:
            if stream.firstBlockSeen {
                kind = .trailers
            } else if let status = fields.first, status.name == ":status", status.value.hasPrefix("1") {
                kind = .interim
                // A response may have any number of them, and none advances the call.
                _ = self.spend(FrameBudget.Cost.ping, on: "an interim response")
            } else {
                kind = .response
                stream.firstBlockSeen = true
            }
        }
        if endStream { stream.peerEnded = true }
        let limit = self.configuration.maxHeaderListBytes
        if size > limit {
            self.events.append(.headersTooLarge(streamID: streamID, kind: kind, sizeBytes: size, limitBytes: limit))
            if endStream { self.events.append(.endOfStream(streamID: streamID)) }
        } else {
            self.events.append(
                .headers(
                    HTTP2HeaderBlock(
                        streamID: streamID,
                        kind: kind,
                        fields: fields,
                        variable: variable,
                        recurrence: recurrence,
                        endStream: endStream
                    )
                )
            )
        }
    }

    // MARK: - Private

    /// Settles which block it was, and remembers a new one.
    private func completeBlock() -> Int? {
        if self.recall.isMatching {
            if let block = self.recall.complete() {
                self.blockFields = block.fields
                self.blockSizeBytes += block.sizeBytes
                return block.id
            }
            self.stopMatching()
        }
        let buffers = self.blockBuffers
        self.blockBuffers = []
        guard buffers.count == self.blockFields.count, !buffers.isEmpty else {
            for buffers in buffers { buffers.release() }
            return nil
        }
        let size = self.blockSizeBytes - (self.blockVariable?.listSizeBytes ?? 0)
        return self.recall.remember(buffers, self.blockFields, sizeBytes: size)
    }

    /// Takes over the fields that were equal to those of an earlier block.
    private func stopMatching() {
        let (buffers, fields) = self.recall.giveUp()
        for buffers in buffers { buffers.retain() }
        self.blockBuffers = Array(buffers)
        self.blockFields = Array(fields)
        self.blockSizeBytes += fields.reduce(0) { $0 + $1.listSizeBytes }
    }

    /// Takes the field that differs from block to block, once in a block.
    private func takeVariable(_ buffers: BlockRecall.Buffers) -> Bool {
        guard let expected = self.configuration.variableFieldName, self.blockVariable == nil else { return false }
        let name = HTTP2Codec.bytes(of: buffers.name)
        guard name.count == expected.utf8.count, name.elementsEqual(expected.utf8) else { return false }
        let value = HTTP2Codec.bytes(of: buffers.value)
        // A value large enough to matter to the limits is treated like any other field.
        guard value.count <= 64 else { return false }
        self.blockSizeBytes += HTTP2HeaderField.listSizeBytes(nameBytes: name.count, valueBytes: value.count)
        self.blockVariable = HTTP2HeaderField(expected, String(decoding: value, as: UTF8.self))
        return true
    }

    private func forgetBlock() {
        for buffers in self.blockBuffers { buffers.release() }
        self.blockBuffers.removeAll(keepingCapacity: true)
        self.blockFields = []
        self.blockVariable = nil
        self.blockSizeBytes = 0
    }

    private static func bytes(of buffer: OpaquePointer) -> UnsafeBufferPointer<UInt8> {
        let vector = nghttp2_rcbuf_get_buf(buffer)
        return UnsafeBufferPointer(start: vector.base, count: vector.len)
    }
}
