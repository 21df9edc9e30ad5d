// SPDX-License-Identifier: Apache-2.0

import CNGHTTP2
import NIOCore
import Testing

@testable import HTTP2Session

/// A codec that does with what it reads what ``Oracle`` does.
private final class Subject {
    let codec: HTTP2Codec
    private let now = ContinuousClock.now
    private(set) var events: [OracleEvent] = []
    private(set) var closes: [Int32: UInt32] = [:]
    private(set) var origins: [Int32: StreamCloseOrigin] = [:]
    private(set) var frames: [SentFrame] = []
    private(set) var wasBlocked = false

    init(role: HTTP2Role, _ configuration: HTTP2CodecConfiguration) throws {
        self.codec = try HTTP2Codec(role: role, configuration: configuration, now: self.now)
    }

    var failure: UInt32? {
        self.codec.failure == nil ? nil : self.frames.last { $0.type == 7 }?.number(at: 4)
    }

    func submitRequest(_ fields: [HTTP2HeaderField], body: Int?) throws {
        let streamID = try self.codec.submitRequest(fields, endStream: body == nil)
        if let body { try self.codec.submitData(streamID: streamID, Self.zeros(body), endStream: true) }
    }

    private static func zeros(_ count: Int) -> ByteBuffer { ByteBuffer(repeating: 0, count: count) }

    func receive(_ bytes: [UInt8]) throws {
        try? self.codec.receive(ByteBuffer(bytes: bytes), now: self.now)
        try self.act()
        try self.pump()
    }

    private func act() throws {
        var credit: [Int32: Int] = [:]
        let first = self.events.count
        for event in self.codec.takeEvents() {
            switch event {
            case .headers(let block):
                let fields = block.fields + [block.variable].compactMap(\.self)
                self.events.append(.headers(block.streamID, fields, endStream: block.endStream))
                if block.kind == .request { try self.answer(block.streamID) }
            case .headersTooLarge: Issue.record("no block of the traffic is that large")
            case .data(let streamID, let bytes):
                self.dataCame(streamID, Array(bytes.readableBytesView), after: first)
                if Reply.consumes(streamID) { credit[streamID, default: 0] += bytes.readableBytes }
            case .endOfStream(let streamID): self.events.append(.end(streamID))
            case .streamClosed(let streamID, let code, let origin):
                #expect(self.closes[streamID] == nil)
                self.closes[streamID] = code.rawValue
                self.origins[streamID] = origin
            case .settings: self.events.append(.settings)
            case .settingsAcknowledged: self.events.append(.settingsAcknowledged)
            case .ping(let opaque): self.events.append(.ping(Self.bytes(opaque)))
            case .pingAcknowledged(let opaque): self.events.append(.pong(Self.bytes(opaque)))
            case .goAway(let last, let code, _): self.events.append(.goAway(last, code.rawValue))
            case .drained: break
            }
        }
        for (streamID, count) in credit.sorted(by: { $0.key < $1.key }) {
            self.codec.consume(streamID: streamID, byteCount: count)
        }
    }

    private static func bytes(_ number: UInt64) -> [UInt8] { withUnsafeBytes(of: number.bigEndian) { Array($0) } }

    private func dataCame(_ streamID: Int32, _ bytes: [UInt8], after first: Int) {
        if self.events.count > first, case .data(streamID, let before) = self.events.last {
            self.events[self.events.count - 1] = .data(streamID, before + bytes)
        } else {
            self.events.append(.data(streamID, bytes))
        }
    }

    private func answer(_ streamID: Int32) throws {
        switch Reply.to(streamID) {
        case .none: break
        case .head: try self.codec.submitResponse(streamID: streamID, responseFields, endStream: true)
        case .body(let count):
            try self.codec.submitResponse(streamID: streamID, responseFields, endStream: false)
            try self.codec.submitData(streamID: streamID, Self.zeros(count))
            try self.codec.submitTrailers(streamID: streamID, trailerFields)
        }
    }

    func pump() throws {
        self.frames += sentFrames(self.codec.takeOutput())
        if self.codec.sendWindow.available <= 0 { self.wasBlocked = true }
        try self.act()
        #expect(self.codec.checkInvariants() == nil)
    }
}

