// SPDX-License-Identifier: Apache-2.0

import Foundation
import Synchronization
import TrainingRuns

/// Writes a run's status to its folder, once a second and at its end.
final class StatusFile: Sendable {
    private let folder: String
    private let figures: TrainingFigures
    /// One writer at a time, so that the last word is the last.
    private let writing = Mutex(())

    /// Names a run.
    ///
    /// - Parameters:
    ///   - folder: The run's folder.
    ///   - figures: What is known of it.
    init(folder: String, figures: TrainingFigures) {
        self.folder = folder
        self.figures = figures
    }

    /// Runs a body, and writes meanwhile.
    ///
    /// A status that cannot be written is left out: a run does not end for that.
    ///
    /// - Parameter body: The run.
    /// - Returns: How it ended.
    /// - Throws: What the body throws.
    func whileRunning(_ body: @escaping @Sendable () async throws -> RunOutcome) async throws -> RunOutcome {
        try await withThrowingTaskGroup(of: RunOutcome?.self) { group in
            group.addTask {
                do {
                    let outcome = try await body()
                    self.write(outcome.wasStopped ? .stopped : .ended)
                    return outcome
                } catch {
                    self.write(.failed, reason: "\(error)")
                    throw error
                }
            }
            group.addTask {
                while !Task.isCancelled {
                    self.write(.running)
                    try? await Task.sleep(for: .seconds(1))
                }
                return nil
            }
            defer { group.cancelAll() }
            while let result = try await group.next() {
                if let result { return result }
            }
            throw CancellationError()
        }
    }

    /// Writes the status, once the run has begun and its folder is its own.
    private func write(_ state: TrainingStatus.State, reason: String? = nil) {
        self.writing.withLock { _ in
            guard let status = self.figures.status(state, reason: reason, now: Date().timeIntervalSince1970),
                let text = try? status.json(isPretty: true)
            else { return }
            // A name that the next run of the folder removes, should this one be killed here.
            let temporary = "\(self.folder)/.\(TrainingStatus.name)\(SaveFolder.partialMark)\(getpid())"
            guard FileManager.default.createFile(atPath: temporary, contents: Data("\(text)\n".utf8)) else { return }
            if rename(temporary, "\(self.folder)/\(TrainingStatus.name)") != 0 { unlink(temporary) }
        }
    }
}
