// SPDX-License-Identifier: Apache-2.0

import HTTP2Session
import NIOCore
import RPCCore

/// Frames of a client into a server that answers.
struct HTTP2ServerRun {
    private let input: CodecInput
    private let codec: HTTP2Codec
    private let creditBytes: Int
    private var calls: [Int32: ServerCallModel] = [:]
    private var ledger: StreamLedger
    private var inspector: OutputInspector
    private var random: SplitMix64
    private var now = CodecInput.epoch

    static func run(_ bytes: [UInt8], _ trace: inout Trace) throws(FuzzFinding) {
        let input = CodecInput(bytes, role: .server)
        var run = try Self(input)
        for piece in input.pieces(&run.random) {
            guard try run.feed(piece, &trace) else { return }
        }
        try run.wrapUp(&trace)
    }

    private init(_ input: CodecInput) throws(FuzzFinding) {
        self.input = input
        self.codec = try makeCodec(.server, input.configuration)
        self.creditBytes = OutputInspector.creditBytes(in: input.frames, role: .server)
        self.ledger = StreamLedger(role: .server, configuration: input.configuration)
        self.inspector = OutputInspector(role: .server, configuration: input.configuration)
        self.random = SplitMix64(seed: UInt64(input.seed))
    }

    /// Delivers one piece and answers it.
    ///
    /// - Returns: Whether the connection continues.
    private mutating func feed(_ piece: ByteBuffer, _ trace: inout Trace) throws(FuzzFinding) -> Bool {
        if self.random.once(in: 4) { self.now += .milliseconds(self.random.below(200)) }
        let failure = receive(piece, self.codec, now: self.now)
        try self.dispatch(&trace)
        try self.act(&trace)
        try self.flush(limitBytes: self.input.has(CodecInput.Option.slowReader) ? 1 : .max, &trace)
        let limit = self.input.configuration.maxConcurrentStreams
        try expect(self.codec.openStreamCount <= limit, "no more streams are open than allowed")
        try expect(self.ledger.openStreams.count <= self.codec.openStreamCount, "open streams are counted")
        guard let failure else { return true }
        try checkFailure(failure, self.codec, piece, now: self.now)
        try self.flush(limitBytes: .max, &trace)
        trace.note(failure.code.hashNumber)
        for call in self.calls.values { try call.peerLeft() }
        return false
    }

    /// Answers the rest and checks whether the server becomes idle.
    private mutating func wrapUp(_ trace: inout Trace) throws(FuzzFinding) {
        for streamID in self.calls.keys.sorted() {
            try self.calls[streamID]?.finish(ServerCallModel.someStatus(&self.random), Metadata())
        }
        try self.flush(limitBytes: .max, &trace)
        try expect(!self.codec.outputIsPending, "output without a limit is complete")
        self.codec.goAway()
        try self.flush(limitBytes: .max, &trace)
        trace.note(self.codec.isFinished ? 300 : 301)
    }

    private mutating func dispatch(_ trace: inout Trace) throws(FuzzFinding) {
        while self.codec.hasEvents {
            for event in self.codec.takeEvents() {
                try self.ledger.note(event, &trace)
                try self.handle(event, &trace)
            }
        }
    }

    private mutating func handle(_ event: HTTP2Event, _ trace: inout Trace) throws(FuzzFinding) {
        switch event {
        case .headers(let block):
            let call = self.call(block.streamID)
            try call.headersReceived(block, now: self.now, &self.random, &trace)
        case .headersTooLarge(let streamID, _, _, _):
            try self.call(streamID).headersTooLarge()
        case .data(let streamID, let bytes):
            if let call = self.calls[streamID] {
                try call.dataReceived(bytes, &trace)
            } else {
                self.codec.consume(streamID: streamID, byteCount: bytes.readableBytes)
            }
        case .endOfStream(let streamID):
            try self.calls[streamID]?.requestEnded(&trace)
        case .streamClosed(let streamID, _, _):
            try self.calls.removeValue(forKey: streamID)?.peerLeft()
        case .settings, .settingsAcknowledged, .ping, .pingAcknowledged, .goAway, .drained:
            break
        }
    }

    private mutating func call(_ streamID: Int32) -> ServerCallModel {
        if let call = self.calls[streamID] { return call }
        let creditsLate = self.input.has(CodecInput.Option.slowConsumer)
        let call = ServerCallModel(streamID: streamID, codec: self.codec, creditsLate: creditsLate)
        self.calls[streamID] = call
        return call
    }

    /// Lets handlers and the server itself do something.
    private mutating func act(_ trace: inout Trace) throws(FuzzFinding) {
        for streamID in self.calls.keys.sorted() where self.random.once(in: 2) {
            try self.calls[streamID]?.act(&self.random, &trace)
        }
        switch self.random.below(60) {
        case 0: self.codec.ping(opaque: 7)
        case 1: self.codec.announceShutdown()
        case 2: self.codec.goAway()
        case 3 where self.random.once(in: 4): self.codec.terminate(code: .noError)
        default: break
        }
    }

    private mutating func flush(limitBytes: Int, _ trace: inout Trace) throws(FuzzFinding) {
        var turns = 0
        while true {
            let output = self.codec.takeOutput(limitBytes: limitBytes)
            try self.inspector.inspect(output, creditBytes: self.creditBytes)
            let hadEvents = self.codec.hasEvents
            try self.dispatch(&trace)
            if limitBytes != .max || (output.isEmpty && !hadEvents) { return }
            turns += 1
            try expect(turns < 1_000, "output ends")
        }
    }
}

/// A codec of the configuration.
func makeCodec(_ role: HTTP2Role, _ configuration: HTTP2CodecConfiguration) throws(FuzzFinding) -> HTTP2Codec {
    do throws(HTTP2CodecError) {
        return try HTTP2Codec(role: role, configuration: configuration, now: CodecInput.epoch)
    } catch {
        throw FuzzFinding("a codec can be made", error.description)
    }
}

/// Feeds a codec and returns the error that it ends with, if it does.
func receive(_ piece: ByteBuffer, _ codec: HTTP2Codec, now: ContinuousClock.Instant) -> HTTP2CodecError? {
    do throws(HTTP2CodecError) {
        try codec.receive(piece, now: now)
        return nil
    } catch {
        return error
    }
}

/// Checks that a failed codec stays failed and says why.
func checkFailure(
    _ failure: HTTP2CodecError,
    _ codec: HTTP2Codec,
    _ piece: ByteBuffer,
    now: ContinuousClock.Instant
) throws(FuzzFinding) {
    try expect(codec.failure == failure, "a failure is remembered")
    try expect(!failure.message.isEmpty && failure.message.utf8.count < 1_000, "a failure is explained in brief")
    try expect(receive(piece, codec, now: now) == failure, "a failed codec takes nothing more")
    try expect(!codec.hasEvents, "a failed codec has no further events from its peer")
}

extension HTTP2CodecError.Code {
    /// A number for the trace.
    var hashNumber: Int {
        switch self {
        case .peerFault: 400
        case .flooded: 401
        case .library: 402
        default: 403
        }
    }
}
