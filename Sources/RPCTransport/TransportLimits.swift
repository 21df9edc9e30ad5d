// SPDX-License-Identifier: Apache-2.0

internal import HTTP2Session
internal import SwitchyardTypes

/// What one connection may hold, on either side.
public struct TransportLimits: Sendable, Hashable {
    /// The largest message accepted from the peer, in bytes.
    public var maxReceiveMessageBytes: Int
    /// The largest header list accepted from the peer, in bytes, counting 32 bytes for each field.
    public var maxHeaderListBytes: Int
    /// How many connections a server keeps; for any more the idlest ones leave.
    public var maxConnections: Int
    /// The largest share of them that one peer, or one token, may have; 1 shares nothing out.
    public var connectionShare = 0.75
    /// Places for connections beside them while all are busy, where only probes are served.
    public var probeConnections = 16
    /// How many calls the peer may have open on one connection.
    public var maxConcurrentStreams: Int
    /// How many bytes of one call the peer may send before this side reads them.
    public var streamWindowBytes: Int
    /// How many bytes of one connection may be on their way to this side.
    public var connectionWindowBytes: Int
    /// The largest frame payload in bytes, in either direction.
    public var maxFrameBytes: Int
    /// How many bytes of one call may wait to be sent before its writer is suspended.
    public var writeBufferBytes: Int
    /// How many bytes of all responses of one connection may wait for a client that does not read (server).
    ///
    /// A response that would exceed it ends its call instead; a single one may be larger.
    public var connectionOutputBytes: Int
    /// How many bytes of requests all connections of a server may hold before a handler takes them; one connection may
    /// hold half of them (server).
    ///
    /// Beyond it, the call ends whose bytes have been held longest, weighed by their number. At least twice the largest
    /// message, whatever is set.
    public var receiveBudgetBytes: Int
    /// The largest piece of memory a socket is read into at once, in bytes.
    public var readBufferBytes: Int
    /// How many calls a peer may cancel in one burst.
    public var resetBurst: Int
    /// How many cancelled calls per second the peer earns back.
    public var resetsPerSecond: Int

    /// Limits for clients from anywhere.
    public static let defaults = TransportLimits()

    /// Limits for connections between a gateway and its expert hosts: large messages, large windows.
    public static let dataPlane = {
        var limits = Self.wide
        // A peer is a gateway, and gateways may run behind one address.
        limits.connectionShare = 1
        return limits
    }()

    private static let wide = TransportLimits(
        maxReceiveMessageBytes: 64 << 20,
        maxConcurrentStreams: 1_024,
        streamWindowBytes: 16 << 20,
        connectionWindowBytes: 64 << 20,
        maxFrameBytes: 1 << 20,
        writeBufferBytes: 1 << 20,
        connectionOutputBytes: 1 << 30,
        receiveBudgetBytes: 512 << 20,
        readBufferBytes: 1 << 20,
        resetBurst: 20_000,
        resetsPerSecond: 5_000
    )

    /// Creates limits; see the properties for the meaning of each value.
    ///
    /// - Parameters:
    ///   - maxReceiveMessageBytes: Largest message taken.
    ///   - maxHeaderListBytes: Largest header list taken.
    ///   - maxConnections: Connections of a server.
    ///   - maxConcurrentStreams: Calls open on one connection.
    ///   - streamWindowBytes: Receive window of a call.
    ///   - connectionWindowBytes: Receive window of a connection.
    ///   - maxFrameBytes: Largest frame payload.
    ///   - writeBufferBytes: Bytes of a call that may wait to be sent.
    ///   - connectionOutputBytes: Bytes of a connection's responses that may wait.
    ///   - receiveBudgetBytes: Bytes of all connections' requests that no handler has taken.
    ///   - readBufferBytes: Largest read from a socket.
    ///   - resetBurst: Calls cancelled in one burst.
    ///   - resetsPerSecond: Cancelled calls earned back in a second.
    public init(
        maxReceiveMessageBytes: Int = 4 << 20,
        maxHeaderListBytes: Int = 16 << 10,
        maxConnections: Int = 1_000,
        maxConcurrentStreams: Int = 128,
        streamWindowBytes: Int = 1 << 20,
        connectionWindowBytes: Int = 4 << 20,
        maxFrameBytes: Int = 1 << 16,
        writeBufferBytes: Int = 1 << 16,
        connectionOutputBytes: Int = 32 << 20,
        receiveBudgetBytes: Int = 128 << 20,
        readBufferBytes: Int = 1 << 16,
        resetBurst: Int = 5_000,
        resetsPerSecond: Int = 500
    ) {
        self.maxReceiveMessageBytes = maxReceiveMessageBytes
        self.maxHeaderListBytes = maxHeaderListBytes
        self.maxConnections = maxConnections
        self.maxConcurrentStreams = maxConcurrentStreams
        self.streamWindowBytes = streamWindowBytes
        self.connectionWindowBytes = connectionWindowBytes
        self.maxFrameBytes = maxFrameBytes
        self.writeBufferBytes = writeBufferBytes
        self.connectionOutputBytes = connectionOutputBytes
        self.receiveBudgetBytes = receiveBudgetBytes
        self.readBufferBytes = readBufferBytes
        self.resetBurst = resetBurst
        self.resetsPerSecond = resetsPerSecond
    }

    /// How many bytes of requests a server holds before a handler takes them.
    var serverReceiveBytes: Int {
        let (least, overflow) = self.maxReceiveMessageBytes.multipliedReportingOverflow(by: 2)
        return max(self.receiveBudgetBytes, overflow ? Int.max : least)
    }

    /// How many of them may be one connection's.
    var connectionReceiveBytes: Int { self.serverReceiveBytes / 2 }

    /// The places of a server that may have this many connections.
    func places(total: Int) -> ConnectionPlaces.Limits {
        let share = Int(Double(total) * min(max(self.connectionShare, 0), 1))
        return ConnectionPlaces.Limits(total: total, share: share, probes: self.probeConnections)
    }

    var codecConfiguration: HTTP2CodecConfiguration {
        HTTP2CodecConfiguration(
            maxConcurrentStreams: self.maxConcurrentStreams,
            streamWindowBytes: self.streamWindowBytes,
            connectionWindowBytes: max(65_535, self.connectionWindowBytes),
            maxFrameBytes: self.maxFrameBytes,
            maxHeaderListBytes: self.maxHeaderListBytes,
            resetBurst: self.resetBurst,
            resetsPerSecond: self.resetsPerSecond,
            creditsConnectionOnArrival: true,
            variableFieldName: "grpc-timeout"
        )
    }
}
