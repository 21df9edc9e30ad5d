// SPDX-License-Identifier: Apache-2.0

internal import Foundation
internal import TrainingData

/// What a run needs to go on, beside weights and optimizer state.
struct ResumeState: Codable, Hashable {
    static let name = "state.json"
    static let optimizerName = "optimizer.safetensors"
    static let currentVersion = 1

    /// The form of this file.
    var version = Self.currentVersion
    /// Steps that were taken.
    var step: Int
    /// Seconds of the whole run.
    var seconds: Double
    /// Where the next batch begins.
    var position: DataPosition
    /// What decides the run.
    var identity: [String: String]
    /// The step of the best evaluation, and its cross-entropy.
    var best: Best?
    /// The fingerprint of the checkpoint below an adapter, or around whose experts all else is trained; nil where all weights
    /// are.
    var base: UInt64?
    /// The number by which hosts know the run; nil where none ever trained for it.
    var run: UInt64?

    struct Best: Codable, Hashable {
        var step: Int
        var crossEntropy: Double
    }

    /// Reads the state of a save.
    ///
    /// - Parameters:
    ///   - save: The save's folder.
    ///   - plan: The run that goes on.
    /// - Returns: The state.
    /// - Throws: ``RunError`` for a damaged file, and for a setting that decides weights and is not as it was.
    static func load(_ save: SaveFolder.Save, for plan: RunPlan) throws(RunError) -> ResumeState {
        let path = "\(save.path)/\(SaveFolder.resumeName)/\(Self.name)"
        guard let data = FileManager.default.contents(atPath: path) else {
            throw RunError("\(path) cannot be read; resume from another save: remove the folder \(save.path)")
        }
        guard let state = try? JSONDecoder().decode(Self.self, from: data), state.version == Self.currentVersion,
            state.step == save.step, state.seconds >= 0
        else {
            throw RunError("\(path) is damaged; resume from another save: remove the folder \(save.path)")
        }
        for (name, value) in plan.identity.sorted(by: { $0.key < $1.key }) where state.identity[name] != value {
            throw RunError(
                "the run in \(plan.output) has \(name) \(state.identity[name] ?? "unset"), but now it is \(value); resume"
                    + " with the same settings, or begin another run"
            )
        }
        return state
    }

    func write(to directory: String) throws {
        let encoder = JSONEncoder()
        encoder.outputFormatting = [.prettyPrinted, .sortedKeys]
        let path = "\(directory)/\(SaveFolder.resumeName)/\(Self.name)"
        try SyncedFile.write([UInt8](try encoder.encode(self)) + [UInt8(ascii: "\n")], to: path)
    }
}

/// Small files that are on the disk when writing returns.
enum SyncedFile {
    static func write(_ bytes: [UInt8], to path: String) throws(RunError) {
        func fail() -> RunError { RunError("\(path): \(String(cString: strerror(errno)))") }
        let descriptor = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0o644)
        guard descriptor >= 0 else { throw fail() }
        defer { close(descriptor) }
        var written = 0
        while written < bytes.count {
            let count = bytes[written...].withUnsafeBytes { Foundation.write(descriptor, $0.baseAddress, $0.count) }
            if count < 0, errno == EINTR { continue }
            guard count > 0 else { throw fail() }
            written += count
        }
        guard fsync(descriptor) == 0 else { throw fail() }
    }
}
