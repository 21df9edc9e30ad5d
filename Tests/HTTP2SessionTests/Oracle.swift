// SPDX-License-Identifier: Apache-2.0

import CNGHTTP2
import HTTP2Session
import NIOCore
import Testing

/// What happens on a connection, as far as the codec and libnghttp2 say the same of it.
enum OracleEvent: Hashable {
    /// A header block, with what it is and whether it ends the stream.
    case headers(Int32, [HTTP2HeaderField], endStream: Bool)
    /// Bytes of a body; pieces of one stream that follow each other are joined.
    case data(Int32, [UInt8])
    case end(Int32)
    case ping([UInt8])
    case pong([UInt8])
    case settings
    case settingsAcknowledged
    case goAway(Int32, UInt32)
}

extension OracleEvent: CustomStringConvertible {
    var description: String {
        switch self {
        case .headers(let id, let fields, let endStream): "headers \(id) \(fields)\(endStream ? " end" : "")"
        case .data(let id, let bytes): "data \(id): \(bytes.count) bytes"
        case .end(let id): "end \(id)"
        case .ping: "ping"
        case .pong: "pong"
        case .settings: "settings"
        case .settingsAcknowledged: "settings acknowledged"
        case .goAway(let last, let code): "goaway \(last) \(code)"
        }
    }
}

/// What an end does with what it reads: the same on both sides of a comparison.
enum Reply: Hashable {
    case none
    /// A head that ends the stream.
    case head
    /// A head, a body of this many bytes and trailers.
    case body(Int)

    /// The answer to the request on a stream.
    static func to(_ streamID: Int32) -> Reply {
        switch streamID / 2 % 5 {
        case 0: .body(3_000)
        case 1: .head
        case 2: .none
        case 3: .body(70_000)
        default: .body(1)
        }
    }

    /// Whether what comes on a stream is given back to the peer's window.
    static func consumes(_ streamID: Int32) -> Bool { streamID % 11 != 3 }

    /// The bodies of a client's requests, in order; nil for none.
    static let requests: [Int?] = [nil, 1_000, 70_000, nil, 1, nil]
}

/// A session of libnghttp2 with the settings of a codec.
final class Oracle {
    private var session: OpaquePointer?
    private let isServer: Bool
    private(set) var events: [OracleEvent] = []
    private var actedOn = 0
    private(set) var closes: [Int32: UInt32] = [:]
    private(set) var frames: [SentFrame] = []
    /// The error that the library could not put into a GOAWAY.
    private(set) var hardError: Int32?
    /// Whether the connection's window ever stopped the output.
    private(set) var wasBlocked = false
    /// Whether a field without a name was left out.
    private(set) var sawEmptyName = false
    private var block: [HTTP2HeaderField] = []
    /// The field that goes to the end of its block.
    private let variableName: String?
    private var bodies: [Int32: (left: Int, trailers: Bool)] = [:]

