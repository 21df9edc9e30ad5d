// SPDX-License-Identifier: Apache-2.0

internal import CNGHTTP2
internal import NIOCore

// The library's callbacks. They only record: none of them calls mem_recv or mem_send, directly or not.

extension HTTP2Codec {
    /// The body of every message comes from the stream's queue; the library learns lengths only.
    static var bodyProvider: nghttp2_data_provider {
        nghttp2_data_provider(
            source: nghttp2_data_source(),
            read_callback: { _, streamID, _, length, flags, _, context in
                guard let codec = HTTP2Codec.from(context), let flags else {
                    return Int(NGHTTP2_ERR_CALLBACK_FAILURE.rawValue)
                }
                return codec.readBody(streamID: streamID, limitBytes: length, flags: flags)
            }
        )
    }

    static func install(_ callbacks: OpaquePointer) {
        nghttp2_session_callbacks_set_on_begin_headers_callback(callbacks) { _, frame, context in
            guard let codec = HTTP2Codec.from(context), let frame else { return HTTP2Codec.callbackFailure }
            return codec.headersBegan(frame)
        }
        nghttp2_session_callbacks_set_on_header_callback2(callbacks) { _, _, name, value, _, context in
            guard let codec = HTTP2Codec.from(context), let name, let value else { return HTTP2Codec.callbackFailure }
            return codec.fieldReceived(BlockRecall.Buffers(name: name, value: value))
        }
        nghttp2_session_callbacks_set_on_data_chunk_recv_callback(callbacks) { _, _, streamID, bytes, count, context in
            guard let codec = HTTP2Codec.from(context), let bytes else { return HTTP2Codec.callbackFailure }
            codec.dataReceived(streamID: streamID, bytes: bytes, count: count)
            return 0
        }
        nghttp2_session_callbacks_set_on_frame_recv_callback(callbacks) { _, frame, context in
            guard let codec = HTTP2Codec.from(context), let frame else { return HTTP2Codec.callbackFailure }
            return codec.frameReceived(frame)
        }
        nghttp2_session_callbacks_set_on_frame_send_callback(callbacks) { _, frame, context in
            guard let codec = HTTP2Codec.from(context), let frame else { return HTTP2Codec.callbackFailure }
            codec.frameSent(frame)
            return 0
        }
        nghttp2_session_callbacks_set_on_frame_not_send_callback(callbacks) { _, frame, _, context in
            guard let codec = HTTP2Codec.from(context), let frame else { return HTTP2Codec.callbackFailure }
            codec.frameNotSent(frame)
            return 0
        }
        nghttp2_session_callbacks_set_on_stream_close_callback(callbacks) { _, streamID, code, context in
            guard let codec = HTTP2Codec.from(context) else { return HTTP2Codec.callbackFailure }
            codec.streamClosed(streamID, code: HTTP2ErrorCode(rawValue: code))
            return 0
        }
        nghttp2_session_callbacks_set_send_data_callback(callbacks) { _, frame, header, length, _, context in
            guard let codec = HTTP2Codec.from(context), let frame, let header else { return HTTP2Codec.callbackFailure }
            return codec.sendBody(streamID: frame.pointee.hd.stream_id, frameHeader: header, byteCount: length)
        }
        nghttp2_session_callbacks_set_data_source_read_length_callback(callbacks) {
            _,
            _,
            _,
            connectionWindow,
            streamWindow,
            peerFrameLimit,
            context in
            guard let codec = HTTP2Codec.from(context) else { return Int(NGHTTP2_ERR_CALLBACK_FAILURE.rawValue) }
            let limit = min(Int(peerFrameLimit), codec.configuration.maxFrameBytes)
            return max(1, min(limit, Int(connectionWindow), Int(streamWindow)))
        }
        nghttp2_session_callbacks_set_error_callback2(callbacks) { _, _, message, count, context in
            guard let codec = HTTP2Codec.from(context), let message else { return 0 }
            let bytes = UnsafeRawBufferPointer(start: message, count: min(count, 200))
            codec.lastDiagnostic = String(decoding: bytes, as: UTF8.self)
            return 0
        }
    }

    static var callbackFailure: Int32 { NGHTTP2_ERR_CALLBACK_FAILURE.rawValue }

    private static func from(_ context: UnsafeMutableRawPointer?) -> HTTP2Codec? {
        // The session never outlives its codec, so the pointer set at creation is valid in every callback.
        context.map { Unmanaged<HTTP2Codec>.fromOpaque($0).takeUnretainedValue() }
    }

    // MARK: - Receiving

