// SPDX-License-Identifier: Apache-2.0

internal import Checkpoints
internal import Foundation

/// Snapshots of one shard's state on this machine's disk.
///
/// A file gets its name when it is whole. It begins with 40 bytes, little-endian: the letters "SWYSHARD", the run, the step, the
/// state's bytes and their XXH64.
struct SnapshotFolder: Sendable {
    /// Why a snapshot cannot be used or written.
    struct Failure: Error, CustomStringConvertible {
        var description: String
    }

    private static let magic = UInt64(0x4452_4148_5359_5753)
    private static let headerBytes = 40
    /// How many of the newest stay.
    private static let kept = 2

    /// The folder of this shard and run.
    let path: String
    let run: UInt64

    /// Names a shard's folder.
    ///
    /// - Parameters:
    ///   - root: The folder for all snapshots.
    ///   - run: The run.
    ///   - plan: A number for model and plan, since states of others do not fit.
    init(_ root: String, run: UInt64, plan: UInt64) {
        func hex(_ number: UInt64) -> String {
            let digits = String(number, radix: 16)
            return String(repeating: "0", count: 16 - digits.count) + digits
        }
        self.path = "\(root)/\(hex(run))-\(hex(plan))"
        self.run = run
    }

    /// Makes the folder for all snapshots, and tries to write there.
    ///
    /// - Parameter root: The folder.
    /// - Throws: ``Failure`` with the system's reason.
    static func makeRoot(_ root: String) throws(Failure) {
        do {
            try FileManager.default.createDirectory(atPath: root, withIntermediateDirectories: true)
        } catch {
            throw Failure(
                description: "the folder for snapshots, \(root), cannot be made: \(error.localizedDescription)"
            )
        }
        guard access(root, W_OK) == 0 else {
            throw Failure(
                description:
                    "the folder for snapshots, \(root): \(String(cString: strerror(errno))); correct its permissions"
            )
        }
    }

    /// The steps of all snapshots whose files have the right length, ascending.
    func steps() -> [Int] {
        let names = (try? FileManager.default.contentsOfDirectory(atPath: self.path)) ?? []
        return
            names.compactMap { name -> Int? in
                guard name.hasPrefix("step-"), name.hasSuffix(".state"),
                    let step = Int(name.dropFirst(5).dropLast(6)), self.header(step) != nil
                else { return nil }
                return step
            }
            .sorted()
    }

    private func file(_ step: Int) -> String { "\(self.path)/step-\(step).state" }

    private func header(_ step: Int) -> (bytes: Int, sum: UInt64)? {
        guard let handle = FileHandle(forReadingAtPath: self.file(step)) else { return nil }
        defer { try? handle.close() }
        guard let data = try? handle.read(upToCount: Self.headerBytes), data.count == Self.headerBytes,
            let size = try? handle.seekToEnd()
        else { return nil }
        let words = data.withUnsafeBytes { bytes in
            (0..<5).map { UInt64(littleEndian: bytes.loadUnaligned(fromByteOffset: 8 * $0, as: UInt64.self)) }
        }
        guard words[0] == Self.magic, words[1] == self.run, words[2] == UInt64(step),
            words[3] == size - UInt64(Self.headerBytes)
        else { return nil }
        return (Int(clamping: words[3]), words[4])
    }

    /// Reads a snapshot.
    ///
    /// - Parameter step: Its step.
    /// - Returns: The state.
    /// - Throws: ``Failure`` for one that is missing or torn.
    func read(_ step: Int) throws(Failure) -> [UInt8] {
        guard let header = self.header(step), let data = FileManager.default.contents(atPath: self.file(step)) else {
            throw Failure(description: "\(self.file(step)) is missing, or torn")
        }
        let bytes = [UInt8](data.dropFirst(Self.headerBytes))
        guard bytes.count == header.bytes, bytes.withUnsafeBytes({ XXHash64.hash($0) }) == header.sum else {
            throw Failure(description: "\(self.file(step)) is damaged: its checksum is another one")
        }
        return bytes
    }

    /// Writes a snapshot, and removes all but the newest.
    ///
    /// - Parameters:
    ///   - state: The state.
    ///   - step: Its step.
    /// - Throws: ``Failure`` with the system's reason; earlier snapshots stay as they are.
    func write(_ state: [UInt8], step: Int) throws(Failure) {
        do {
            try FileManager.default.createDirectory(atPath: self.path, withIntermediateDirectories: true)
        } catch {
            throw Failure(description: "\(self.path) cannot be made: \(error.localizedDescription)")
        }
        var header: [UInt8] = []
        let sum = state.withUnsafeBytes { XXHash64.hash($0) }
        for word in [Self.magic, self.run, UInt64(step), UInt64(state.count), sum] {
            withUnsafeBytes(of: word.littleEndian) { header.append(contentsOf: $0) }
        }
        let temporary = "\(self.path)/.step-\(step).\(getpid())"
        do throws(Failure) {
            try Self.write([header, state], to: temporary)
        } catch {
            unlink(temporary)
            throw error
        }
        guard rename(temporary, self.file(step)) == 0 else {
            let reason = String(cString: strerror(errno))
            unlink(temporary)
            throw Failure(description: "\(self.file(step)): \(reason)")
        }
        for old in self.steps().dropLast(Self.kept) { unlink(self.file(old)) }
    }

    private static func write(_ pieces: [[UInt8]], to path: String) throws(Failure) {
        func failure() -> Failure { Failure(description: "\(path): \(String(cString: strerror(errno)))") }
        let descriptor = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0o600)
        guard descriptor >= 0 else { throw failure() }
        defer { close(descriptor) }
        for piece in pieces {
            var written = 0
            while written < piece.count {
                let count = piece[written...]
                    .withUnsafeBytes {
                        Foundation.write(descriptor, $0.baseAddress, min($0.count, 64 << 20))
                    }
                if count < 0, errno == EINTR { continue }
                guard count > 0 else { throw failure() }
                written += count
            }
        }
        guard fsync(descriptor) == 0 else { throw failure() }
    }
}
