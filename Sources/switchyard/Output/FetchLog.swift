// SPDX-License-Identifier: Apache-2.0

import CommandKit
import Foundation
import Logging
import ServiceKit
import SwitchyardTypes
import Synchronization
import WeightFetching

/// Shows operators the progress of fetching: a bar on a terminal, a line of the log every few seconds elsewhere.
final class FetchLog: Sendable {
    private let logger: Logger
    private let bar: ProgressBar?
    private let shown = Mutex<(label: String, pace: ProgressPace)?>(nil)

    /// Creates a log.
    ///
    /// - Parameter logger: Where lines go.
    init(logger: Logger) {
        self.logger = logger
        self.bar = StandardStream.error.isTerminal ? ProgressBar() : nil
    }

    /// Logs an event.
    ///
    /// - Parameter event: What happened.
    func note(_ event: FetchEvent) {
        switch event {
        case .progress(let label, let completed, let total):
            guard let bar = self.bar else { return self.log(label, completed, total) }
            bar.update(label, completed: completed, total: total, isBytes: true)
        case .retry(let reason, let wait):
            self.logger.warning("retrying a fetch", metadata: ["reason": "\(reason)", "in": "\(wait)"])
        case .waiting(let what):
            self.logger.info("another process is fetching the same files; waiting", metadata: ["what": "\(what)"])
        case .warning(let text):
            self.logger.warning("\(text)")
        }
    }

    /// Each file's start gets a line, since it may be the last for a long time; later lines keep the pace.
    private func log(_ label: String, _ completed: Int, _ total: Int) {
        let isDue = self.shown.withLock { shown in
            guard var current = shown, current.label == label else {
                shown = (label, ProgressPace(now: .now))
                return true
            }
            defer { shown = current }
            return current.pace.isDue(isFinished: completed >= total, now: .now)
        }
        guard isDue else { return }
        self.logger.info("\(label)", metadata: ["bytes": "\(completed)", "of": "\(total)"])
    }
}
