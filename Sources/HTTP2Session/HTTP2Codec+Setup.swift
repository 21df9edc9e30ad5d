// SPDX-License-Identifier: Apache-2.0

internal import CNGHTTP2

extension HTTP2Codec {
    static func makeSession(
        role: HTTP2Role,
        configuration: HTTP2CodecConfiguration
    ) throws(HTTP2CodecError) -> OpaquePointer {
        var option: OpaquePointer?
        guard nghttp2_option_new(&option) == 0, let option else { throw HTTP2Codec.outOfMemory }
        defer { nghttp2_option_del(option) }
        // Credit is given by hand; otherwise there is no backpressure.
        nghttp2_option_set_no_auto_window_update(option, 1)
        nghttp2_option_set_no_closed_streams(option, 1)
        nghttp2_option_set_max_outbound_ack(option, configuration.maxOutboundAcknowledgements)
        nghttp2_option_set_max_settings(option, 32)
        nghttp2_option_set_max_send_header_block_length(option, 1 << 20)
        nghttp2_option_set_stream_reset_rate_limit(
            option,
            // The library's own limit ends connections with INTERNAL_ERROR; the codec's comes first.
            2 * UInt64(configuration.resetBurst) + 100,
            2 * UInt64(configuration.resetsPerSecond) + 100
        )

        var callbacks: OpaquePointer?
        guard nghttp2_session_callbacks_new(&callbacks) == 0, let callbacks else { throw HTTP2Codec.outOfMemory }
        defer { nghttp2_session_callbacks_del(callbacks) }
        HTTP2Codec.install(callbacks)

        var session: OpaquePointer?
        let code =
            switch role {
            case .client: nghttp2_session_client_new2(&session, callbacks, nil, option)
            case .server: nghttp2_session_server_new2(&session, callbacks, nil, option)
            }
        guard code == 0, let session else { throw HTTP2Codec.outOfMemory }
        return session
    }

    func submitInitialSettings() throws(HTTP2CodecError) {
        var entries = [
            nghttp2_settings_entry(
                settings_id: Int32(NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE.rawValue),
                value: UInt32(self.configuration.streamWindowBytes)
            ),
            nghttp2_settings_entry(
                settings_id: Int32(NGHTTP2_SETTINGS_MAX_FRAME_SIZE.rawValue),
                value: UInt32(self.configuration.maxFrameBytes)
            ),
            nghttp2_settings_entry(
                settings_id: Int32(NGHTTP2_SETTINGS_MAX_HEADER_LIST_SIZE.rawValue),
                value: UInt32(self.configuration.maxHeaderListBytes)
            ),
            nghttp2_settings_entry(
                settings_id: Int32(NGHTTP2_SETTINGS_NO_RFC7540_PRIORITIES.rawValue),
                value: 1
            ),
        ]
        switch self.role {
        case .client:
            entries.append(
                nghttp2_settings_entry(settings_id: Int32(NGHTTP2_SETTINGS_ENABLE_PUSH.rawValue), value: 0)
            )
        case .server:
            entries.append(
                nghttp2_settings_entry(
                    settings_id: Int32(NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS.rawValue),
                    value: UInt32(self.configuration.maxConcurrentStreams)
                )
            )
        }
        var code = nghttp2_submit_settings(self.session, UInt8(NGHTTP2_FLAG_NONE.rawValue), &entries, entries.count)
        if code == 0 {
            // Settings change the windows of streams only; the connection's window has its own command.
            code = nghttp2_session_set_local_window_size(
                self.session,
                UInt8(NGHTTP2_FLAG_NONE.rawValue),
                0,
                Int32(self.configuration.connectionWindowBytes)
            )
        }
        guard code == 0 else {
            throw HTTP2CodecError(code: .library, message: "libnghttp2: \(String(cString: nghttp2_strerror(code)))")
        }
    }

    private static var outOfMemory: HTTP2CodecError {
        HTTP2CodecError(code: .library, message: "libnghttp2 has no memory for a connection")
    }
}
