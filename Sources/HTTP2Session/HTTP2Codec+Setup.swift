// SPDX-License-Identifier: Apache-2.0

/// What the peer's settings allow (RFC 9113, section 6.5.2).
struct PeerLimits: Sendable {
    /// How many streams a client may have open; what it takes before the first settings is a guess.
    var maxConcurrentStreams: UInt32 = 100
    var initialWindowBytes = HTTP2Codec.firstWindowBytes
    var maxFrameBytes = FrameHeader.payloadRange.lowerBound
    var maxHeaderListBytes = UInt32.max
    /// Whether extended CONNECT is on, which a server may not take back (RFC 8441, section 3).
    var connectsProtocols = false
    /// What the first settings said of priorities, which stays (RFC 9218, section 2.1).
    var noPriorities: UInt32?
}

extension HTTP2Codec {
    /// Writes what the connection begins with: a client's preface, the settings and the connection's window.
    func open() {
        if self.role == .client { self.appendOutput(bytes: ConnectionPreface.bytes) }
        var settings: [(UInt16, Int)] = [
            (Setting.initialWindowSize, self.configuration.streamWindowBytes),
            (Setting.maxFrameSize, self.configuration.maxFrameBytes),
            (Setting.maxHeaderListSize, self.configuration.maxHeaderListBytes),
            (Setting.noPriorities, 1),
        ]
        switch self.role {
        case .client: settings.append((Setting.enablePush, 0))
        case .server: settings.append((Setting.maxConcurrentStreams, self.configuration.maxConcurrentStreams))
        }
        self.appendFrameHeader(FrameType.settings, 0, 0, payloadBytes: settings.count * Setting.byteCount)
        for (number, value) in settings {
            self.appendOutput(bytes: [UInt8(number >> 8), UInt8(number & 0xff)] + Self.bigEndian(UInt32(value)))
        }
        // Settings change the windows of streams only; the connection's window has its own frame.
        let increment = self.configuration.connectionWindowBytes - Self.firstWindowBytes
        if increment > 0 { self.appendWindowUpdate(0, UInt32(increment)) }
    }
}
