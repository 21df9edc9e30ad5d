// SPDX-License-Identifier: Apache-2.0

import Digests

/// A file as a web server has it, with the answers that HTTP wants: all of it, or a range under a validator.
struct ServedFile: Sendable {
    var bytes: [UInt8]
    var etag: String?
    /// Whether ranges are ignored, as some servers do.
    var ignoresRanges = false

    var sha256: String { Self.digits(.sha256, self.bytes) }

    /// The name that git gives the file.
    var gitBlob: String {
        let head = Array("blob \(self.bytes.count)\0".utf8)
        return Self.digits(.sha1, head + self.bytes)
    }

    /// The digest of bytes; empty where this machine has none, which no test expects.
    private static func digits(_ algorithm: RunningDigest.Algorithm, _ bytes: [UInt8]) -> String {
        guard let digest = try? RunningDigest(algorithm) else { return "" }
        digest.update(bytes)
        return (try? digest.digest()).map(RunningDigest.hexadecimal) ?? ""
    }

    /// The answer to a request.
    func reply(to request: WebServer.Request) -> WebServer.Reply {
        var reply = WebServer.Reply(body: self.bytes)
        reply.headers["etag"] = self.etag
        let isSame = request.headers["if-range"].map { $0 == self.etag } ?? true
        guard !self.ignoresRanges, isSame, let range = request.headers["range"],
            let first = Int(range.dropFirst("bytes=".count).dropLast())
        else { return reply }
        guard first < self.bytes.count else { return WebServer.Reply(status: 416) }
        reply.status = 206
        reply.headers["content-range"] = "bytes \(first)-\(self.bytes.count - 1)/\(self.bytes.count)"
        reply.body = Array(self.bytes[first...])
        return reply
    }
}

/// The first byte of the range that a request asks for.
func firstByte(_ request: WebServer.Request) -> Int? {
    request.headers["range"].flatMap { Int($0.dropFirst("bytes=".count).dropLast()) }
}

/// Bytes that no two files share.
func noise(_ count: Int, seed: UInt64) -> [UInt8] {
    var state = seed
    return (0..<count)
        .map { _ in
            state = state &* 6_364_136_223_846_793_005 &+ 1_442_695_040_888_963_407
            return UInt8(truncatingIfNeeded: state >> 33)
        }
}
