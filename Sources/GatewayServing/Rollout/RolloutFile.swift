// SPDX-License-Identifier: Apache-2.0

internal import Foundation
internal import Logging
internal import RPCCore
internal import SwitchyardProtos

/// A file that says which checkpoint a gateway is to serve: the runner of ``RolloutFollower``.
struct RolloutFile: Sendable {
    /// Time from one look at the file to the next.
    static let interval = Duration.milliseconds(500)

    let path: String
    let lanes: ModelLanes
    let logger: Logger

    /// Follows the file until the task is cancelled.
    func run() async {
        var follower = RolloutFollower()
        var lastProblem: String?
        while !Task.isCancelled {
            do throws(RolloutWish.Problem) {
                if follower.follow(try self.read()), let wish = follower.wish {
                    self.logger.notice("a file asks for a checkpoint", metadata: self.metadata(wish))
                }
                lastProblem = nil
            } catch {
                if error.description != lastProblem {
                    self.logger.error(
                        "the file of rollouts cannot be followed; what it asked for last stays",
                        metadata: ["file": "\(self.path)", "error": "\(error)"]
                    )
                }
                lastProblem = error.description
            }
            while let action = follower.next(self.lanes.report) {
                guard await self.perform(action, &follower) else { break }
            }
            try? await Task.sleep(for: Self.interval)
        }
    }

    /// Does what the follower asks.
    ///
    /// - Returns: Whether there may be more to do at once.
    private func perform(_ action: RolloutFollower.Action, _ follower: inout RolloutFollower) async -> Bool {
        switch action {
        case .step(let step, let checkpoint, let share):
            let outcome: RolloutFollower.Action?
            var isRefused = false
            do {
                _ = try await self.lanes.step(RolloutRequest(step: step, checkpoint: checkpoint, share: share))
                outcome = follower.done(step)
            } catch {
                isRefused = true
                outcome = follower.refused(step, (error as? RPCError)?.message ?? "\(error)")
            }
            if let outcome { return await self.perform(outcome, &follower) }
            return !isRefused
        case .reached:
            self.logger.notice("the checkpoint is as the file asks", metadata: follower.wish.map(self.metadata) ?? [:])
            return true
        case .failed(let reason):
            var metadata = follower.wish.map(self.metadata) ?? [:]
            metadata["error"] = "\(reason)"
            self.logger.error(
                "the checkpoint is not as the file asks; change the file to try again",
                metadata: metadata
            )
            return true
        }
    }

    private func metadata(_ wish: RolloutWish) -> Logger.Metadata {
        var metadata: Logger.Metadata = ["file": "\(self.path)"]
        switch wish.aim {
        case .canary(let checkpoint, let share):
            metadata["checkpoint"] = "\(checkpoint)"
            metadata["canary"] = "\(share)"
        case .promotion(let checkpoint): metadata["checkpoint"] = "\(checkpoint)"
        case .back: metadata["back"] = "true"
        }
        return metadata
    }

    /// Reads the file; one that is missing asks for nothing.
    private func read() throws(RolloutWish.Problem) -> RolloutWish? {
        let bytes: Data
        do {
            guard FileManager.default.fileExists(atPath: self.path) else { return nil }
            let file = try FileHandle(forReadingFrom: URL(fileURLWithPath: self.path))
            defer { try? file.close() }
            // One byte more than may be, for the reader to say.
            bytes = try file.read(upToCount: RolloutWish.longestFile + 1) ?? Data()
        } catch {
            throw RolloutWish.Problem(description: "the file cannot be read: \(error.localizedDescription)")
        }
        return try RolloutWish(reading: Array(bytes))
    }
}
