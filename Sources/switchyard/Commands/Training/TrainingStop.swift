// SPDX-License-Identifier: Apache-2.0

import ArgumentParser
import CommandKit
import Foundation
import ServiceKit
import Synchronization
import UnixSignals

/// Signals that end a training run: the first after its step and a save, the second at once.
final class TrainingStop: Sendable {
    private let first = Mutex<UnixSignal?>(nil)

    /// Whether the run is to save and end.
    var isAsked: Bool { self.first.withLock { $0 } != nil }

    /// The status of the command: 0 after SIGTERM and SIGHUP, since it stopped as told, 130 after Ctrl-C.
    var exitCode: ExitCode? { self.first.withLock { $0 } == .sigint ? ExitCode(130) : nil }

    /// Takes signals from now on.
    func listen() async {
        let signals = await UnixSignalsSequence(
            trapping: [.sigint, .sigterm] + (HangupSignal.isIgnored ? [] : [.sighup])
        )
        Task {
            for await signal in signals {
                let isFirst = self.first.withLock { first in
                    defer { first = first ?? signal }
                    return first == nil
                }
                if isFirst {
                    Terminal.printError("\nStopping: the run saves after this step. Stop again to end at once.")
                } else if signal != .sighup {
                    // Saves are whole or absent, so nothing is lost but the steps since the last one.
                    StandardStream.flush()
                    _exit(signal == .sigint ? 130 : 143)
                }
            }
        }
    }
}
