// SPDX-License-Identifier: Apache-2.0

internal import SwitchyardTypes

/// Text that is not a pool or a target: the message says what was given and what is allowed.
public struct PoolSpecificationError: Error, Sendable, Hashable, CustomStringConvertible {
    /// The whole message.
    public var description: String

    init(_ description: String) {
        self.description = description
    }
}

/// Where replicas are found: one address, a name each of whose addresses is a replica, or a file that lists
/// addresses.
public enum PoolTarget: Sendable, Hashable, CustomStringConvertible {
    /// `host:port`, or `unix:/path` with the address in the host's place and port 0.
    case address(host: String, port: Int)
    /// `dns:///name:port`
    case name(host: String, port: Int)
    /// `file:///path`: a file with one `host:port` or `unix:/path` per line, which is watched.
    case file(path: String)

    /// Parses a target.
    ///
    /// - Parameter text: `host:port`, `[v6]:port`, `unix:/path`, `dns:///name:port` or `file:///path`.
    /// - Throws: ``PoolSpecificationError`` naming what is wrong.
    public init(parsing text: some StringProtocol) throws(PoolSpecificationError) {
        if text.hasPrefix("file://") {
            let path = text.dropFirst("file://".count)
            guard path.hasPrefix("/"), path.count > 1 else {
                throw PoolSpecificationError(
                    "the target \"\(text)\" must name an absolute path, such as file:///etc/switchyard/pool-0"
                )
            }
            self = .file(path: String(path))
            return
        }
        if UnixAddress.isMeant(by: text) {
            do throws(UnixAddress.Problem) {
                self = .address(host: try UnixAddress(parsing: text).host, port: 0)
            } catch {
                throw PoolSpecificationError(error.description)
            }
            return
        }
        let isName = text.hasPrefix("dns:///")
        let rest = isName ? text.dropFirst("dns:///".count)[...] : text[...]
        guard !rest.contains("/") else {
            throw PoolSpecificationError(
                "the target \"\(text)\" must be host:port, unix:/path, dns:///name:port or file:///path"
            )
        }
        guard let colon = rest.lastIndex(of: ":") else {
            throw PoolSpecificationError("the target \"\(text)\" lacks a port: write host:port or dns:///name:port")
        }
        var host = String(rest[..<colon])
        if host.hasPrefix("["), host.hasSuffix("]") {
            host = String(host.dropFirst().dropLast())
        } else if host.contains(":") {
            throw PoolSpecificationError("the IPv6 address of the target \"\(text)\" must be in brackets")
        }
        guard !host.isEmpty else {
            throw PoolSpecificationError("the target \"\(text)\" lacks a host before the colon")
        }
        let portText = rest[rest.index(after: colon)...]
        guard let port = Int(portText), (1...65_535).contains(port) else {
            throw PoolSpecificationError("the port \"\(portText)\" of the target \"\(text)\" must be from 1 to 65535")
        }
        self = isName ? .name(host: host, port: port) : .address(host: host, port: port)
    }

    /// The target as written.
    public var description: String {
        switch self {
        case .address(let host, let port): ReplicaID.format(host: host, port: port)
        case .name(let host, let port): "dns:///\(ReplicaID.format(host: host, port: port))"
        case .file(let path): "file://\(path)"
        }
    }
}

/// The addresses in a file that lists a pool's replicas.
public enum TargetList {
    /// The most addresses that a file may list.
    public static let addressLimit = 10_000

