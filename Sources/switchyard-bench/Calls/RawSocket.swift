// SPDX-License-Identifier: Apache-2.0

import Foundation
import NIOCore

/// A stream socket whose reads and writes block, without any protocol.
final class RawSocket: Sendable {
    private let descriptor: CInt
    private let isUnix: Bool

    private init(_ descriptor: CInt, isUnix: Bool) {
        self.descriptor = descriptor
        self.isUnix = isUnix
    }

    deinit { close(self.descriptor) }

    /// A new socket for a kind of address.
    private convenience init(for address: SocketAddress) throws {
        let family =
            switch address {
            case .v4: AF_INET
            case .v6: AF_INET6
            case .unixDomainSocket: AF_UNIX
            }
        self.init(try Self.checked(socket(family, Self.kind, 0), "socket"), isUnix: family == AF_UNIX)
    }

    private static let kind = CInt(SOCK_STREAM.rawValue) | CInt(SOCK_CLOEXEC.rawValue)

    /// Listens at an address.
    ///
    /// - Parameter address: Where; port 0 takes a free one.
    /// - Returns: The listening socket.
    /// - Throws: ``BenchError`` with the system's reason.
    static func listener(at address: SocketAddress) throws -> RawSocket {
        let made = try RawSocket(for: address)
        try Self.checked(address.withSockAddr { bind(made.descriptor, $0, socklen_t($1)) }, "bind")
        try Self.checked(listen(made.descriptor, 1), "listen")
        return made
    }

    /// Connects to an address, and sends small pieces at once.
    ///
    /// - Throws: ``BenchError`` with the system's reason.
    static func client(of address: SocketAddress) throws -> RawSocket {
        let made = try RawSocket(for: address)
        try Self.checked(address.withSockAddr { connect(made.descriptor, $0, socklen_t($1)) }, "connect")
        try made.sendAtOnce()
        return made
    }

    /// Both ends of one connection within this process.
    ///
    /// - Parameter isUnix: Over a Unix socket, else over the loopback.
    /// - Returns: The ends.
    /// - Throws: ``BenchError`` with the system's reason.
    static func pair(isUnix: Bool) throws -> (client: RawSocket, server: RawSocket) {
        if isUnix {
            var ends: [CInt] = [-1, -1]
            try Self.checked(socketpair(AF_UNIX, Self.kind, 0, &ends), "socketpair")
            return (RawSocket(ends[0], isUnix: true), RawSocket(ends[1], isUnix: true))
        }
        let listener = try Self.listener(at: Self.loopback(port: 0))
        let client = try Self.client(of: Self.loopback(port: try listener.port))
        return (client, try listener.nextPeer())
    }

    /// An address of the loopback, with port 0 for a free one.
    static func loopback(port: Int) throws -> SocketAddress { try SocketAddress(ipAddress: "127.0.0.1", port: port) }

    /// The port that a listener of the loopback got.
    var port: Int {
        get throws {
            var address = sockaddr_in()
            var size = socklen_t(MemoryLayout<sockaddr_in>.size)
            let code = withUnsafeMutablePointer(to: &address) { space in
                space.withMemoryRebound(to: sockaddr.self, capacity: 1) {
                    getsockname(self.descriptor, $0, &size)
                }
            }
            try Self.checked(code, "getsockname")
            return Int(UInt16(bigEndian: address.sin_port))
        }
    }

    /// Waits for a peer of a listener.
    ///
    /// - Throws: ``BenchError`` with the system's reason.
    func nextPeer() throws -> RawSocket {
        while true {
            let descriptor = accept(self.descriptor, nil, nil)
            if descriptor < 0, errno == EINTR { continue }
            let peer = RawSocket(try Self.checked(descriptor, "accept"), isUnix: self.isUnix)
            try peer.sendAtOnce()
            return peer
        }
    }

    /// Writes all bytes.
    ///
    /// - Throws: ``BenchError`` with the system's reason.
    func write(_ bytes: UnsafeRawBufferPointer) throws {
        var left = bytes[...]
        while !left.isEmpty {
            let piece = UnsafeRawBufferPointer(rebasing: left)
            let count = send(self.descriptor, piece.baseAddress, piece.count, CInt(MSG_NOSIGNAL))
            if count < 0, errno == EINTR { continue }
            left = left.dropFirst(try Self.checked(count, "send"))
        }
    }

    /// Reads until a space is full.
    ///
    /// - Parameter space: Where to; at least one byte.
    /// - Returns: Whether it is full; false where the peer ended the connection before the first byte.
    /// - Throws: ``BenchError`` with the system's reason, and where the peer ended the connection between two bytes.
    func read(_ space: UnsafeMutableRawBufferPointer) throws -> Bool {
        var done = 0
        while done < space.count {
            let count = recv(self.descriptor, space.baseAddress?.advanced(by: done), space.count - done, 0)
            if count < 0, errno == EINTR { continue }
            guard try Self.checked(count, "recv") > 0 else {
                guard done == 0 else { throw BenchError("the peer left after \(done) of \(space.count) bytes") }
                return false
            }
            done += count
        }
        return true
    }

    /// Ends the connection in both directions; the peer reads its end.
    func end() { shutdown(self.descriptor, CInt(SHUT_RDWR)) }

    /// Turns Nagle's algorithm off; a Unix socket has none.
    private func sendAtOnce() throws {
        guard !self.isUnix else { return }
        var on: CInt = 1
        let size = socklen_t(MemoryLayout<CInt>.size)
        try Self.checked(setsockopt(self.descriptor, CInt(IPPROTO_TCP), TCP_NODELAY, &on, size), "setsockopt")
    }

    @discardableResult
    private static func checked<Code: SignedInteger>(_ code: Code, _ call: String) throws -> Code {
        guard code >= 0 else { throw BenchError("\(call) failed: \(String(cString: strerror(errno)))") }
        return code
    }
}
