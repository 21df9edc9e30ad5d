// SPDX-License-Identifier: Apache-2.0

internal import Crypto
internal import Foundation

/// What a file's bytes must add up to.
public enum Checksum: Sendable, Hashable, CustomStringConvertible {
    /// The SHA-256 of the bytes, 64 lowercase hexadecimal digits.
    case sha256(String)
    /// The name that git gives a file with these bytes, 40 lowercase hexadecimal digits.
    ///
    /// SHA-1 of `blob`, the size and the bytes: https://git-scm.com/book/en/v2/Git-Internals-Git-Objects#_object_storage
    case gitBlob(String)

    /// Reads a hexadecimal digest by its length.
    ///
    /// - Parameter text: 64 or 40 hexadecimal digits, of either case.
    public init?(hexadecimal text: String) {
        guard text.utf8.allSatisfy({ Self.isDigit($0) }) else { return nil }
        switch text.utf8.count {
        case 64: self = .sha256(text.lowercased())
        case 40: self = .gitBlob(text.lowercased())
        default: return nil
        }
    }

    private static func isDigit(_ byte: UInt8) -> Bool {
        switch byte {
        case UInt8(ascii: "0")...UInt8(ascii: "9"), UInt8(ascii: "a")...UInt8(ascii: "f"),
            UInt8(ascii: "A")...UInt8(ascii: "F"):
            true
        default: false
        }
    }

    /// The digits.
    public var digits: String {
        switch self {
        case .sha256(let digits), .gitBlob(let digits): digits
        }
    }

    /// The kind and the digits.
    public var description: String {
        switch self {
        case .sha256(let digits): "sha256 \(digits)"
        case .gitBlob(let digits): "git blob \(digits)"
        }
    }
}

/// A checksum over bytes as they come.
struct RunningChecksum {
    private enum State {
        case sha256(SHA256)
        case gitBlob(Insecure.SHA1)
    }

    private var state: State

    /// - Parameters:
    ///   - expected: The kind that is wanted.
    ///   - byteCount: The size of the whole file, which git's names begin with.
    init(like expected: Checksum, byteCount: Int) {
        switch expected {
        case .sha256:
            self.state = .sha256(SHA256())
        case .gitBlob:
            var hash = Insecure.SHA1()
            hash.update(data: Data("blob \(byteCount)\0".utf8))
            self.state = .gitBlob(hash)
        }
    }

    mutating func update(_ bytes: UnsafeRawBufferPointer) {
        switch self.state {
        case .sha256(var hash):
            hash.update(bufferPointer: bytes)
            self.state = .sha256(hash)
        case .gitBlob(var hash):
            hash.update(bufferPointer: bytes)
            self.state = .gitBlob(hash)
        }
    }

    /// The checksum of what came so far.
    var value: Checksum {
        switch self.state {
        case .sha256(let hash): .sha256(Self.hexadecimal(hash.finalize()))
        case .gitBlob(let hash): .gitBlob(Self.hexadecimal(hash.finalize()))
        }
    }

    private static func hexadecimal(_ bytes: some Sequence<UInt8>) -> String {
        let digits = Array("0123456789abcdef")
        return String(bytes.flatMap { [digits[Int($0 >> 4)], digits[Int($0 & 15)]] })
    }

    /// The SHA-256 of bytes in memory.
    static func sha256(_ bytes: some Sequence<UInt8>) -> String {
        var hash = SHA256()
        hash.update(data: Array(bytes))
        return Self.hexadecimal(hash.finalize())
    }
}