    private func dataReceived(streamID: Int32, bytes: UnsafePointer<UInt8>, count: Int) {
        guard let stream = self.stream(streamID), let base = self.inputBase else {
            _ = nghttp2_session_consume(self.session, streamID, count)
            return
        }
        let offset = UnsafeRawPointer(bytes) - base
        guard let slice = self.input.getSlice(at: self.input.readerIndex + offset, length: count) else { return }
        stream.unconsumedBytes += count
        if self.configuration.creditsConnectionOnArrival {
            _ = nghttp2_session_consume_connection(self.session, count)
        }
        self.events.append(.data(streamID: streamID, bytes: slice))
    }

    private func frameReceived(_ frame: UnsafePointer<nghttp2_frame>) -> Int32 {
        let header = frame.pointee.hd
        let endStream = UInt32(header.flags) & NGHTTP2_FLAG_END_STREAM.rawValue != 0
        switch UInt32(header.type) {
        case NGHTTP2_DATA.rawValue:
            // Counted by frame and not by piece, or a sender of single bytes would earn the most; padding does not
            // count.
            let count = header.length - frame.pointee.data.padlen
            if count > 0 { self.budget.earn(1 + count >> 10) }
            if endStream, let stream = self.stream(header.stream_id) {
                stream.peerEnded = true
                self.events.append(.endOfStream(streamID: header.stream_id))
            } else if count <= 0 {
                return self.spend(FrameBudget.Cost.emptyData, on: "an empty DATA frame")
            }
        case NGHTTP2_HEADERS.rawValue:
            self.budget.earn(1)
            self.headersReceived(streamID: header.stream_id, endStream: endStream)
        case NGHTTP2_RST_STREAM.rawValue:
            self.stream(header.stream_id)?.closeOrigin = .peer
            self.stream(header.stream_id)?.peerEnded = true
            return self.countReset()
        case NGHTTP2_SETTINGS.rawValue:
            if UInt32(header.flags) & NGHTTP2_FLAG_ACK.rawValue != 0 {
                self.events.append(.settingsAcknowledged)
            } else {
                self.events.append(.settings(self.peerSettings))
                return self.spend(FrameBudget.Cost.settings, on: "SETTINGS")
            }
        case NGHTTP2_PING.rawValue:
            let opaque = withUnsafeBytes(of: frame.pointee.ping.opaque_data) {
                UInt64(bigEndian: $0.loadUnaligned(as: UInt64.self))
            }
            if UInt32(header.flags) & NGHTTP2_FLAG_ACK.rawValue != 0 {
                self.events.append(.pingAcknowledged(opaque: opaque))
                return self.spend(FrameBudget.Cost.ping, on: "an acknowledgement of PING")
            } else {
                self.events.append(.ping(opaque: opaque))
                return self.spend(FrameBudget.Cost.ping, on: "PING")
            }
        case NGHTTP2_GOAWAY.rawValue:
            let goAway = frame.pointee.goaway
            let debug = UnsafeRawBufferPointer(start: goAway.opaque_data, count: min(goAway.opaque_data_len, 200))
            self.events.append(
                .goAway(
                    lastStreamID: goAway.last_stream_id,
                    code: HTTP2ErrorCode(rawValue: goAway.error_code),
                    debug: String(decoding: debug, as: UTF8.self)
                )
            )
            return self.spend(FrameBudget.Cost.settings, on: "GOAWAY")
        case NGHTTP2_WINDOW_UPDATE.rawValue:
            return self.spend(FrameBudget.Cost.windowUpdate, on: "WINDOW_UPDATE")
        default:
            break
        }
        return 0
    }

    private var peerSettings: HTTP2PeerSettings {
        HTTP2PeerSettings(
            maxConcurrentStreams: nghttp2_session_get_remote_settings(
                self.session,
                NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS
            ),
            initialWindowBytes: nghttp2_session_get_remote_settings(self.session, NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE),
            maxFrameBytes: nghttp2_session_get_remote_settings(self.session, NGHTTP2_SETTINGS_MAX_FRAME_SIZE),
            maxHeaderListBytes: nghttp2_session_get_remote_settings(self.session, NGHTTP2_SETTINGS_MAX_HEADER_LIST_SIZE)
        )
    }

    // MARK: - Sending

