// SPDX-License-Identifier: Apache-2.0

import Foundation
import PeerTools
import Testing

@Suite("Messages that never end, against services in processes of their own", .serialized, .timeLimit(.minutes(10)))
struct PartialMessageTests {
    @Test("128 parts of 4 MiB each take no more than the budget", arguments: [1, 4])
    func floods(connections: Int) async throws {
        let budget = 32 << 20
        // A connection may hold half of the budget. The rest is for what is on its way, and what memory management keeps.
        let limit = (connections == 1 ? budget / 2 : budget) >> 20 + 24
        let flags = ["--receive-budget-bytes", "\(budget)"]
        try await attack("\(connections) x 128 parts of 4 MiB", flags: flags, growthLimitMiB: limit) { port in
            let hostile = PartialMessages(path: "/grpc.testing.TestService/UnaryCall")
            let peers = try (0..<connections).map { _ in try hostile.send(to: port) }
            let ended = peers.flatMap { peer in peer.peer.seen.blocks.values.flatMap { $0 } }
            #expect(ended.contains { $0["grpc-status"] == "8" })
            #expect(ended.allSatisfy { $0["grpc-status"] == "8" })
            return Finding(frames: peers.reduce(0) { $0 + $1.bytes / 16_384 }, ending: "status 8")
        }
    }

    @Test(
        "a gateway refuses parts of large messages by the method's limit, and those without a token",
        arguments: Calls.all
    )
    func gateway(calls: Calls) async throws {
        let grown = try await Service.gateway(tokens: calls.needsToken)
            .growth { port in
                let hostile = PartialMessages(
                    path: calls.path,
                    fields: calls.token.map { [("authorization", "Bearer \($0)")] } ?? []
                )
                let peers = try (0..<2).map { _ in try hostile.send(to: port) }
                for peer in peers {
                    let statuses = peer.peer.seen.blocks.values.compactMap { $0.first?["grpc-status"] }
                    #expect(
                        !statuses.isEmpty && statuses.allSatisfy { $0 == calls.status },
                        "\(calls): \(Set(statuses))"
                    )
                    if let part = calls.message {
                        let message = peer.peer.seen.blocks.values.first?.first?["grpc-message"] ?? ""
                        #expect(message.contains(part), "\(calls): \(message)")
                    }
                }
            }
        #expect(grown < calls.limitMiB << 10, "\(calls): the gateway grew by \(grown) KiB")
    }

    /// Calls to a gateway, and how each of them ends.
    struct Calls: Sendable, CustomTestStringConvertible {
        var path: String
        var token: String?
        var needsToken: Bool
        var status: String
        var message: String?
        var limitMiB: Int

        var testDescription: String { "\(self.path), \(self.needsToken ? "tokens" : "no tokens"): \(self.status)" }

        static let all = [
            Calls(
                path: "/grpc.health.v1.Health/Check",
                needsToken: true,
                status: "8",
                message: "limit of 1024 of grpc.health.v1.Health/Check",
                limitMiB: 16
            ),
            Calls(
                path: "/switchyard.v1.Gateway/DescribeModel",
                needsToken: false,
                status: "8",
                message: "limit of 1024 of switchyard.v1.Gateway/DescribeModel",
                limitMiB: 16
            ),
            Calls(
                path: "/switchyard.v1.Gateway/Generate",
                needsToken: false,
                status: "8",
                message: "of switchyard.v1.Gateway/Generate; send less",
                limitMiB: 16
            ),
            Calls(path: "/switchyard.v1.Gateway/Encode", needsToken: true, status: "16", limitMiB: 16),
            // Two connections, with half of the budget of 16 MiB each.
            Calls(
                path: "/switchyard.v1.Gateway/Encode",
                token: Service.token,
                needsToken: true,
                status: "8",
                limitMiB: 16 + 24
            ),
        ]
    }

    @Test("an expert host's calls that never end take no more than its budget")
    func host() async throws {
        let grown = try await Service.host()
            .growth { port in
                let hostile = PartialMessages(
                    path: "/switchyard.v1.ExpertHost/Forward",
                    streams: 48,
                    messageBytes: 8 << 20,
                    windowBytes: 16 << 20
                )
                let peer = try hostile.send(to: port)
                #expect(peer.bytes > 128 << 20)
                #expect(peer.peer.seen.blocks.values.contains { $0.first?["grpc-status"] == "8" })
            }
        // One connection may hold half of 128 MiB.
        #expect(grown < (64 + 40) << 10, "the host grew by \(grown) KiB")
    }
}

