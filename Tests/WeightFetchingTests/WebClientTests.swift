// SPDX-License-Identifier: Apache-2.0

import Foundation
import Synchronization
import Testing

@testable import WeightFetching

/// A server's answer to everything.
private func always(_ reply: WebServer.Reply) -> WebServer.Handler { { _ in reply } }

@Suite("The web client")
struct WebClientTests {
    private func request(_ server: WebServer, _ path: String = "/a") throws -> FileTransfer.Request {
        FileTransfer.Request(address: try RemoteAddress(parsing: server.address + path), headers: [])
    }

    private func body(_ answer: WebClient.Answer) async throws -> [UInt8] {
        var bytes: [UInt8] = []
        while let piece = try await answer.body.next() { bytes += piece }
        return bytes
    }

    /// Sends a request over TLS with the authorities of a file.
    private func ask(_ request: FileTransfer.Request, authorities: String) async throws {
        var configuration = WebClientConfiguration()
        configuration.authorityFile = authorities
        try await WebClient.with(configuration) { client in _ = try await client.send(request) }
    }

    @Test("a body larger than a slow reader's buffer arrives whole and in order")
    func slowReader() async throws {
        let bytes = noise(5 * WebExchange.mostHeldBytes + 17, seed: 4)
        try await WebServer.with(handler: always(WebServer.Reply(body: bytes))) { server in
            try await WebClient.with(WebClientConfiguration()) { client in
                let answer = try await client.send(try request(server))
                #expect(answer.head.status == 200)
                var found: [UInt8] = []
                while let piece = try await answer.body.next() {
                    found += piece
                    // So that the loop gets ahead of the reader.
                    if found.count < 64 << 10 { try await Task.sleep(for: .milliseconds(50)) }
                }
                #expect(found == bytes)
            }
        }
    }

    @Test("a redirect is returned, not followed")
    func redirect() async throws {
        let reply = WebServer.Reply(status: 302, headers: ["location": "/b"])
        try await WebServer.with(handler: always(reply)) { server in
            try await WebClient.with(WebClientConfiguration()) { client in
                let answer = try await client.send(try request(server))
                #expect(answer.head.status == 302)
                #expect(answer.head.headers["location"] == "/b")
            }
            #expect(server.requests.map(\.path) == ["/a"])
        }
    }

    @Test("the path is sent as given")
    func path() async throws {
        try await WebServer.with(handler: always(WebServer.Reply())) { server in
            try await WebClient.with(WebClientConfiguration()) { client in
                _ = try await body(try await client.send(try request(server, "/a/../b%2Fc?d=%20")))
            }
            #expect(server.requests.map(\.target) == ["/a/../b%2Fc?d=%20"])
        }
    }

