// SPDX-License-Identifier: Apache-2.0

internal import Foundation

/// What a batch is, for going on with it: another input or other settings would give other answers.
package struct BatchIdentity: Codable, Sendable, Hashable {
    /// The version of this record.
    package var version = 1
    /// Lines of the input.
    package var lines: Int
    /// A number of the input's content, in hexadecimal digits.
    package var input: String
    /// The fingerprint of the model, in hexadecimal digits.
    package var model: String
    /// What is asked of each line.
    package var task: String
    /// How a line is read.
    package var format: String
    /// What holds for lines that do not say otherwise, as JSON.
    package var defaults: String
    /// The seed of the first line where lines have none of their own.
    package var seed: UInt64
    /// When it began, in seconds since 1970, where its answers say that; going on does not change it.
    package var created: Int?

    /// Describes a batch.
    package init(
        lines: Int,
        input: UInt64,
        model: UInt64,
        task: String,
        format: String,
        defaults: String,
        seed: UInt64,
        created: Int? = nil
    ) {
        self.lines = lines
        self.input = String(input, radix: 16)
        self.model = String(model, radix: 16)
        self.task = task
        self.format = format
        self.defaults = defaults
        self.seed = seed
        self.created = created
    }

    /// What parts it from another, for people; nil if both are one batch.
    package func difference(from other: BatchIdentity) -> String? {
        if self.version != other.version { return "it was written by another version of switchyard" }
        if self.input != other.input || self.lines != other.lines { return "the input has changed" }
        if self.model != other.model { return "the model is another one (\(self.model), not \(other.model))" }
        if self.task != other.task { return "its task is \(other.task), not \(self.task)" }
        if self.format != other.format { return "its format is \(other.format), not \(self.format)" }
        if self.defaults != other.defaults { return "its options were \(other.defaults), not \(self.defaults)" }
        return self.seed == other.seed ? nil : "its seed is \(other.seed), not \(self.seed)"
    }
}

/// What is wrong with a batch's files.
package struct BatchError: Error, Sendable, Hashable, CustomStringConvertible {
    /// What is wrong, and what to do.
    package var description: String

    package init(_ description: String) { self.description = description }
}

