// SPDX-License-Identifier: Apache-2.0

/// A client that begins as many messages as a connection has streams, and leaves each one byte short.
///
/// It heeds flow control, so that nothing it does is against the protocol. It reads no clock and no socket.
struct UnfinishedMessages: Sendable {
    /// How many streams it opens.
    let streams: Int
    /// The size that each message announces, in bytes.
    let messageBytes: Int
    /// The method that it calls.
    let path: String

    private struct Stream {
        /// Bytes of the prefix and the message that are still to be sent.
        var left: Int
        /// What the other side's credit for this stream still allows; it may be negative.
        var window: Int
        var isOver = false
    }

    private var cutter = FrameCutter()
    private var open: [Stream] = []
    private var connectionWindow = 65_535
    private var streamWindow = 65_535
    private var frameBytes = 16_384
    private var turn = 0
    /// Bytes of messages that were sent.
    private(set) var sent = 0
    /// Streams that the other side ended.
    private(set) var ended = 0
    /// Whether the other side gave up the connection.
    private(set) var isOver = false

    init(streams: Int, messageBytes: Int, path: String) {
        self.streams = streams
        self.messageBytes = messageBytes
        self.path = path
    }

    /// What is sent before anything is received.
    var opening: [UInt8] { HostileFrames.preface }

    /// Takes what arrived.
    ///
    /// - Parameter bytes: The next bytes.
    /// - Returns: What must be answered at once.
    mutating func receive(_ bytes: [UInt8]) -> [UInt8] {
        self.cutter.take(bytes).flatMap { self.receive($0) }
    }

    private mutating func receive(_ frame: CutFrame) -> [UInt8] {
        switch frame.type {
        case HostileFrames.settings where frame.flags & 1 == 0:
            let answer = self.settings(frame.payload)
            return HostileFrames.acknowledgement + answer
        case HostileFrames.ping where frame.flags & 1 == 0:
            return HostileFrames.frame(HostileFrames.ping, flags: 1, 0, Array(frame.payload))
        case HostileFrames.windowUpdate:
            let credit = Int(CutFrame.number(frame.payload) & 0x7FFF_FFFF)
            if frame.stream == 0 {
                self.connectionWindow += credit
            } else if let index = self.index(of: frame.stream) {
                self.open[index].window += credit
            }
        case HostileFrames.reset: self.end(frame.stream)
        case HostileFrames.headers where frame.flags & 1 != 0: self.end(frame.stream)
        case HostileFrames.goAway: self.isOver = true
        default: break
        }
        return []
    }

    /// Heeds the other side's settings; after the first ones, opens the streams.
    private mutating func settings(_ payload: ArraySlice<UInt8>) -> [UInt8] {
        var start = payload.startIndex
        while payload.endIndex - start >= 6 {
            let value = Int(CutFrame.number(payload[(start + 2)...]))
            switch CutFrame.number(payload[start..<start + 2]) {
            case 4:
                for index in self.open.indices { self.open[index].window += value - self.streamWindow }
                self.streamWindow = value
            case 5: self.frameBytes = value
            default: break
            }
            start += 6
        }
        guard self.open.isEmpty else { return [] }
        self.open = Array(
            repeating: Stream(left: self.messageBytes + 5 - 1, window: self.streamWindow),
            count: self.streams
        )
        return (0..<self.streams).flatMap { HostileFrames.call(self.path, Self.number(of: $0)) }
    }

    private mutating func end(_ stream: UInt32) {
        guard let index = self.index(of: stream), !self.open[index].isOver else { return }
        self.open[index].isOver = true
        self.ended += 1
    }

    private func index(of stream: UInt32) -> Int? {
        let index = Int(stream) / 2
        return stream % 2 == 1 && index < self.open.count ? index : nil
    }

    private static func number(of index: Int) -> UInt32 { UInt32(index) * 2 + 1 }

    /// The next part of some message, as far as the other side's credit allows.
    ///
    /// - Returns: A frame; nil where nothing may be sent now.
    mutating func next() -> [UInt8]? {
        guard !self.isOver, self.connectionWindow > 0 else { return nil }
        for _ in 0..<self.open.count {
            let index = self.turn
            self.turn = (self.turn + 1) % self.open.count
            let stream = self.open[index]
            let count = min(stream.left, stream.window, self.connectionWindow, self.frameBytes)
            guard !stream.isOver, count > 0 else { continue }
            let isFirst = stream.left == self.messageBytes + 5 - 1
            // The prefix is sent whole: credit is never that small at the beginning.
            guard !isFirst || count >= 5 else { continue }
            let prefix = isFirst ? [0] + HostileFrames.number(UInt32(self.messageBytes)) : []
            self.open[index].left -= count
            self.open[index].window -= count
            self.connectionWindow -= count
            self.sent += count
            let payload = prefix + [UInt8](repeating: 0, count: count - prefix.count)
            return HostileFrames.frame(HostileFrames.data, Self.number(of: index), payload)
        }
        return nil
    }
}
