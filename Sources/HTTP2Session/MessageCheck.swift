// SPDX-License-Identifier: Apache-2.0

internal import CNGHTTP2

/// The rules for the fields of one header block (RFC 9113, sections 8.2 and 8.3).
///
/// A pure machine that is told the fields one by one. As in libnghttp2's own sessions, a field whose name or value has a
/// character that is not allowed is left out, unless that could be taken for another field: an upper-case letter or a
/// pseudo-header field makes the block malformed.
struct MessageCheck: Sendable {
    /// What the block is in its message.
    enum Part: Sendable, Hashable {
        case request
        case response
        case requestTrailers
        case responseTrailers

        /// Whether the block ends its message.
        var isTrailers: Bool { self == .requestTrailers || self == .responseTrailers }
        /// Whether a client sent it.
        var isOfRequest: Bool { self == .request || self == .requestTrailers }
    }

    private struct Seen: OptionSet {
        let rawValue: UInt16
        static let method = Seen(rawValue: 1)
        static let scheme = Seen(rawValue: 2)
        static let path = Seen(rawValue: 4)
        static let authority = Seen(rawValue: 8)
        static let host = Seen(rawValue: 16)
        static let status = Seen(rawValue: 32)
        static let regular = Seen(rawValue: 64)
        static let isConnect = Seen(rawValue: 128)
        static let isOptions = Seen(rawValue: 256)
        static let isHTTP = Seen(rawValue: 512)
        static let startsWithSlash = Seen(rawValue: 1_024)
        static let isAsterisk = Seen(rawValue: 2_048)
    }

    let part: Part
    private var seen: Seen = []
    /// Whether a rule is broken, so that the stream must be reset.
    private(set) var isMalformed = false
    /// The status of a response; 0 before it came.
    private(set) var status = 0
    /// What `content-length` says; in trailers it must be the only one, and right.
    private(set) var contentLength: Int?

    init(part: Part) { self.part = part }

    /// Whether the block is an interim response.
    var isInterim: Bool { self.part == .response && self.status / 100 == 1 }

    /// How many bytes the body must have; nil for any number.
    var expectedBodyBytes: Int? {
        switch self.part {
        case .request: self.seen.contains(.isConnect) ? nil : self.contentLength
        case .response: self.status == 204 || self.status == 304 ? 0 : self.contentLength
        case .requestTrailers, .responseTrailers: self.contentLength
        }
    }

    /// Takes the next field.
    ///
    /// - Returns: Whether the field is kept.
    mutating func takes(_ name: UnsafeBufferPointer<UInt8>, _ value: UnsafeBufferPointer<UInt8>) -> Bool {
        guard !self.isMalformed else { return false }
        let isPseudo = name.first == UInt8(ascii: ":")
        guard self.isValid(name, value) else {
            // An upper-case letter or a broken pseudo-header field could be taken for another field elsewhere.
            let isLower = name.allSatisfy { !(UInt8(ascii: "A")...UInt8(ascii: "Z")).contains($0) }
            if name.isEmpty || isPseudo || !isLower { self.isMalformed = true }
            self.seen.insert(.regular)
            return false
        }
        let isKept = isPseudo ? self.takesPseudo(name, value) : self.takesRegular(name, value)
        if !isKept { self.isMalformed = true }
        return isKept
    }

    /// The block is complete.
    ///
    /// - Parameter endStream: Whether it ends its stream.
    /// - Returns: Whether the block is well-formed.
    func isComplete(endStream: Bool) -> Bool {
        guard !self.isMalformed else { return false }
        switch self.part {
        case .requestTrailers, .responseTrailers: return endStream
        case .response: return self.seen.contains(.status) && !(self.isInterim && endStream)
        case .request:
            if self.seen.contains(.isConnect) {
                return self.seen.isDisjoint(with: [.scheme, .path]) && self.seen.contains(.authority)
            }
            guard self.seen.isSuperset(of: [.method, .scheme, .path]),
                !self.seen.isDisjoint(with: [.authority, .host])
            else { return false }
            return !self.seen.contains(.isHTTP) || self.seen.contains(.startsWithSlash)
                || self.seen.isSuperset(of: [.isOptions, .isAsterisk])
        }
    }

    // MARK: - Private

    /// A pseudo-header field comes once, before all others, and never in trailers.
    private mutating func first(_ field: Seen, _ value: UnsafeBufferPointer<UInt8>) -> Bool {
        guard !self.seen.contains(field), !value.isEmpty else { return false }
        self.seen.insert(field)
        return true
    }

