// SPDX-License-Identifier: Apache-2.0

import Foundation
import Testing

@testable import WeightFetching

private func makeFile(_ address: String = "https://hub.test/a", bytes: Int = 100) throws -> RemoteFile {
    RemoteFile(
        name: "a",
        address: try RemoteAddress(parsing: address),
        authorization: "Bearer secret",
        byteCount: bytes,
        checksum: .sha256("right")
    )
}

private func makeTransfer(partial: Int = 0, validator: String? = nil, bytes: Int = 100) throws -> FileTransfer {
    FileTransfer(try makeFile(bytes: bytes), partialBytes: partial, validator: validator, policy: .defaults)
}

/// The request of an action.
private func request(_ action: FileTransfer.Action) -> FileTransfer.Request? {
    if case .send(let request) = action { request } else { nil }
}

extension FileTransfer.Request {
    fileprivate subscript(name: String) -> String? { self.headers.first { $0.name == name }?.value }
}

extension FileTransfer {
    fileprivate mutating func responded(_ status: Int, _ headers: [String: String] = [:]) -> Action {
        self.responded(
            Response(status: status, headers: headers),
            draw: 0,
            now: Date(timeIntervalSince1970: 784_111_777)
        )
    }
}

@Suite("Fetching a file")
struct FileTransferTests {
    @Test("a file arrives whole, is verified and gets its name")
    func whole() throws {
        var transfer = try makeTransfer()
        let first = try #require(request(transfer.start()))
        #expect(first["authorization"] == "Bearer secret")
        #expect(first["range"] == nil)
        #expect(
            transfer.responded(200, ["etag": "\"1\"", "content-length": "100"]) == .receive(from: 0, validator: "\"1\"")
        )
        try transfer.received(100)
        #expect(transfer.bodyEnded(nil, draw: 0) == .verify)
        #expect(transfer.verified(.sha256("right")) == .finish)
        #expect(transfer.receivedBytes == 100)
    }

    @Test("what is on the disk is not fetched again")
    func resumed() throws {
        var transfer = try makeTransfer(partial: 40, validator: "\"1\"")
        let first = try #require(request(transfer.start()))
        #expect(first["range"] == "bytes=40-")
        #expect(first["if-range"] == "\"1\"")
        let action = transfer.responded(206, ["content-range": "bytes 40-99/100", "etag": "\"1\""])
        #expect(action == .receive(from: 40, validator: "\"1\""))
        try transfer.received(60)
        #expect(transfer.bodyEnded(nil, draw: 0) == .verify)
        #expect(transfer.receivedBytes == 60)
    }

    @Test("a complete partial file is verified without a request")
    func complete() throws {
        var transfer = try makeTransfer(partial: 100)
        #expect(transfer.start() == .verify)
    }

    @Test("a server that now has another file, or ignores ranges, sends it from the start")
    func changed() throws {
        var transfer = try makeTransfer(partial: 40, validator: "\"1\"")
        _ = transfer.start()
        #expect(transfer.responded(200, ["etag": "\"2\""]) == .receive(from: 0, validator: "\"2\""))
        #expect(transfer.position == 0)
    }

    @Test(
        "a part that does not match what is here is not taken",
        arguments: [
            ["content-range": "bytes 40-99/100", "etag": "\"2\""], ["content-range": "bytes 41-99/100"],
            ["content-range": "bytes 40-99/200"], ["content-range": "nonsense"], [:],
        ]
    )
    func wrongPart(headers: [String: String]) throws {
        var transfer = try makeTransfer(partial: 40, validator: "\"1\"")
        _ = transfer.start()
        let again = try #require(request(transfer.responded(206, headers)))
        #expect(again["range"] == nil)
        #expect(transfer.position == 0)
    }

    @Test("a range that the server does not have means starting over")
    func noSuchRange() throws {
        var transfer = try makeTransfer(partial: 40)
        _ = transfer.start()
        guard case .wait = transfer.responded(416) else {
            Issue.record("no wait")
            return
        }
        #expect(try #require(request(transfer.waited()))["range"] == nil)
    }

    @Test("a broken connection resumes where it broke, as often as it brings something")
    func broken() throws {
        var transfer = try makeTransfer(bytes: 1000)
        _ = transfer.start()
        for part in 0..<20 {
            if part == 0 {
                _ = transfer.responded(200)
            } else {
                _ = transfer.responded(206, ["content-range": "bytes \(part * 10)-999/1000"])
            }
            try transfer.received(10)
            guard case .wait(let wait, _) = transfer.bodyEnded("cut", draw: 0) else {
                Issue.record("no wait after part \(part)")
                return
            }
            // Every break counts as the first one.
            #expect(wait == .milliseconds(125))
            #expect(try #require(request(transfer.waited()))["range"] == "bytes=\((part + 1) * 10)-")
        }
    }

    @Test("consecutive failures wait longer and longer, then give up")
    func failing() throws {
        var transfer = try makeTransfer()
        _ = transfer.start()
        var waits: [Duration] = []
        while case .wait(let wait, _) = transfer.notAnswered("no connection", draw: 0) {
            waits.append(wait)
            _ = transfer.waited()
        }
        #expect(waits.count == 7)
        #expect(waits.first == .milliseconds(125))
        #expect(zip(waits, waits.dropFirst()).allSatisfy { $0 < $1 })
    }

    @Test(
        "a server says when to retry",
        arguments: [
            ("3", Duration.seconds(3)), ("0", .zero), ("Sun, 06 Nov 1994 08:49:47 GMT", .seconds(10)),
            ("Sun, 06 Nov 1994 08:00:00 GMT", .zero), ("soon", .milliseconds(125)),
        ]
    )
    func askedWait(text: String, wait: Duration) throws {
        var transfer = try makeTransfer()
        _ = transfer.start()
        guard case .wait(let found, _) = transfer.responded(429, ["retry-after": text]) else {
            Issue.record("no wait")
            return
        }
        #expect(found == wait)
    }

    @Test("a server that asks to wait for hours is not waited for")
    func longWait() throws {
        var transfer = try makeTransfer()
        _ = transfer.start()
        guard case .fail(let error) = transfer.responded(503, ["retry-after": "86400"]) else {
            Issue.record("no failure")
            return
        }
        #expect(error.message.contains("86400 s"))
    }

    @Test("a wrong checksum is fetched once more, and then given up")
    func corrupt() throws {
        var transfer = try makeTransfer(partial: 100)
        _ = transfer.start()
        #expect(try #require(request(transfer.verified(.sha256("wrong"))))["range"] == nil)
        _ = transfer.responded(200)
        try transfer.received(100)
        #expect(transfer.bodyEnded(nil, draw: 0) == .verify)
        guard case .fail(let error) = transfer.verified(.sha256("wrong")) else {
            Issue.record("no failure")
            return
        }
        #expect(error.code == .corrupt)
    }

    @Test("more bytes than announced are refused before they fill the disk")
    func tooMuch() throws {
        var transfer = try makeTransfer()
        _ = transfer.start()
        _ = transfer.responded(200)
        #expect(throws: FetchError.self) { try transfer.received(101) }
        guard case .fail(let error) = transfer.responded(200, ["content-length": "101"]) else {
            Issue.record("no failure")
            return
        }
        #expect(error.code == .badAnswer)
    }

    @Test(
        "the authorization stays with its origin",
        arguments: [
            ("/b", true), ("https://hub.test/b", true), ("https://HUB.test:443/b", true),
            ("https://cdn.test/b", false), ("https://hub.test:8443/b", false),
        ]
    )
    func redirected(location: String, keeps: Bool) throws {
        var transfer = try makeTransfer()
        _ = transfer.start()
        let next = try #require(request(transfer.responded(302, ["location": location])))
        #expect((next["authorization"] != nil) == keeps)
        // Not even when the other origin sends the request back.
        let back = try #require(request(transfer.responded(302, ["location": "https://hub.test/c"])))
        #expect((back["authorization"] != nil) == keeps)
    }

    @Test("redirects into plaintext, to nowhere and in circles fail")
    func badRedirects() throws {
        for location in ["http://hub.test/a", "ftp://hub.test/a", nil] as [String?] {
            var transfer = try makeTransfer()
            _ = transfer.start()
            let headers = location.map { ["location": $0] } ?? [:]
            guard case .fail = transfer.responded(302, headers) else {
                Issue.record("\(location ?? "nothing") was followed")
                return
            }
        }
        var transfer = try makeTransfer()
        var action = transfer.start()
        var count = 0
        while case .send = action {
            action = transfer.responded(302, ["location": "/a"])
            count += 1
            guard count < 100 else { break }
        }
        #expect(count == 9)
    }

    @Test(
        "refusals are explained",
        arguments: [(401, "HF_TOKEN"), (403, "denied"), (404, "not found"), (418, "refused")]
    )
    func refusals(status: Int, part: String) throws {
        var transfer = try makeTransfer()
        _ = transfer.start()
        guard case .fail(let error) = transfer.responded(status, ["x-error-message": "no\u{1B}pe"]) else {
            Issue.record("no failure")
            return
        }
        #expect(error.message.contains(part))
        #expect(error.message.contains("(nope)"))
    }
}
