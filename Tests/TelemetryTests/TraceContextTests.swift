// SPDX-License-Identifier: Apache-2.0

import Logging
import Testing

@testable import Telemetry

@Suite("Trace context")
struct TraceContextTests {
    private static let trace = "0af7651916cd43dd8448eb211c80319c"
    private static let span = "b7ad6b7169203331"

    @Test(
        "a traceparent is read and written again",
        arguments: [
            ("00-\(trace)-\(span)-01", true),
            ("00-\(trace)-\(span)-00", false),
            // Only the last bit is known; the others are not passed on.
            ("00-\(trace)-\(span)-03", true),
            ("00-\(trace)-\(span)-fe", false),
            // A later version, with and without more after it.
            ("01-\(trace)-\(span)-01", true),
            ("cc-\(trace)-\(span)-01-what-the-future-will-be-like", true),
            ("cc-\(trace)-\(span)-00-", false),
        ]
    )
    func sound(text: String, isSampled: Bool) throws {
        let parent = try #require(TraceParent(text))
        #expect(parent.traceID.description == Self.trace)
        #expect(parent.spanID.description == Self.span)
        #expect(parent.isSampled == isSampled)
        #expect(parent.description == "00-\(Self.trace)-\(Self.span)-\(isSampled ? "01" : "00")")
        #expect(TraceParent(parent.description) == parent)
    }

    @Test(
        "what breaks the format is no traceparent",
        arguments: [
            "", "00", "nonsense",
            "00-\(trace)-\(span)", "00-\(trace)-\(span)-1", "00-\(trace)-\(span)-011",
            "00-\(trace)-\(span)-01-more", "00-\(trace)-\(span)-01-",
            "ff-\(trace)-\(span)-01", "0-\(trace)-\(span)-01", "000-\(trace)-\(span)-01",
            "cc-\(trace)-\(span)-01.what-the-future-will-not-be-like",
            "00-00000000000000000000000000000000-\(span)-01", "00-\(trace)-0000000000000000-01",
            "00-\(trace.uppercased())-\(span)-01", "00-\(trace)-\(span.uppercased())-01", "0F-\(trace)-\(span)-01",
            "00-\(trace)-\(span)-0g", "00-\(trace.dropLast())x-\(span)-01", "00-\(trace)-\(span.dropLast())x-01",
            "00_\(trace)_\(span)_01", "00-\(trace)_\(span)-01", " 00-\(trace)-\(span)-01", "00-\(trace)-\(span)-01 ",
            "00-\(span)-\(trace)-01", "00-\(trace)-\(span)-\u{e9}1", "+0-\(trace)-\(span)-01",
            "cc-\(trace)-\(span)-01-" + String(repeating: "x", count: 500),
        ]
    )
    func malformed(text: String) {
        #expect(TraceParent(text) == nil)
    }

    @Test("every damaged character is found, or changes only ids and flags")
    func damage() {
        let text = "00-\(Self.trace)-\(Self.span)-01"
        for index in text.indices {
            for character in ["-", "g", "A", " ", "\0", "\u{1F600}"] {
                var damaged = text
                damaged.replaceSubrange(index...index, with: character)
                guard damaged != text else { continue }
                #expect(TraceParent(damaged) == nil, "\(damaged)")
            }
        }
    }

    @Test("ids are written with all their digits and drawn at random")
    func ids() throws {
        #expect(SpanID(0) == nil)
        #expect(TraceID(high: 0, low: 0) == nil)
        #expect(SpanID(1)?.description == "0000000000000001")
        #expect(TraceID(high: 1, low: 0xAB)?.description == "000000000000000100000000000000ab")
        #expect(SpanID(.max)?.description == "ffffffffffffffff")
        #expect(Set((0..<100).map { _ in SpanID.random() }).count == 100)
        #expect(Set((0..<100).map { _ in TraceID.random() }).count == 100)
    }

    @Test("a call without a traceparent is not traced, whatever tracestate says")
    func untraced() {
        #expect(TraceContext.begin(parents: [], states: { ["a=1"] }) == nil)
    }

    @Test("a valid traceparent starts a span below the caller's, and its child one below that")
    func begun() throws {
        let text = "00-\(Self.trace)-\(Self.span)-01"
        let work = try #require(TraceContext.begin(parents: [text], states: { ["a=1,b=2", "c=3"] }))
        #expect(work.traceID.description == Self.trace)
        #expect(work.parentSpanID?.description == Self.span)
        #expect(work.isSampled)
        #expect(work.state == "a=1,b=2,c=3")
        #expect(work.spanID.description != Self.span)
        #expect(work.parent.description == "00-\(Self.trace)-\(work.spanID)-01")
        let child = work.child()
        #expect(child.traceID == work.traceID)
        #expect(child.parentSpanID == work.spanID)
        #expect(child.spanID != work.spanID)
        #expect(child.state == work.state)
        let metadata = work.logMetadata
        #expect(metadata["trace_id"] == "\(Self.trace)")
        #expect(metadata["span_id"] == "\(work.spanID)")
        #expect(metadata["parent_span_id"] == "\(Self.span)")
    }

    @Test("a malformed or repeated traceparent starts a trace that is not sampled")
    func restarted() throws {
        let text = "00-\(Self.trace)-\(Self.span)-01"
        for parents in [["00-nonsense"], [text, text], [""]] {
            let work = try #require(TraceContext.begin(parents: parents, states: { ["a=1"] }))
            #expect(work.traceID.description != Self.trace)
            #expect(work.parentSpanID == nil)
            #expect(!work.isSampled)
            #expect(work.state == nil)
            #expect(work.logMetadata["parent_span_id"] == nil)
        }
    }

    @Test(
        "tracestate is handed on as it is, its fields joined",
        arguments: [
            (["rojo=00f067aa0ba902b7,congo=t61rcWkgMzE"], "rojo=00f067aa0ba902b7,congo=t61rcWkgMzE"),
            (["a=1", "b=2"], "a=1,b=2"),
            ([" a=1 ,\tb=2"], "a=1,b=2"),
            (["a=1,,b=2,"], "a=1,b=2"),
            (["fw529a3039@dt=FfD0"], "fw529a3039@dt=FfD0"),
            (["0a=x y", "a/b*c_d-e=!"], "0a=x y,a/b*c_d-e=!"),
        ]
    )
    func state(values: [String], joined: String) {
        #expect(TraceState.joined(values) == joined)
    }

    @Test("a malformed tracestate is dropped whole")
    func brokenState() {
        let long = "a=" + String(repeating: "x", count: 256)
        let many = (0..<33).map { "k\($0)=1" }.joined(separator: ",")
        let wide = (0..<6).map { "k\($0)=" + String(repeating: "x", count: 100) }.joined(separator: ",")
        let broken = [
            [], [""], ["a"], ["a="], ["=1"], ["A=1"], ["a=1=2"], ["a=\u{e9}"], ["a=1,a=2"], ["a=1", "a=2"], ["@=1"],
            ["a b=1"], [long + "x"], [many], [wide], ["a=1\n"],
        ]
        for values in broken {
            #expect(TraceState.joined(values) == nil, "\(values)")
        }
        #expect(TraceState.joined([long]) == long)
        let full = (0..<32).map { "k\($0)=1" }.joined(separator: ",")
        #expect(TraceState.joined([full]) == full)
    }
}