/// Where the codec and libnghttp2 differ on purpose.
private enum Difference: String, CaseIterable {
    /// The codec remembers streams that the peer skipped or ended, and refuses frames on them (RFC 9113, sections 5.1 and
    /// 5.1.1); the library takes them for frames that crossed a reset.
    case remembersStreams
    /// The library overlooks priorities once they are turned off; a faulty one stays a fault for the codec.
    case judgesPriorities
    /// The codec judges a DATA frame against the windows by its length; the library by the bytes that have come.
    case judgesDataByItsHeader
    /// Settings that make a stream's window too large end the connection (RFC 9113, section 6.9.2); the library resets the
    /// stream.
    case windowsBySettings
    /// A field without a name is malformed (RFC 9110, section 5.1); the library leaves it out.
    case emptyNames
    /// A status below 100 is none (RFC 9110, section 15).
    case lowStatus
    /// The library ends the connection for a frame on a stream that ended with a malformed block; the codec has reset that
    /// stream and ignores what follows.
    case afterMalformedEnd
    /// The library counts the pieces in which the header of a CONTINUATION frame comes, as if each were a frame.
    case continuationsByReads
    /// A frame of the wrong size in the wrong place ends the connection for one of its faults.
    case twoFaults
    /// The library reads the last of several equal settings in one frame; the codec each of them, in order (section 6.5).
    case repeatedSettings
    /// An empty DATA frame before the response is a fault; the library looks at the next byte of a body.
    case emptyBodyBeforeResponse
    /// The library hides a `content-length` of 0 in a response with status 204.
    case lengthOf204
}

@Suite("The codec beside libnghttp2")
struct DifferentialTests {
    /// How many connections a seed makes.
    private static let connections = 220

    /// What became of a comparison.
    private enum Outcome: Hashable {
        case same
        case bothEnded
        case differs(Difference)
    }

    @Test("says the same of traffic by chance, whole and damaged", arguments: [HTTP2Role.server, .client], 0..<4)
    func agreement(role: HTTP2Role, seed: UInt64) throws {
        var outcomes: [Outcome: Int] = [:]
        for index in 0..<Self.connections {
            let number = seed &* 1_000_003 &+ UInt64(index)
            let outcome = try Self.compare(role, seed: number)
            outcomes[outcome, default: 0] += 1
        }
        // A good part of it must be exchanges that both carry out to the end of the bytes, and faults that both find.
        #expect(outcomes[.same, default: 0] > Self.connections / 16, "\(outcomes)")
        #expect(outcomes[.bothEnded, default: 0] > Self.connections / 16, "\(outcomes)")
        let differing = outcomes.reduce(0) { if case .differs = $1.key { $0 + $1.value } else { $0 } }
        #expect(differing < Self.connections / 2, "\(outcomes)")
    }

    private static func compare(_ role: HTTP2Role, seed: UInt64) throws -> Outcome {
        var traffic = Traffic(isOfClient: role == .server, seed: seed)
        let (bytes, cuts) = traffic.connection()
        var configuration = HTTP2CodecConfiguration.defaults
        configuration.maxConcurrentStreams = seed % 5 == 0 ? 4 : 100
        configuration.streamWindowBytes = [20_000, 40_000, 1 << 20][Int(seed % 3)]
        configuration.connectionWindowBytes = seed % 4 == 0 ? 65_535 : 1 << 20
        // Floods have tests of their own.
        configuration.idleFrameBurst = 1_000_000
        configuration.resetBurst = 1_000_000
        if seed % 2 == 0 { configuration.variableFieldName = "x-plain" }
        let subject = try Subject(role: role, configuration)
        let oracle = try Oracle(role: role, configuration)
        if role == .client {
            for body in Reply.requests {
                try subject.submitRequest(requestFields, body: body)
                oracle.submitRequest(requestFields, body: body)
            }
        }
        try subject.pump()
        oracle.pump()
        var start = 0
        for cut in cuts {
            let piece = Array(bytes[start..<cut])
            start = cut
            try subject.receive(piece)
            oracle.receive(piece)
            if subject.codec.isFinished || oracle.isFinished { break }
        }
        // One may have to see the rest of a frame that the other has refused by its header.
        if subject.failure != nil, !oracle.isFinished { oracle.receive(Array(bytes[start...])) }
        return Self.judge(subject, oracle, seed: seed, wire: Array(bytes[..<start]), role)
    }