/// The file that answers are written to.
///
/// Until the last answer it is called `OUTPUT.partial`, beside `OUTPUT.partial.json`, which says what batch it belongs to. Only whole
/// lines count: the end of one that a death cut off is removed before the batch goes on.
package final class BatchOutput {
    /// Lines that the file has.
    package private(set) var lines = 0
    /// What batch it is.
    package let identity: BatchIdentity

    private let output: String
    private let file: FileHandle

    /// Where an unfinished batch is kept.
    private static func partial(_ output: String) -> String { output + ".partial" }
    private static func record(_ output: String) -> String { output + ".partial.json" }

    /// Reads what batch was left unfinished.
    ///
    /// - Parameter output: The file that it was to write.
    /// - Returns: The batch; nil if none was left.
    /// - Throws: ``BatchError`` for a record that cannot be read.
    package static func unfinished(_ output: String) throws(BatchError) -> BatchIdentity? {
        let path = self.record(output)
        guard FileManager.default.fileExists(atPath: path) else { return nil }
        do {
            return try JSONDecoder().decode(BatchIdentity.self, from: Data(contentsOf: URL(fileURLWithPath: path)))
        } catch {
            throw BatchError(
                "\(path) cannot be read (\(error.localizedDescription)); remove it, or begin again with --overwrite"
            )
        }
    }

    /// Refuses to replace a finished file, and removes all of it if that is wanted.
    ///
    /// - Parameters:
    ///   - output: The file.
    ///   - overwrite: Whether it may be replaced, and an unfinished batch be given up.
    /// - Throws: ``BatchError`` for a file that is there and must stay, or cannot be removed.
    package static func prepare(_ output: String, overwrite: Bool) throws(BatchError) {
        if overwrite {
            for path in [output, self.partial(output), self.record(output)] {
                guard FileManager.default.fileExists(atPath: path) else { continue }
                do {
                    try FileManager.default.removeItem(atPath: path)
                } catch {
                    throw BatchError("\(path) cannot be replaced: \(error.localizedDescription)")
                }
            }
        } else if FileManager.default.fileExists(atPath: output) {
            throw BatchError("\(output) is there already; name another file, or replace it with --overwrite")
        }
    }

    /// Opens the file of a batch, and counts the lines that it has.
    ///
    /// - Parameters:
    ///   - output: The file to write.
    ///   - identity: What batch it is.
    /// - Throws: ``BatchError`` for a file of another batch, or one that cannot be written.
    package init(_ output: String, of identity: BatchIdentity) throws(BatchError) {
        self.output = output
        self.identity = identity
        let (partial, record) = (Self.partial(output), Self.record(output))
        if let other = try Self.unfinished(output) {
            if let difference = identity.difference(from: other) {
                throw BatchError(
                    "\(partial) belongs to another batch: \(difference); use the same again, or begin anew with --overwrite"
                )
            }
        } else if FileManager.default.fileExists(atPath: partial) {
            throw BatchError("\(partial) has no \(record) beside it; remove it, or begin again with --overwrite")
        }
        do {
            let encoder = JSONEncoder()
            encoder.outputFormatting = [.prettyPrinted, .sortedKeys, .withoutEscapingSlashes]
            try encoder.encode(identity).write(to: URL(fileURLWithPath: record), options: .atomic)
            if !FileManager.default.fileExists(atPath: partial) {
                try Data().write(to: URL(fileURLWithPath: partial), options: .withoutOverwriting)
            }
            self.file = try FileHandle(forUpdating: URL(fileURLWithPath: partial))
            try self.keepWholeLines()
        } catch {
            throw BatchError("\(partial) cannot be written: \(error.localizedDescription)")
        }
        guard self.lines <= identity.lines else {
            throw BatchError(
                "\(partial) has \(self.lines) lines, but the batch \(identity.lines); begin again with --overwrite"
            )
        }
    }

    /// Counts lines and removes what follows the last one's end.
    private func keepWholeLines() throws {
        var (position, end) = (UInt64(0), UInt64(0))
        while let chunk = try self.file.read(upToCount: 1 << 20), !chunk.isEmpty {
            for (offset, byte) in chunk.enumerated() where byte == UInt8(ascii: "\n") {
                self.lines += 1
                end = position + UInt64(offset) + 1
            }
            position += UInt64(chunk.count)
        }
        if end < position { try self.file.truncate(atOffset: end) }
        try self.file.seekToEnd()
    }

    /// Appends answers.
    ///
    /// - Parameter answers: The next lines' answers, in order.
    /// - Throws: ``BatchError`` for a full disk and the like.
    package func write(_ answers: [[UInt8]]) throws(BatchError) {
        var bytes = Data()
        for answer in answers {
            bytes.append(contentsOf: answer)
            bytes.append(UInt8(ascii: "\n"))
        }
        do {
            try self.file.write(contentsOf: bytes)
        } catch {
            throw BatchError(
                "\(Self.partial(self.output)) cannot be written: \(error.localizedDescription); run the same command again to go on"
            )
        }
        self.lines += answers.count
    }

    /// Gives the file its name; all lines are written.
    ///
    /// - Throws: ``BatchError`` where that fails.
    package func finish() throws(BatchError) {
        precondition(self.lines == self.identity.lines, "\(self.lines) of \(self.identity.lines) lines")
        let (partial, record) = (Self.partial(self.output), Self.record(self.output))
        do {
            try self.file.synchronize()
            try self.file.close()
            try FileManager.default.moveItem(atPath: partial, toPath: self.output)
            try FileManager.default.removeItem(atPath: record)
        } catch {
            throw BatchError("\(partial) cannot become \(self.output): \(error.localizedDescription)")
        }
    }
}
