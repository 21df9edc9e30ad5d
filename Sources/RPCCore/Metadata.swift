// SPDX-License-Identifier: Apache-2.0

/// The key-value pairs that accompany a call: an ordered multimap of text and binary values.
///
/// Keys are case-insensitive and kept in lower case. A key that ends in `-bin` holds bytes, any other key printable
/// ASCII. The order of values under one key is kept on the wire; the order between keys is kept here but means nothing
/// to peers.
public struct Metadata: Sendable, Hashable {
    /// A value of either kind.
    public enum Value: Sendable, Hashable {
        /// Printable ASCII.
        case text(String)
        /// Any bytes; on the wire they are base64.
        case binary([UInt8])
    }

    /// A key and one of its values.
    public struct Entry: Sendable, Hashable {
        /// The key, in lower case.
        public let key: String
        /// The value.
        public let value: Value
    }

    /// All pairs in the order in which they were added.
    public private(set) var entries: [Entry] = []

    /// Creates empty metadata.
    public init() {}

    /// Whether there are no pairs.
    public var isEmpty: Bool { self.entries.isEmpty }

    /// The number of pairs.
    public var count: Int { self.entries.count }

    /// Adds a text value.
    ///
    /// - Parameters:
    ///   - value: Printable ASCII (0x20 to 0x7E) that neither begins nor ends with a space.
    ///   - key: Letters, digits, `_`, `-` and `.`; not ending in `-bin` and not one of the protocol's own.
    /// - Throws: ``MetadataError`` if the key or the value is not legal.
    public mutating func add(_ value: String, forKey key: String) throws(MetadataError) {
        let name = try Self.checkedKey(key)
        guard !Self.isBinaryKey(name) else {
            throw MetadataError(code: .textForBinaryKey, key: name)
        }
        guard Self.isValidText(value) else {
            throw MetadataError(code: .invalidValue, key: name)
        }
        self.entries.append(Entry(key: name, value: .text(value)))
    }

    /// Adds a binary value.
    ///
    /// - Parameters:
    ///   - bytes: Any bytes.
    ///   - key: Letters, digits, `_`, `-` and `.`; ending in `-bin`.
    /// - Throws: ``MetadataError`` if the key is not legal.
    public mutating func add(binary bytes: [UInt8], forKey key: String) throws(MetadataError) {
        let name = try Self.checkedKey(key)
        guard Self.isBinaryKey(name) else {
            throw MetadataError(code: .binaryForTextKey, key: name)
        }
        self.entries.append(Entry(key: name, value: .binary(bytes)))
    }

    /// Adds all pairs of other metadata.
    ///
    /// - Parameter other: What to add.
    public mutating func add(contentsOf other: Metadata) {
        self.entries.append(contentsOf: other.entries)
    }

    /// Removes all values of a key.
    ///
    /// - Parameter key: The key, in any case.
    public mutating func removeAll(forKey key: String) {
        let name = key.lowercased()
        self.entries.removeAll { $0.key == name }
    }

    /// The text values of a key, in order.
    ///
    /// - Parameter key: The key, in any case.
    public subscript(text key: String) -> [String] {
        self.values(forKey: key)
            .compactMap {
                guard case .text(let text) = $0 else {
                    return nil
                }
                return text
            }
    }

    /// The binary values of a key, in order.
    ///
    /// - Parameter key: The key, in any case.
    public subscript(binary key: String) -> [[UInt8]] {
        self.values(forKey: key)
            .compactMap {
                guard case .binary(let bytes) = $0 else {
                    return nil
                }
                return bytes
            }
    }

    /// The first text value of a key.
    ///
    /// - Parameter key: The key, in any case.
    /// - Returns: Nil if there is none.
    public func first(_ key: String) -> String? { self[text: key].first }

    /// All values of a key, in order.
    private func values(forKey key: String) -> [Value] {
        if self.entries.isEmpty {
            return []
        }
        let name = key.lowercased()
        return self.entries.filter { $0.key == name }.map(\.value)
    }
}

// MARK: - Validity

extension Metadata {
    /// Names reserved by HTTP/2 and gRPC; metadata may not use them.
    static let reservedKeys: Set<String> = [
        "grpc-status", "grpc-message", "grpc-timeout", "grpc-encoding", "grpc-accept-encoding", "grpc-message-type",
        "content-type", "content-length", "te", "user-agent", "host", "connection", "keep-alive", "proxy-connection",
        "transfer-encoding", "upgrade",
    ]

    /// Whether a key holds bytes.
    ///
    /// - Parameter key: A key in lower case.
    /// - Returns: Whether it ends in `-bin`.
    package static func isBinaryKey(_ key: String) -> Bool { key.hasSuffix("-bin") }