    @Test("a truncated answer is an error, however much of it arrived")
    func cut() async throws {
        var reply = WebServer.Reply(body: noise(1000, seed: 5))
        reply.cutAfter = 500
        let cut = reply
        try await WebServer.with(handler: always(cut)) { server in
            try await WebClient.with(WebClientConfiguration()) { client in
                let answer = try await client.send(try request(server))
                var count = 0
                let failure = await #expect(throws: WebFailure.self) {
                    while let piece = try await answer.body.next() { count += piece.count }
                }
                #expect(count == 500)
                #expect(failure?.isPassing == true)
            }
        }
    }

    @Test("a server that falls silent is abandoned")
    func silence() async throws {
        var reply = WebServer.Reply(body: noise(1000, seed: 6))
        reply.cutAfter = 500
        reply.hangs = true
        let hanging = reply
        var configuration = WebClientConfiguration()
        configuration.silenceTimeout = .seconds(1)
        let impatient = configuration
        try await WebServer.with(handler: always(hanging)) { server in
            try await WebClient.with(impatient) { client in
                let answer = try await client.send(try request(server))
                let failure = await #expect(throws: WebFailure.self) { _ = try await body(answer) }
                #expect(failure == WebFailure(reason: "no bytes arrived for too long", isPassing: true))
            }
        }
    }

    @Test("a cancelled task stops waiting, and leaves the client usable")
    func cancelled() async throws {
        var reply = WebServer.Reply(body: noise(1000, seed: 6))
        reply.cutAfter = 500
        reply.hangs = true
        let hanging = reply
        let handler: WebServer.Handler = { $0.path == "/a" ? hanging : WebServer.Reply(body: [1]) }
        try await WebServer.with(handler: handler) { server in
            try await WebClient.with(WebClientConfiguration()) { client in
                let (arrivals, arrived) = AsyncStream<Int>.makeStream()
                let reading = Task {
                    let answer = try await client.send(try request(server))
                    while let piece = try await answer.body.next() { arrived.yield(piece.count) }
                }
                for await _ in arrivals { break }
                reading.cancel()
                await #expect(throws: CancellationError.self) { try await reading.value }
                let next = try await client.send(try request(server, "/b"))
                #expect(try await body(next) == [1])
            }
        }
    }

    @Test("stopping a client ends its requests in flight")
    func stopped() async throws {
        let loop = try CurlLoop()
        var reply = WebServer.Reply(body: [1, 2])
        reply.cutAfter = 1
        reply.hangs = true
        let hanging = reply
        try await WebServer.with(handler: always(hanging)) { server in
            let exchange = WebExchange(try request(server), WebClientConfiguration())
            loop.start(exchange)
            for await _ in server.arrivals { break }
            await loop.stop()
            #expect(exchange.hasEnded)
            let late = WebExchange(try request(server), WebClientConfiguration())
            loop.start(late)
            #expect(late.hasEnded)
            await loop.stop()
        }
    }

    @Test("a file without authorities is named")
    func authorities() async throws {
        try await Workplace.with { place in
            let certificate = try place.certificate()
            let empty = "\(place.path)/empty.pem"
            try "nothing".write(toFile: empty, atomically: true, encoding: .utf8)
            try await WebServer.with(certificate: (certificate.chain, certificate.key), handler: always(.init())) {
                server in
                for file in [empty, "\(place.path)/missing.pem"] {
                    let request = try request(server)
                    let error = await #expect(throws: FetchError.self) { try await ask(request, authorities: file) }
                    #expect(error?.message.contains(file) == true)
                }
                #expect(server.requests.isEmpty)
            }
        }
    }

    @Test("a certificate for another name is distinguished from an untrusted one")
    func names() async throws {
        try await Workplace.with { place in
            let certificate = try place.certificate()
            try await WebServer.with(certificate: (certificate.chain, certificate.key), handler: always(.init())) {
                server in
                let port = server.address.split(separator: ":").last ?? ""
                let other = FileTransfer.Request(
                    address: try RemoteAddress(parsing: "https://localhost:\(port)/a"),
                    headers: []
                )
                let failure = await #expect(throws: WebFailure.self) {
                    try await ask(other, authorities: certificate.authority)
                }
                #expect(failure?.reason.contains("for another name") == true, "\(String(describing: failure))")
                #expect(failure?.isPassing == false)
                #expect(server.requests.isEmpty)
            }
        }
    }
}

@Suite("The head of a response")
struct ResponseHeadTests {
    private func read(_ lines: [String]) throws -> FileTransfer.Response? {
        var head = ResponseHead()
        var found: FileTransfer.Response?
        for line in lines {
            if let response = try Array(line.utf8).withUnsafeBytes({ try head.add($0) }) {
                #expect(found == nil, "a second head")
                found = response
            }
        }
        return found
    }

    @Test("names are lowercase, values trimmed, and the first of several fields counts")
    func fields() throws {
        let response = try read([
            "HTTP/1.1 206 Partial Content\r\n", "ETag: \"1\"\r\n", "X-Two:  a \r\n", "x-two: b\r\n", "no colon\r\n",
            "folded: a\r\n", "\t b\r\n", "\r\n",
        ])
        #expect(response?.status == 206)
        #expect(response?.headers == ["etag": "\"1\"", "x-two": "a", "folded": "a b"])
    }

    @Test("interim responses and trailers are skipped")
    func interim() throws {
        let response = try read([
            "HTTP/1.1 103 Early Hints\r\n", "link: x\r\n", "\r\n", "HTTP/1.1 200 OK\r\n", "a: b\r\n", "\r\n",
            "trailer: c\r\n", "\r\n",
        ])
        #expect(response?.status == 200)
        #expect(response?.headers == ["a": "b"])
    }

    @Test("a head that does not end is refused")
    func excess() throws {
        #expect(throws: ResponseHead.Excess.self) {
            _ = try read(
                ["HTTP/1.1 200 OK\r\n"] + (0..<300).map { "x-\($0): \(String(repeating: "a", count: 1000))\r\n" }
            )
        }
    }

    @Test("other text is rejected", arguments: [["nonsense\r\n", "\r\n"], ["HTTP/1.1 x\r\n", "\r\n"], ["\r\n"]])
    func nonsense(lines: [String]) throws {
        #expect(try read(lines) == nil)
    }
}
