// SPDX-License-Identifier: Apache-2.0

internal import Foundation
internal import NIOCore
internal import NIOPosix

/// Asks a process's admin port, over a connection of its own for each page.
struct AdminPort: Sendable {
    /// Arguments with which a process opens the port.
    let arguments: [String]
    private let file: String

    /// Names a file that the process writes the port's address to.
    ///
    /// - Parameter folder: Where the file is.
    init(in folder: String) {
        let file = "\(folder)/\(UUID().uuidString).address"
        self.file = file
        self.arguments = ["--admin-listen", "127.0.0.1:0", "--admin-address-file", file]
    }

    /// `host:port`.
    ///
    /// - Throws: Errors of reading the file.
    var address: String {
        get throws {
            try String(contentsOfFile: self.file, encoding: .utf8).trimmingCharacters(in: .whitespacesAndNewlines)
        }
    }

    /// Asks for a page.
    ///
    /// - Parameters:
    ///   - path: The page's path.
    ///   - limit: How long to wait.
    /// - Returns: The status; nil where no answer came in time.
    func status(_ path: String, within limit: Duration) async -> Int? {
        await withTaskGroup(of: Int?.self) { group in
            group.addTask { try? await self.ask(path) }
            group.addTask {
                try? await Task.sleep(for: limit)
                return nil
            }
            let first = await group.next() ?? nil
            group.cancelAll()
            return first
        }
    }

    private func ask(_ path: String) async throws -> Int? {
        let target = try SocketAddressText(self.address)
        let channel = try await ClientBootstrap(group: MultiThreadedEventLoopGroup.singleton)
            .connect(host: target.host, port: target.port) { channel in
                channel.eventLoop.makeCompletedFuture {
                    try NIOAsyncChannel<ByteBuffer, ByteBuffer>(wrappingChannelSynchronously: channel)
                }
            }
        return try await channel.executeThenClose { inbound, outbound in
            let request = "GET \(path) HTTP/1.1\r\nhost: \(target.host)\r\nconnection: close\r\n\r\n"
            try await outbound.write(ByteBuffer(string: request))
            var bytes = ByteBuffer()
            for try await part in inbound { bytes.writeImmutableBuffer(part) }
            let text = String(buffer: bytes)
            return text.hasPrefix("HTTP/1.1 ") ? Int(text.dropFirst(9).prefix(3)) : nil
        }
    }
}
