// SPDX-License-Identifier: Apache-2.0

import CommandKit
import Foundation
import NIOCore
import NIOPosix
import PeerTools

@testable import switchyard

/// Asks admin ports.
enum AdminClient {
    /// An answer.
    struct Answer: Sendable {
        var status: Int
        var head: String
        var body: String
    }

    /// Asks for a page.
    ///
    /// - Parameters:
    ///   - path: The page's path.
    ///   - address: `host:port`.
    /// - Returns: The answer.
    /// - Throws: A connection error, or an answer that is not HTTP.
    static func get(_ path: String, of address: String?) async throws -> Answer {
        let parts = address?.split(separator: ":") ?? []
        guard parts.count == 2, let port = Int(parts[1]) else {
            throw PeerError(description: "\(address ?? "nothing") is no address of an admin port")
        }
        let channel = try await ClientBootstrap(group: MultiThreadedEventLoopGroup.singleton)
            .connect(host: String(parts[0]), port: port) { channel in
                channel.eventLoop.makeCompletedFuture {
                    try NIOAsyncChannel<ByteBuffer, ByteBuffer>(wrappingChannelSynchronously: channel)
                }
            }
        let text = try await channel.executeThenClose { inbound, outbound in
            try await outbound.write(
                ByteBuffer(string: "GET \(path) HTTP/1.1\r\nhost: \(parts[0])\r\nconnection: close\r\n\r\n")
            )
            var bytes = ByteBuffer()
            for try await part in inbound { bytes.writeImmutableBuffer(part) }
            return String(buffer: bytes)
        }
        guard text.hasPrefix("HTTP/1.1 "), let status = Int(text.dropFirst(9).prefix(3)),
            let end = text.range(of: "\r\n\r\n")
        else {
            throw PeerError(description: "this is no answer: \(text.prefix(200))")
        }
        return Answer(status: status, head: String(text[..<end.lowerBound]), body: String(text[end.upperBound...]))
    }
}

/// The result of a scrape of `/metrics`.
struct Scrape: Sendable {
    let text: String
    /// Values by series as written there: `name{label="value"}`.
    let values: [String: Double]

    /// Scrapes a process.
    init(_ process: ChildProcess) async throws { try await self.init(address: process.adminAddress) }

    /// Scrapes an admin port.
    init(address: String?) async throws {
        self.text = try await AdminClient.get("/metrics", of: address).body
        var values: [String: Double] = [:]
        for line in self.text.split(separator: "\n") where !line.hasPrefix("#") {
            guard let space = line.lastIndex(of: " "), let value = Double(line[line.index(after: space)...]) else {
                throw PeerError(description: "this is no sample: \(line)")
            }
            values[String(line[..<space])] = value
        }
        self.values = values
    }

    /// The value of one series; nil if there is none.
    subscript(_ series: String) -> Double? { self.values[series] }

    /// The sum of a family's series whose labels contain a text.
    func sum(_ name: String, _ part: String = "") -> Double {
        self.values
            .filter { ($0.key == name || $0.key.hasPrefix("\(name){")) && (part.isEmpty || $0.key.contains(part)) }
            .reduce(0) { $0 + $1.value }
    }

    /// The families that have a type.
    var families: [String] {
        self.text.split(separator: "\n").filter { $0.hasPrefix("# TYPE ") }
            .compactMap { $0.split(separator: " ").dropFirst(2).first.map(String.init) }
    }

    /// The complaints of Prometheus' own checker; empty if there are none or it is not installed.
    func promtool() async throws -> String {
        guard let program = Self.promtool else { return "" }
        let file = FileManager.default.temporaryDirectory.appendingPathComponent("scrape-\(UUID().uuidString).txt")
        try Data(self.text.utf8).write(to: file)
        defer { try? FileManager.default.removeItem(at: file) }
        let output = try await PeerProcess.run(
            "/bin/sh",
            ["-c", "\"$0\" check metrics < \"$1\" 2>&1", program, file.path]
        )
        return output.status == 0 ? output.text : "status \(output.status): \(output.text)"
    }

    private static let promtool = ["/usr/bin/promtool", "/usr/local/bin/promtool"]
        .first { FileManager.default.isExecutableFile(atPath: $0) }
}
