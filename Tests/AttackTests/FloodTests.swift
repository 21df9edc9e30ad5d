// SPDX-License-Identifier: Apache-2.0

import Testing

/// Sends frames until the server has had enough.
///
/// - Parameters:
///   - port: The server's port.
///   - limit: The maximum number of rounds.
///   - chunk: How many rounds one write sends.
///   - opening: What is sent first, after the preface.
///   - round: What is sent repeatedly.
/// - Returns: The connection, and how many rounds were sent.
/// - Throws: ``SocketError`` where the server cannot be reached.
func flood(
    port: Int,
    limit: Int,
    chunk: Int = 20,
    opening: [UInt8] = [],
    _ round: (Int) -> [UInt8]
) throws -> (peer: RawSocket, rounds: Int) {
    let peer = try RawSocket(port: port)
    peer.send(Frames.preface + opening)
    peer.wait { $0.frames[4] >= 2 }
    var rounds = 0
    while rounds < limit, peer.seen.goAway == nil {
        let bytes = (rounds..<rounds + chunk).flatMap(round)
        rounds += chunk
        guard peer.send(bytes) else { break }
    }
    peer.waitForClose()
    return (peer, rounds)
}

@Suite("Floods against a server", .serialized, .timeLimit(.minutes(10)))
struct FloodTests {
    /// Fails unless the connection ended with a GOAWAY, ENHANCE_YOUR_CALM by default, before the server had taken the
    /// frames of this many rounds.
    ///
    /// How much an attacker can send says little: on a busy machine the system's buffers fill before the server reads.
    private func expectCalm(
        _ name: String,
        rounds limit: Int,
        framesPerRound: Int = 1,
        codes expected: Set<UInt32> = [11],
        opening: [UInt8] = [],
        _ round: @escaping @Sendable (Int) -> [UInt8]
    ) async throws {
        // A second earns almost nothing back, so that the bound does not depend on how long the flood takes.
        let toll = try await attack(name, flags: ["--resets-per-second", "1"]) { port in
            // Twice the bound, so that a server which lets everything through fails and the test still ends.
            let result = try flood(port: port, limit: 2 * limit, opening: opening, round)
            let code = result.peer.seen.goAway
            let isExpected = code.map { expected.contains($0) } ?? false
            #expect(isExpected, "\(name): \(code.map(String.init) ?? "none")")
            #expect(result.peer.seen.isClosed, "\(name)")
            return Finding(
                frames: result.rounds * framesPerRound,
                ending: "GOAWAY \(code.map(String.init) ?? "none")",
                port: result.peer.localPort
            )
        }
        let taken = try #require(toll.takenFrames)
        #expect(taken <= limit * framesPerRound, "\(name): the server took \(taken) frames")
    }

    @Test("rapid reset: requests cancelled at once")
    func rapidReset() async throws {
        try await self.expectCalm("rapid reset", rounds: 10_000, framesPerRound: 2) { index in
            let stream = UInt32(2 * index + 1)
            return Frames.headers(Frames.request(), stream) + Frames.reset(stream, 8)
        }
    }

    @Test("requests reset by the server for the client's fault", arguments: Provocation.allCases)
    func madeYouReset(_ kind: Provocation) async throws {
        try await self.expectCalm(
            "made-you-reset: \(kind.rawValue)",
            rounds: 1_000,
            framesPerRound: 2,
            codes: kind.codes
        ) {
            index in
            kind.frames(UInt32(2 * index + 1))
        }
    }

    enum Provocation: String, CaseIterable, Sendable {
        case overflow = "window overflow"
        case zero = "window update of 0"
        case malformed = "malformed headers"
        case itself = "priority on itself"

        /// The codes that end the connection.
        ///
        /// The library treats two of the four as connection errors: the first one ends the connection. The other two leave
        /// their streams open until their resets have been written. If the server reads many at once, as on a busy
        /// machine, they exceed the limit on streams, which is a connection error too.
        var codes: Set<UInt32> {
            switch self {
            case .zero, .itself: [1]
            case .overflow, .malformed: [1, 11]
            }
        }

