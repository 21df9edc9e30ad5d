// SPDX-License-Identifier: Apache-2.0

/// The nine bytes that open a frame (RFC 9113, section 4.1).
struct FrameHeader: Sendable, Hashable {
    var payloadBytes: Int
    var type: UInt8
    var flags: UInt8
    var streamID: Int32
    /// The stream that a PRIORITY frame names as the parent of its own.
    var dependency: Int32?
}

/// Finds the frame headers in a byte stream, whatever the pieces it comes in.
///
/// libnghttp2 tells of most frames, but not of those that it ignores: frames for streams that it forgot, priorities,
/// unknown types. Rules about those need the headers themselves. Payloads are skipped over, not looked
/// at, but for the four bytes of a PRIORITY frame that name a stream.
struct FrameHeaderScanner: Sendable {
    private var skipBytes: Int
    // A header that is split between pieces: the bytes so far, as one number.
    private var partial: UInt64 = 0
    private var partialCount = 0
    // A PRIORITY frame whose first four bytes are on their way.
    private var priority: FrameHeader?
    private var dependency: UInt32 = 0
    private var dependencyMissing = 0

    private static let priorityType: UInt8 = 2

    /// Creates a scanner that passes over a preface first.
    init(prefaceBytes: Int) {
        self.skipBytes = prefaceBytes
    }

    /// Scans one piece and hands over each header that is complete now.
    mutating func scan(_ bytes: UnsafeRawBufferPointer, _ body: (FrameHeader) -> Void) {
        var index = 0
        while index < bytes.count {
            if var header = self.priority {
                self.dependency = self.dependency << 8 | UInt32(bytes[index])
                index += 1
                self.dependencyMissing -= 1
                guard self.dependencyMissing == 0 else { continue }
                self.priority = nil
                header.dependency = Int32(truncatingIfNeeded: self.dependency & 0x7fff_ffff)
                body(header)
                continue
            }
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
            let header = FrameHeader(
                payloadBytes: payloadBytes,
                type: UInt8(truncatingIfNeeded: high >> 32),
                flags: UInt8(truncatingIfNeeded: high >> 24),
                streamID: streamID
            )
            if header.type == Self.priorityType, payloadBytes >= 4 {
                self.priority = header
                self.dependency = 0
                self.dependencyMissing = 4
                self.skipBytes = payloadBytes - 4
            } else {
                body(header)
            }
        }
    }
}
