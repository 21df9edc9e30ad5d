// SPDX-License-Identifier: Apache-2.0

/// An HTTP/2 error code, as `RST_STREAM` and `GOAWAY` carry it.
///
/// Source: RFC 9113, section 7.
public struct ResetCode: RawRepresentable, Sendable, Hashable, CustomStringConvertible {
    /// The number on the wire.
    public let rawValue: UInt32

    /// Creates a code from the number on the wire; numbers without a name are legal.
    ///
    /// - Parameter rawValue: The number on the wire.
    public init(rawValue: UInt32) {
        self.rawValue = rawValue
    }

    /// Not an error: the sender is done with the stream.
    public static let noError = ResetCode(rawValue: 0x0)
    /// The peer broke the protocol.
    public static let protocolError = ResetCode(rawValue: 0x1)
    /// The sender failed.
    public static let internalError = ResetCode(rawValue: 0x2)
    /// The peer broke flow control.
    public static let flowControlError = ResetCode(rawValue: 0x3)
    /// The settings were not acknowledged in time.
    public static let settingsTimeout = ResetCode(rawValue: 0x4)
    /// A frame came for a stream that is closed.
    public static let streamClosed = ResetCode(rawValue: 0x5)
    /// A frame has an impossible size.
    public static let frameSizeError = ResetCode(rawValue: 0x6)
    /// The stream was refused before any work was done: safe to retry.
    public static let refusedStream = ResetCode(rawValue: 0x7)
    /// The stream is no longer needed.
    public static let cancel = ResetCode(rawValue: 0x8)
    /// The header compression state is out of step.
    public static let compressionError = ResetCode(rawValue: 0x9)
    /// The tunnel's connection failed.
    public static let connectError = ResetCode(rawValue: 0xA)
    /// The peer asks for too much.
    public static let enhanceYourCalm = ResetCode(rawValue: 0xB)
    /// The connection is not secure enough.
    public static let inadequateSecurity = ResetCode(rawValue: 0xC)
    /// The peer wants HTTP/1.1.
    public static let http11Required = ResetCode(rawValue: 0xD)

    /// The code's name as RFC 9113 writes it, or its number.
    public var description: String {
        let names = [
            "NO_ERROR", "PROTOCOL_ERROR", "INTERNAL_ERROR", "FLOW_CONTROL_ERROR", "SETTINGS_TIMEOUT", "STREAM_CLOSED",
            "FRAME_SIZE_ERROR", "REFUSED_STREAM", "CANCEL", "COMPRESSION_ERROR", "CONNECT_ERROR",
            "ENHANCE_YOUR_CALM", "INADEQUATE_SECURITY", "HTTP_1_1_REQUIRED",
        ]
        return self.rawValue < names.count ? names[Int(self.rawValue)] : "0x" + String(self.rawValue, radix: 16)
    }
}

/// The status of a call whose stream the peer reset.
///
/// Source: https://github.com/grpc/grpc/blob/v1.51.1/doc/PROTOCOL-HTTP2.md (Errors).
public enum ResetCodeMapping {
    /// Maps an HTTP/2 error code.
    ///
    /// - Parameter resetCode: The code of the `RST_STREAM` frame.
    /// - Returns: The status code; `.internal` for everything that the table does not name.
    public static func code(for resetCode: ResetCode) -> Status.Code {
        switch resetCode {
        case .refusedStream: .unavailable
        case .cancel: .cancelled
        case .enhanceYourCalm: .resourceExhausted
        case .inadequateSecurity: .permissionDenied
        default: .internal
        }
    }
}
