// SPDX-License-Identifier: Apache-2.0

internal import Foundation

/// The few operations on folders that checkpoints need, with errors that name the path.
enum FileSystem {
    /// The failure of the last system call.
    static func writeFailure(_ complaint: String, _ path: String) -> CheckpointError {
        let reason = String(cString: strerror(errno))
        return CheckpointError(
            code: .writeFailed,
            message: "\(complaint): \(reason); check permissions and free space, or choose another output",
            file: path
        )
    }

    static func isDirectory(_ path: String) -> Bool {
        var information = stat()
        return stat(path, &information) == 0 && information.st_mode & S_IFMT == S_IFDIR
    }

    /// Whether anything exists at this path, even a broken link.
    static func exists(_ path: String) -> Bool {
        var information = stat()
        return lstat(path, &information) == 0
    }

    /// Where a symbolic link points that leads nowhere; nil for anything else.
    static func brokenLink(_ path: String) -> String? {
        guard self.exists(path) else { return nil }
        var information = stat()
        guard stat(path, &information) != 0 else { return nil }
        return try? FileManager.default.destinationOfSymbolicLink(atPath: path)
    }

    static func isFile(_ path: String) -> Bool {
        var information = stat()
        return stat(path, &information) == 0 && information.st_mode & S_IFMT == S_IFREG
    }

    /// The names in a folder, sorted; empty where it cannot be read.
    static func names(in directory: String) -> [String] {
        ((try? FileManager.default.contentsOfDirectory(atPath: directory)) ?? []).sorted()
    }

    static func createDirectory(_ path: String) throws(CheckpointError) {
        guard mkdir(path, 0o755) == 0 else { throw self.writeFailure("cannot be created", path) }
    }

    static func rename(_ source: String, _ target: String) throws(CheckpointError) {
        guard Foundation.rename(source, target) == 0 else {
            throw self.writeFailure("cannot be replaced by \(source)", target)
        }
    }

    static func removeTree(_ path: String) {
        try? FileManager.default.removeItem(atPath: path)
    }

    /// Makes a folder's own entries durable.
    static func synchronize(_ directory: String) throws(CheckpointError) {
        let descriptor = open(directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC)
        guard descriptor >= 0 else { throw self.writeFailure("cannot be opened", directory) }
        defer { close(descriptor) }
        guard fsync(descriptor) == 0 else { throw self.writeFailure("cannot be written", directory) }
    }

    /// The path with links and dots resolved; the path itself where it does not exist.
    static func resolved(_ path: String) -> String {
        guard let pointer = realpath(path, nil) else { return path }
        defer { free(pointer) }
        return String(cString: pointer)
    }

    /// Bytes that an ordinary user can still write to a folder's file system.
    static func freeBytes(at directory: String) -> Int? {
        var information = statvfs()
        guard statvfs(directory, &information) == 0 else { return nil }
        let (bytes, overflow) = Int(information.f_bavail).multipliedReportingOverflow(by: Int(information.f_frsize))
        return overflow ? nil : bytes
    }

    /// The folder that a path lies in, and its last component.
    static func split(_ path: String) -> (parent: String, name: String) {
        var path = path[...]
        while path.count > 1, path.last == "/" { path.removeLast() }
        guard let slash = path.lastIndex(of: "/") else { return (".", String(path)) }
        let parent = path[..<slash]
        return (parent.isEmpty ? "/" : String(parent), String(path[path.index(after: slash)...]))
    }

    @discardableResult
    static func copy(_ source: String, to target: String) throws(CheckpointError) -> WrittenFile {
        let input = try MappedFile(path: source)
        let output = try OutputFile(path: target)
        try output.write(input.bytes)
        return try output.finish()
    }

    /// Writes a value as JSON for people and programs: indented, keys sorted, a newline at the end.
    @discardableResult
    static func writeJSON(_ value: some Encodable, to path: String) throws(CheckpointError) -> WrittenFile {
        let encoder = JSONEncoder()
        encoder.outputFormatting = [.prettyPrinted, .sortedKeys, .withoutEscapingSlashes]
        guard var data = try? encoder.encode(value) else {
            throw CheckpointError(code: .writeFailed, message: "cannot be expressed as JSON", file: path)
        }
        data.append(UInt8(ascii: "\n"))
        let output = try OutputFile(path: path)
        try output.write([UInt8](data))
        return try output.finish()
    }
}
