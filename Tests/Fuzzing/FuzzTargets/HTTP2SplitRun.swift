// SPDX-License-Identifier: Apache-2.0

import HTTP2Session
import NIOCore

/// The same frames into three codecs: at once, byte by byte, and in pieces of chance lengths.
///
/// There are no answers, so that the bytes alone decide what happens.
enum HTTP2SplitRun {
    /// An event that can be compared; data is joined.
    private enum Step: Equatable {
        case block(HTTP2HeaderBlock)
        case tooLarge(Int32, HTTP2HeaderBlock.Kind, Int)
        case data(Int32, [UInt8])
        case end(Int32)
        case closed(Int32, HTTP2ErrorCode, StreamCloseOrigin)
        case drained(Int32)
        case settings(HTTP2PeerSettings)
        case acknowledged
        case ping(UInt64, isAnswer: Bool)
        case goAway(Int32, HTTP2ErrorCode, String)
    }

    private struct Outcome: Equatable {
        var steps: [Step] = []
        var failure: HTTP2CodecError?

        var hasGoAway: Bool {
            self.steps.contains { step in
                if case .goAway = step { true } else { false }
            }
        }
    }

    static func run(_ bytes: [UInt8], _ trace: inout Trace) throws(FuzzFinding) {
        let role: HTTP2Role = (bytes.first ?? 0) & CodecInput.Option.client == 0 ? .server : .client
        let input = CodecInput(bytes, role: role)
        var random = SplitMix64(seed: UInt64(input.seed))
        let frames = Array(input.frames.prefix(1_500))
        let whole = try Self.outcome(input, role, pieces: [ByteBuffer(bytes: frames)])
        let single = try Self.outcome(input, role, pieces: frames.map { ByteBuffer(bytes: [$0]) })
        var pieces: [ByteBuffer] = []
        var start = 0
        while start < frames.count {
            let end = min(frames.count, start + 1 + random.below(random.once(in: 3) ? 400 : 30))
            pieces.append(ByteBuffer(bytes: frames[start..<end]))
            start = end
        }
        let mixed = try Self.outcome(input, role, pieces: pieces)
        try Self.compare(whole, single, "byte by byte")
        try Self.compare(whole, mixed, "in pieces")
        trace.note(whole.failure?.code.hashNumber ?? 0)
        for step in whole.steps { Self.note(step, &trace) }
    }

    private static func compare(_ whole: Outcome, _ split: Outcome, _ how: String) throws(FuzzFinding) {
        guard whole != split else { return }
        // A peer that goes away and has no open streams ends the connection; the library reads the rest of the piece
        // that says so, and nothing after it.
        let isCutShort = whole.steps.starts(with: split.steps) && split.hasGoAway
        if isCutShort { return }
        let place = zip(whole.steps, split.steps).enumerated().first { $0.element.0 != $0.element.1 }?.offset
        let index = place ?? min(whole.steps.count, split.steps.count)
        let first = index < whole.steps.count ? "\(whole.steps[index])" : "nothing"
        let second = index < split.steps.count ? "\(split.steps[index])" : "nothing"
        throw FuzzFinding(
            "events do not depend on how bytes are split",
            "step \(index) is \(first.prefix(300)) whole and \(second.prefix(300)) \(how); "
                + "\(whole.steps.count) and \(split.steps.count) steps; "
                + "failures \(String(describing: whole.failure)) and \(String(describing: split.failure))"
        )
    }

    private static func outcome(
        _ input: CodecInput,
        _ role: HTTP2Role,
        pieces: [ByteBuffer]
    ) throws(FuzzFinding) -> Outcome {
        let codec = try makeCodec(role, input.configuration)
        var outcome = Outcome()
        if role == .client {
            let fields = ["POST", "http", "/s/m", "a"].enumerated()
                .map { HTTP2HeaderField([":method", ":scheme", ":path", ":authority"][$0.offset], $0.element) }
            for _ in 0..<2 {
                do throws(HTTP2CodecError) {
                    _ = try codec.submitRequest(fields, endStream: true)
                } catch {
                    throw FuzzFinding("a fresh connection takes requests", error.description)
                }
            }
        }
        _ = codec.takeOutput()
        for piece in pieces {
            let failure = receive(piece, codec, now: CodecInput.epoch)
            for event in codec.takeEvents() { Self.add(event, to: &outcome.steps) }
            if let failure {
                outcome.failure = failure
                break
            }
        }
        return outcome
    }

    private static func add(_ event: HTTP2Event, to steps: inout [Step]) {
        switch event {
        case .headers(let block): steps.append(.block(block))
        case .headersTooLarge(let streamID, let kind, let sizeBytes, _):
            steps.append(.tooLarge(streamID, kind, sizeBytes))
        case .data(let streamID, let bytes):
            if case .data(streamID, let before) = steps.last {
                steps[steps.count - 1] = .data(streamID, before + Array(bytes.readableBytesView))
            } else {
                steps.append(.data(streamID, Array(bytes.readableBytesView)))
            }
        case .endOfStream(let streamID): steps.append(.end(streamID))
        case .streamClosed(let streamID, let code, let origin): steps.append(.closed(streamID, code, origin))
        case .drained(let streamID): steps.append(.drained(streamID))
        case .settings(let settings): steps.append(.settings(settings))
        case .settingsAcknowledged: steps.append(.acknowledged)
        case .ping(let opaque): steps.append(.ping(opaque, isAnswer: false))
        case .pingAcknowledged(let opaque): steps.append(.ping(opaque, isAnswer: true))
        case .goAway(let lastStreamID, let code, let debug): steps.append(.goAway(lastStreamID, code, debug))
        }
    }

    private static func note(_ step: Step, _ trace: inout Trace) {
        switch step {
        case .block(let block): trace.note(block.endStream ? 1 : 2)
        case .tooLarge: trace.note(3)
        case .data(_, let bytes): trace.note(size: bytes.count)
        case .end: trace.note(4)
        case .closed(_, let code, let origin):
            trace.note(min(code.rawValue, 20) + 600)
            trace.note(origin.hashNumber)
        case .drained: trace.note(5)
        case .settings: trace.note(6)
        case .acknowledged: trace.note(7)
        case .ping: trace.note(8)
        case .goAway(_, let code, _): trace.note(min(code.rawValue, 20) + 700)
        }
    }
}
