// SPDX-License-Identifier: Apache-2.0

internal import NIOCore
internal import SwitchyardTypes

#if canImport(Glibc)
internal import Glibc
#elseif canImport(Musl)
internal import Musl
#elseif canImport(Darwin)
internal import Darwin
#endif

/// The file of a Unix socket that a server listens on.
///
/// A process that is killed leaves its file behind, and no socket can be bound where a file lies. A server therefore removes
/// a socket's file on which no process listens; it never removes a file of another kind.
struct UnixSocketFile: Sendable, Hashable {
    private let path: String
    private let device: UInt64
    private let number: UInt64

    /// Makes room for a socket.
    ///
    /// The calling thread blocks on the file system for an instant.
    ///
    /// - Parameter address: Where a server will listen.
    /// - Throws: ``ListenProblem`` if another process listens there, the file is no socket, or the folder cannot be written to.
    static func clear(_ address: UnixAddress) throws(ListenProblem) {
        let folder = String(address.path[..<(address.path.lastIndex(of: "/") ?? address.path.startIndex)])
        guard access(folder.isEmpty ? "/" : folder, W_OK | X_OK) == 0 else {
            throw ListenProblem(errno: errno, "the folder cannot be used")
        }
        var status = stat()
        guard lstat(address.path, &status) == 0 else {
            if errno == ENOENT { return }
            throw ListenProblem(errno: errno, "the file cannot be examined")
        }
        guard UInt32(status.st_mode) & UInt32(S_IFMT) == UInt32(S_IFSOCK) else { throw .notASocket }
        switch Self.connect(to: address) {
        case 0, EAGAIN, EINPROGRESS:
            throw .taken
        case ECONNREFUSED:
            guard unlink(address.path) == 0 || errno == ENOENT else {
                throw ListenProblem(errno: errno, "the file that a process left behind cannot be removed")
            }
        case ENOENT:
            return
        case let code:
            throw ListenProblem(errno: code, "it cannot be seen whether a process listens there")
        }
    }

    /// Remembers the file of a socket that has just been bound; nil if it is gone already.
    init?(at address: UnixAddress) {
        var status = stat()
        guard lstat(address.path, &status) == 0 else { return nil }
        self.path = address.path
        self.device = UInt64(truncatingIfNeeded: status.st_dev)
        self.number = UInt64(truncatingIfNeeded: status.st_ino)
    }

    /// Removes the file, unless another one has taken its place.
    func remove() {
        var status = stat()
        guard lstat(self.path, &status) == 0, UInt64(truncatingIfNeeded: status.st_dev) == self.device,
            UInt64(truncatingIfNeeded: status.st_ino) == self.number
        else { return }
        unlink(self.path)
    }

    /// Tries to connect, without waiting.
    ///
    /// - Returns: 0, or the number of the system's error.
    private static func connect(to address: UnixAddress) -> CInt {
        #if canImport(Glibc)
        let stream = CInt(SOCK_STREAM.rawValue) | CInt(SOCK_CLOEXEC.rawValue) | CInt(SOCK_NONBLOCK.rawValue)
        #elseif canImport(Musl)
        let stream = SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK
        #else
        let stream = SOCK_STREAM
        #endif
        guard let socketAddress = try? SocketAddress(unixDomainSocketPath: address.path) else { return ENAMETOOLONG }
        let descriptor = socket(AF_UNIX, stream, 0)
        guard descriptor >= 0 else { return errno }
        defer { close(descriptor) }
        let result = socketAddress.withSockAddr { pointer, size in
            #if canImport(Glibc)
            Glibc.connect(descriptor, pointer, socklen_t(size))
            #elseif canImport(Musl)
            Musl.connect(descriptor, pointer, socklen_t(size))
            #else
            Darwin.connect(descriptor, pointer, socklen_t(size))
            #endif
        }
        return result == 0 ? 0 : errno
    }
}