/// A service of the main program in a process of its own.
struct Service: Sendable {
    static let token = String(repeating: "k", count: 40)

    var arguments: [String]

    static func gateway(tokens: Bool) throws -> Service {
        var arguments = [
            "gateway", "--model", "\(Peers.root)/Tests/Fixtures/dense/t5", "--receive-budget-bytes", "\(16 << 20)",
        ]
        if tokens {
            let path = FileManager.default.temporaryDirectory
                .appendingPathComponent("attack-tokens-\(UUID().uuidString)").path
            try "caller:\(Self.token)\n".write(toFile: path, atomically: true, encoding: .utf8)
            try FileManager.default.setAttributes([.posixPermissions: 0o600], ofItemAtPath: path)
            arguments += ["--tokens", path]
        }
        return Service(arguments: arguments)
    }

    static func host() -> Service {
        Service(arguments: [
            "expert-host", "--shard", "\(Peers.root)/deploy/models/switch-mini", "--receive-budget-bytes",
            "\(128 << 20)",
        ])
    }

    /// Starts it, attacks it and asks for its health.
    ///
    /// - Parameter attack: Gets the port.
    /// - Returns: How far the peak of its memory exceeded its size before, in KiB.
    /// - Throws: What the attack throws, or why the service did not start.
    func growth(_ attack: @escaping @Sendable (Int) throws -> Void) async throws -> Int {
        let addressFile = FileManager.default.temporaryDirectory
            .appendingPathComponent("attack-address-\(UUID().uuidString)").path
        defer { try? FileManager.default.removeItem(atPath: addressFile) }
        let command =
            [Peers.built("switchyard")] + self.arguments + [
                "--listen", "127.0.0.1:0", "--admin-listen", "off", "--threads", "1", "--address-file", addressFile,
            ]
        // The shell becomes the service, so that its number is the service's.
        let script = "echo \"process $$\"; exec \"$@\""
        return try await PeerProcess.serve("/bin/sh", ["-c", script, "sh"] + command, readyPrefix: "process ") { line in
            let process = try #require(Int(line))
            let port = try await Self.port(in: addressFile)
            try await onThread { try Self.expectHealth(port) }
            ProcessFigures.forgetPeak(process)
            let before = ProcessFigures(process)
            try await onThread { try attack(port) }
            try await onThread { try Self.expectHealth(port) }
            let after = ProcessFigures(process)
            return after.peakKiB - before.residentKiB
        }
    }

    private static func port(in file: String) async throws -> Int {
        let end = ContinuousClock.now + .seconds(300)
        while ContinuousClock.now < end {
            let text = (try? String(contentsOfFile: file, encoding: .utf8)) ?? ""
            if let port = text.split(separator: ":").last
                .flatMap({ Int($0.trimmingCharacters(in: .whitespacesAndNewlines)) })
            {
                return port
            }
            try await Task.sleep(for: .milliseconds(20))
        }
        throw PeerError(description: "the service did not write its address into \(file)")
    }

    /// Asks on a connection of its own.
    private static func expectHealth(_ port: Int) throws {
        let peer = try RawSocket(port: port)
        let ask =
            Frames.headers(Frames.request("/grpc.health.v1.Health/Check")) + Frames.data(Frames.message([]), end: true)
        peer.send(Frames.preface + ask)
        peer.wait { $0.ended.contains(1) }
        #expect(peer.seen.field("grpc-status") == "0")
    }
}