    private mutating func takesPseudo(
        _ name: UnsafeBufferPointer<UInt8>,
        _ value: UnsafeBufferPointer<UInt8>
    ) -> Bool {
        guard !self.part.isTrailers, !self.seen.contains(.regular) else { return false }
        if self.part == .response {
            guard name.equals(":status"), self.first(.status, value), value.count == 3,
                let status = Self.number(value), status >= 100, status != 101
            else { return false }
            self.status = status
            return true
        }
        if name.equals(":method") {
            guard self.first(.method, value) else { return false }
            if value.equals("CONNECT") { self.seen.insert(.isConnect) }
            if value.equals("OPTIONS") { self.seen.insert(.isOptions) }
            return true
        }
        if name.equals(":path") {
            if value.first == UInt8(ascii: "/") { self.seen.insert(.startsWithSlash) }
            if value.equals("*") { self.seen.insert(.isAsterisk) }
            return self.first(.path, value)
        }
        if name.equals(":scheme") {
            if value.equalsIgnoringCase("http") || value.equalsIgnoringCase("https") { self.seen.insert(.isHTTP) }
            return self.first(.scheme, value)
        }
        return name.equals(":authority") && self.first(.authority, value)
    }

    private mutating func takesRegular(
        _ name: UnsafeBufferPointer<UInt8>,
        _ value: UnsafeBufferPointer<UInt8>
    ) -> Bool {
        self.seen.insert(.regular)
        switch name.count {
        case 2 where name.equals("te"):
            return value.equalsIgnoringCase("trailers")
        case 4 where name.equals("host"):
            return !self.part.isOfRequest || self.first(.host, value)
        case 14 where name.equals("content-length"):
            // A response without a body may not name a length (RFC 9110, section 8.6).
            guard self.contentLength == nil, !self.isInterim, let length = Self.number(value),
                self.status != 204 || length == 0
            else { return false }
            self.contentLength = length
            return true
        case 7, 10, 16, 17:
            // Fields that belong to one connection of HTTP/1.1.
            return
                !(name.equals("upgrade") || name.equals("connection") || name.equals("keep-alive")
                || name.equals("proxy-connection") || name.equals("transfer-encoding"))
        default:
            return true
        }
    }

    private func isValid(_ name: UnsafeBufferPointer<UInt8>, _ value: UnsafeBufferPointer<UInt8>) -> Bool {
        guard let nameStart = name.baseAddress, nghttp2_check_header_name(nameStart, name.count) != 0 else {
            return false
        }
        guard let start = value.baseAddress, !value.isEmpty else { return true }
        if name.equals(":path") { return nghttp2_check_path(start, value.count) != 0 }
        if name.equals(":method") { return nghttp2_check_method(start, value.count) != 0 }
        if self.part.isOfRequest, name.equals(":authority") || name.equals("host") {
            return nghttp2_check_authority(start, value.count) != 0
        }
        if name.equals(":scheme") { return Self.isScheme(value) }
        return nghttp2_check_header_value_rfc9113(start, value.count) != 0
    }

    /// Whether a text is a scheme (RFC 3986, section 3.1).
    private static func isScheme(_ value: UnsafeBufferPointer<UInt8>) -> Bool {
        func isLetter(_ byte: UInt8) -> Bool { (UInt8(ascii: "a")...UInt8(ascii: "z")).contains(byte | 0x20) }
        guard let first = value.first, isLetter(first) else { return false }
        return value.allSatisfy { byte in
            isLetter(byte) || (UInt8(ascii: "0")...UInt8(ascii: "9")).contains(byte)
                || byte == UInt8(ascii: "+") || byte == UInt8(ascii: "-") || byte == UInt8(ascii: ".")
        }
    }

    /// A number in decimal digits; nil if it is none or does not fit.
    private static func number(_ text: UnsafeBufferPointer<UInt8>) -> Int? {
        guard !text.isEmpty else { return nil }
        var number = 0
        for byte in text {
            guard byte >= UInt8(ascii: "0"), byte <= UInt8(ascii: "9") else { return nil }
            let (product, isTooLarge) = number.multipliedReportingOverflow(by: 10)
            let (sum, overflows) = product.addingReportingOverflow(Int(byte - UInt8(ascii: "0")))
            guard !isTooLarge, !overflows else { return nil }
            number = sum
        }
        return number
    }
}

extension UnsafeBufferPointer<UInt8> {
    /// Whether the bytes are a text.
    func equals(_ text: StaticString) -> Bool {
        guard self.count == text.utf8CodeUnitCount, let base = self.baseAddress else { return false }
        return switchyard_bytes_equal(base, text.utf8Start, self.count) != 0
    }

    /// Whether the bytes are a text in lower-case letters, or the same in others.
    func equalsIgnoringCase(_ text: StaticString) -> Bool {
        guard self.count == text.utf8CodeUnitCount else { return false }
        return self.indices.allSatisfy { self[$0] | 0x20 == text.utf8Start[$0] }
    }
}
