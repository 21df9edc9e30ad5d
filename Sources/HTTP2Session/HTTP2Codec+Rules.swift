// SPDX-License-Identifier: Apache-2.0

// What must hold of a codec after every event.
extension HTTP2Codec {
    /// Received bytes of open streams that the owner has not given back.
    package var uncreditedBytes: Int { self.streams.values.reduce(0) { $0 + $1.unconsumedBytes } }

    /// What must hold after every event.
    ///
    /// - Returns: The first rule that does not hold; nil if all do.
    package func checkInvariants() -> String? {
        var queued = 0
        for stream in self.streams.values {
            let id = stream.id
            if self.streams[id] !== stream { return "stream \(id) is not found" }
            if let broken = stream.receiveWindow.checkInvariants() { return "stream \(id): \(broken)" }
            if stream.closeOrigin == nil,
                stream.receiveWindow.used - stream.receiveWindow.consumed < stream.unconsumedBytes
            {
                return "stream \(id) has more bytes unread than its window counts"
            }
            if stream.hasOutput, !stream.isQueued, !stream.isBlocked, stream.headWasSent,
                stream.sendWindow.available > 0
            {
                return "stream \(id) has something to send and no turn"
            }
            if stream.queuedBytes < 0 || stream.unconsumedBytes < 0 || stream.sentBytes < 0 {
                return "stream \(id) counts fewer bytes than none"
            }
            if stream.drainMark != nil, stream.queuedBytes == 0 {
                return "stream \(id) is empty, and its owner was not told"
            }
            queued += stream.queuedBytes
        }
        for stream in self.endedStreams {
            if stream.closeOrigin == nil || self.streams[stream.id] === stream {
                return "stream \(stream.id) is kept for another one, and has not ended"
            }
        }
        if queued != self.queuedBytes { return "\(queued) bytes are queued, but \(self.queuedBytes) are counted" }
        if self.uncreditedBytes > self.configuration.connectionWindowBytes,
            !self.configuration.creditsConnectionOnArrival
        {
            return "\(self.uncreditedBytes) bytes were received, more than the connection's window"
        }
        if self.role == .server, self.streams.count > self.configuration.maxConcurrentStreams, self.failure == nil {
            return
                "\(self.streams.count) streams are open, more than the limit of \(self.configuration.maxConcurrentStreams)"
        }
        if self.streams.values.count(where: \.headWasSent) != self.sentRequests {
            return "\(self.sentRequests) streams are counted as begun by this side"
        }
        if let broken = self.streams.checkInvariants() { return broken }
        if let broken = self.reader.checkInvariants() ?? self.knownBlocks.checkInvariants() { return broken }
        if let broken = self.receiveWindow.checkInvariants() { return "the connection: \(broken)" }
        guard self.failure == nil, !self.configuration.creditsConnectionOnArrival else { return nil }
        // What is not credited to the connection is what the streams' owners have not read.
        if self.receiveWindow.used - self.receiveWindow.consumed < self.uncreditedBytes {
            return "\(self.uncreditedBytes) bytes are unread, more than the connection's window counts"
        }
        return nil
    }
}
