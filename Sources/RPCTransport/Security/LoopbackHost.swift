// SPDX-License-Identifier: Apache-2.0

internal import SwitchyardTypes

#if canImport(Glibc)
internal import Glibc
#elseif canImport(Musl)
internal import Musl
#elseif canImport(Darwin)
internal import Darwin
#endif

/// Recognises the hosts that are this machine, so that what is sent to them crosses no network.
public enum LoopbackHost {
    /// Whether a host is a loopback address, the name `localhost` or a Unix socket.
    ///
    /// Other names are not looked up: what a name means may change between a check and its use.
    ///
    /// - Parameter host: A name or an address, without brackets.
    /// - Returns: Whether it certainly is this machine.
    public static func contains(_ host: String) -> Bool {
        if UnixAddress(host: host) != nil { return true }
        let name = host.lowercased()
        if name == "localhost" || name.hasSuffix(".localhost") { return true }
        if let bytes = Self.bytes(of: host, family: AF_INET, count: 4) { return bytes[0] == 127 }
        guard let bytes = Self.bytes(of: host, family: AF_INET6, count: 16) else { return false }
        let isLoopback = bytes.dropLast().allSatisfy { $0 == 0 } && bytes[15] == 1
        // ::ffff:127.0.0.0/104, an IPv4 address mapped into IPv6.
        let isMapped =
            bytes.prefix(10).allSatisfy { $0 == 0 } && bytes[10] == 0xff && bytes[11] == 0xff && bytes[12] == 127
        return isLoopback || isMapped
    }

    private static func bytes(of address: String, family: Int32, count: Int) -> [UInt8]? {
        var bytes = [UInt8](repeating: 0, count: count)
        return inet_pton(family, address, &bytes) == 1 ? bytes : nil
    }
}
