// SPDX-License-Identifier: Apache-2.0

import Glibc
import SwitchyardTypes
import Synchronization

/// A folder in memory for one run of a target, which reads files from it.
public struct ScratchFolder {
    private static let count = Atomic<Int>(0)
    private static let prefix = "switchyard-fuzz-"

    /// Where the folder is.
    let path: String

    /// Runs a closure with a new folder, and removes the folder.
    ///
    /// - Parameters:
    ///   - files: The files to put there, by name.
    ///   - body: Receives the folder.
    /// - Returns: What the closure returns.
    /// - Throws: What the closure throws; a finding where the folder cannot be made.
    static func with<R>(
        _ files: [(name: String, bytes: [UInt8])],
        _ body: (ScratchFolder) throws(FuzzFinding) -> R
    ) throws(FuzzFinding) -> R {
        let number = Self.count.wrappingAdd(1, ordering: .relaxed).newValue
        let folder = ScratchFolder(path: "\(Self.root)/\(Self.prefix)\(getpid())-\(number)")
        guard mkdir(folder.path, 0o700) == 0 else { throw FuzzFinding("a scratch folder can be made", folder.path) }
        defer { Self.remove(folder.path) }
        for file in files { try folder.write(file.bytes, to: file.name) }
        return try body(folder)
    }

    /// Writes a file.
    ///
    /// - Parameters:
    ///   - bytes: Its content.
    ///   - name: Its name, perhaps in a folder.
    /// - Throws: A finding where it cannot be written.
    func write(_ bytes: [UInt8], to name: String) throws(FuzzFinding) {
        if let slash = name.lastIndex(of: "/") { mkdir("\(self.path)/\(name[..<slash])", 0o700) }
        let file = open("\(self.path)/\(name)", O_WRONLY | O_CREAT | O_TRUNC, 0o600)
        guard file >= 0 else { throw FuzzFinding("a scratch file can be written", "\(self.path)/\(name)") }
        defer { close(file) }
        let written = bytes.withUnsafeBytes { Glibc.write(file, $0.baseAddress, $0.count) }
        guard written == bytes.count else { throw FuzzFinding("a scratch file can be written", "\(self.path)/\(name)") }
    }

    /// Removes the folders that a process left.
    ///
    /// - Parameter process: A process that has ended.
    public static func removeAll(of process: Int32) {
        for name in Self.names(in: Self.root) where name.hasPrefix("\(Self.prefix)\(process)-") {
            Self.remove("\(Self.root)/\(name)")
        }
    }

    /// A file system in memory where there is one.
    private static let root = access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp"

    private static func names(in folder: String) -> [String] {
        guard let directory = opendir(folder) else { return [] }
        defer { closedir(directory) }
        var names: [String] = []
        while let entry = readdir(directory) {
            let name = withUnsafeBytes(of: &entry.pointee.d_name) { bytes in
                String(decoding: bytes.prefix { $0 != 0 }, as: UTF8.self)
            }
            if name != ".", name != ".." { names.append(name) }
        }
        return names
    }

    private static func remove(_ path: String) {
        for name in Self.names(in: path) {
            let inner = "\(path)/\(name)"
            if unlink(inner) != 0 { Self.remove(inner) }
        }
        rmdir(path)
    }
}

/// The parts of an input that stands for several files, divided by the byte 0x1E (ASCII's record separator).
enum FileParts {
    static let separator: UInt8 = 0x1E

    /// Divides an input.
    ///
    /// - Parameters:
    ///   - bytes: The input.
    ///   - count: The most parts; the last one keeps further separators.
    /// - Returns: The parts, `count` of them; missing ones are empty.
    static func split(_ bytes: [UInt8], into count: Int) -> [[UInt8]] {
        var parts = bytes.split(separator: Self.separator, maxSplits: count - 1, omittingEmptySubsequences: false)
            .map(Array.init)
        while parts.count < count { parts.append([]) }
        return parts
    }
}

extension Trace {
    /// Notes what an error says, without the numbers and names in it, so that errors of one kind are one path.
    mutating func note(message: String) {
        var hash: UInt64 = 0
        var isQuoted = false
        for byte in message.utf8.prefix(400) {
            if byte == UInt8(ascii: "\"") { isQuoted.toggle() }
            guard !isQuoted, byte >= 0x61, byte <= 0x7A else { continue }
            hash = (hash ^ UInt64(byte)) &* 0x0000_0100_0000_01b3
        }
        self.note(hash)
    }
}

/// Checks an error that a reader of files gave: it must be for people.
///
/// - Parameters:
///   - message: What it says.
///   - trace: Where the kind of error is noted.
/// - Throws: A finding for an error without words, or with too many.
func expectWords(_ message: String, _ trace: inout Trace) throws(FuzzFinding) {
    trace.note(message: message)
    try expect(message.contains(" "), "an error says what is wrong in words", message)
    // A file of one endless name does not become a line of a log, nor one of escapes a terminal's master.
    let isPlain = message.unicodeScalars.allSatisfy { $0 >= " " && $0 != "\u{7F}" || $0 == "\n" || $0 == "\t" }
    try expect(isPlain, "an error has no control characters", message)
    try expect(
        message.utf8.count <= 3 * ErrorText.mostBytes + 1_024,
        "an error is not longer than a page",
        "\(message.utf8.count) bytes"
    )
}
