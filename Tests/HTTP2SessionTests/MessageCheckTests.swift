// SPDX-License-Identifier: Apache-2.0

import Testing

@testable import HTTP2Session

@Suite("Rules for header fields")
struct MessageCheckTests {
    /// What becomes of a block.
    enum Verdict: Equatable {
        case malformed
        /// It is well-formed, and this many of its fields are kept.
        case kept(Int)
    }

    struct Example: CustomTestStringConvertible {
        var what: String
        var part: MessageCheck.Part
        var fields: [(String, String)]
        var endStream = true
        var verdict: Verdict

        var testDescription: String { self.what }
    }

    private static let request = [
        (":method", "POST"), (":scheme", "http"), (":path", "/s/M"), (":authority", "a"),
    ]

    private static func judge(
        _ part: MessageCheck.Part,
        _ fields: [(String, String)],
        endStream: Bool = true
    ) -> (check: MessageCheck, verdict: Verdict) {
        var check = MessageCheck(part: part)
        var kept = 0
        for (name, value) in fields {
            Array(name.utf8)
                .withUnsafeBufferPointer { name in
                    Array(value.utf8).withUnsafeBufferPointer { value in if check.takes(name, value) { kept += 1 } }
                }
        }
        return (check, check.isComplete(endStream: endStream) ? .kept(kept) : .malformed)
    }

    private static let requests: [Example] = [
        Example(what: "the four fields", part: .request, fields: Self.request, verdict: .kept(4)),
        Example(
            what: "host instead of an authority",
            part: .request,
            fields: Self.request.dropLast() + [("host", "a")],
            verdict: .kept(4)
        ),
        Example(what: "no authority", part: .request, fields: Self.request.dropLast(), verdict: .malformed),
        Example(what: "no method", part: .request, fields: Array(Self.request.dropFirst()), verdict: .malformed),
        Example(what: "a field twice", part: .request, fields: Self.request + [(":path", "/")], verdict: .malformed),
        Example(what: "a status", part: .request, fields: Self.request + [(":status", "200")], verdict: .malformed),
        Example(what: "an unknown one", part: .request, fields: Self.request + [(":x", "1")], verdict: .malformed),
        Example(
            what: "extended CONNECT, which is not on",
            part: .request,
            fields: [(":protocol", "websocket")] + Self.request,
            verdict: .malformed
        ),
        Example(
            what: "a pseudo-header field after another one",
            part: .request,
            fields: [("te", "trailers")] + Self.request,
            verdict: .malformed
        ),
        Example(
            what: "a pseudo-header field after one that is left out",
            part: .request,
            fields: [("x", "bad\u{1}")] + Self.request,
            verdict: .malformed
        ),
        Example(
            what: "a path that is not one",
            part: .request,
            fields: [(":method", "POST"), (":scheme", "HTTP"), (":path", "s/M"), (":authority", "a")],
            verdict: .malformed
        ),
        Example(
            what: "an asterisk of OPTIONS",
            part: .request,
            fields: [(":method", "OPTIONS"), (":scheme", "http"), (":path", "*"), (":authority", "a")],
            verdict: .kept(4)
        ),
        Example(
            what: "an asterisk of POST",
            part: .request,
            fields: [(":method", "POST"), (":scheme", "http"), (":path", "*"), (":authority", "a")],
            verdict: .malformed
        ),
        Example(
            what: "an empty path",
            part: .request,
            fields: [(":method", "POST"), (":scheme", "x"), (":path", ""), (":authority", "a")],
            verdict: .malformed
        ),
        Example(
            what: "CONNECT",
            part: .request,
            fields: [(":method", "CONNECT"), (":authority", "a:1")],
            verdict: .kept(2)
        ),
        Example(
            what: "CONNECT with a path",
            part: .request,
            fields: [(":method", "CONNECT"), (":authority", "a:1"), (":path", "/")],
            verdict: .malformed
        ),
    ]

    private static let regular: [Example] = [
        Example(
            what: "an upper-case name",
            part: .request,
            fields: Self.request + [("X-Y", "1")],
            verdict: .malformed
        ),
        Example(what: "an empty name", part: .request, fields: Self.request + [("", "1")], verdict: .malformed),
        Example(
            what: "a name with a space is left out",
            part: .request,
            fields: Self.request + [("x y", "1"), ("z", "2")],
            verdict: .kept(5)
        ),
        Example(
            what: "a value with a line feed is left out",
            part: .request,
            fields: Self.request + [("x", "a\nb"), ("y", " a"), ("z", "a ")],
            verdict: .kept(4)
        ),
        Example(what: "te", part: .request, fields: Self.request + [("te", "Trailers")], verdict: .kept(5)),
        Example(what: "another te", part: .request, fields: Self.request + [("te", "gzip")], verdict: .malformed),
        Example(
            what: "another te in trailers",
            part: .requestTrailers,
            fields: [("te", "gzip")],
            verdict: .malformed
        ),
        Example(
            what: "two lengths",
            part: .request,
            fields: Self.request + [("content-length", "1"), ("content-length", "1")],
            verdict: .malformed
        ),
        Example(
            what: "a negative length",
            part: .request,
            fields: Self.request + [("content-length", "-1")],
            verdict: .malformed
        ),
        Example(
            what: "a length over 64 bits",
            part: .request,
            fields: Self.request + [("content-length", "9223372036854775808")],
            verdict: .malformed
        ),
        Example(
            what: "two hosts",
            part: .request,
            fields: Self.request + [("host", "a"), ("host", "a")],
            verdict: .malformed
        ),
    ]

