// SPDX-License-Identifier: Apache-2.0

/// An error code of `RST_STREAM` and `GOAWAY` frames (RFC 9113, section 7).
public struct HTTP2ErrorCode: RawRepresentable, Sendable, Hashable {
    /// The code's number on the wire.
    public var rawValue: UInt32

    /// Wraps a number from the wire; unknown numbers are kept.
    public init(rawValue: UInt32) {
        self.rawValue = rawValue
    }

    /// Graceful end.
    public static let noError = HTTP2ErrorCode(rawValue: 0x0)
    /// The peer broke a protocol rule.
    public static let protocolError = HTTP2ErrorCode(rawValue: 0x1)
    /// The sender met an internal fault.
    public static let internalError = HTTP2ErrorCode(rawValue: 0x2)
    /// A flow-control limit was exceeded.
    public static let flowControlError = HTTP2ErrorCode(rawValue: 0x3)
    /// Settings were not acknowledged in time.
    public static let settingsTimeout = HTTP2ErrorCode(rawValue: 0x4)
    /// A frame arrived for a stream that is closed.
    public static let streamClosed = HTTP2ErrorCode(rawValue: 0x5)
    /// A frame has a wrong size.
    public static let frameSizeError = HTTP2ErrorCode(rawValue: 0x6)
    /// The stream was refused before any work was done for it.
    public static let refusedStream = HTTP2ErrorCode(rawValue: 0x7)
    /// The stream is no longer wanted.
    public static let cancel = HTTP2ErrorCode(rawValue: 0x8)
    /// The header compression state is broken.
    public static let compressionError = HTTP2ErrorCode(rawValue: 0x9)
    /// A connection made for `CONNECT` failed.
    public static let connectError = HTTP2ErrorCode(rawValue: 0xa)
    /// The peer causes too much load.
    public static let enhanceYourCalm = HTTP2ErrorCode(rawValue: 0xb)
    /// The transport's security is not good enough.
    public static let inadequateSecurity = HTTP2ErrorCode(rawValue: 0xc)
    /// HTTP/1.1 must be used instead.
    public static let http11Required = HTTP2ErrorCode(rawValue: 0xd)
}

extension HTTP2ErrorCode: CustomStringConvertible {
    /// The code's name in the RFC's spelling, or its number.
    public var description: String {
        let names = [
            "NO_ERROR", "PROTOCOL_ERROR", "INTERNAL_ERROR", "FLOW_CONTROL_ERROR", "SETTINGS_TIMEOUT", "STREAM_CLOSED",
            "FRAME_SIZE_ERROR", "REFUSED_STREAM", "CANCEL", "COMPRESSION_ERROR", "CONNECT_ERROR", "ENHANCE_YOUR_CALM",
            "INADEQUATE_SECURITY", "HTTP_1_1_REQUIRED",
        ]
        return self.rawValue < UInt32(names.count) ? names[Int(self.rawValue)] : "error \(self.rawValue)"
    }
}
