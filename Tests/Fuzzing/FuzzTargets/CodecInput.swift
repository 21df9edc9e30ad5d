// SPDX-License-Identifier: Apache-2.0

import HTTP2Session
import NIOCore

/// An input of the HTTP/2 targets: one byte of options, one of a seed for everything that is left to chance, then
/// frames.
struct CodecInput {
    /// What the bits of the first byte mean.
    enum Option {
        /// Small windows, few streams, tight limits.
        static let small: UInt8 = 1
        /// The frames come without the connection preface (server) and without the first SETTINGS: add them.
        static let prefaced: UInt8 = 2
        /// The connection's window is credited on arrival.
        static let creditsOnArrival: UInt8 = 4
        /// Output is taken a little at a time.
        static let slowReader: UInt8 = 8
        /// Received bytes are credited late or never.
        static let slowConsumer: UInt8 = 16
        /// The codec of a split run is a client's.
        static let client: UInt8 = 32
        /// Frames are delivered whole, as one piece.
        static let whole: UInt8 = 64
        /// Timeouts are told apart from the fields that repeat.
        static let variable: UInt8 = 128
    }

    let options: UInt8
    let seed: UInt8
    let frames: [UInt8]

    init(_ bytes: [UInt8], role: HTTP2Role) {
        self.options = bytes.first ?? 0
        self.seed = bytes.count > 1 ? bytes[1] : 0
        var frames = Array(bytes.dropFirst(2))
        if self.options & Option.prefaced != 0 {
            frames = (role == .server ? Self.preface : []) + Self.emptySettings + frames
        }
        self.frames = frames
    }

    func has(_ option: UInt8) -> Bool { self.options & option != 0 }

    /// The configuration that the options name.
    var configuration: HTTP2CodecConfiguration {
        let variable = self.has(Option.variable) ? "grpc-timeout" : nil
        guard self.has(Option.small) else {
            return HTTP2CodecConfiguration(
                creditsConnectionOnArrival: self.has(Option.creditsOnArrival),
                variableFieldName: variable
            )
        }
        return HTTP2CodecConfiguration(
            maxConcurrentStreams: 3,
            streamWindowBytes: 1_000,
            connectionWindowBytes: 65_535,
            maxHeaderListBytes: 512,
            maxOutboundAcknowledgements: 10,
            resetBurst: 5,
            resetsPerSecond: 1,
            idleFrameBurst: 80,
            idleFramesPerSecond: 10,
            coalesceBytes: 16,
            creditsConnectionOnArrival: self.has(Option.creditsOnArrival),
            variableFieldName: variable
        )
    }

    /// The time of every run's beginning; targets depend on differences only.
    static let epoch = ContinuousClock.now

    /// What a client sends first (RFC 9113, section 3.4).
    static let preface = Array("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".utf8)

    /// A SETTINGS frame without entries.
    static let emptySettings: [UInt8] = [0, 0, 0, 4, 0, 0, 0, 0, 0]

    /// The frames in pieces of chance lengths.
    func pieces(_ random: inout SplitMix64) -> [ByteBuffer] {
        if self.has(Option.whole) { return [ByteBuffer(bytes: self.frames)] }
        var pieces: [ByteBuffer] = []
        var start = 0
        while start < self.frames.count {
            let length =
                switch random.below(4) {
                case 0: 1 + random.below(9)
                case 1: 1 + random.below(100)
                default: 1 + random.below(4_000)
                }
            let end = min(self.frames.count, start + length)
            pieces.append(ByteBuffer(bytes: self.frames[start..<end]))
            start = end
        }
        return pieces
    }
}
