// SPDX-License-Identifier: Apache-2.0

/// Remembers enough about past streams of the peer to tell a broken rule from a race.
///
/// libnghttp2 ignores `HEADERS` for a stream that it no longer knows, because the frame may have crossed our
/// `RST_STREAM`. Two cases are certain all the same. An identifier that the peer skipped can never be opened later (RFC
/// 9113, section 5.1.1), and a stream that the peer itself ended takes no further frames (section 5.1). Both memories
/// are bounded; what they no longer hold is ignored as before.
struct StreamIDHistory: Sendable {
    /// What a frame on an unknown stream means.
    enum Verdict: Sendable, Hashable {
        /// Nothing is certain.
        case unremarkable
        /// The identifier was skipped: a connection error of type PROTOCOL_ERROR.
        case skipped
        /// The peer had ended the stream: a connection error of type STREAM_CLOSED.
        case endedByPeer
    }

    private static let memory = 64

    private var highest: Int32 = 0
    private var skipped: [ClosedRange<Int32>] = []
    private var ended: [Int32] = []
    private var nextEnded = 0

    /// The peer opened a stream.
    mutating func opened(_ streamID: Int32) {
        guard streamID > self.highest else { return }
        let expected = self.highest == 0 ? 1 : self.highest + 2
        if streamID > expected {
            if self.skipped.count == Self.memory { self.skipped.removeFirst() }
            self.skipped.append(expected...(streamID - 2))
        }
        self.highest = streamID
    }

    /// The peer ended its side of a stream, or reset it.
    mutating func endedByPeer(_ streamID: Int32) {
        guard streamID <= self.highest, self.ended.last != streamID else { return }
        if self.ended.count < Self.memory {
            self.ended.append(streamID)
        } else {
            self.ended[self.nextEnded] = streamID
            self.nextEnded = (self.nextEnded + 1) % Self.memory
        }
    }

    /// Judges a frame for a stream that is not open.
    func verdict(_ streamID: Int32) -> Verdict {
        guard streamID <= self.highest else { return .unremarkable }
        if self.skipped.contains(where: { $0.contains(streamID) }) { return .skipped }
        if self.ended.contains(streamID) { return .endedByPeer }
        return .unremarkable
    }
}
