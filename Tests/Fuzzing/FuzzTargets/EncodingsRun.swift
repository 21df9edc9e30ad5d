// SPDX-License-Identifier: Apache-2.0

import RPCCore

/// Percent encoding, base64 and timeouts: what is encoded decodes to itself, and nothing that comes can stop a decoder.
enum EncodingsRun {
    static func run(_ bytes: [UInt8], _ trace: inout Trace) throws(FuzzFinding) {
        var source = ByteSource(bytes)
        let kind = source.number(below: 4)
        trace.note(kind)
        switch kind {
        case 0: try Self.percent(source.rest(), &trace)
        case 1: try Self.base64(source.rest(), &trace)
        case 2: try Self.timeoutText(source.take(32), &trace)
        default: try Self.timeoutDuration(&source, &trace)
        }
    }

    private static func percent(_ bytes: [UInt8], _ trace: inout Trace) throws(FuzzFinding) {
        let text = String(decoding: bytes, as: UTF8.self)
        let encoded = PercentEncoding.encode(text)
        let isPlain = encoded.utf8.allSatisfy { $0 >= 0x20 && $0 <= 0x7e }
        try expect(isPlain, "what is encoded is printable", encoded)
        try expect(PercentEncoding.decode(encoded) == text, "decoding undoes encoding", encoded)
        try expectSendable([HeaderField("grpc-message", encoded)])
        let limit = 3 + (bytes.first.map { Int($0) } ?? 0)
        let short = PercentEncoding.encode(text, limitBytes: limit)
        try expect(short.utf8.count <= limit, "a shortened message is within its limit", "\(limit): \(short)")
        try expectSendable([HeaderField("grpc-message", short)])
        let shown = PercentEncoding.decode(short)
        let isPrefix =
            shown == text
            || (shown.utf8.suffix(3).elementsEqual("...".utf8) && text.utf8.starts(with: shown.utf8.dropLast(3)))
        try expect(isPrefix, "a shortened message is the message's beginning", short)
        let decoded = PercentEncoding.decode(text)
        try expect(decoded.utf8.count <= 3 * text.utf8.count, "decoding does not swell", "\(decoded.utf8.count)")
        trace.note(decoded == text ? 0 : 1)
        trace.note(encoded == text ? 0 : 1)
    }

    private static func base64(_ bytes: [UInt8], _ trace: inout Trace) throws(FuzzFinding) {
        let encoded = Base64.encode(bytes)
        let isPlain = encoded.utf8.allSatisfy { $0 > 0x20 && $0 < 0x7f && $0 != UInt8(ascii: ",") }
        try expect(isPlain, "base64 is plain text without commas")
        try expect(Base64.decode(encoded) == bytes, "decoding undoes encoding", encoded)
        let padding = String(repeating: "=", count: (4 - encoded.utf8.count % 4) % 4)
        try expect(Base64.decode(encoded + padding) == bytes, "padding changes nothing", encoded + padding)
        let text = String(decoding: bytes, as: UTF8.self)
        guard let decoded = Base64.decode(text) else {
            trace.note(0)
            return
        }
        trace.note(1)
        trace.note(size: decoded.count)
        try expect(decoded.count <= text.utf8.count, "decoding does not swell")
        try expect(Base64.decode(Base64.encode(decoded)) == decoded, "what was decoded can be encoded")
    }

    private static func timeoutText(_ bytes: [UInt8], _ trace: inout Trace) throws(FuzzFinding) {
        let text = String(decoding: bytes, as: UTF8.self)
        let timeout: Timeout
        do throws(TimeoutError) {
            timeout = try Timeout(parsing: text)
        } catch {
            trace.note(0)
            try expect(error.description.utf8.count < 400, "an error is brief")
            return
        }
        trace.note(1)
        trace.note(timeout.unit.rawValue)
        try expect(timeout.value <= Timeout.maximumValue, "a timeout has at most eight digits")
        try Self.check(timeout)
    }

    private static func timeoutDuration(_ source: inout ByteSource, _ trace: inout Trace) throws(FuzzFinding) {
        let shift = Int64(source.number(below: 64))
        let seconds = Int64(bitPattern: source.word()) >> shift
        let attoseconds = Int64(bitPattern: source.word()) % 1_000_000_000_000_000_000
        let duration = Duration(secondsComponent: seconds, attosecondsComponent: attoseconds)
        let timeout = Timeout(covering: duration)
        trace.note(timeout.unit.rawValue)
        let farthest = Timeout.Unit.hours.duration * Int(Timeout.maximumValue)
        try expect(timeout.value <= Timeout.maximumValue, "a timeout has at most eight digits", "\(duration)")
        try expect(timeout.duration >= min(duration, farthest), "a timeout covers its duration", "\(duration)")
        // Rounding up adds less than one unit, and the finest unit that fits is coarse by less than one part in 10^5.
        let slack = timeout.duration - max(duration, .zero)
        let isTight = duration > farthest || slack <= timeout.unit.duration
        try expect(isTight, "a timeout is rounded by less than a unit", "\(duration) became \(timeout)")
        try Self.check(timeout)
        let nanoseconds = Int64(bitPattern: source.word()) >> shift
        let short = Timeout(coveringNanoseconds: nanoseconds)
        try expect(
            short == Timeout(covering: .nanoseconds(nanoseconds)),
            "both ways to a timeout lead to the same",
            "\(nanoseconds) became \(short)"
        )
    }

    private static func check(_ timeout: Timeout) throws(FuzzFinding) {
        let again = Result { () throws(TimeoutError) in try Timeout(parsing: timeout.description) }
        try expect(again == .success(timeout), "a timeout that was written is read the same", timeout.description)
        if let deadline = timeout.deadline(from: CodecInput.epoch) {
            let left = deadline - CodecInput.epoch
            try expect(left == timeout.duration, "a deadline is as far away as its timeout")
            let isSame = timeout.nanoseconds.map { .nanoseconds($0) == timeout.duration } ?? false
            try expect(isSame, "a timeout's nanoseconds are its duration", "\(timeout)")
        } else {
            try expect(timeout.duration > Timeout.horizon, "only a time beyond the horizon is no deadline")
        }
    }
}
