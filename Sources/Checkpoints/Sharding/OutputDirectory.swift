// SPDX-License-Identifier: Apache-2.0

internal import Foundation

/// A folder that gets its name only when it is complete.
struct OutputDirectory {
    /// Where to write, on the same file system as the output.
    let temporary: String
    private let output: String
    private let parent: String
    private let replaces: Bool

    /// Checks the output path, and creates the folder to write into.
    ///
    /// - Parameters:
    ///   - output: The folder's final name.
    ///   - model: The folder that is read, which must not be replaced.
    ///   - force: Whether an earlier cut's output is replaced.
    /// - Throws: `outputExists`, `notFound` or `writeFailed`.
    init(_ output: String, model: String, force: Bool) throws(CheckpointError) {
        let (parent, name) = FileSystem.split(output)
        guard !name.isEmpty, name != ".", name != "..", FileSystem.isDirectory(parent) else {
            throw CheckpointError(
                code: .notFound,
                message: "cannot be created, because its parent folder \(parent) does not exist; create that first",
                file: output
            )
        }
        let isOccupied =
            FileSystem.exists(output) && !(FileSystem.isDirectory(output) && FileSystem.names(in: output).isEmpty)
        if isOccupied {
            guard force else {
                throw CheckpointError(
                    code: .outputExists,
                    message: "exists and is not empty; choose another output, or force its replacement",
                    file: output
                )
            }
            let source = FileSystem.resolved(model) + "/"
            guard FileSystem.isFile("\(output)/\(PlacementFile.fileName)"),
                !source.hasPrefix(FileSystem.resolved(output) + "/")
            else {
                throw CheckpointError(
                    code: .outputExists,
                    message: "is not the output of an earlier cut, or holds the model itself, so it is not replaced; "
                        + "choose another output",
                    file: output
                )
            }
        }
        self.output = output
        self.parent = parent
        self.replaces = isOccupied
        let suffix = String(UInt32.random(in: 0...UInt32.max), radix: 36)
        self.temporary = "\(parent)/.\(name).partial-\(getpid())-\(suffix)"
        try FileSystem.createDirectory(self.temporary)
    }

    /// Fails early if the disk is too small.
    func checkSpace(_ bytes: Int) throws(CheckpointError) {
        guard let free = FileSystem.freeBytes(at: self.parent), free < bytes else { return }
        throw CheckpointError(
            code: .writeFailed,
            message: "needs \(bytes) bytes, and its file system has \(free) free; make room or choose another output",
            file: self.output
        )
    }

    /// Gives the folder its name.
    func commit() throws(CheckpointError) {
        let old = self.temporary + ".old"
        if self.replaces { try FileSystem.rename(self.output, old) }
        do {
            // Renaming itself replaces an empty folder of that name.
            try FileSystem.rename(self.temporary, self.output)
        } catch {
            if self.replaces { try? FileSystem.rename(old, self.output) }
            throw error
        }
        try FileSystem.synchronize(self.parent)
        if self.replaces { FileSystem.removeTree(old) }
    }

    /// Removes what was written so far.
    func discard() {
        FileSystem.removeTree(self.temporary)
    }
}
