// SPDX-License-Identifier: Apache-2.0

import Foundation
import PeerTools
import Testing

@testable import switchyard_bench

/// Raw sockets beside calls: the limit that calls and layers are compared with.
@Suite("Raw sockets", .serialized, .timeLimit(.minutes(10)))
struct RawSocketTests {
    /// Runs a benchmark that prints a table as Markdown.
    ///
    /// - Returns: The cells of the table's rows, without the titles.
    private func table(_ arguments: [String]) async throws -> [[String]] {
        let output = try await PeerProcess.run(BenchProgram.path, arguments + ["--markdown"])
        #expect(output.status == 0, "\(output.errors)")
        #expect(output.text.contains("packed product:"), "the machine is not named")
        let lines = output.text.split(separator: "\n").filter { $0.hasPrefix("| ") }
        return lines.dropFirst()
            .map { line in
                line.dropFirst(2).dropLast(2).split(separator: " | ", omittingEmptySubsequences: false)
                    .map { $0.trimmingCharacters(in: .whitespaces) }
            }
    }

    /// The number that a cell begins with.
    private func number(_ cell: String) throws -> Double {
        try #require(cell.split(separator: " ").first.flatMap { Double($0) }, "\(cell)")
    }

    @Test("an echo answers every message of any size, over TCP and over a Unix socket", arguments: [false, true])
    func echo(isUnix: Bool) async throws {
        for bytes in [1, 64, 3072, 1 << 20] {
            let ends = try RawSocket.pair(isUnix: isUnix)
            async let served: Void = BlockingWork.run { try RawEcho.serve(ends.server, bytes: bytes) }
            let times = try await BlockingWork.run {
                defer { ends.client.end() }
                let caller = RawEcho.Caller(ends.client, bytes: bytes)
                return try (0..<20).map { _ in try caller.roundTrip() }
            }
            try await served
            #expect(times.count == 20)
            #expect(times.allSatisfy { $0 > .zero })
        }
    }

    @Test("an end that leaves is noticed, between messages and within one", arguments: [false, true])
    func leaves(isUnix: Bool) async throws {
        let early = try RawSocket.pair(isUnix: isUnix)
        early.server.end()
        await #expect(throws: BenchError.self) {
            try await BlockingWork.run { _ = try RawEcho.Caller(early.client, bytes: 64).roundTrip() }
        }
        let late = try RawSocket.pair(isUnix: isUnix)
        async let served: Void = BlockingWork.run { try RawEcho.serve(late.server, bytes: 64) }
        try [UInt8](repeating: 1, count: 63).withUnsafeBytes { try late.client.write($0) }
        late.client.end()
        do {
            try await served
            Issue.record("a message without its last byte was served")
        } catch {
            #expect("\(error)".contains("63 of 64 bytes"))
        }
    }

    @Test("an answer that is not the message is an error")
    func changed() async throws {
        let ends = try RawSocket.pair(isUnix: true)
        try [UInt8](repeating: 0, count: 64).withUnsafeBytes { try ends.server.write($0) }
        await #expect(throws: BenchError.self) {
            try await BlockingWork.run { _ = try RawEcho.Caller(ends.client, bytes: 64).roundTrip() }
        }
    }

    @Test("rpc: raw sockets in every round, and how many times as long calls take")
    func calls() async throws {
        let rows = try await self.table(
            ["rpc", "--calls", "64", "--bytes", "64", "--bytes", "0", "--placement", "one", "--rounds", "2", "--unix"]
        )
        let names = ["raw TCP", "Switchyard", "raw unix:", "Switchyard, unix:"]
        #expect(rows.map { $0[0] } == names + ["Switchyard", "Switchyard, unix:"])
        guard rows.count == 6 else { return }
        let raw = try self.number(rows[0][3])
        #expect(rows[0][4] == "1.00")
        for row in rows[..<4] {
            #expect(row.count == 7 && row[2] == "64 B")
            let half = try self.number(row[3])
            #expect(half > 0)
            // Both are printed with one digit.
            #expect(abs(try self.number(row[4]) - half / raw) < 0.02 + 0.1 * (1 + half / raw) / raw)
            #expect(row[3].contains(" to "), "the range of the rounds is missing")
            #expect(try self.number(row[5]) >= half - 0.1)
            #expect(row[0].hasPrefix("raw") == (row[6] == "-"))
        }
        // Messages without bytes have nothing to be compared with.
        for row in rows[4...] {
            #expect(row[2] == "0 B" && row[4] == "-")
            #expect(try self.number(row[6]) > 0)
        }
    }

    @Test("a row has medians, their range and its ratio")
    func cells() {
        let rounds = [30.0, 10, 20].map { RPCFigures(p50: $0, p99: 2 * $0, callsPerSecond: 1000 / $0) }
        #expect(
            BenchRPCCommand.cells(rounds, raw: 8) == ["20.0 us (10.0 to 30.0)", "2.50", "40.0 us", "50"]
        )
        #expect(BenchRPCCommand.cells([RPCFigures(p50: 8, p99: 9)], raw: 8) == ["8.0 us", "1.00", "9.0 us", "-"])
        #expect(BenchRPCCommand.cells([RPCFigures(p50: 8, p99: 9)], raw: nil)[1] == "-")
    }

    @Test(
        "stages: the layer beside the limit of raw bytes, over both kinds of sockets",
        arguments: [[], ["--unix"]] as [[String]]
    )
    func stages(way: [String]) async throws {
        let rows = try await self.table(["stages", "--width", "16", "--inner", "8", "--calls", "20"] + way)
        func half(_ name: String) throws -> Double {
            try self.number(try #require(rows.first { $0[0] == name }, "\(name) is not among \(rows)")[2])
        }
        let alone = try half("the same layer in this process, one thread")
        let raw = try half("raw \(way.isEmpty ? "TCP" : "unix:"), 64 B there and back")
        let limit = try half("in process + raw + 60 us, the limit")
        #expect(alone > 0 && raw > 0)
        #expect(abs(limit - alone - raw - 60) < 0.16)
        let whole = try half("the whole layer")
        #expect(abs(try half("the whole layer, x the limit") - whole / limit) < 0.01)
    }

    @Test(
        "what cannot be measured is said",
        arguments: [
            (["rpc", "--calls", "9"], "--calls is 9"), (["rpc", "--rounds", "0"], "--rounds is 0"),
            (["rpc", "--bytes", "-1"], "--bytes"), (["rpc", "--peer", "x"], "name=path"),
            (["stages", "--calls", "0"], "--calls is 0"), (["stages", "--width", "0"], "--width is 0"),
            (["raw-server", "--bytes", "0", "--address-file", "/nowhere/at/all"], "--bytes is 0"),
        ]
    )
    func refusals(arguments: [String], part: String) async throws {
        let output = try await PeerProcess.run(BenchProgram.path, arguments)
        #expect(output.status > 0, "\(output.text)")
        #expect(output.errors.contains(part), "\(output.errors)")
    }
}
