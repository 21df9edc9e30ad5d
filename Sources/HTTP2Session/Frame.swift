// SPDX-License-Identifier: Apache-2.0

/// The nine bytes that open a frame (RFC 9113, section 4.1).
struct FrameHeader: Sendable, Hashable {
    var payloadBytes: Int
    var type: UInt8
    var flags: UInt8
    var streamID: Int32

    /// The size of a header in bytes.
    static let byteCount = 9
    /// What settings may say of the largest payload in bytes; until they do, it is the least (RFC 9113, section 6.5.2).
    static let payloadRange = (1 << 14)...(1 << 24) - 1

    /// Whether a flag is set.
    func has(_ flag: UInt8) -> Bool { self.flags & flag != 0 }

    /// Whether the peer ends its side of the stream with this frame.
    var endsStream: Bool {
        switch self.type {
        case FrameType.data, FrameType.headers: self.has(FrameFlag.endStream)
        case FrameType.reset: true
        default: false
        }
    }
}

/// The types of frames (RFC 9113, section 6).
enum FrameType {
    static let data: UInt8 = 0
    static let headers: UInt8 = 1
    static let priority: UInt8 = 2
    static let reset: UInt8 = 3
    static let settings: UInt8 = 4
    static let pushPromise: UInt8 = 5
    static let ping: UInt8 = 6
    static let goAway: UInt8 = 7
    static let windowUpdate: UInt8 = 8
    static let continuation: UInt8 = 9
}

/// The flags of frames (RFC 9113, section 6).
enum FrameFlag {
    static let endStream: UInt8 = 1
    static let acknowledgement: UInt8 = 1
    static let endHeaders: UInt8 = 4
    static let padded: UInt8 = 8
    static let priority: UInt8 = 0x20
}

/// The numbers of settings (RFC 9113, section 6.5.2; RFC 8441; RFC 9218).
enum Setting {
    static let headerTableSize: UInt16 = 1
    static let enablePush: UInt16 = 2
    static let maxConcurrentStreams: UInt16 = 3
    static let initialWindowSize: UInt16 = 4
    static let maxFrameSize: UInt16 = 5
    static let maxHeaderListSize: UInt16 = 6
    static let enableConnectProtocol: UInt16 = 8
    static let noPriorities: UInt16 = 9

    /// The bytes of one setting.
    static let byteCount = 6
    /// How many settings one frame may have.
    static let limit = 32
}

/// What a client's connection begins with (RFC 9113, section 3.4).
enum ConnectionPreface {
    static let bytes = Array("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".utf8)
}

/// Cuts a stream of bytes into frame headers and payloads, however it arrives.
///
/// A pure machine that keeps no payload: the runner asks ``next(_:from:)`` what the bytes from a place on are until it needs
/// more.
///
/// - state `preface`: bytes of the client's connection preface are awaited (RFC 9113, section 3.4); can go to `header`.
/// - state `header`: up to nine bytes of a frame's header are awaited; can go to `payload`.
/// - state `payload`: bytes of a payload are awaited; can go to `header`.
struct FrameReader: Sendable {
    /// What the next bytes are.
    enum Step: Sendable, Equatable {
        /// Nothing more in this piece.
        case needsBytes
        /// The bytes are no connection preface.
        case badPreface
        /// A frame begins; its payload follows, in one step at least.
        case began(FrameHeader)
        /// Bytes of the payload; the last step of a frame can be empty.
        case payload(start: Int, count: Int, isLast: Bool)
    }

    /// How many bytes of the preface are missing.
    private var prefaceMissing: Int
    /// A header that is split between pieces: the bytes so far, as one number.
    private var partial: UInt64 = 0
    private var partialCount = 0
    /// How many bytes of the payload are missing; -1 between frames.
    private var payloadMissing = -1

    /// Creates a reader.
    ///
    /// - Parameter expectsPreface: Whether the peer is a client.
    init(expectsPreface: Bool) {
        self.prefaceMissing = expectsPreface ? ConnectionPreface.bytes.count : 0
    }

    /// Says what the next bytes are.
    ///
    /// - Parameters:
    ///   - bytes: A piece.
    ///   - index: Where to begin; afterwards where the next step begins.
    /// - Returns: The step.
    mutating func next(_ bytes: UnsafeRawBufferPointer, from index: inout Int) -> Step {
        if self.payloadMissing >= 0 { return self.nextPayload(bytes, from: &index) }
        while self.prefaceMissing > 0 {
            guard index < bytes.count else { return .needsBytes }
            let place = ConnectionPreface.bytes.count - self.prefaceMissing
            guard bytes[index] == ConnectionPreface.bytes[place] else { return .badPreface }
            index += 1
            self.prefaceMissing -= 1
        }
        let high: UInt64
        let low: UInt8
        if self.partialCount == 0, bytes.count - index >= FrameHeader.byteCount {
            high = UInt64(bigEndian: bytes.loadUnaligned(fromByteOffset: index, as: UInt64.self))
            low = bytes[index + 8]
            index += FrameHeader.byteCount
        } else {
            while self.partialCount < FrameHeader.byteCount - 1 {
                guard index < bytes.count else { return .needsBytes }
                self.partial = self.partial << 8 | UInt64(bytes[index])
                index += 1
                self.partialCount += 1
            }
            guard index < bytes.count else { return .needsBytes }
            high = self.partial
            low = bytes[index]
            index += 1
            self.partial = 0
            self.partialCount = 0
        }
        self.payloadMissing = Int(high >> 40)
        return .began(
            FrameHeader(
                payloadBytes: self.payloadMissing,
                type: UInt8(truncatingIfNeeded: high >> 32),
                flags: UInt8(truncatingIfNeeded: high >> 24),
                // The reserved bit is ignored.
                streamID: Int32(truncatingIfNeeded: (high & 0x7f_ffff) << 8 | UInt64(low))
            )
        )
    }

    private mutating func nextPayload(_ bytes: UnsafeRawBufferPointer, from index: inout Int) -> Step {
        let start = index
        let count = min(self.payloadMissing, bytes.count - index)
        if count == 0, self.payloadMissing > 0 { return .needsBytes }
        index += count
        self.payloadMissing -= count
        let isLast = self.payloadMissing == 0
        if isLast { self.payloadMissing = -1 }
        return .payload(start: start, count: count, isLast: isLast)
    }

    /// What must hold after every step.
    ///
    /// - Returns: The first rule that does not hold; nil if all do.
    func checkInvariants() -> String? {
        if self.partialCount >= FrameHeader.byteCount { return "a frame header has \(self.partialCount) bytes" }
        if self.payloadMissing > 0, self.partialCount > 0 { return "a frame began inside another one's payload" }
        return nil
    }
}
