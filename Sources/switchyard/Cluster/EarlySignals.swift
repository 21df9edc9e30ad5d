// SPDX-License-Identifier: Apache-2.0

import Foundation

/// SIGTERM and SIGINT while weights are fetched and loaded: the process ends at once.
///
/// Nothing is lost: fetched files appear whole, and the next start resumes incomplete ones.
/// Without a handler the system would end the process too, but not as the first process of a container, which does
/// not get signals without a handler. Once the service runs, its own signal handling replaces this one.
enum EarlySignals {
    /// From now on signals end a service: SIGTERM with status 0, since it stopped as told, SIGINT with 130.
    ///
    /// - Parameter endsWithStandardInput: Whether the end of standard input, which a parent process holds open for as long
    ///   as it lives, ends the service too.
    static func endService(endsWithStandardInput: Bool = false) {
        if endsWithStandardInput { ParentPipe.watch() }
        for number in [SIGTERM, SIGINT] {
            signal(number) { number in
                // Only what a signal handler may do (signal-safety(7)).
                let text: StaticString = "stopped before serving; what was fetched is kept\n"
                text.withUTF8Buffer { bytes in _ = write(STDERR_FILENO, bytes.baseAddress, bytes.count) }
                _exit(number == SIGINT ? 130 : 0)
            }
        }
    }

    /// From now on signals end an unfinished command with 128 plus the signal's number, as shells do.
    static func endCommand() {
        for number in [SIGTERM, SIGINT] {
            signal(number) { number in
                let text: StaticString = "stopped; what was fetched is kept; run the same command again to continue\n"
                text.withUTF8Buffer { bytes in _ = write(STDERR_FILENO, bytes.baseAddress, bytes.count) }
                _exit(128 + number)
            }
        }
    }
}