    private static func judge(
        _ subject: Subject,
        _ oracle: Oracle,
        seed: UInt64,
        wire bytes: [UInt8],
        _ role: HTTP2Role
    ) -> Outcome {
        let wire = Wire(bytes, hasPreface: role == .server)
        if let difference = Self.difference(subject, oracle, wire) { return .differs(difference) }
        let message = subject.codec.failure?.message ?? "no failure"
        let comment: Comment = """
            seed \(seed), \(role): \(message); \(subject.events.suffix(6)) and \(oracle.events.suffix(6)); \
            \(subject.closes) and \(oracle.closes), error \(oracle.hardError ?? 0)
            """
        #expect(subject.failure == oracle.failure, comment)
        #expect(subject.events == oracle.events, comment)
        // The library sends nothing beside the last GOAWAY, not even what was due before.
        guard subject.failure == nil, oracle.failure == nil else { return .bothEnded }
        #expect(subject.codec.isFinished == oracle.isFinished, comment)
        // Which streams get a scarce window, and so come to their end, is a matter of turns.
        let isScarce = subject.wasBlocked || oracle.wasBlocked
        func judged(_ closes: [Int32: UInt32]) -> [Int32: UInt32] {
            isScarce ? closes.filter { $0.value != 0 } : closes
        }
        func judged(_ lines: [String]) -> [String] {
            isScarce ? lines.filter { !$0.hasPrefix("the end of") && !$0.hasPrefix("a block on") } : lines
        }
        #expect(judged(subject.closes) == judged(oracle.closes), comment)
        let sent = judged(Self.summary(subject.frames, subject.closes))
        #expect(sent == judged(Self.summary(oracle.frames, oracle.closes)), comment)
        if wire.endsWithFrame { Self.compareWindows(subject, oracle, comment) }
        return .same
    }

    /// What was sent, without the order of streams and the sizes of frames.
    private static func summary(_ frames: [SentFrame], _ closes: [Int32: UInt32]) -> [String] {
        frames.flatMap { frame -> [String] in
            let end = frame.flags & 1 == 1 ? ["the end of \(frame.streamID)"] : []
            switch frame.type {
            case 0: return end
            case 1: return ["a block on \(frame.streamID)"] + end
            case 3:
                // One that crossed the peer's own reset may be left out.
                let code = frame.number(at: 0)
                return closes[frame.streamID] ?? code == code ? ["a reset of \(frame.streamID), code \(code)"] : []
            case 4: return ["settings, flags \(frame.flags)"]
            case 6: return ["ping \(frame.payload), flags \(frame.flags)"]
            default: return []
            }
        }
        .sorted()
    }

