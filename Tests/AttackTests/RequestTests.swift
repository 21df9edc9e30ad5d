// SPDX-License-Identifier: Apache-2.0

import Testing

@Suite("Malformed requests", .serialized, .timeLimit(.minutes(10)))
struct RequestTests {
    /// A request, what comes behind its head, and how a server has to end it.
    struct Wrong: Sendable {
        var name: String
        var changes: [(String, String?)] = []
        var extra: [(String, String)] = []
        var path = "/grpc.testing.TestService/EmptyCall"
        var body: [UInt8]? = Frames.message([])
        var end: String
    }

    static let cases: [Wrong] = [
        Wrong(name: "message of 4 GiB announced", body: [0, 255, 255, 255, 255], end: "status 8"),
        Wrong(name: "message of 5 MiB announced", body: [0, 0, 0x50, 0, 0], end: "status 8"),
        Wrong(name: "message cut short", body: [0, 0, 0, 0, 9, 1], end: "status 13"),
        Wrong(name: "content type text/html", changes: [("content-type", "text/html")], end: "HTTP 415"),
        Wrong(name: "no content type", changes: [("content-type", nil)], end: "HTTP 415"),
        Wrong(name: "GET", changes: [(":method", "GET")], end: "HTTP 405"),
        Wrong(name: "path without a method", path: "/nothing", end: "status 12"),
        Wrong(name: "unknown method", path: "/grpc.testing.TestService/None", end: "status 12"),
        Wrong(name: "no te", changes: [("te", nil)], end: "status 0"),
        Wrong(name: "name in upper case", extra: [("X-Up", "1")], end: "reset 1"),
        Wrong(name: "connection: close", extra: [("connection", "close")], end: "reset 1"),
        Wrong(name: "second :path", extra: [(":path", "/a/b")], end: "reset 1"),
        Wrong(name: "no :path", changes: [(":path", nil)], end: "reset 1"),
    ]

    @Test("each ends only its own call")
    func wrongRequests() async throws {
        for wrong in Self.cases {
            try await attack(wrong.name) { port in
                let peer = try RawSocket(port: port)
                let fields = Frames.request(wrong.path, wrong.changes) + wrong.extra
                peer.send(Frames.preface + Frames.headers(fields, end: wrong.body == nil))
                if let body = wrong.body { peer.send(Frames.data(body, end: true)) }
                let isOver = peer.wait { $0.ended.contains(1) || $0.resets[1] != nil }
                #expect(isOver, "\(wrong.name)")
                let ending = Self.ending(peer.seen)
                #expect(ending == wrong.end, "\(wrong.name)")
                // The connection goes on.
                peer.send(Frames.headers(Frames.request(), 3) + Frames.data(Frames.message([]), 3, end: true))
                peer.wait { $0.ended.contains(3) }
                #expect(peer.seen.field("grpc-status", streamID: 3) == "0", "\(wrong.name)")
                return Finding(frames: 2, ending: ending)
            }
        }
    }

    private static func ending(_ seen: RawSocket.Seen) -> String {
        if let status = seen.field("grpc-status") { return "status \(status)" }
        if let status = seen.field(":status"), status != "200" { return "HTTP \(status)" }
        return seen.resets[1].map { "reset \($0)" } ?? "nothing"
    }

    /// A call from the preface to the last byte.
    private static let exchange =
        Frames.preface + Frames.headers(Frames.request()) + Frames.data(Frames.message([]), end: true)

    @Test("a call in writes of one byte, and cut in two at every offset, works")
    func cuts() async throws {
        try await attack("every cut of a call") { port in
            let slow = try RawSocket(port: port)
            for byte in Self.exchange { slow.send([byte]) }
            slow.wait { $0.ended.contains(1) }
            #expect(slow.seen.field("grpc-status") == "0")
            for offset in 1..<Self.exchange.count {
                let peer = try RawSocket(port: port)
                peer.send(Array(Self.exchange[..<offset]))
                peer.send(Array(Self.exchange[offset...]))
                peer.wait { $0.ended.contains(1) }
                #expect(peer.seen.field("grpc-status") == "0", "cut at \(offset)")
            }
            return Finding(frames: Self.exchange.count, ending: "works")
        }
    }

    @Test("a peer that does not speak HTTP/2, or is silent, is disconnected")
    func prefaces() async throws {
        let openings: [(String, [UInt8])] = [
            ("HTTP/1.1", Array("GET / HTTP/1.1\r\nHost: a\r\n\r\n".utf8)),
            ("TLS", [0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3] + Array(repeating: 7, count: 500)),
            ("garbage", Array(repeating: 0xa5, count: 300)),
            ("half a preface", Array(Frames.magic.prefix(12))),
            ("nothing", []),
            ("preface alone", Frames.magic),
        ]
        for (name, bytes) in openings {
            try await attack("opens with \(name)", flags: ["--handshake-timeout", "200"]) { port in
                let peer = try RawSocket(port: port)
                peer.send(bytes)
                #expect(peer.waitForClose(), "\(name)")
                return Finding(frames: 0, ending: "closed")
            }
        }
    }

    @Test("a client that never reads loses its responses, and harms no one else")
    func slowReader() async throws {
        try await attack("never reads 100 x 4 MiB", growthLimitMiB: 96) { port in
            let peer = try RawSocket(port: port)
            peer.send(Frames.preface)
            peer.reads = false
            // response_size, field 2: 4 MiB.
            let ask = Frames.message([0x10, 0x80, 0x80, 0x80, 0x02])
            for index in 0..<100 {
                let stream = UInt32(2 * index + 1)
                let path = "/grpc.testing.TestService/UnaryCall"
                peer.send(Frames.headers(Frames.request(path), stream) + Frames.data(ask, stream, end: true))
            }
            // Once the server has answered another client after all that, it has dealt with it.
            let other = try RawSocket(port: port)
            other.send(Self.exchange)
            other.wait { $0.ended.contains(1) }
            #expect(other.seen.field("grpc-status") == "0")
            return Finding(frames: 200, ending: "left open")
        }
    }
}
