// SPDX-License-Identifier: Apache-2.0

import Foundation
import Testing

@testable import WeightFetching

/// A disk, a network and a server that fail at random, from a seed.
private struct Simulation {
    private static let right: [UInt8] = noise(500, seed: 7)

    private var random: SplitMix
    private var disk: [UInt8] = []
    private var validator: String?
    private var waits = 0
    private var requests = 0
    /// Whether the server speaks of its files by entity tags.
    private let hasTags: Bool
    private let ignoresRanges: Bool

    init(seed: UInt64) {
        self.random = SplitMix(state: seed)
        self.hasTags = Bool.random(using: &self.random)
        self.ignoresRanges = Int.random(in: 0..<4, using: &self.random) == 0
    }

    /// Runs until the file is there or given up; a process may be killed on the way and start again.
    ///
    /// - Returns: What was on the disk when the file was finished; nil where it was given up.
    mutating func run() throws -> [UInt8]? {
        let file = RemoteFile(
            name: "a",
            address: try RemoteAddress(parsing: "https://hub.test/a"),
            authorization: nil,
            byteCount: Self.right.count,
            checksum: .sha256(try RunningChecksum.sha256(Self.right))
        )
        for _ in 0..<50 {
            var transfer = FileTransfer(
                file,
                partialBytes: self.disk.count,
                validator: self.validator,
                policy: .defaults
            )
            var action = transfer.start()
            while Int.random(in: 0..<40, using: &self.random) != 0 {
                switch action {
                case .send(let request):
                    // What begins anew is cut off when its first bytes come.
                    #expect(transfer.position <= self.disk.count)
                    action = try self.answer(request, &transfer)
                case .receive: Issue.record("a body without a head")
                case .wait:
                    self.waits += 1
                    action = transfer.waited()
                case .verify:
                    #expect(self.disk.count == file.byteCount)
                    let found = Checksum.sha256(try RunningChecksum.sha256(self.disk))
                    action = transfer.verified(found)
                    if found != file.checksum { self.disk = [] }
                case .finish: return self.disk
                case .fail(let error):
                    if error.code == .corrupt { self.disk = [] }
                    return nil
                }
                #expect(self.requests < 2000, "it goes on for ever")
                guard self.requests < 2000 else { return nil }
            }
        }
        return nil
    }

    /// What the server has at the moment: mostly the right file, now and then another one of the same size.
    private mutating func answer(
        _ request: FileTransfer.Request,
        _ transfer: inout FileTransfer
    ) throws -> FileTransfer.Action {
        self.requests += 1
        let draw = Double.random(in: 0..<1, using: &self.random)
        switch Int.random(in: 0..<12, using: &self.random) {
        case 0: return transfer.notAnswered("no connection", draw: draw)
        case 1:
            let head = FileTransfer.Response(status: 503, headers: ["retry-after": "1"])
            return transfer.responded(head, draw: draw, now: Date())
        default: break
        }
        let isOther = Int.random(in: 0..<10, using: &self.random) == 0
        let content = isOther ? noise(500, seed: 8) : Self.right
        let tag = isOther ? "\"other\"" : "\"right\""
        var start = 0
        var head = FileTransfer.Response(status: 200, headers: self.hasTags ? ["etag": tag] : [:])
        let condition = request.headers.first { $0.name == "if-range" }?.value
        if let range = request.headers.first(where: { $0.name == "range" })?.value, !self.ignoresRanges,
            condition == nil || condition == tag, let first = Int(range.dropFirst("bytes=".count).dropLast())
        {
            start = first
            head.status = 206
            head.headers["content-range"] = "bytes \(first)-499/500"
        }
        let action = transfer.responded(head, draw: draw, now: Date())
        guard case .receive(let from, let validator) = action else { return action }
        #expect(from == start)
        self.disk.removeLast(self.disk.count - from)
        self.validator = validator
        let end = Bool.random(using: &self.random) ? 500 : Int.random(in: start...500, using: &self.random)
        try transfer.received(end - start)
        self.disk += content[start..<end]
        return transfer.bodyEnded(end == 500 ? nil : "cut", draw: draw)
    }
}

/// SplitMix64, so that a seed draws the same world everywhere.
///
/// https://doi.org/10.1145/2714064.2660195
private struct SplitMix: RandomNumberGenerator {
    var state: UInt64

    mutating func next() -> UInt64 {
        self.state &+= 0x9E37_79B9_7F4A_7C15
        var mixed = self.state
        mixed = (mixed ^ (mixed >> 30)) &* 0xBF58_476D_1CE4_E5B9
        mixed = (mixed ^ (mixed >> 27)) &* 0x94D0_49BB_1331_11EB
        return mixed ^ (mixed >> 31)
    }
}

@Suite("Transfers under random faults")
struct TransferSimulationTests {
    @Test("finished files are right, and most finish")
    func worlds() throws {
        var finished = 0
        for seed in 0..<400 {
            var world = Simulation(seed: UInt64(seed))
            guard let file = try world.run() else { continue }
            #expect(file == noise(500, seed: 7), "the wrong file was finished with the seed \(seed)")
            finished += 1
        }
        #expect(finished > 300, "\(finished) of 400")
    }
}
