// SPDX-License-Identifier: Apache-2.0

/// The nine bytes that open a frame (RFC 9113, section 4.1).
struct FrameHeader: Sendable, Hashable {
    var payloadBytes: Int
    var type: UInt8
    var flags: UInt8
    var streamID: Int32
    /// The stream that a PRIORITY frame names as the parent of its own, once that was scanned.
    var dependency: Int32?

    /// Whether the peer ends its side of the stream with this frame.
    var endsStream: Bool {
        switch self.type {
        // DATA and HEADERS with END_STREAM.
        case 0, 1: self.flags & 1 != 0
        // RST_STREAM.
        case 3: true
        default: false
        }
    }
}

/// Finds the frame headers in a byte stream, however it is split.
///
/// libnghttp2 reports most frames, but not those that it ignores: frames for streams that it forgot, priorities,
/// unknown types. Rules about those need the headers themselves. Payloads are skipped, except for the four bytes of a
/// PRIORITY frame that name a stream.
struct FrameHeaderScanner: Sendable {
    /// The size of a header in bytes.
    static let headerBytes = 9

    private var skipBytes: Int
    // A header that is split between pieces: the bytes so far, as one number.
    private var partial: UInt64 = 0
    // A PRIORITY frame whose first four bytes are still to come.
    private var priority: FrameHeader?
    private var dependency: UInt32 = 0
    private var dependencyMissing = 0
    /// How many bytes of a PRIORITY frame's payload name its dependency.
    static let dependencyBytes = 4

    private static let priorityType: UInt8 = 2

    /// How many bytes of a header that is not complete yet were scanned.
    private(set) var partialCount = 0

    /// Creates a scanner that skips a preface first.
    init(prefaceBytes: Int) {
        self.skipBytes = prefaceBytes
    }

    /// Scans a piece up to the end of the next header; a priority's comes once more when its dependency is known.
    ///
    /// - Parameters:
    ///   - bytes: The piece.
    ///   - index: Where to begin; afterwards the place after the header, or the end of the piece.
    /// - Returns: The header, or nil when the piece has no further complete one.
    mutating func next(_ bytes: UnsafeRawBufferPointer, from index: inout Int) -> FrameHeader? {
        if let header = self.takeDependency(bytes, from: &index) { return header }
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
            let header = FrameHeader(
                payloadBytes: self.skipBytes,
                type: UInt8(truncatingIfNeeded: high >> 32),
                flags: UInt8(truncatingIfNeeded: high >> 24),
                streamID: Int32(truncatingIfNeeded: (high & 0x7f_ffff) << 8 | UInt64(byte))
            )
            if header.type == Self.priorityType, header.payloadBytes >= Self.dependencyBytes {
                self.priority = header
                self.dependency = 0
                self.dependencyMissing = Self.dependencyBytes
                self.skipBytes -= Self.dependencyBytes
            }
            return header
        }
        return nil
    }

    /// Scans what a priority depends on, if that comes next, and returns its header again when it is complete.
    private mutating func takeDependency(_ bytes: UnsafeRawBufferPointer, from index: inout Int) -> FrameHeader? {
        guard var header = self.priority else { return nil }
        while index < bytes.count {
            self.dependency = self.dependency << 8 | UInt32(bytes[index])
            index += 1
            self.dependencyMissing -= 1
            guard self.dependencyMissing == 0 else { continue }
            self.priority = nil
            header.dependency = Int32(truncatingIfNeeded: self.dependency & 0x7fff_ffff)
            return header
        }
        return nil
    }
}

extension FrameHeader {
    /// The header from the wire, the reserved bit cleared.
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
