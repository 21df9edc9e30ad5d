// SPDX-License-Identifier: Apache-2.0

internal import NIOCore
internal import NIOPosix

#if canImport(Glibc)
internal import Glibc
#elseif canImport(Musl)
internal import Musl
#elseif canImport(Darwin)
internal import Darwin
#endif

/// Why a connection could not be made, in words that say what to check; the caller names the endpoint.
enum ConnectFailure {
    /// The words for an error of an attempt to connect.
    ///
    /// - Parameters:
    ///   - error: What the attempt threw.
    ///   - isUnix: Whether the endpoint is a Unix socket.
    /// - Returns: The end of a sentence.
    static func words(for error: any Error, isUnix: Bool = false) -> String {
        switch error {
        case let error as IOError where isUnix:
            return Self.unixWords(forCode: error.errnoCode) ?? Self.words(forCode: error.errnoCode) ?? "\(error)"
        case let error as NIOConnectionError:
            // A name may stand for several addresses; the last one's failure is as good as any.
            if let last = error.connectionErrors.last { return Self.words(for: last.error) }
            if error.dnsAError != nil || error.dnsAAAAError != nil { return Self.unknownName }
            return "the name stands for no address; check the endpoint"
        case is SocketAddressError.UnknownHost, is SocketAddressError, is UnknownName: return Self.unknownName
        case ChannelError.connectTimeout(let limit):
            return "nothing answered within \(Duration.nanoseconds(limit.nanoseconds)); \(Self.network)"
        case let error as IOError: return Self.words(forCode: error.errnoCode) ?? "\(error)"
        default: return "\(error)"
        }
    }

    private static let network = "check the address, and that no firewall is between"
    private static let unknownName = "the host name is unknown; check its spelling and this machine's name service"

    private static func unixWords(forCode code: CInt) -> String? {
        switch code {
        case ENOENT, ENOTDIR:
            "there is no such socket; check the path, and that the service runs and has loaded its weights"
        case ECONNREFUSED:
            "nothing listens there: the file is no socket, or was left behind by a process that is gone; check that the service runs"
        case EACCES, EPERM:
            "this user may not use the socket (permission denied); it needs leave to write to the file, and to search its folders"
        case EAGAIN: "the service has more new connections than it accepts; check that it runs"
        default: nil
        }
    }

    private static func words(forCode code: CInt) -> String? {
        switch code {
        case ECONNREFUSED:
            "nothing listens there (connection refused); check the address and port, and that the service runs and has "
                + "loaded its weights"
        case ENETUNREACH, EHOSTUNREACH: "there is no route to it; \(Self.network)"
        case ETIMEDOUT: "nothing answered; \(Self.network)"
        case ECONNRESET: "it closed the connection at once; check that this is a gRPC port"
        case EMFILE, ENFILE: "this side has no file descriptor left; raise its limit (`ulimit -n`)"
        case EADDRNOTAVAIL: "this machine has no address or port left to connect from"
        default: nil
        }
    }
}