    /// Reads a list: one `host:port` or `unix:/path` per line; empty lines and everything after a `#` are ignored.
    ///
    /// - Parameter text: The file's content.
    /// - Returns: The addresses, each once, in their order.
    /// - Throws: ``PoolSpecificationError`` naming the first line that is wrong.
    public static func parse(_ text: String) throws(PoolSpecificationError) -> [(host: String, port: Int)] {
        var result: [(host: String, port: Int)] = []
        var seen: Set<String> = []
        let lines = text.split(omittingEmptySubsequences: false) { $0.isNewline }
        for (number, line) in lines.enumerated() {
            let content = line.prefix { $0 != "#" }.drop { $0.isWhitespace }
            let end = content.lastIndex { !$0.isWhitespace }.map { content.index(after: $0) } ?? content.startIndex
            let entry = content[..<end]
            guard !entry.isEmpty else { continue }
            guard case .address(let host, let port) = try PoolTarget(line: entry, number: number + 1) else {
                throw PoolSpecificationError("line \(number + 1), \"\(entry)\", must be host:port or unix:/path")
            }
            guard seen.insert("\(host):\(port)").inserted else { continue }
            guard result.count < Self.addressLimit else {
                throw PoolSpecificationError("it lists more than \(Self.addressLimit) addresses; name several pools")
            }
            result.append((host, port))
        }
        return result
    }
}

extension PoolTarget {
    fileprivate init(line: some StringProtocol, number: Int) throws(PoolSpecificationError) {
        do {
            try self.init(parsing: line)
        } catch {
            throw PoolSpecificationError("line \(number): \(error)")
        }
    }
}

/// A pool and where its replicas are found: `NAME=TARGET[,TARGET]`.
public struct PoolSpecification: Sendable, Hashable {
    /// The pool's name; the name of a shard if there is a placement file.
    public var name: String
    /// Where its replicas are found.
    public var targets: [PoolTarget]

    /// Creates a specification.
    ///
    /// - Parameters:
    ///   - name: The pool's name.
    ///   - targets: Where its replicas are found.
    public init(name: String, targets: [PoolTarget]) {
        self.name = name
        self.targets = targets
    }

    /// Parses `NAME=TARGET[,TARGET]`.
    ///
    /// - Parameter text: The specification as written.
    /// - Throws: ``PoolSpecificationError`` naming what is wrong.
    public init(parsing text: String) throws(PoolSpecificationError) {
        guard let equals = text.firstIndex(of: "="), equals != text.startIndex else {
            throw PoolSpecificationError(
                "the pool \"\(text)\" must be NAME=TARGET[,TARGET], such as pool-0=127.0.0.1:7401"
            )
        }
        let name = String(text[..<equals])
        var targets: [PoolTarget] = []
        for part in text[text.index(after: equals)...].split(separator: ",", omittingEmptySubsequences: false) {
            let target = try PoolTarget(parsing: part)
            guard !targets.contains(target) else {
                throw PoolSpecificationError("the pool \"\(name)\" names the target \(target) twice")
            }
            targets.append(target)
        }
        self.init(name: name, targets: targets)
    }
}

/// One expert host as a member of a pool.
public struct ReplicaID: Sendable, Hashable, Comparable, CustomStringConvertible {
    /// Name of the pool.
    public let pool: String
    /// Host name or address; `UnixAddress.host` for a Unix socket.
    public let host: String
    /// Port; 0 for a Unix socket.
    public let port: Int

    /// Creates an identifier.
    ///
    /// - Parameters:
    ///   - pool: Name of the pool.
    ///   - host: Host name or address.
    ///   - port: Port.
    public init(pool: String, host: String, port: Int) {
        self.pool = pool
        self.host = host
        self.port = port
    }

    /// `host:port`, an IPv6 address in brackets; `unix:/path` for a Unix socket.
    public var address: String { Self.format(host: self.host, port: self.port) }

    /// The pool, an at sign and the address: `pool@host:port`.
    public var description: String { "\(self.pool)@\(self.address)" }

    /// Orders by pool, then host, then port.
    public static func < (left: ReplicaID, right: ReplicaID) -> Bool {
        (left.pool, left.host, left.port) < (right.pool, right.host, right.port)
    }

    static func format(host: String, port: Int) -> String {
        AddressText.of(host: host, port: port)
    }
}
