// SPDX-License-Identifier: Apache-2.0

import HTTP2Session
import NIOCore
import Testing

/// A frame that an end sent.
struct SentFrame: Hashable {
    var type: UInt8
    var flags: UInt8
    var streamID: Int32
    var payload: [UInt8]

    /// The 32-bit number at a place of the payload.
    func number(at offset: Int) -> UInt32 {
        self.payload.dropFirst(offset).prefix(4).reduce(0) { $0 << 8 | UInt32($1) }
    }
}

/// The frames of an end's output; a client's preface is skipped.
func sentFrames(_ output: [ByteBuffer]) -> [SentFrame] {
    var bytes = gathered(output)
    if bytes.getString(at: bytes.readerIndex, length: 3) == "PRI" { bytes.moveReaderIndex(forwardBy: 24) }
    var frames: [SentFrame] = []
    while let header = bytes.readBytes(length: 9) {
        let length = Int(header[0]) << 16 | Int(header[1]) << 8 | Int(header[2])
        let streamID = header[5...].reduce(0) { $0 << 8 | Int32($1) }
        guard let payload = bytes.readBytes(length: length) else { break }
        frames.append(SentFrame(type: header[3], flags: header[4], streamID: streamID, payload: payload))
    }
    return frames
}

/// One codec and what a peer sends it, written by hand.
final class RawPeer {
    /// `:method: POST`, `:scheme: http`, `:path: /` from the static table and `:authority: a` as a literal.
    static let request: [UInt8] = [0x83, 0x86, 0x84, 0x01, 0x01, 0x61]
    /// `:status: 200` from the static table.
    static let response: [UInt8] = [0x88]

    let codec: HTTP2Codec
    var now = ContinuousClock.now
    private(set) var events: [HTTP2Event] = []
    private(set) var frames: [SentFrame] = []

    /// Creates a codec whose peer has sent its preface and empty settings, and acknowledged the codec's.
    init(_ role: HTTP2Role = .server, _ configuration: HTTP2CodecConfiguration = .defaults, settled: Bool = true) throws
    {
        self.codec = try HTTP2Codec(role: role, configuration: configuration, now: self.now)
        if role == .server { try self.send(ByteBuffer(string: "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")) }
        try self.send(frame(type: 4))
        if settled { try self.send(frame(type: 4, flags: 1)) }
        self.forget()
    }

    /// Sends bytes and collects what the codec makes of them.
    func send(_ bytes: ByteBuffer...) throws {
        defer { self.collect() }
        for piece in bytes { try self.codec.receive(piece, now: self.now) }
    }

    /// Sends frames that must end the connection.
    ///
    /// - Returns: The code of the codec's GOAWAY.
    func sendFault(_ bytes: ByteBuffer...) -> HTTP2ErrorCode? {
        do throws(HTTP2CodecError) {
            for piece in bytes { try self.codec.receive(piece, now: self.now) }
            self.collect()
            // Some faults are found while output is made.
            guard self.codec.failure != nil else { return nil }
        } catch {
            self.collect()
        }
        return self.frames.last { $0.type == 7 }.map { HTTP2ErrorCode(rawValue: $0.number(at: 4)) }
    }

    /// Takes the codec's output and events.
    func collect() {
        self.frames += sentFrames(self.codec.takeOutput())
        self.events += self.codec.takeEvents()
        #expect(self.codec.checkInvariants() == nil)
    }

    /// Forgets what was collected.
    func forget() {
        self.frames = []
        self.events = []
    }

    /// The code of the reset of a stream.
    func reset(of streamID: Int32) -> HTTP2ErrorCode? {
        self.frames.last { $0.type == 3 && $0.streamID == streamID }.map { HTTP2ErrorCode(rawValue: $0.number(at: 0)) }
    }

    /// The credit that a stream got, or the connection.
    func credit(of streamID: Int32) -> Int {
        self.frames.filter { $0.type == 8 && $0.streamID == streamID }.reduce(0) { $0 + Int($1.number(at: 0)) }
    }

    /// The bytes of a stream's body that the codec sent.
    func body(of streamID: Int32) -> [UInt8] {
        self.frames.filter { $0.type == 0 && $0.streamID == streamID }.flatMap(\.payload)
    }
}

/// A frame of DATA.
func data(_ streamID: UInt32, _ bytes: [UInt8] = [], flags: UInt8 = 0) -> ByteBuffer {
    frame(type: 0, flags: flags, streamID: streamID, payload: bytes)
}

/// A frame of HEADERS with a whole block.
func headers(_ streamID: UInt32, _ block: [UInt8] = RawPeer.request, flags: UInt8 = 4) -> ByteBuffer {
    frame(type: 1, flags: flags, streamID: streamID, payload: block)
}

/// A frame of WINDOW_UPDATE.
func windowUpdate(_ streamID: UInt32, _ increment: UInt32) -> ByteBuffer {
    frame(type: 8, streamID: streamID, payload: bigEndian(increment))
}

/// A frame of RST_STREAM.
func resetFrame(_ streamID: UInt32, _ code: UInt32) -> ByteBuffer {
    frame(type: 3, streamID: streamID, payload: bigEndian(code))
}

/// A frame of SETTINGS.
func settings(_ values: KeyValuePairs<UInt16, UInt32>) -> ByteBuffer {
    frame(type: 4, payload: values.flatMap { [UInt8($0.key >> 8), UInt8($0.key & 0xff)] + bigEndian($0.value) })
}

/// A number on the wire.
func bigEndian(_ number: UInt32) -> [UInt8] { withUnsafeBytes(of: number.bigEndian) { Array($0) } }

/// A literal field that stays out of the compression table.
func literal(_ name: String, _ value: String) -> [UInt8] {
    [0x00, UInt8(name.utf8.count)] + Array(name.utf8) + [UInt8(value.utf8.count)] + Array(value.utf8)
}

/// A literal field that enters the compression table.
func indexed(_ name: String, _ value: String) -> [UInt8] {
    [0x40, UInt8(name.utf8.count)] + Array(name.utf8) + [UInt8(value.utf8.count)] + Array(value.utf8)
}
