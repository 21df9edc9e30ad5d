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
    private var skipBytes: Int
    // A header that is split between pieces: the bytes so far, as one number.
    private var partial: UInt64 = 0
    private var partialCount = 0

    /// Creates a scanner that passes over a preface first.
    init(prefaceBytes: Int) {
        self.skipBytes = prefaceBytes
    }

    /// Scans one piece and hands over each header that is complete now.
    mutating func scan(_ bytes: UnsafeRawBufferPointer, _ body: (FrameHeader) -> Void) {
        var index = 0
        while index < bytes.count {
            if self.skipBytes > 0 {
                let step = min(self.skipBytes, bytes.count - index)
                self.skipBytes -= step
                index += step
                continue
            }
            let byte = bytes[index]
            index += 1
            self.partialCount += 1
            if self.partialCount < 9 {
                self.partial = self.partial << 8 | UInt64(byte)
                continue
            }
            let high = self.partial
            let payloadBytes = Int(high >> 40 & 0xff_ffff)
            let streamID = Int32(truncatingIfNeeded: (high & 0x7f_ffff) << 8 | UInt64(byte))
            self.partial = 0
            self.partialCount = 0
            self.skipBytes = payloadBytes
            body(
                FrameHeader(
                    payloadBytes: payloadBytes,
                    type: UInt8(truncatingIfNeeded: high >> 32),
                    flags: UInt8(truncatingIfNeeded: high >> 24),
                    streamID: streamID
                )
            )
        }
    }
}
