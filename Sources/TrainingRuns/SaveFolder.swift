// SPDX-License-Identifier: Apache-2.0

internal import Foundation

/// The folder of a run: its saves, its figures, and what tells how to go on.
///
/// A save is a folder `step-00000200`: a checkpoint in Hugging Face layout, with what a run needs to go on in `resume/`.
/// It is written under another name and gets its own when all of it is on the disk, so that a save that exists is whole.
/// `latest` is a link to the newest.
public struct SaveFolder: Sendable, Hashable {
    /// One save.
    public struct Save: Sendable, Hashable, Comparable {
        /// Steps that were taken before it was written.
        public var step: Int
        /// Its folder.
        public var path: String

        /// Ascending by step.
        public static func < (first: Save, second: Save) -> Bool { first.step < second.step }
    }

    /// The folder within a save that holds what a run needs to go on.
    public static let resumeName = "resume"
    private static let prefix = "step-"
    /// What the names of files hold that are not whole yet; a run removes those that it finds.
    public static let partialMark = ".partial-"
    private static let linkName = "latest"

    /// The folder.
    public let path: String

    /// Names a folder, which need not exist.
    ///
    /// - Parameter path: The folder.
    public init(_ path: String) {
        self.path = path
    }

    /// A file of the run.
    ///
    /// - Parameter name: The file's name.
    /// - Returns: Its path.
    public func file(_ name: String) -> String { "\(self.path)/\(name)" }

    /// The name of a save's folder.
    ///
    /// - Parameter step: Steps before it.
    /// - Returns: `step-` and at least eight digits, so that names sort by step.
    public static func name(_ step: Int) -> String {
        let digits = String(step)
        return self.prefix + String(repeating: "0", count: max(0, 8 - digits.count)) + digits
    }

    /// The step in a save's name; nil for a name of anything else.
    ///
    /// - Parameter name: The name of a folder.
    /// - Returns: The step.
    public static func step(_ name: String) -> Int? {
        guard name.hasPrefix(self.prefix) else { return nil }
        let digits = name.dropFirst(self.prefix.count)
        guard digits.count >= 8, digits.allSatisfy({ $0.isASCII && $0.isNumber }), let step = Int(digits),
            self.name(step) == name
        else { return nil }
        return step
    }

    /// All saves, the oldest first.
    ///
    /// - Returns: The saves; none where the folder does not exist.
    public func saves() -> [Save] {
        let names = (try? FileManager.default.contentsOfDirectory(atPath: self.path)) ?? []
        return names.compactMap { name in Self.step(name).map { Save(step: $0, path: self.file(name)) } }.sorted()
    }

    /// The save to go on from; changes nothing.
    ///
    /// - Parameter resumes: Whether the run goes on where an earlier one of this folder ended.
    /// - Returns: The save; nil for a new run.
    /// - Throws: ``RunError`` when a new run would mix with an earlier one, or when there is nothing to go on from.
    public func last(resumes: Bool) throws(RunError) -> Save? {
        let saves = self.saves()
        if resumes {
            guard let last = saves.last else {
                throw RunError(
                    "\(self.path) holds no save to resume from; leave out --resume to begin a run, or name another --out"
                )
            }
            return last
        }
        if let last = saves.last {
            throw RunError(
                "\(self.path) holds \(saves.count) saves of an earlier run, the last after step \(last.step); pass --resume"
                    + " to go on with it, or name another --out"
            )
        }
        return nil
    }

    /// Makes the folder where it does not exist, and removes what a killed run left half written.
    ///
    /// - Throws: ``RunError`` when the folder cannot be made.
    public func prepare() throws(RunError) {
        do {
            try FileManager.default.createDirectory(atPath: self.path, withIntermediateDirectories: true)
        } catch {
            throw RunError("\(self.path) cannot be created: \(Self.reason(error)); name another --out")
        }
        self.removePartial()
    }

