// SPDX-License-Identifier: Apache-2.0

/// A client that opens calls on one connection and sends each of them a message without its last byte.
///
/// It keeps to flow control and takes every credit that it gets; calls that the server ends it leaves alone.
struct PartialMessages {
    /// The method to call.
    var path: String
    /// The calls of the connection.
    var streams = 128
    /// The length that each message announces.
    var messageBytes = 4 << 20
    /// What a call may send before the server gives it credit.
    var windowBytes = 1 << 20
    /// Further fields of each request.
    var fields: [(String, String?)] = []

    private static let pieceBytes = 16_384

    /// Sends as much as the server takes.
    ///
    /// - Parameter port: The server's port.
    /// - Returns: The connection, still open, and how many bytes were sent.
    /// - Throws: ``SocketError`` where the server cannot be reached.
    func send(to port: Int) throws -> (peer: RawSocket, bytes: Int) {
        let peer = try RawSocket(port: port)
        peer.send(Frames.preface)
        peer.wait { $0.frames[4] >= 2 && $0.credit[0] != nil }
        let ids = (0..<self.streams).map { UInt32(2 * $0 + 1) }
        for id in ids { peer.send(Frames.headers(Frames.request(self.path, self.fields), id)) }
        let prefix = [0] + Frames.number(UInt32(self.messageBytes))
        let zeros = [UInt8](repeating: 0, count: Self.pieceBytes)
        // The last byte never comes.
        let total = prefix.count + self.messageBytes - 1
        var sent = [Int](repeating: 0, count: ids.count)
        var all = 0
        while !peer.seen.isClosed {
            var progressed = false
            for (index, id) in ids.enumerated() where sent[index] < total && !Self.isOver(id, peer.seen) {
                let room = min(
                    self.windowBytes + (peer.seen.credit[id] ?? 0) - sent[index],
                    65_535 + (peer.seen.credit[0] ?? 0) - all
                )
                let count = min(room, Self.pieceBytes, total - sent[index])
                guard count > 0 else { continue }
                let body = sent[index] == 0 ? Array((prefix + zeros).prefix(count)) : Array(zeros.prefix(count))
                guard peer.send(Frames.data(body, id)) else { break }
                sent[index] += count
                all += count
                progressed = true
            }
            if progressed { continue }
            let isDone = zip(ids, sent).allSatisfy { $1 == total || Self.isOver($0, peer.seen) }
            // Nothing more is sent without credit, or the end of calls that wait for it.
            let before = (peer.seen.credit, peer.seen.ended.count)
            let goesOn = peer.wait(isDone ? 0 : 2) { $0.credit != before.0 || $0.ended.count != before.1 }
            guard goesOn, !isDone else { break }
        }
        return (peer, all)
    }

    private static func isOver(_ stream: UInt32, _ seen: RawSocket.Seen) -> Bool {
        seen.ended.contains(stream) || seen.resets[stream] != nil
    }
}
