// SPDX-License-Identifier: Apache-2.0

internal import CNGHTTP2

// What must hold of a codec after every event.
extension HTTP2Codec {
    /// Received bytes of open streams that the owner has not given back.
    package var uncreditedBytes: Int { self.streams.values.reduce(0) { $0 + $1.unconsumedBytes } }

    /// What must hold after every event.
    ///
    /// - Returns: The first rule that does not hold; nil if all do.
    package func checkInvariants() -> String? {
        var queued = 0
        for (id, stream) in self.streams {
            if stream.id != id { return "stream \(stream.id) is kept as \(id)" }
            if stream.queuedBytes < 0 || stream.unconsumedBytes < 0 || stream.sentBytes < 0 {
                return "stream \(id) counts fewer bytes than none"
            }
            if stream.drainMark != nil, stream.queuedBytes == 0 {
                return "stream \(id) is empty, and its owner was not told"
            }
            queued += stream.queuedBytes
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
        guard self.failure == nil, !self.configuration.creditsConnectionOnArrival else { return nil }
        // What the library has not been told to credit is what the streams have not been told to.
        let uncredited = Int(nghttp2_session_get_effective_recv_data_length(self.session))
        if uncredited < 0 { return "the connection's window counts \(uncredited) bytes" }
        return nil
    }
}
