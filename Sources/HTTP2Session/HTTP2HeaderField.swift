// SPDX-License-Identifier: Apache-2.0

/// One header field of a request, a response or a trailer section.
public struct HTTP2HeaderField: Sendable, Hashable {
    /// The field's name in lower case; pseudo-header fields begin with a colon.
    public var name: String

    /// The field's value.
    ///
    /// Bytes that are not UTF-8 were replaced when the field came from the peer.
    public var value: String

    /// Whether the field must stay out of every HPACK table on the path (credentials, values that never repeat).
    public var isNeverIndexed: Bool

    /// Creates a field.
    ///
    /// - Parameters:
    ///   - name: The name in lower case.
    ///   - value: The value.
    ///   - isNeverIndexed: Whether HPACK tables must not remember the field.
    public init(_ name: String, _ value: String, isNeverIndexed: Bool = false) {
        self.name = name
        self.value = value
        self.isNeverIndexed = isNeverIndexed
    }

    /// The field's size for `SETTINGS_MAX_HEADER_LIST_SIZE`, in bytes (RFC 9113, section 6.5.2).
    public var listSizeBytes: Int {
        HTTP2HeaderField.listSizeBytes(nameBytes: self.name.utf8.count, valueBytes: self.value.utf8.count)
    }

    /// The size of a field with the given lengths: both strings and 32 bytes of overhead.
    static func listSizeBytes(nameBytes: Int, valueBytes: Int) -> Int {
        nameBytes + valueBytes + 32
    }
}

extension HTTP2HeaderField: CustomStringConvertible {
    /// The field as `name: value`.
    public var description: String {
        "\(self.name): \(self.value)"
    }
}
