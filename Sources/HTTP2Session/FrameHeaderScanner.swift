// SPDX-License-Identifier: Apache-2.0

/// The nine bytes that open a frame (RFC 9113, section 4.1).
struct FrameHeader: Sendable, Hashable {
    var payloadBytes: Int
    var type: UInt8
    var flags: UInt8
    var streamID: Int32
}

/// Finds the frame headers in a byte stream, whatever the pieces it comes in.
///
/// libnghttp2 tells of most frames, but not of those that it ignores: frames for streams that it forgot, priorities,
/// unknown types. Rules about those need the headers themselves. Payloads are skipped over, not looked at.
struct FrameHeaderScanner: Sendable {
    /// The bytes that a header has.
    static let headerBytes = 9

    private var skipBytes: Int
    // A header that is split between pieces: the bytes so far, as one number.
    private var partial: UInt64 = 0
    /// How many bytes of a header that is not complete yet were scanned.
    private(set) var partialCount = 0

    /// Creates a scanner that passes over a preface first.
    init(prefaceBytes: Int) {
        self.skipBytes = prefaceBytes
    }

    /// Scans a piece up to the end of the next header.
    ///
    /// - Parameters:
    ///   - bytes: The piece.
    ///   - index: Where to begin; afterwards the place behind the header, or the end of the piece.
    /// - Returns: The header, or nothing when the piece has no further one that is complete.
    mutating func next(_ bytes: UnsafeRawBufferPointer, from index: inout Int) -> FrameHeader? {
        let step = min(self.skipBytes, bytes.count - index)
        self.skipBytes -= step
        index += step
        while index < bytes.count {
            let byte = bytes[index]
            index += 1
            self.partialCount += 1
            if self.partialCount < Self.headerBytes {
                self.partial = self.partial << 8 | UInt64(byte)
                continue
            }
            let high = self.partial
            self.partial = 0
            self.partialCount = 0
            self.skipBytes = Int(high >> 40 & 0xff_ffff)
            return FrameHeader(
                payloadBytes: self.skipBytes,
                type: UInt8(truncatingIfNeeded: high >> 32),
                flags: UInt8(truncatingIfNeeded: high >> 24),
                streamID: Int32(truncatingIfNeeded: (high & 0x7f_ffff) << 8 | UInt64(byte))
            )
        }
        return nil
    }
}

extension FrameHeader {
    /// The header as it stands on the wire, the reserved bit cleared.
    var bytes: [UInt8] {
        let length = UInt32(truncatingIfNeeded: self.payloadBytes)
        let stream = UInt32(bitPattern: self.streamID)
        return [
            UInt8(truncatingIfNeeded: length >> 16), UInt8(truncatingIfNeeded: length >> 8),
            UInt8(truncatingIfNeeded: length), self.type, self.flags,
            UInt8(truncatingIfNeeded: stream >> 24), UInt8(truncatingIfNeeded: stream >> 16),
            UInt8(truncatingIfNeeded: stream >> 8), UInt8(truncatingIfNeeded: stream),
        ]
    }
}
