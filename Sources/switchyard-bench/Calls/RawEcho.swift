// SPDX-License-Identifier: Apache-2.0

import ArgumentParser
import Foundation
import NIOCore
import SwitchyardClient
import SwitchyardTypes
import TensorKernels

/// Messages there and back without a protocol: what a call of that size would take if it were nothing but its bytes.
///
/// One write sends a message, and reads that block take it whole, so that each end sleeps and wakes as often as in a call.
enum RawEcho {
    /// Sends every message back until the client ends the connection.
    ///
    /// - Parameters:
    ///   - socket: The connection.
    ///   - bytes: The size of a message; at least 1.
    /// - Throws: What the socket throws.
    static func serve(_ socket: RawSocket, bytes: Int) throws {
        let space = UnsafeMutableRawBufferPointer.allocate(byteCount: bytes, alignment: 64)
        defer { space.deallocate() }
        while try socket.read(space) { try socket.write(UnsafeRawBufferPointer(space)) }
    }

    /// The client's end; used by one thread.
    final class Caller {
        private let socket: RawSocket
        private var message: [UInt8]
        private var answer: [UInt8]

        /// Takes a connection whose other end serves messages of the same size.
        ///
        /// - Parameters:
        ///   - socket: The connection.
        ///   - bytes: The size of a message; at least 1.
        init(_ socket: RawSocket, bytes: Int) {
            self.socket = socket
            self.message = [UInt8](repeating: 7, count: bytes)
            self.answer = [UInt8](repeating: 0, count: bytes)
        }

        /// Sends a message and waits for its answer.
        ///
        /// - Returns: How long that took.
        /// - Throws: What the socket throws; ``BenchError`` where the answer is not the message, or there is none.
        func roundTrip() throws -> Duration {
            self.message[0] &+= 1
            let start = ContinuousClock.now
            try self.message.withUnsafeBytes { try self.socket.write($0) }
            let isWhole = try self.answer.withUnsafeMutableBytes { try self.socket.read($0) }
            let time = start.duration(to: .now)
            guard isWhole else { throw BenchError("the other end of the raw connection left") }
            guard self.answer == self.message else { throw BenchError("the raw echo answered something else") }
            return time
        }
    }

    /// Measures round trips, one after another, on a thread bound to a processor.
    ///
    /// - Parameters:
    ///   - server: Where `raw-server` listens.
    ///   - bytes: The size of a message; at least 1.
    ///   - cpu: Index of the processor.
    ///   - calls: Round trips; a tenth as many before them are not counted.
    /// - Returns: The percentiles; there are no calls in flight.
    /// - Throws: What the socket throws, and `ComputeThread.StartError`.
    static func measure(_ server: Endpoint, bytes: Int, cpu: Int, calls: Int) async throws -> RPCFigures {
        let address = try Self.address(of: server)
        return try await BlockingWork.run {
            ThreadPlacement.bind(to: cpu)
            let caller = Caller(try RawSocket.client(of: address), bytes: bytes)
            for _ in 0...(calls / 10) { _ = try caller.roundTrip() }
            let times = Percentiles(try (0..<calls).map { _ in try caller.roundTrip() })
            return RPCFigures(p50: times.at(0.5).inMicroseconds, p99: times.at(0.99).inMicroseconds)
        }
    }

    private static func address(of endpoint: Endpoint) throws -> SocketAddress {
        if let unix = UnixAddress(host: endpoint.host) {
            return try SocketAddress(unixDomainSocketPath: unix.path)
        }
        return try SocketAddress(ipAddress: endpoint.host, port: endpoint.port)
    }
}

/// `switchyard-bench raw-server`: the server's end of the raw connections of `switchyard-bench rpc`.
struct BenchRawServerCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "raw-server",
        abstract: "The server's end of raw connections in `rpc`.",
        shouldDisplay: false
    )

    @Option var cpu: Int = 0
    @Option(help: "The size of a message.") var bytes: Int
    @Option var addressFile: String
    @Flag(help: "Listen on a Unix socket beside the address file.") var unix = false

    func validate() throws {
        guard self.bytes >= 1 else { throw ValidationError("--bytes is \(self.bytes); set 1 or more") }
    }

    func run() async throws {
        let listener: RawSocket
        let text: String
        if self.unix {
            let address = try UnixAddress(parsing: "unix:\(self.addressFile).sock")
            listener = try RawSocket.listener(at: SocketAddress(unixDomainSocketPath: address.path))
            text = address.description
        } else {
            listener = try RawSocket.listener(at: RawSocket.loopback(port: 0))
            text = AddressText.of(host: "127.0.0.1", port: try listener.port)
        }
        try Data("\(text)\n".utf8).write(to: URL(fileURLWithPath: self.addressFile), options: .atomic)
        let (cpu, bytes) = (self.cpu, self.bytes)
        try await withThrowingTaskGroup(of: Void.self) { tasks in
            tasks.addTask {
                try await BlockingWork.run {
                    ThreadPlacement.bind(to: cpu)
                    try RawEcho.serve(try listener.nextPeer(), bytes: bytes)
                }
            }
            // The parent's pipe closes when it is done, however it ends.
            tasks.addTask {
                try await BlockingWork.run { while !FileHandle.standardInput.availableData.isEmpty {} }
                // A peer that never came is no longer waited for.
                listener.end()
            }
            try await tasks.waitForAll()
        }
    }
}