    private func readBody(streamID: Int32, limitBytes: Int, flags: UnsafeMutablePointer<UInt32>) -> Int {
        guard let stream = self.stream(streamID) else {
            return Int(NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE.rawValue)
        }
        let byteCount = min(limitBytes, stream.queuedBytes)
        flags.pointee |= NGHTTP2_DATA_FLAG_NO_COPY.rawValue
        guard byteCount == stream.queuedBytes else { return byteCount }
        switch stream.bodyEnd {
        case .open:
            guard byteCount > 0 else {
                stream.isDeferred = true
                return Int(NGHTTP2_ERR_DEFERRED.rawValue)
            }
        case .endStream:
            flags.pointee |= NGHTTP2_DATA_FLAG_EOF.rawValue
        case .trailers(let fields):
            flags.pointee |= NGHTTP2_DATA_FLAG_EOF.rawValue | NGHTTP2_DATA_FLAG_NO_END_STREAM.rawValue
            let session = self.session
            let code = self.withUncheckedFieldVectors(fields) { vectors, count in
                nghttp2_submit_trailer(session, streamID, vectors, count)
            }
            if code != 0 { return Int(NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE.rawValue) }
        case .storedTrailers(let block):
            flags.pointee |= NGHTTP2_DATA_FLAG_EOF.rawValue | NGHTTP2_DATA_FLAG_NO_END_STREAM.rawValue
            let code = self.storedBlocks[block.index].vectors
                .withUnsafeBufferPointer { nghttp2_submit_trailer(self.session, streamID, $0.baseAddress, $0.count) }
            if code != 0 { return Int(NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE.rawValue) }
        }
        return byteCount
    }

    private func sendBody(streamID: Int32, frameHeader: UnsafePointer<UInt8>, byteCount: Int) -> Int32 {
        guard self.producedBytes < self.outputLimitBytes else {
            self.outputIsHeldBack = true
            return NGHTTP2_ERR_WOULDBLOCK.rawValue
        }
        guard let stream = self.stream(streamID), stream.queuedBytes >= byteCount else {
            return NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE.rawValue
        }
        self.appendOutput(UnsafeRawBufferPointer(start: frameHeader, count: 9))
        _ = stream.take(byteCount) { self.appendOutput($0) }
        self.queuedBytes -= byteCount
        self.budget.earn(1 + byteCount >> 10)
        if let mark = stream.drainMark, stream.queuedBytes <= mark {
            stream.drainMark = nil
            self.events.append(.drained(streamID: streamID))
        }
        return 0
    }

    private func frameSent(_ frame: UnsafePointer<nghttp2_frame>) {
        let header = frame.pointee.hd
        switch UInt32(header.type) {
        case NGHTTP2_HEADERS.rawValue, NGHTTP2_DATA.rawValue:
            self.sentMessageFrames &+= 1
            guard UInt32(header.flags) & NGHTTP2_FLAG_END_STREAM.rawValue != 0,
                let stream = self.stream(header.stream_id), let code = stream.resetAfterEnd, !stream.peerEnded
            else { return }
            self.reset(streamID: header.stream_id, code: code)
        case NGHTTP2_RST_STREAM.rawValue:
            self.resetSent(frame)
        default:
            break
        }
    }

    private func resetSent(_ frame: UnsafePointer<nghttp2_frame>) {
        let code = HTTP2ErrorCode(rawValue: frame.pointee.rst_stream.error_code)
        if let stream = self.stream(frame.pointee.hd.stream_id) {
            guard stream.closeOrigin == nil else { return }
            stream.closeOrigin = .fault
        }
        // A refused stream is usually a race with our settings; everything else is the peer's fault. Raised after the
        // library returned: an error from this callback would stop the GOAWAY as well.
        let cost = code == .refusedStream ? FrameBudget.Cost.ping : FrameBudget.Cost.fault
        _ = self.spend(cost, on: "one that ended its stream: \(code)")
    }

    private func frameNotSent(_ frame: UnsafePointer<nghttp2_frame>) {
        guard UInt32(frame.pointee.hd.type) == NGHTTP2_HEADERS.rawValue else { return }
        let streamID = frame.pointee.hd.stream_id
        guard let stream = self.stream(streamID) else { return }
        guard frame.pointee.headers.cat == NGHTTP2_HCAT_REQUEST else {
            // An answer or trailers that are too long to send: without them the peer would wait for ever.
            self.reset(streamID: streamID, code: .internalError)
            return
        }
        if stream.closeOrigin == nil { stream.closeOrigin = .neverSent }
        self.streamClosed(streamID, code: .refusedStream)
    }

    private func streamClosed(_ streamID: Int32, code: HTTP2ErrorCode) {
        guard let stream = self.removeStream(streamID) else { return }
        self.queuedBytes -= stream.queuedBytes
        if stream.unconsumedBytes > 0 && !self.configuration.creditsConnectionOnArrival {
            _ = nghttp2_session_consume_connection(self.session, stream.unconsumedBytes)
        }
        let origin = stream.closeOrigin ?? (code == .refusedStream ? .neverProcessed : .local)
        self.events.append(.streamClosed(streamID, code: code, origin: origin))
    }
}
