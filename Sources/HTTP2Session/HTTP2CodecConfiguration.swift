// SPDX-License-Identifier: Apache-2.0

/// Which end of a connection a codec is.
public enum HTTP2Role: Sendable, Hashable {
    /// The end that opens streams.
    case client
    /// The end that answers them.
    case server
}

/// The settings and limits of one HTTP/2 connection.
public struct HTTP2CodecConfiguration: Sendable, Hashable {
    /// How many streams the peer may have open at once.
    public var maxConcurrentStreams: Int
    /// The receive window of each stream in bytes, at most 2^31 - 1.
    public var streamWindowBytes: Int
    /// The receive window of the connection in bytes, at least 65,535 and at most 2^31 - 1.
    public var connectionWindowBytes: Int
    /// The largest frame payload in bytes in either direction, 16,384 to 16,777,215.
    public var maxFrameBytes: Int
    /// The largest header list accepted from the peer, in bytes, counted as RFC 9113 section 6.5.2 counts it.
    public var maxHeaderListBytes: Int
    /// How many acknowledgements may wait for a peer that does not read.
    public var maxOutboundAcknowledgements: Int
    /// How many streams the peer may reset in one burst (server only).
    public var resetBurst: Int
    /// How many resets per second the peer earns back (server only).
    public var resetsPerSecond: Int
    /// How many useless frames (pings, empty data, settings, faults) the peer may send in one burst.
    public var idleFrameBurst: Int
    /// How many useless frames the peer earns back per second.
    public var idleFramesPerSecond: Int
    /// Payload pieces up to this size, in bytes, are copied after their frame header instead of being queued
    /// separately.
    public var coalesceBytes: Int

    /// Whether the connection's window is credited on arrival, so that only streams hold the peer back.
    ///
    /// One slow reader then cannot stop the other streams; what can wait unread is bounded by the windows of the open
    /// streams together.
    public var creditsConnectionOnArrival: Bool

    /// The name of a field whose value differs from block to block.
    ///
    /// It is kept apart from a block's other fields, so that blocks which differ in it alone are recognised as the same.
    public var variableFieldName: String?

    /// Settings for connections from anywhere: small windows, tight limits.
    public static let defaults = HTTP2CodecConfiguration()

    /// Creates a configuration; see the properties for the meaning of each value.
    ///
    /// - Parameters:
    ///   - maxConcurrentStreams: Streams the peer may have open at once.
    ///   - streamWindowBytes: Receive window of each stream.
    ///   - connectionWindowBytes: Receive window of the connection.
    ///   - maxFrameBytes: Largest frame payload.
    ///   - maxHeaderListBytes: Largest header list taken.
    ///   - maxOutboundAcknowledgements: Acknowledgements that may wait.
    ///   - resetBurst: Resets in one burst.
    ///   - resetsPerSecond: Resets earned back per second.
    ///   - idleFrameBurst: Useless frames in one burst.
    ///   - idleFramesPerSecond: Useless frames earned back per second.
    ///   - coalesceBytes: Largest payload piece that is copied.
    ///   - creditsConnectionOnArrival: Whether only streams hold the peer back.
    ///   - variableFieldName: A field whose value differs from block to block.
    public init(
        maxConcurrentStreams: Int = 128,
        streamWindowBytes: Int = 1 << 20,
        connectionWindowBytes: Int = 4 << 20,
        maxFrameBytes: Int = 1 << 14,
        maxHeaderListBytes: Int = 16 << 10,
        maxOutboundAcknowledgements: Int = 1_000,
        resetBurst: Int = 1_000,
        resetsPerSecond: Int = 33,
        idleFrameBurst: Int = 2_000,
        idleFramesPerSecond: Int = 100,
        coalesceBytes: Int = 4_096,
        creditsConnectionOnArrival: Bool = false,
        variableFieldName: String? = nil
    ) {
        self.maxConcurrentStreams = maxConcurrentStreams
        self.streamWindowBytes = streamWindowBytes
        self.connectionWindowBytes = connectionWindowBytes
        self.maxFrameBytes = maxFrameBytes
        self.maxHeaderListBytes = maxHeaderListBytes
        self.maxOutboundAcknowledgements = maxOutboundAcknowledgements
        self.resetBurst = resetBurst
        self.resetsPerSecond = resetsPerSecond
        self.idleFrameBurst = idleFrameBurst
        self.idleFramesPerSecond = idleFramesPerSecond
        self.coalesceBytes = coalesceBytes
        self.creditsConnectionOnArrival = creditsConnectionOnArrival
        self.variableFieldName = variableFieldName
    }

    /// Checks every value against its range.
    ///
    /// - Throws: ``HTTP2CodecError`` that names the first value out of range, its limits and what to set.
    public func validate() throws(HTTP2CodecError) {
        let windowLimit = Int(Int32.max)
        let ranges: [(name: String, value: Int, range: ClosedRange<Int>)] = [
            ("maxConcurrentStreams", self.maxConcurrentStreams, 1...windowLimit),
            ("streamWindowBytes", self.streamWindowBytes, 1...windowLimit),
            ("connectionWindowBytes", self.connectionWindowBytes, HTTP2Codec.firstWindowBytes...windowLimit),
            ("maxFrameBytes", self.maxFrameBytes, FrameHeader.payloadRange),
            ("maxHeaderListBytes", self.maxHeaderListBytes, 256...(1 << 24)),
            ("maxOutboundAcknowledgements", self.maxOutboundAcknowledgements, 1...1_000_000),
            ("resetBurst", self.resetBurst, 1...1_000_000_000),
            ("resetsPerSecond", self.resetsPerSecond, 1...1_000_000_000),
            ("idleFrameBurst", self.idleFrameBurst, 1...1_000_000_000),
            ("idleFramesPerSecond", self.idleFramesPerSecond, 0...1_000_000_000),
            ("coalesceBytes", self.coalesceBytes, 0...(1 << 20)),
        ]
        for (name, value, range) in ranges where !range.contains(value) {
            throw HTTP2CodecError(
                code: .invalidConfiguration,
                message:
                    "\(name) is \(value), outside \(range.lowerBound)...\(range.upperBound); set a value in that range"
            )
        }
        if let name = self.variableFieldName, name.hasPrefix(":") || Self.checkedFields.contains(name) {
            throw HTTP2CodecError(
                code: .invalidConfiguration,
                message: "variableFieldName is \"\(name)\", whose value HTTP/2 has rules for; name another field"
            )
        }
    }

    /// Fields whose values are looked at in every block.
    private static let checkedFields: Set<String> = [
        "content-length", "host", "te", "connection", "keep-alive", "proxy-connection", "transfer-encoding", "upgrade",
    ]
}