    init(role: HTTP2Role, _ configuration: HTTP2CodecConfiguration) throws {
        self.isServer = role == .server
        self.variableName = configuration.variableFieldName
        var option: OpaquePointer?
        try #require(nghttp2_option_new(&option) == 0)
        defer { nghttp2_option_del(option) }
        nghttp2_option_set_no_auto_window_update(option, 1)
        nghttp2_option_set_no_closed_streams(option, 1)
        var callbacks: OpaquePointer?
        try #require(nghttp2_session_callbacks_new(&callbacks) == 0)
        defer { nghttp2_session_callbacks_del(callbacks) }
        Self.install(try #require(callbacks))
        let code =
            self.isServer
            ? nghttp2_session_server_new2(&self.session, callbacks, nil, option)
            : nghttp2_session_client_new2(&self.session, callbacks, nil, option)
        try #require(code == 0)
        nghttp2_session_set_user_data(self.session, Unmanaged.passUnretained(self).toOpaque())
        var settings = [
            nghttp2_settings_entry(settings_id: 4, value: UInt32(configuration.streamWindowBytes)),
            nghttp2_settings_entry(settings_id: 5, value: UInt32(configuration.maxFrameBytes)),
            nghttp2_settings_entry(settings_id: 6, value: UInt32(configuration.maxHeaderListBytes)),
            nghttp2_settings_entry(settings_id: 9, value: 1),
        ]
        settings.append(
            self.isServer
                ? nghttp2_settings_entry(settings_id: 3, value: UInt32(configuration.maxConcurrentStreams))
                : nghttp2_settings_entry(settings_id: 2, value: 0)
        )
        try #require(nghttp2_submit_settings(self.session, 0, &settings, settings.count) == 0)
        let window = Int32(configuration.connectionWindowBytes)
        try #require(nghttp2_session_set_local_window_size(self.session, 0, 0, window) == 0)
    }

    deinit { nghttp2_session_del(self.session) }

    /// Whether the connection is over.
    var isFinished: Bool {
        self.hardError != nil
            || (nghttp2_session_want_read(self.session) == 0 && nghttp2_session_want_write(self.session) == 0)
    }

    /// The code of the GOAWAY that ended the connection.
    var failure: UInt32? {
        switch self.hardError {
        case nil: self.frames.last { $0.type == 7 }?.number(at: 4)
        case NGHTTP2_ERR_FLOODED.rawValue, NGHTTP2_ERR_TOO_MANY_CONTINUATIONS.rawValue:
            HTTP2ErrorCode.enhanceYourCalm.rawValue
        default: HTTP2ErrorCode.protocolError.rawValue
        }
    }

    /// What was received on the connection or a stream and not credited.
    func receivedBytes(_ streamID: Int32) -> Int {
        streamID == 0
            ? Int(nghttp2_session_get_effective_recv_data_length(self.session))
            : Int(nghttp2_session_get_stream_effective_recv_data_length(self.session, streamID))
    }

    /// What may be sent on the connection or a stream; 0 where the window is negative.
    func sendWindow(_ streamID: Int32) -> Int {
        streamID == 0
            ? Int(nghttp2_session_get_remote_window_size(self.session))
            : Int(nghttp2_session_get_stream_remote_window_size(self.session, streamID))
    }

    // MARK: - Commands

    func submitRequest(_ fields: [HTTP2HeaderField], body: Int?) {
        let streamID = nghttp2_session_get_next_stream_id(self.session)
        self.withProvider(Int32(streamID), body.map { ($0, false) }) { provider in
            self.withVectors(fields) { nghttp2_submit_request(self.session, nil, $0, $1, provider, nil) }
        }
    }

    func receive(_ bytes: [UInt8]) {
        guard self.hardError == nil else { return }
        let result = nghttp2_session_mem_recv(self.session, bytes, bytes.count)
        if result < 0 { self.hardError = Int32(result) }
        self.act()
        self.pump()
    }

    /// Answers requests, and credits data once for each stream.
    private func act() {
        var credit: [Int32: Int] = [:]
        for event in self.events[self.actedOn...] {
            switch event {
            case .headers(let streamID, let fields, _):
                guard self.isServer, fields.first?.name.hasPrefix(":") == true else { continue }
                self.answer(streamID)
            case .data(let streamID, let bytes):
                if Reply.consumes(streamID) { credit[streamID, default: 0] += bytes.count }
            default: break
            }
        }
        self.actedOn = self.events.count
        for (streamID, count) in credit.sorted(by: { $0.key < $1.key }) {
            _ = nghttp2_session_consume(self.session, streamID, count)
        }
    }

    private func answer(_ streamID: Int32) {
        let body: (Int, Bool)?
        switch Reply.to(streamID) {
        case .none: return
        case .head: body = nil
        case .body(let count): body = (count, true)
        }
        self.withProvider(streamID, body) { provider in
            self.withVectors(responseFields) { nghttp2_submit_response(self.session, streamID, $0, $1, provider) }
        }
    }

    /// Lets the session write all that it can.
    func pump() {
        guard self.hardError == nil else { return }
        var output = ByteBuffer()
        while true {
            var pointer: UnsafePointer<UInt8>?
            let count = nghttp2_session_mem_send(self.session, &pointer)
            guard count > 0, let pointer else { break }
            output.writeBytes(UnsafeBufferPointer(start: pointer, count: count))
        }
        self.frames += sentFrames([output])
        if nghttp2_session_get_remote_window_size(self.session) <= 0 { self.wasBlocked = true }
    }

    @discardableResult
    private func withProvider(
        _ streamID: Int32,
        _ body: (left: Int, trailers: Bool)?,
        _ submit: (UnsafePointer<nghttp2_data_provider>?) -> Int32
    ) -> Int32 {
        guard let body else { return submit(nil) }
        self.bodies[streamID] = body
        var provider = nghttp2_data_provider(
            source: nghttp2_data_source(),
            read_callback: { _, streamID, buffer, length, flags, _, context in
                guard let oracle = Oracle.from(context), let buffer, let flags else { return -902 }
                return oracle.read(streamID, buffer, length, flags)
            }
        )
        return submit(&provider)
    }

    private func read(
        _ streamID: Int32,
        _ buffer: UnsafeMutablePointer<UInt8>,
        _ length: Int,
        _ flags: UnsafeMutablePointer<UInt32>
    ) -> Int {
        guard let body = self.bodies[streamID] else { return Int(NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE.rawValue) }
        let count = min(length, body.left)
        buffer.update(repeating: 0, count: count)
        self.bodies[streamID] = (body.left - count, body.trailers)
        guard count == body.left else { return count }
        flags.pointee |= NGHTTP2_DATA_FLAG_EOF.rawValue
        if body.trailers {
            flags.pointee |= NGHTTP2_DATA_FLAG_NO_END_STREAM.rawValue
            self.withVectors(trailerFields) { nghttp2_submit_trailer(self.session, streamID, $0, $1) }
        }
        return count
    }

    @discardableResult
    private func withVectors(
        _ fields: [HTTP2HeaderField],
        _ body: (UnsafePointer<nghttp2_nv>?, Int) -> Int32
    ) -> Int32 {
        var bytes = fields.flatMap { Array($0.name.utf8) + Array($0.value.utf8) }
        return bytes.withUnsafeMutableBufferPointer { storage in
            var offset = 0
            let vectors = fields.map { field in
                let (name, value) = (field.name.utf8.count, field.value.utf8.count)
                defer { offset += name + value }
                return nghttp2_nv(
                    name: storage.baseAddress.map { $0 + offset },
                    value: storage.baseAddress.map { $0 + offset + name },
                    namelen: name,
                    valuelen: value,
                    flags: 0
                )
            }
            return body(vectors, vectors.count)
        }
    }

    // MARK: - Callbacks

    private static func from(_ context: UnsafeMutableRawPointer?) -> Oracle? {
        context.map { Unmanaged<Oracle>.fromOpaque($0).takeUnretainedValue() }
    }

    private static func install(_ callbacks: OpaquePointer) {
        nghttp2_session_callbacks_set_on_begin_headers_callback(callbacks) { _, _, context in
            Oracle.from(context)?.block = []
            return 0
        }
        nghttp2_session_callbacks_set_on_header_callback(callbacks) { _, _, name, nameCount, value, count, _, context in
            let name = UnsafeBufferPointer(start: name, count: nameCount)
            let value = UnsafeBufferPointer(start: value, count: count)
            let field = HTTP2HeaderField(String(decoding: name, as: UTF8.self), String(decoding: value, as: UTF8.self))
            Oracle.from(context)?.block.append(field)
            return 0
        }
        nghttp2_session_callbacks_set_on_invalid_header_callback(callbacks) { _, _, _, count, _, _, _, context in
            if count == 0 { Oracle.from(context)?.sawEmptyName = true }
            return 0
        }
        nghttp2_session_callbacks_set_on_data_chunk_recv_callback(callbacks) { _, _, streamID, bytes, count, context in
            Oracle.from(context)?.dataCame(streamID, Array(UnsafeBufferPointer(start: bytes, count: count)))
            return 0
        }
        nghttp2_session_callbacks_set_on_frame_recv_callback(callbacks) { _, frame, context in
            if let frame { Oracle.from(context)?.frameCame(frame.pointee) }
            return 0
        }
        nghttp2_session_callbacks_set_on_stream_close_callback(callbacks) { _, streamID, code, context in
            Oracle.from(context)?.closes[streamID] = code
            return 0
        }
    }

    private func dataCame(_ streamID: Int32, _ bytes: [UInt8]) {
        if self.events.count > self.actedOn, case .data(streamID, let before) = self.events.last {
            self.events[self.events.count - 1] = .data(streamID, before + bytes)
        } else {
            self.events.append(.data(streamID, bytes))
        }
    }

    private func frameCame(_ frame: nghttp2_frame) {
        let streamID = frame.hd.stream_id
        let endStream = frame.hd.flags & 1 != 0
        switch UInt32(frame.hd.type) {
        case NGHTTP2_DATA.rawValue: if endStream { self.events.append(.end(streamID)) }
        case NGHTTP2_HEADERS.rawValue:
            var fields = self.block
            if let place = fields.firstIndex(where: { $0.name == self.variableName && $0.value.utf8.count <= 64 }) {
                fields.append(fields.remove(at: place))
            }
            self.events.append(.headers(streamID, fields, endStream: endStream))
        case NGHTTP2_SETTINGS.rawValue: self.events.append(endStream ? .settingsAcknowledged : .settings)
        case NGHTTP2_PING.rawValue:
            let opaque = withUnsafeBytes(of: frame.ping.opaque_data) { Array($0) }
            self.events.append(endStream ? .pong(opaque) : .ping(opaque))
        case NGHTTP2_GOAWAY.rawValue:
            self.events.append(.goAway(frame.goaway.last_stream_id, frame.goaway.error_code))
        default: break
        }
    }
}
