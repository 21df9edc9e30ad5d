// SPDX-License-Identifier: Apache-2.0

import CNGHTTP2

/// HTTP/2 frames written by hand, right or wrong.
enum Frames {
    /// The beginning of a client's connection.
    static let magic = Array("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".utf8)

    /// The magic, empty settings, and the acknowledgement of the settings that a server sends first.
    static let preface = Self.magic + Self.frame(4) + Self.frame(4, flags: 1)

    static func frame(_ type: UInt8, flags: UInt8 = 0, _ stream: UInt32 = 0, _ payload: [UInt8] = []) -> [UInt8] {
        let length = payload.count
        return [UInt8(length >> 16 & 255), UInt8(length >> 8 & 255), UInt8(length & 255), type, flags]
            + Self.number(stream) + payload
    }

    static func number(_ value: UInt32) -> [UInt8] { (0..<4).map { UInt8(value >> (24 - 8 * $0) & 255) } }

    static func data(_ bytes: [UInt8], _ stream: UInt32 = 1, end: Bool = false) -> [UInt8] {
        Self.frame(0, flags: end ? 1 : 0, stream, bytes)
    }

    static func headers(_ fields: [(String, String)], _ stream: UInt32 = 1, end: Bool = false) -> [UInt8] {
        Self.frame(1, flags: end ? 5 : 4, stream, Self.block(fields))
    }

    static func reset(_ stream: UInt32, _ code: UInt32) -> [UInt8] { Self.frame(3, stream, Self.number(code)) }

    static func windowUpdate(_ stream: UInt32, _ increment: UInt32) -> [UInt8] {
        Self.frame(8, stream, Self.number(increment))
    }

    static let ping = Self.frame(6, 0, [0, 1, 2, 3, 4, 5, 6, 7])

    /// A message behind its prefix.
    static func message(_ bytes: [UInt8], flag: UInt8 = 0) -> [UInt8] {
        [flag] + Self.number(UInt32(bytes.count)) + bytes
    }

    /// Fields as literals that are not indexed.
    static func block(_ fields: [(String, String)]) -> [UInt8] {
        fields.flatMap { [0] + Self.text($0) + Self.text($1) }
    }

    /// A string of a header block, as it is.
    static func text(_ text: String) -> [UInt8] { Self.length(text.utf8.count) + Array(text.utf8) }

    private static func length(_ count: Int) -> [UInt8] {
        guard count >= 127 else { return [UInt8(count)] }
        var rest = count - 127
        var bytes: [UInt8] = [127]
        while rest >= 128 {
            bytes.append(UInt8(rest & 127 | 128))
            rest >>= 7
        }
        return bytes + [UInt8(rest)]
    }

    /// A proper request's fields with changes: a nil value takes a field away.
    static func request(_ path: String = "/grpc.testing.TestService/EmptyCall", _ changes: [(String, String?)] = [])
        -> [(String, String)]
    {
        var fields = [
            (":method", "POST"), (":scheme", "http"), (":path", path), (":authority", "a"), ("te", "trailers"),
            ("content-type", "application/grpc"),
        ]
        for (name, value) in changes {
            fields.removeAll { $0.0 == name }
            if let value { fields.append((name, value)) }
        }
        // Pseudo-headers go first.
        return fields.filter { $0.0.hasPrefix(":") } + fields.filter { !$0.0.hasPrefix(":") }
    }
}

/// Reads the header blocks of one connection.
final class HeaderInflater {
    // Safety: made here, freed in deinit, and not handed out.
    private let state: OpaquePointer

    init?() {
        var state: OpaquePointer?
        guard nghttp2_hd_inflate_new(&state) == 0, let state else { return nil }
        self.state = state
    }

    deinit { nghttp2_hd_inflate_del(self.state) }

    /// The fields of a whole block; those before a fault where there is one.
    func fields(of block: [UInt8]) -> [String: String] {
        var fields: [String: String] = [:]
        // Safety: the library reads the block during the call, and a field's bytes are copied before the next one.
        block.withUnsafeBufferPointer { bytes in
            var offset = 0
            while true {
                var field = nghttp2_nv()
                var flags: Int32 = 0
                let start = bytes.baseAddress.map { $0 + offset }
                let count = nghttp2_hd_inflate_hd2(self.state, &field, &flags, start, bytes.count - offset, 1)
                guard count >= 0 else { return }
                offset += Int(count)
                if flags & Int32(NGHTTP2_HD_INFLATE_EMIT.rawValue) != 0 {
                    let name = UnsafeBufferPointer(start: field.name, count: field.namelen)
                    let value = UnsafeBufferPointer(start: field.value, count: field.valuelen)
                    fields[String(decoding: name, as: UTF8.self)] = String(decoding: value, as: UTF8.self)
                }
                if flags & Int32(NGHTTP2_HD_INFLATE_FINAL.rawValue) != 0 {
                    nghttp2_hd_inflate_end_headers(self.state)
                    return
                }
            }
        }
        return fields
    }
}
