// SPDX-License-Identifier: Apache-2.0

import Foundation

/// SIGTERM and SIGINT while weights are fetched and loaded: the process ends at once.
///
/// Nothing is lost by that: files that are fetched appear whole, and what is not whole is continued by the next start.
/// Without a handler the system would end the process too, but not as the first process of a container, to which a signal
/// without a handler is not delivered. Once the service runs, its own handling of signals takes the place of this one.
enum EarlySignals {
    /// From now on signals end a service: SIGTERM with status 0, since it was told to stop and has, SIGINT with 130.
    ///
    /// - Parameter endsWithStandardInput: Whether the end of standard input, which a parent process holds open for as long
    ///   as it lives, ends the service too.
    static func endService(endsWithStandardInput: Bool = false) {
        if endsWithStandardInput { ParentPipe.watch() }
        for number in [SIGTERM, SIGINT] {
            signal(number) { number in
                // Nothing here but what a signal's handler may do (signal-safety(7)).
                let text: StaticString = "stopped before serving; what was fetched is kept\n"
                text.withUTF8Buffer { bytes in _ = write(STDERR_FILENO, bytes.baseAddress, bytes.count) }
                _exit(number == SIGINT ? 130 : 0)
            }
        }
    }

    /// From now on signals end a command whose work is not done: with 128 and the signal's number, as shells have it.
    static func endCommand() {
        for number in [SIGTERM, SIGINT] {
            signal(number) { number in
                let text: StaticString = "stopped; what was fetched is kept, run the same command again to continue\n"
                text.withUTF8Buffer { bytes in _ = write(STDERR_FILENO, bytes.baseAddress, bytes.count) }
                _exit(128 + number)
            }
        }
    }
}