    /// Writes a save, and makes it the latest.
    ///
    /// - Parameters:
    ///   - step: Steps that were taken.
    ///   - byteCount: Bytes that it will take, for a check of the disk before anything is written.
    ///   - write: Writes the save's files into a folder, flushed to the disk.
    /// - Returns: The save.
    /// - Throws: ``RunError``; what was written is removed, and earlier saves stay as they are.
    public func save(
        step: Int,
        byteCount: Int,
        write: (_ directory: String) throws -> Void
    ) throws(RunError) -> Save {
        let final = self.file(Self.name(step))
        let partial = self.file(".\(Self.name(step))\(Self.partialMark)\(getpid())")
        do {
            try self.checkSpace(byteCount)
            try? FileManager.default.removeItem(atPath: partial)
            try FileManager.default.createDirectory(
                atPath: "\(partial)/\(Self.resumeName)",
                withIntermediateDirectories: true
            )
            try write(partial)
            let parts = try FileManager.default.contentsOfDirectory(atPath: partial)
            for path in parts.map({ "\(partial)/\($0)" }) where Self.isDirectory(path) { try Self.synchronize(path) }
            try Self.synchronize(partial)
            if FileManager.default.fileExists(atPath: final) { try FileManager.default.removeItem(atPath: final) }
            guard rename(partial, final) == 0 else { throw RunError(String(cString: strerror(errno))) }
            try Self.synchronize(self.path)
            try self.link(to: Self.name(step))
        } catch {
            try? FileManager.default.removeItem(atPath: partial)
            throw RunError(
                "the save after step \(step) could not be written to \(self.path): \(Self.reason(error)); earlier saves are"
                    + " untouched: make room, and resume the run"
            )
        }
        return Save(step: step, path: final)
    }

    /// Removes the oldest saves.
    ///
    /// - Parameters:
    ///   - count: How many of the newest stay, at least 1.
    ///   - kept: A save that stays whatever its age, such as the best one.
    public func trim(keeping count: Int, and kept: Int? = nil) {
        for save in self.saves().dropLast(max(1, count)) where save.step != kept {
            // Under another name first: a folder half removed must not look like a save.
            let doomed = self.file(".\((save.path as NSString).lastPathComponent)\(Self.partialMark)\(getpid())")
            guard rename(save.path, doomed) == 0 else { continue }
            try? FileManager.default.removeItem(atPath: doomed)
        }
    }

    // MARK: - Private

    private func removePartial() {
        let names = (try? FileManager.default.contentsOfDirectory(atPath: self.path)) ?? []
        for name in names where name.hasPrefix(".") && name.contains(Self.partialMark) {
            try? FileManager.default.removeItem(atPath: self.file(name))
        }
    }

    private func checkSpace(_ byteCount: Int) throws(RunError) {
        var state = statvfs()
        guard statvfs(self.path, &state) == 0 else { return }
        let (free, overflow) = UInt64(state.f_bavail).multipliedReportingOverflow(by: UInt64(state.f_frsize))
        guard !overflow, free < UInt64(max(0, byteCount)) else { return }
        throw RunError("it needs \(byteCount) bytes, and the file system has \(free) free")
    }

    private func link(to name: String) throws(RunError) {
        let link = self.file(Self.linkName)
        let temporary = self.file(".\(Self.linkName)\(Self.partialMark)\(getpid())")
        unlink(temporary)
        guard symlink(name, temporary) == 0, rename(temporary, link) == 0 else {
            let reason = String(cString: strerror(errno))
            unlink(temporary)
            throw RunError("\(link) cannot be replaced: \(reason)")
        }
        try Self.synchronize(self.path)
    }

    private static func isDirectory(_ path: String) -> Bool {
        var isDirectory: ObjCBool = false
        return FileManager.default.fileExists(atPath: path, isDirectory: &isDirectory) && isDirectory.boolValue
    }

    /// Flushes a folder's entries to the disk.
    private static func synchronize(_ directory: String) throws(RunError) {
        let descriptor = open(directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC)
        guard descriptor >= 0 else { throw RunError("\(directory): \(String(cString: strerror(errno)))") }
        defer { close(descriptor) }
        guard fsync(descriptor) == 0 else { throw RunError("\(directory): \(String(cString: strerror(errno)))") }
    }

    private static func reason(_ error: any Error) -> String {
        if let error = error as? RunError { return error.description }
        if let error = error as? CocoaError, let under = error.underlying as? POSIXError {
            return String(cString: strerror(under.code.rawValue))
        }
        return "\(error)"
    }
}