        func frames(_ stream: UInt32) -> [UInt8] {
            let head = Frames.headers(Frames.request(), stream)
            switch self {
            case .overflow: return head + Frames.windowUpdate(stream, 0x7fff_ffff)
            case .zero: return head + Frames.windowUpdate(stream, 0)
            case .malformed:
                return Frames.headers(Frames.request() + [("Upper", "x")], stream)
                    + Frames.frame(8, stream, [0, 0, 0, 1])
            case .itself: return head + Frames.frame(2, stream, Frames.number(stream) + [1])
            }
        }
    }

    @Test("useless frames", arguments: Useless.allCases)
    func useless(_ kind: Useless) async throws {
        let open = Frames.headers(Frames.request())
        try await self.expectCalm("\(kind.rawValue) flood", rounds: 20_000, opening: open) { _ in kind.frame }
    }

    enum Useless: String, CaseIterable, Sendable {
        case ping = "PING"
        case settings = "SETTINGS"
        case data = "empty DATA"
        case priority = "PRIORITY"
        case window = "WINDOW_UPDATE"
        case unknown = "unknown frame"

        var frame: [UInt8] {
            switch self {
            case .ping: Frames.ping
            case .settings: Frames.frame(4)
            case .data: Frames.data([])
            case .priority: Frames.frame(2, 1, [0, 0, 0, 0, 16])
            case .window: Frames.windowUpdate(0, 1)
            case .unknown: Frames.frame(0xbb, 1, [1])
            }
        }
    }

    @Test("header blocks without end or limit", arguments: Headers.allCases)
    func headers(_ kind: Headers) async throws {
        let toll = try await attack(kind.rawValue) { port in
            let peer = try RawSocket(port: port)
            peer.send(Frames.preface)
            peer.wait { $0.frames[4] >= 2 }
            var frames = 0
            for piece in kind.pieces {
                guard peer.seen.goAway == nil, peer.send(piece) else { break }
                frames += 1
            }
            #expect(peer.waitForClose())
            let code = peer.seen.goAway
            #expect(code != nil && code != 0)
            return Finding(
                frames: frames,
                ending: "GOAWAY \(code.map(String.init) ?? "none")",
                port: peer.localPort
            )
        }
        let taken = try #require(toll.takenBytes)
        #expect(taken < 4 << 20, "the server took \(taken) bytes")
    }

    enum Headers: String, CaseIterable, Sendable {
        case continuation = "CONTINUATION without end"
        case empty = "empty CONTINUATIONs"
        case fields = "30,000 fields"
        case values = "8 MiB of values"
        case bomb = "indexed field of 4 KB, 15,000 times"

        /// At most 10,000 frames.
        var pieces: [[UInt8]] {
            let start = Frames.frame(1, 1, Frames.block(Frames.request()))
            switch self {
            case .continuation:
                let more = Frames.frame(9, 1, Frames.block([("x", String(repeating: "v", count: 900))]))
                return [start] + Array(repeating: more, count: 9_999)
            case .empty: return [start] + Array(repeating: Frames.frame(9, 1), count: 9_999)
            case .fields:
                // `accept-encoding: gzip, deflate` of the static table: one byte each.
                return [start, Frames.frame(9, 1, Array(repeating: 0x90, count: 15_000))]
                    + [Frames.frame(9, flags: 4, 1, Array(repeating: 0x90, count: 15_000))]
            case .values:
                let more = Frames.frame(9, 1, Frames.block([("x", String(repeating: "v", count: 16_000))]))
                return [start] + Array(repeating: more, count: 524)
            case .bomb:
                // A literal that is indexed at 62, then nothing but that.
                let large = [0x40] + Frames.text("x") + Frames.text(String(repeating: "v", count: 4_000))
                return [
                    start, Frames.frame(9, 1, large),
                    Frames.frame(9, flags: 4, 1, Array(repeating: 0xbe, count: 15_000)),
                ]
            }
        }
    }
}
