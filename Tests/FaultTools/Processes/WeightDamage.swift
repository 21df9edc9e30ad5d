// SPDX-License-Identifier: Apache-2.0

internal import Foundation

/// A copy of a part's folder, whose weights can be damaged and repaired.
package struct WeightDamage: Sendable {
    /// The copy.
    package let part: String
    private let original: String

    /// Copies a part.
    ///
    /// - Parameters:
    ///   - original: The part's folder.
    ///   - part: Where the copy is made.
    /// - Throws: Errors of copying.
    package init(copying original: String, to part: String) throws {
        self.original = original
        self.part = part
        try FileManager.default.copyItem(atPath: original, toPath: part)
    }

    /// The file that is damaged.
    package var file: String { "\(self.part)/model.safetensors" }

    /// Zeroes some pages in a row.
    ///
    /// - Parameters:
    ///   - pages: How many pages of 4,096 bytes.
    ///   - fraction: Where the first is, as a fraction of the file's length.
    /// - Throws: Errors of writing.
    package func zero(pages: Int, at fraction: Double) throws {
        let handle = try FileHandle(forUpdating: URL(fileURLWithPath: self.file))
        defer { try? handle.close() }
        let length = try handle.seekToEnd()
        let page = UInt64(Double(length) * fraction) / 4096
        try handle.seek(toOffset: page * 4096)
        try handle.write(contentsOf: Data(count: pages * 4096))
    }

    /// Overwrites the file with other weights under the same header.
    ///
    /// - Parameter cutting: Whether the file is cut to nothing first, as `cp` does; `rsync --inplace` does not.
    /// - Throws: Errors of reading and writing.
    package func overwrite(cutting: Bool = true) throws {
        let bytes = try Data(contentsOf: URL(fileURLWithPath: "\(self.original)/model.safetensors"))
        let other = Self.otherWeights([UInt8](bytes))
        let handle = try FileHandle(forWritingTo: URL(fileURLWithPath: self.file))
        defer { try? handle.close() }
        if cutting { try handle.truncate(atOffset: 0) }
        try handle.write(contentsOf: Data(other))
    }

    /// Cuts the file in half.
    ///
    /// - Throws: Errors of writing.
    package func truncate() throws {
        let handle = try FileHandle(forUpdating: URL(fileURLWithPath: self.file))
        defer { try? handle.close() }
        try handle.truncate(atOffset: try handle.seekToEnd() / 2)
    }

    /// Puts the original in the file's place, as a new file.
    ///
    /// - Throws: Errors of copying.
    package func repair() throws {
        let fresh = "\(self.file).new"
        try FileManager.default.copyItem(atPath: "\(self.original)/model.safetensors", toPath: fresh)
        guard rename(fresh, self.file) == 0 else { throw FaultError("\(fresh) cannot be renamed") }
    }

    /// The same header; the weights moved by an eighth of their length, so that all are finite and none is right.
    static func otherWeights(_ bytes: [UInt8]) -> [UInt8] {
        let length = bytes.prefix(8).reversed().reduce(0) { $0 << 8 | Int($1) }
        let start = min(bytes.count, 8 + length)
        let weights = bytes[start...]
        let step = weights.count / 8 / 4096 * 4096
        return Array(bytes[..<start] + weights.dropFirst(step) + weights.prefix(step))
    }
}
