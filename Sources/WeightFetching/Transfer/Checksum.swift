// SPDX-License-Identifier: Apache-2.0

internal import Digests
internal import Foundation

/// The checksum that a file's bytes must have.
public enum Checksum: Sendable, Hashable, CustomStringConvertible {
    /// The SHA-256 of the bytes, 64 lowercase hexadecimal digits.
    case sha256(String)
    /// The name that git gives these bytes, 40 lowercase hexadecimal digits.
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

/// A checksum over bytes as they arrive.
struct RunningChecksum {
    private let kind: RunningDigest.Algorithm
    private let digest: RunningDigest

    /// - Parameters:
    ///   - expected: The kind that is wanted.
    ///   - byteCount: The size of the whole file, which git's names begin with.
    /// - Throws: ``FetchError`` where the digest cannot be computed on this machine.
    init(like expected: Checksum, byteCount: Int) throws(FetchError) {
        self.kind =
            switch expected {
            case .sha256: .sha256
            case .gitBlob: .sha1
            }
        do {
            self.digest = try RunningDigest(self.kind)
        } catch {
            throw FetchError(.invalidArgument, "\(error)")
        }
        if case .gitBlob = expected { self.digest.update(Array("blob \(byteCount)\0".utf8)) }
    }

    func update(_ bytes: UnsafeRawBufferPointer) {
        self.digest.update(bytes)
    }

    /// The checksum of the bytes so far.
    func value() throws(FetchError) -> Checksum {
        do {
            let digits = RunningDigest.hexadecimal(try self.digest.digest())
            return self.kind == .sha256 ? .sha256(digits) : .gitBlob(digits)
        } catch {
            throw FetchError(.invalidArgument, "\(error)")
        }
    }

    /// The SHA-256 of a file, read from its first byte to its last; nil where there is none or it cannot be read.
    static func sha256(contentsOf path: String) throws(FetchError) -> String? {
        let descriptor = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK)
        guard descriptor >= 0 else { return nil }
        defer { close(descriptor) }
        let checksum = try RunningChecksum(like: .sha256(""), byteCount: 0)
        let buffer = UnsafeMutableRawBufferPointer.allocate(byteCount: 1 << 20, alignment: 64)
        defer { buffer.deallocate() }
        while true {
            let count = Foundation.read(descriptor, buffer.baseAddress, buffer.count)
            if count < 0, errno == EINTR { continue }
            guard count >= 0 else { return nil }
            if count == 0 { break }
            checksum.update(UnsafeRawBufferPointer(rebasing: buffer[..<count]))
        }
        guard case .sha256(let digits) = try checksum.value() else { return nil }
        return digits
    }

    /// The SHA-256 of bytes in memory.
    static func sha256(_ bytes: [UInt8]) throws(FetchError) -> String {
        do {
            return RunningDigest.hexadecimal(try RunningDigest.sha256(bytes))
        } catch {
            throw FetchError(.invalidArgument, "\(error)")
        }
    }
}
