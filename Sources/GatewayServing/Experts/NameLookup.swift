// SPDX-License-Identifier: Apache-2.0

#if canImport(Glibc)
internal import Glibc
#elseif canImport(Musl)
internal import Musl
#endif

/// The system's resolver.
enum NameLookup {
    /// All addresses of a name, each once; blocks.
    ///
    /// - Parameters:
    ///   - name: A host name or an address.
    ///   - port: The port; it does not affect the addresses.
    /// - Returns: Numeric addresses in the resolver's order; empty if the name cannot be looked up.
    static func addresses(of name: String, port: Int) -> [String] {
        var hints = addrinfo()
        hints.ai_socktype = Int32(SOCK_STREAM.rawValue)
        var list: UnsafeMutablePointer<addrinfo>?
        guard getaddrinfo(name, String(port), &hints, &list) == 0 else {
            return []
        }
        defer {
            freeaddrinfo(list)
        }
        var result: [String] = []
        var entry = list
        while let current = entry {
            if let address = Self.numeric(current.pointee), !result.contains(address) {
                result.append(address)
            }
            entry = current.pointee.ai_next
        }
        return result
    }

    private static func numeric(_ info: addrinfo) -> String? {
        var text = [CChar](repeating: 0, count: Int(NI_MAXHOST))
        let code = getnameinfo(
            info.ai_addr,
            info.ai_addrlen,
            &text,
            socklen_t(text.count),
            nil,
            0,
            NI_NUMERICHOST
        )
        guard code == 0 else {
            return nil
        }
        return String(decoding: text.prefix { $0 != 0 }.map { UInt8(bitPattern: $0) }, as: UTF8.self)
    }
}
