// SPDX-License-Identifier: Apache-2.0

/// A file to fetch, and what is already known about it.
public struct RemoteFile: Sendable, Hashable {
    /// The file's name for people: its path in the model or in the shard.
    public var name: String
    /// Where it lies.
    public var address: RemoteAddress
    /// The value of the `authorization` header for that address; never sent to another origin.
    public var authorization: String?
    /// Its size in bytes.
    public var byteCount: Int
    /// Its checksum.
    public var checksum: Checksum

    /// Names a file.
    ///
    /// - Parameters:
    ///   - name: The file's name for people.
    ///   - address: Where it lies.
    ///   - authorization: The value of the `authorization` header for that address.
    ///   - byteCount: Its size in bytes.
    ///   - checksum: Its checksum.
    public init(
        name: String,
        address: RemoteAddress,
        authorization: String?,
        byteCount: Int,
        checksum: Checksum
    ) {
        self.name = name
        self.address = address
        self.authorization = authorization
        self.byteCount = byteCount
        self.checksum = checksum
    }

    /// Whether a path from a server stays inside its folder.
    ///
    /// - Parameter path: Components separated by slashes.
    /// - Returns: Whether all of them are plain names.
    static func isSafe(_ path: String) -> Bool {
        let pieces = path.split(separator: "/", omittingEmptySubsequences: false)
        return path.utf8.count <= 1024 && pieces.count <= 16
            && pieces.allSatisfy { piece in
                !piece.isEmpty && piece != "." && piece != ".." && piece.utf8.count <= 255
                    && piece.unicodeScalars.allSatisfy { $0.value >= 0x20 && $0.value != 0x7F && $0 != "\\" }
            }
    }
}