    private static let answers: [Example] = [
        Example(what: "a status", part: .response, fields: [(":status", "200"), ("x", "1")], verdict: .kept(2)),
        Example(what: "no status", part: .response, fields: [("x", "1")], verdict: .malformed),
        Example(what: "two", part: .response, fields: [(":status", "200"), (":status", "200")], verdict: .malformed),
        Example(what: "101", part: .response, fields: [(":status", "101")], verdict: .malformed),
        Example(what: "099", part: .response, fields: [(":status", "099")], verdict: .malformed),
        Example(what: "four digits", part: .response, fields: [(":status", "2000")], verdict: .malformed),
        Example(what: "a letter", part: .response, fields: [(":status", "20x")], verdict: .malformed),
        Example(what: "a path", part: .response, fields: [(":status", "200"), (":path", "/")], verdict: .malformed),
        Example(
            what: "an interim response",
            part: .response,
            fields: [(":status", "103")],
            endStream: false,
            verdict: .kept(1)
        ),
        Example(what: "one that ends the stream", part: .response, fields: [(":status", "103")], verdict: .malformed),
        Example(
            what: "one with a length",
            part: .response,
            fields: [(":status", "103"), ("content-length", "0")],
            endStream: false,
            verdict: .malformed
        ),
        Example(
            what: "204 with a length",
            part: .response,
            fields: [(":status", "204"), ("content-length", "1")],
            verdict: .malformed
        ),
        Example(
            what: "204 with a length of 0",
            part: .response,
            fields: [(":status", "204"), ("content-length", "0")],
            verdict: .kept(2)
        ),
        Example(
            what: "a host that is no host in a response",
            part: .response,
            fields: [(":status", "200"), ("host", "a b")],
            verdict: .kept(2)
        ),
        Example(what: "trailers", part: .responseTrailers, fields: [("grpc-status", "0")], verdict: .kept(1)),
        Example(
            what: "trailers that do not end the stream",
            part: .responseTrailers,
            fields: [("grpc-status", "0")],
            endStream: false,
            verdict: .malformed
        ),
        Example(
            what: "a status in trailers",
            part: .responseTrailers,
            fields: [(":status", "200")],
            verdict: .malformed
        ),
    ]

    @Test("sort blocks", arguments: Self.requests + Self.regular + Self.answers)
    func verdicts(example: Example) {
        let result = Self.judge(example.part, example.fields, endStream: example.endStream)
        #expect(result.verdict == example.verdict)
    }

    @Test(
        "refuse the fields of a connection of HTTP/1.1 everywhere",
        arguments: ["connection", "keep-alive", "proxy-connection", "transfer-encoding", "upgrade"],
        [MessageCheck.Part.request, .response, .requestTrailers, .responseTrailers]
    )
    func connectionFields(name: String, part: MessageCheck.Part) {
        let start: [(String, String)]
        switch part {
        case .request: start = Self.request
        case .response: start = [(":status", "200")]
        case .requestTrailers, .responseTrailers: start = []
        }
        #expect(Self.judge(part, start + [(name, "x")]).verdict == .malformed)
        #expect(Self.judge(part, start + [(name + "-x", "x")]).verdict == .kept(start.count + 1))
    }

    @Test("say how many bytes the body must have")
    func lengths() {
        let length = [("content-length", "12")]
        #expect(Self.judge(.request, Self.request + length).check.expectedBodyBytes == 12)
        #expect(Self.judge(.request, Self.request).check.expectedBodyBytes == nil)
        let connect = [(":method", "CONNECT"), (":authority", "a:1")]
        #expect(Self.judge(.request, connect + length).check.expectedBodyBytes == nil)
        #expect(Self.judge(.response, [(":status", "200")] + length).check.expectedBodyBytes == 12)
        #expect(Self.judge(.response, [(":status", "304")] + length).check.expectedBodyBytes == 0)
        #expect(Self.judge(.response, [(":status", "204")]).check.expectedBodyBytes == 0)
        #expect(Self.judge(.responseTrailers, length).check.expectedBodyBytes == 12)
        let largest = [("content-length", "9223372036854775807")]
        #expect(Self.judge(.request, Self.request + largest).check.expectedBodyBytes == .max)
    }
}