    private static func compareWindows(_ subject: Subject, _ oracle: Oracle, _ comment: Comment) {
        func credit(_ frames: [SentFrame], _ streamID: Int32) -> Int {
            frames.filter { $0.type == 8 && $0.streamID == streamID }.reduce(0) { $0 + Int($1.number(at: 0)) }
        }
        func sent(_ frames: [SentFrame], _ streamID: Int32) -> Int {
            frames.filter { $0.type == 0 && $0.streamID == streamID }.reduce(0) { $0 + $1.payload.count }
        }
        // What came is what was credited and what was not.
        #expect(
            credit(subject.frames, 0) + subject.codec.receiveWindow.used
                == credit(oracle.frames, 0) + oracle.receivedBytes(0),
            comment
        )
        let gap = credit(subject.frames, 0) - credit(oracle.frames, 0)
        #expect(abs(gap) <= subject.codec.receiveWindow.size, comment)
        for stream in subject.codec.streams.values where stream.closeOrigin == nil && !stream.peerEnded {
            let id = stream.id
            #expect(
                credit(subject.frames, id) + stream.receiveWindow.used
                    == credit(oracle.frames, id) + oracle.receivedBytes(id),
                "stream \(id), \(comment)"
            )
        }
        guard !subject.wasBlocked, !oracle.wasBlocked else { return }
        #expect(subject.codec.sendWindow.available == oracle.sendWindow(0), comment)
        for stream in subject.codec.streams.values where stream.headWasSent || role(of: subject) == .server {
            let available = max(0, stream.sendWindow.available)
            #expect(available == oracle.sendWindow(stream.id), "stream \(stream.id), \(comment)")
        }
        for id in Set(subject.frames.filter { $0.type == 0 }.map(\.streamID)) {
            #expect(sent(subject.frames, id) == sent(oracle.frames, id), "stream \(id), \(comment)")
        }
    }

    private static func role(of subject: Subject) -> HTTP2Role { subject.codec.role }

    // MARK: - Differences

    private static func withoutData(_ events: [OracleEvent]) -> [OracleEvent] {
        events.filter { if case .data = $0 { false } else { true } }
    }

    /// The difference that explains what follows, if there is one.
    private static func difference(_ subject: Subject, _ oracle: Oracle, _ wire: Wire) -> Difference? {
        let message = subject.codec.failure?.message ?? ""
        func says(_ text: String) -> Bool { message.contains(text) }
        if says("was never opened") || says("after the peer had ended it") { return .remembersStreams }
        if says("depends on itself") || says("a frame of type 2 on stream 0") { return .judgesPriorities }
        let flow = HTTP2ErrorCode.flowControlError.rawValue
        if says("the initial window makes that of stream") { return .windowsBySettings }
        if says("DATA frames exceed") { return .judgesDataByItsHeader }
        let hasFlowFault = (subject.frames + oracle.frames).contains { $0.type == 3 && $0.number(at: 0) == flow }
        if subject.events != oracle.events || !wire.endsWithFrame {
            // A reset for it may have crossed one of the peer.
            let isAboutData = Self.withoutData(subject.events) == Self.withoutData(oracle.events)
            if hasFlowFault || (isAboutData && subject.events != oracle.events) { return .judgesDataByItsHeader }
        }
        if wire.repeatsSettings { return .repeatedSettings }
        if oracle.sawEmptyName { return .emptyNames }
        func responds(_ status: String, _ other: String? = nil) -> Bool {
            (oracle.events + subject.events)
                .contains { event in
                    guard case .headers(_, let fields, _) = event else { return false }
                    return fields.contains { $0.name == ":status" && $0.value.hasPrefix(status) }
                        && (other == nil || fields.contains { $0.name == other })
                }
        }
        if responds("0") { return .lowStatus }
        guard subject.events != oracle.events || subject.failure != oracle.failure || subject.closes != oracle.closes
        else { return nil }
        if responds("204", "content-length") { return .lengthOf204 }
        let hasFault = subject.origins.values.contains(.fault)
        let closed = HTTP2ErrorCode.streamClosed.rawValue
        if oracle.failure == closed, subject.failure != closed, subject.events.starts(with: oracle.events) {
            return .afterMalformedEnd
        }
        if oracle.hardError == NGHTTP2_ERR_TOO_MANY_CONTINUATIONS.rawValue { return .continuationsByReads }
        let either = [HTTP2ErrorCode.protocolError.rawValue, HTTP2ErrorCode.frameSizeError.rawValue]
        if let one = subject.failure, let other = oracle.failure, one != other, either.contains(one),
            either.contains(other)
        {
            return .twoFaults
        }
        if subject.codec.role == .client, hasFault, wire.hasEmptyData { return .emptyBodyBeforeResponse }
        return nil
    }
}

/// The frames of a connection's bytes.
private struct Wire {
    /// Whether no frame is cut off.
    private(set) var endsWithFrame = false
    /// Whether a SETTINGS frame has a setting twice.
    private(set) var repeatsSettings = false
    /// Whether a DATA frame has no content.
    private(set) var hasEmptyData = false

    init(_ bytes: [UInt8], hasPreface: Bool) {
        var rest = bytes.dropFirst(hasPreface ? 24 : 0)
        while rest.count >= 9 {
            let start = rest.startIndex
            let length = rest[start..<start + 3].reduce(0) { $0 << 8 | Int($1) }
            let payload = rest.dropFirst(9).prefix(length)
            switch rest[start + 3] {
            case 0:
                if payload.count <= 1 + 255, payload.count <= 1 + Int(payload.first ?? 0) { self.hasEmptyData = true }
            case 4:
                let numbers = stride(from: payload.startIndex, to: payload.endIndex - 1, by: 6)
                    .map {
                        UInt16(payload[$0]) << 8 | UInt16(payload[$0 + 1])
                    }
                if Set(numbers).count < numbers.count { self.repeatsSettings = true }
            default: break
            }
            guard payload.count == length else { return }
            rest = rest.dropFirst(9 + length)
        }
        self.endsWithFrame = rest.isEmpty
    }
}
