// SPDX-License-Identifier: Apache-2.0

public import NIOCore

/// What happened on a connection, in the order in which it happened.
///
/// Events about a stream end with ``streamClosed(_:code:origin:)``, which comes exactly once for each stream.
public enum HTTP2Event: Sendable {
    /// A complete header block arrived.
    case headers(HTTP2HeaderBlock)

    /// A header block arrived that is larger than the advertised limit; its fields were dropped.
    case headersTooLarge(streamID: Int32, kind: HTTP2HeaderBlock.Kind, sizeBytes: Int, limitBytes: Int)

    /// A piece of a message body arrived; ``HTTP2Codec/consume(streamID:byteCount:)`` must give its bytes back.
    case data(streamID: Int32, bytes: ByteBuffer)

    /// The peer will send no more on this stream.
    case endOfStream(streamID: Int32)

    /// The stream is over in both directions.
    case streamClosed(Int32, code: HTTP2ErrorCode, origin: StreamCloseOrigin)

    /// The bytes queued for the stream fell to the mark set with ``HTTP2Codec/notifyDrained(streamID:atOrBelow:)``.
    case drained(streamID: Int32)

    /// The peer's settings arrived and were applied.
    case settings(HTTP2PeerSettings)

    /// The peer acknowledged our settings.
    case settingsAcknowledged

    /// The peer asks for an echo; the answer is queued already.
    case ping(opaque: UInt64)

    /// The peer answered our ping.
    case pingAcknowledged(opaque: UInt64)

    /// The peer is going away: our streams above `lastStreamID` were not processed.
    case goAway(lastStreamID: Int32, code: HTTP2ErrorCode, debug: String)
}

/// Why a stream came to its end.
public enum StreamCloseOrigin: Sendable, Hashable {
    /// Both sides ended the stream, or this side reset it.
    case local
    /// The peer sent `RST_STREAM`.
    case peer
    /// The request was never sent: the connection takes no more streams.
    case neverSent
    /// The peer refused the request, or its `GOAWAY` excludes it.
    case neverProcessed
    /// The codec found a fault in what the peer sent on this stream.
    case fault
}

/// A complete block of header fields.
public struct HTTP2HeaderBlock: Sendable, Hashable {
    /// What a header block is in its stream.
    public enum Kind: Sendable, Hashable {
        /// The fields that open a request.
        case request
        /// The fields that open a response, status 200 and above.
        case response
        /// An interim response, status 100 to 199.
        case interim
        /// The fields after a body.
        case trailers
    }

    /// The stream the block belongs to.
    public var streamID: Int32
    /// What the block is in its stream.
    public var kind: Kind
    /// The fields in the order in which they came, pseudo-header fields first; without ``variable``.
    public var fields: [HTTP2HeaderField]
    /// The field that ``HTTP2CodecConfiguration/variableFieldName`` names.
    public var variable: HTTP2HeaderField?
    /// The same number for all blocks of the connection whose ``fields`` are the same; nil where that is not known.
    ///
    /// So results computed from the fields can be reused.
    public var recurrence: Int?
    /// Whether the peer ended the stream with this block.
    ///
    /// No ``HTTP2Event/endOfStream(streamID:)`` follows then.
    public var endStream: Bool
}

/// The settings of the peer that matter to the layers above.
public struct HTTP2PeerSettings: Sendable, Hashable {
    /// How many streams the peer lets us have open at once.
    public var maxConcurrentStreams: UInt32
    /// How many bytes a stream may send before the first credit.
    public var initialWindowBytes: UInt32
    /// The largest frame payload the peer takes, in bytes.
    public var maxFrameBytes: UInt32
    /// The largest header list the peer takes, in bytes; `UInt32.max` when it named no limit.
    public var maxHeaderListBytes: UInt32
}
