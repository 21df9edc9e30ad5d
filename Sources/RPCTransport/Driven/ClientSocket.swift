// SPDX-License-Identifier: Apache-2.0

internal import NIOCore

#if canImport(Glibc)
internal import Glibc
#elseif canImport(Musl)
internal import Musl
#endif

// System calls on a client's socket, which never block.

extension SocketAddress {
    /// A socket for this kind of address, which sends small pieces at once.
    ///
    /// - Throws: `IOError` where the system gives none.
    func newSocket() throws -> Descriptor {
        let family: CInt =
            switch self {
            case .v4: AF_INET
            case .v6: AF_INET6
            case .unixDomainSocket: AF_UNIX
            }
        let kind = CInt(SOCK_STREAM.rawValue) | CInt(SOCK_CLOEXEC.rawValue) | CInt(SOCK_NONBLOCK.rawValue)
        let made = try Descriptor(socket(family, kind, 0), "socket")
        if family != AF_UNIX {
            var on: CInt = 1
            let code = setsockopt(made.number, CInt(IPPROTO_TCP), TCP_NODELAY, &on, socklen_t(MemoryLayout<CInt>.size))
            guard code == 0 else { throw IOError(errnoCode: errno, reason: "setsockopt") }
        }
        return made
    }
}

extension Descriptor {
    /// Begins to connect a socket.
    ///
    /// - Returns: Whether it is connected already; if not, it becomes writable once it is.
    /// - Throws: `IOError` if it cannot be.
    func connect(to address: SocketAddress) throws -> Bool {
        let code = address.withSockAddr { pointer, size in
            #if canImport(Glibc)
            Glibc.connect(self.number, pointer, socklen_t(size))
            #else
            Musl.connect(self.number, pointer, socklen_t(size))
            #endif
        }
        guard code != 0 else { return true }
        let error = errno
        guard error == EINPROGRESS || error == EINTR else { throw IOError(errnoCode: error, reason: "connect") }
        return false
    }

    /// Why connecting failed; 0 if it did not.
    func takeError() -> CInt {
        var code: CInt = 0
        var size = socklen_t(MemoryLayout<CInt>.size)
        return getsockopt(self.number, SOL_SOCKET, SO_ERROR, &code, &size) == 0 ? code : errno
    }

    /// Reads what has arrived.
    ///
    /// - Parameter space: Where to.
    /// - Returns: The number of bytes; 0 at the end.
    func receive(_ space: UnsafeMutableRawBufferPointer) -> Result<Int, IOError> {
        let count = recv(self.number, space.baseAddress, space.count, 0)
        return count >= 0 ? .success(count) : .failure(IOError(errnoCode: errno, reason: "recv"))
    }

    /// Writes one buffer, as far as the socket takes it.
    ///
    /// - Returns: The number of bytes.
    func send(_ bytes: ByteBuffer) -> Result<Int, IOError> {
        bytes.withUnsafeReadableBytes { space in
            guard space.count > 0 else { return .success(0) }
            #if canImport(Glibc)
            let count = Glibc.send(self.number, space.baseAddress, space.count, CInt(MSG_NOSIGNAL))
            #else
            let count = Musl.send(self.number, space.baseAddress, space.count, CInt(MSG_NOSIGNAL))
            #endif
            return count >= 0 ? .success(count) : .failure(IOError(errnoCode: errno, reason: "send"))
        }
    }

    /// Writes several buffers with one system call, as far as the socket takes them.
    ///
    /// - Returns: The number of bytes.
    func send(_ buffers: [ByteBuffer]) -> Result<Int, IOError> {
        guard buffers.contains(where: { $0.readableBytes > 0 }) else { return .success(0) }
        return withUnsafeTemporaryAllocation(of: iovec.self, capacity: buffers.count) { pieces in
            for (index, buffer) in buffers.enumerated() {
                // The array keeps the memory until the system call has returned.
                buffer.withUnsafeReadableBytes { space in
                    let base = UnsafeMutableRawPointer(mutating: space.baseAddress)
                    pieces.initializeElement(at: index, to: iovec(iov_base: base, iov_len: space.count))
                }
            }
            var message = msghdr()
            message.msg_iov = pieces.baseAddress
            message.msg_iovlen = .init(pieces.count)
            let count = withExtendedLifetime(buffers) { sendmsg(self.number, &message, CInt(MSG_NOSIGNAL)) }
            return count >= 0 ? .success(count) : .failure(IOError(errnoCode: errno, reason: "sendmsg"))
        }
    }
}
