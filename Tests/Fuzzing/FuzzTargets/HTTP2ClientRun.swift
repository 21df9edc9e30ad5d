// SPDX-License-Identifier: Apache-2.0

import HTTP2Session
import NIOCore
import RPCCore

/// Frames of a server into a client with calls in flight.
struct HTTP2ClientRun {
    private let input: CodecInput
    private let codec: HTTP2Codec
    private let creditBytes: Int
    private var calls: [Int32: ClientCallModel] = [:]
    private var ledger: StreamLedger
    private var inspector: OutputInspector
    private var random: SplitMix64
    private var now = CodecInput.epoch

    static func run(_ bytes: [UInt8], _ trace: inout Trace) throws(FuzzFinding) {
        let input = CodecInput(bytes, role: .client)
        var run = try Self(input)
        for _ in 0...run.random.below(4) { try run.openCall() }
        try run.flush(limitBytes: .max, &trace)
        for piece in input.pieces(&run.random) {
            guard try run.feed(piece, &trace) else { break }
        }
        // The connection is lost, as every connection is in the end.
        for streamID in run.calls.keys.sorted() { try run.calls[streamID]?.connectionLost(&trace) }
    }

    private init(_ input: CodecInput) throws(FuzzFinding) {
        self.input = input
        self.codec = try makeCodec(.client, input.configuration)
        self.creditBytes = OutputInspector.creditBytes(in: input.frames, role: .client)
        self.ledger = StreamLedger(role: .client, configuration: input.configuration)
        self.inspector = OutputInspector(role: .client, configuration: input.configuration)
        self.random = SplitMix64(seed: UInt64(input.seed))
    }

    private mutating func openCall() throws(FuzzFinding) {
        let head = RequestHead(
            method: Method(service: "test.Service", name: "Method"),
            authority: "localhost",
            timeout: Timeout(covering: .seconds(1)),
            userAgent: "fuzz",
            metadata: ServerCallModel.someMetadata(&self.random)
        )
        let fields = ServerCallModel.codecFields(head.fields())
        let streamID: Int32
        do throws(HTTP2CodecError) {
            let timeout = fields.first { $0.name == "grpc-timeout" }
            let others = fields.filter { $0.name != "grpc-timeout" }
            if self.random.once(in: 2), let block = try self.codec.store(others) {
                streamID = try self.codec.submitRequest(block, variable: timeout, endStream: false)
            } else {
                streamID = try self.codec.submitRequest(fields, endStream: false)
            }
        } catch {
            throw FuzzFinding("a request can be opened where streams are available", error.description)
        }
        try self.ledger.opened(streamID)
        let shape = CallShape.allCases[self.random.below(CallShape.allCases.count)]
        let call = ClientCallModel(
            streamID: streamID,
            shape: shape,
            codec: self.codec,
            creditsLate: self.input.has(CodecInput.Option.slowConsumer)
        )
        self.calls[streamID] = call
        if self.random.once(in: 2) {
            try call.send(self.random.below(40_000))
            try call.endRequest()
        }
    }

    /// Delivers one piece and acts on it.
    ///
    /// - Returns: Whether the connection continues.
    private mutating func feed(_ piece: ByteBuffer, _ trace: inout Trace) throws(FuzzFinding) -> Bool {
        if self.random.once(in: 4) { self.now += .milliseconds(self.random.below(200)) }
        let failure = receive(piece, self.codec, now: self.now)
        try self.dispatch(&trace)
        if failure == nil {
            for streamID in self.calls.keys.sorted() where self.random.once(in: 3) {
                try self.calls[streamID]?.act(&self.random, &trace)
            }
            switch self.random.below(40) {
            case 0: self.codec.ping(opaque: 3)
            case 1: self.codec.goAway()
            case 2 where self.codec.availableStreams > 0 && self.calls.count < 8: try self.openCall()
            default: break
            }
        }
        try self.flush(limitBytes: self.input.has(CodecInput.Option.slowReader) ? 1 : .max, &trace)
        try expect(self.calls.count == self.codec.openStreamCount, "a call is kept for each open stream")
        guard let failure else { return true }
        try checkFailure(failure, self.codec, piece, now: self.now)
        try expect(!self.codec.acceptsNewStreams, "a failed connection takes no new streams")
        try self.flush(limitBytes: .max, &trace)
        trace.note(failure.code.hashNumber)
        return false
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
            try self.calls[block.streamID]?.headersReceived(block, &trace)
        case .headersTooLarge(let streamID, _, _, _):
            try self.calls[streamID]?.headersTooLarge(&trace)
        case .data(let streamID, let bytes):
            try self.calls[streamID]?.dataReceived(bytes, &trace)
        case .endOfStream(let streamID):
            try self.calls[streamID]?.endedWithoutTrailers(&trace)
        case .streamClosed(let streamID, let code, let origin):
            try self.calls.removeValue(forKey: streamID)?.streamClosed(code: code, origin: origin, &trace)
        case .settings, .settingsAcknowledged, .ping, .pingAcknowledged, .goAway, .drained:
            break
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
