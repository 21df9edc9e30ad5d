// SPDX-License-Identifier: Apache-2.0

/// HTTP/2 frames written by hand.
enum HostileFrames {
    /// The beginning of a client's connection, with empty settings.
    static let preface = Array("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".utf8) + Self.frame(Self.settings)
    /// The acknowledgement of the other side's settings.
    static let acknowledgement = Self.frame(Self.settings, flags: 1)

    static let data: UInt8 = 0
    static let headers: UInt8 = 1
    static let reset: UInt8 = 3
    static let settings: UInt8 = 4
    static let ping: UInt8 = 6
    static let goAway: UInt8 = 7
    static let windowUpdate: UInt8 = 8

    static func frame(_ type: UInt8, flags: UInt8 = 0, _ stream: UInt32 = 0, _ payload: [UInt8] = []) -> [UInt8] {
        let length = payload.count
        return [UInt8(length >> 16 & 255), UInt8(length >> 8 & 255), UInt8(length & 255), type, flags]
            + Self.number(stream) + payload
    }

    /// Four bytes, the highest first.
    static func number(_ value: UInt32) -> [UInt8] { (0..<4).map { UInt8(value >> (24 - 8 * $0) & 255) } }

    /// GOAWAY without an error and without a limit to the streams that will still be answered.
    static let politeGoAway = Self.frame(Self.goAway, 0, Self.number(0x7FFF_FFFF) + Self.number(0))

    /// The headers of a gRPC call.
    static func call(_ path: String, _ stream: UInt32) -> [UInt8] {
        let fields = [
            (":method", "POST"), (":scheme", "http"), (":path", path), (":authority", "gateway"), ("te", "trailers"),
            ("content-type", "application/grpc"),
        ]
        // Literals that are not indexed; every string is shorter than 127 bytes.
        let block: [UInt8] = fields.flatMap { field -> [UInt8] in [0] + Self.text(field.0) + Self.text(field.1) }
        return Self.frame(Self.headers, flags: 4, stream, block)
    }

    private static func text(_ text: String) -> [UInt8] { [UInt8(text.utf8.count & 0x7F)] + Array(text.utf8) }
}

/// A frame that was cut out of a connection's bytes.
struct CutFrame: Sendable, Hashable {
    /// The frame as it came, with its header.
    var bytes: [UInt8]

    var type: UInt8 { self.bytes[3] }
    var flags: UInt8 { self.bytes[4] }
    var stream: UInt32 { Self.number(self.bytes[5..<9]) & 0x7FFF_FFFF }
    var payload: ArraySlice<UInt8> { self.bytes[9...] }

    /// A number of up to four bytes, the highest first.
    static func number(_ bytes: ArraySlice<UInt8>) -> UInt32 {
        bytes.prefix(4).reduce(0) { $0 << 8 | UInt32($1) }
    }
}

/// Cuts what arrives on a connection into frames.
struct FrameCutter: Sendable {
    private var rest: [UInt8] = []
    private var skipped: Int

    /// Creates a cutter.
    ///
    /// - Parameter preface: How many bytes come before the first frame.
    init(preface: Int = 0) { self.skipped = preface }

    /// Takes what arrived.
    ///
    /// - Parameter bytes: The next bytes.
    /// - Returns: The frames that are complete now.
    mutating func take(_ bytes: [UInt8]) -> [CutFrame] {
        self.rest += bytes
        var frames: [CutFrame] = []
        var start = min(self.skipped, self.rest.count)
        self.skipped -= start
        while self.rest.count - start >= 9 {
            let length = Int(CutFrame.number(self.rest[start..<start + 3])) + 9
            guard self.rest.count - start >= length else { break }
            frames.append(CutFrame(bytes: Array(self.rest[start..<start + length])))
            start += length
        }
        self.rest.removeFirst(start)
        return frames
    }
}
