// SPDX-License-Identifier: Apache-2.0

internal import NIOCore
internal import SwitchyardTypes
internal import Synchronization

#if canImport(Glibc)
internal import Glibc
#elseif canImport(Musl)
internal import Musl
#elseif canImport(Darwin)
internal import Darwin
#endif

/// A server's port, bound but not listened on, so that a port which cannot be had is known before slow work begins.
///
/// Connections to it are refused until the server listens, as if nothing were there. Give it to the server in
/// ``RPCServerConfiguration/reservation``, which releases it.
///
/// It finds what listens already. Of two processes that reserve one port at the same time, the later to listen fails
/// then, with the same message: Linux lets both bind, since that is also what lets a restarted server bind a port whose
/// old connections have not quite ended.
public final class PortReservation: Sendable {
    private let descriptor: Mutex<CInt?>

    /// Binds a port.
    ///
    /// A host name is looked up, which blocks the calling thread. Of a Unix socket nothing is kept: a file that a killed process left
    /// behind is removed, and whether the server could listen is checked.
    ///
    /// - Parameters:
    ///   - host: The name or address to listen on, without brackets, or a Unix socket (`UnixAddress.host`).
    ///   - port: The port; 0 reserves nothing but checks the host.
    ///   - setting: The key of the setting that holds the address, for the message.
    /// - Throws: ``ListenError`` saying why the server could not listen there.
    public init(host: String, port: Int, setting: String = "listen") throws(ListenError) {
        do {
            if UnixAddress.isMeant(by: host) {
                try UnixSocketFile.clear(try UnixAddress(parsing: host))
                self.descriptor = Mutex(nil)
                return
            }
            self.descriptor = Mutex(try Self.bind(try SocketAddress.makeAddressResolvingHost(host, port: port)))
        } catch {
            throw ListenError(error, host: host, port: port, setting: setting)
        }
    }

    deinit { self.release() }

    /// Lets go of the port; further calls do nothing.
    public func release() {
        let taken = self.descriptor.withLock { descriptor in
            defer { descriptor = nil }
            return descriptor
        }
        if let taken { close(taken) }
    }

    /// The host that stands for every address of this machine: both families where it has IPv6.
    ///
    /// - Returns: `::`, or `0.0.0.0` on a machine without IPv6.
    public static func everyAddress() -> String {
        guard let address = try? SocketAddress(ipAddress: "::", port: 0), let descriptor = try? Self.bind(address)
        else { return "0.0.0.0" }
        close(descriptor)
        return "::"
    }

    private static func bind(_ address: SocketAddress) throws -> CInt {
        #if canImport(Glibc)
        let stream = CInt(SOCK_STREAM.rawValue) | CInt(SOCK_CLOEXEC.rawValue)
        #elseif canImport(Musl)
        let stream = SOCK_STREAM | SOCK_CLOEXEC
        #else
        let stream = SOCK_STREAM
        #endif
        let descriptor = socket(CInt(address.protocol.rawValue), stream, 0)
        guard descriptor >= 0 else { throw IOError(errnoCode: errno, reason: "socket") }
        var isOn: CInt = 1
        setsockopt(descriptor, SOL_SOCKET, SO_REUSEADDR, &isOn, socklen_t(MemoryLayout<CInt>.size))
        if address.isEveryAddress {
            var isOff: CInt = 0
            setsockopt(descriptor, CInt(IPPROTO_IPV6), IPV6_V6ONLY, &isOff, socklen_t(MemoryLayout<CInt>.size))
        }
        let result = address.withSockAddr { pointer, size in
            #if canImport(Glibc)
            Glibc.bind(descriptor, pointer, socklen_t(size))
            #elseif canImport(Musl)
            Musl.bind(descriptor, pointer, socklen_t(size))
            #else
            Darwin.bind(descriptor, pointer, socklen_t(size))
            #endif
        }
        guard result == 0 else {
            let code = errno
            close(descriptor)
            throw IOError(errnoCode: code, reason: "bind")
        }
        return descriptor
    }
}

extension SocketAddress {
    /// Whether it is `::`, which takes IPv4 as well unless the socket says otherwise.
    var isEveryAddress: Bool { self.protocol == .inet6 && self.ipAddress == "::" }
}