    /// Whether a key consists of the characters that gRPC allows, all in lower case.
    ///
    /// - Parameter key: A key.
    /// - Returns: Whether it is legal; reserved keys are.
    static func isValidKey(_ key: String) -> Bool {
        !key.isEmpty
            && key.utf8.allSatisfy {
                switch $0 {
                case UInt8(ascii: "a")...UInt8(ascii: "z"), UInt8(ascii: "0")...UInt8(ascii: "9"), UInt8(ascii: "_"),
                    UInt8(ascii: "-"), UInt8(ascii: "."):
                    true
                default:
                    false
                }
            }
    }

    /// Whether a text value is printable ASCII without spaces at its ends.
    ///
    /// - Parameter value: A text value.
    /// - Returns: Whether it is legal.
    static func isValidText(_ value: String) -> Bool {
        let bytes = value.utf8
        return bytes.first != 0x20 && bytes.last != 0x20 && bytes.allSatisfy { $0 >= 0x20 && $0 <= 0x7E }
    }

    /// The key in lower case.
    private static func checkedKey(_ key: String) throws(MetadataError) -> String {
        let name = key.lowercased()
        guard Self.isValidKey(name) else {
            throw MetadataError(code: .invalidKey, key: key)
        }
        guard !Self.reservedKeys.contains(name) else {
            throw MetadataError(code: .reservedKey, key: name)
        }
        return name
    }
}

// MARK: - Wire form

extension Metadata {
    /// Adds the pairs as header fields, binary values as unpadded base64.
    ///
    /// - Parameter fields: The header block that the fields are added to.
    public func append(to fields: inout [HeaderField]) {
        for entry in self.entries {
            switch entry.value {
            case .text(let text):
                fields.append(HeaderField(entry.key, text))
            case .binary(let bytes):
                fields.append(HeaderField(entry.key, Base64.encode(bytes)))
            }
        }
    }

    /// Adds one received header field that the protocol itself does not use.
    ///
    /// A binary field is split at its commas before each part is decoded, since proxies may join equal names. A text
    /// field whose name or value gRPC does not allow is dropped: it cannot have come from a gRPC peer and a field added
    /// by a proxy must not fail the call. Spaces around a text value are removed.
    ///
    /// - Parameter field: The field, its name in lower case as HTTP/2 requires.
    /// - Throws: ``MetadataError`` if a binary value is not base64.
    public mutating func addReceived(_ field: HeaderField) throws(MetadataError) {
        guard Self.isValidKey(field.name), !Self.reservedKeys.contains(field.name) else {
            return
        }
        if Self.isBinaryKey(field.name) {
            for part in field.value.utf8.split(separator: UInt8(ascii: ","), omittingEmptySubsequences: false) {
                guard let bytes = Base64.decode(Self.trimmed(Substring(part))) else {
                    throw MetadataError(code: .invalidBase64, key: field.name)
                }
                self.entries.append(Entry(key: field.name, value: .binary(bytes)))
            }
        } else if Self.isValidText(field.value) {
            self.entries.append(Entry(key: field.name, value: .text(field.value)))
        } else {
            let value = String(Self.trimmed(Substring(field.value)))
            if Self.isValidText(value) {
                self.entries.append(Entry(key: field.name, value: .text(value)))
            }
        }
    }

    /// The text without spaces at its ends.
    private static func trimmed(_ text: Substring) -> Substring {
        var rest = text
        while rest.utf8.first == 0x20 {
            rest = rest.dropFirst()
        }
        while rest.utf8.last == 0x20 {
            rest = rest.dropLast()
        }
        return rest
    }
}

/// A key or a value that metadata cannot hold.
public struct MetadataError: Error, Sendable, Hashable, CustomStringConvertible {
    /// What is wrong.
    public enum Code: Sendable, Hashable {
        /// The key is empty or has a character outside letters, digits, `_`, `-` and `.`.
        case invalidKey
        /// The key belongs to HTTP/2 or gRPC.
        case reservedKey
        /// The value has a character outside printable ASCII, or a space at one of its ends.
        case invalidValue
        /// The key ends in `-bin` and the value is text.
        case textForBinaryKey
        /// The key does not end in `-bin` and the value is bytes.
        case binaryForTextKey
        /// A received `-bin` value is not base64.
        case invalidBase64
    }

    /// What is wrong.
    public let code: Code

    /// The key.
    public let key: String

    /// Names the key, says what is wrong with it and how to fix it.
    public var description: String {
        let key = "metadata key \"\(self.key.prefix(64))\""
        return switch self.code {
        case .invalidKey: "\(key) is not legal; use letters, digits, '_', '-' and '.'"
        case .reservedKey: "\(key) belongs to the protocol; choose another one"
        case .invalidValue: "\(key) has a value that is not plain printable ASCII; use a key that ends in -bin"
        case .textForBinaryKey: "\(key) holds bytes because it ends in -bin; add bytes or choose another key"
        case .binaryForTextKey: "\(key) holds text; choose a key that ends in -bin for bytes"
        case .invalidBase64: "\(key) has a value that is not base64; encode the bytes with RFC 4648's alphabet"
        }
    }
}
