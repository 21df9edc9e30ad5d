// SPDX-License-Identifier: Apache-2.0

import Foundation
import ServiceKit

/// SIGTERM, SIGINT and SIGHUP while weights are fetched and loaded: the process ends at once.
///
/// Nothing is lost: fetched files appear whole, and the next start resumes incomplete ones.
/// Without a handler the system would end the process too, but not as the first process of a container, which does
/// not get signals without a handler. Once the service runs, its own signal handling replaces this one.
enum EarlySignals {
    /// From now on signals end a service: SIGTERM and SIGHUP with status 0, since it stopped as told, SIGINT with 130.
    ///
    /// - Parameter endsWithStandardInput: Whether the end of standard input, which a parent process holds open for as long
    ///   as it lives, ends the service too.
    static func endService(endsWithStandardInput: Bool = false) {
        if endsWithStandardInput { ParentPipe.watch() }
        for number in Self.signals {
            signal(number) { number in
                EarlySignals.say("stopped before serving; what was fetched is kept\n")
                _exit(number == SIGINT ? 130 : 0)
            }
        }
    }

    /// From now on signals end an unfinished command with 128 plus the signal's number, as shells do.
    static func endCommand() {
        for number in Self.signals {
            signal(number) { number in
                EarlySignals.say("stopped; what was fetched is kept; run the same command again to continue\n")
                _exit(128 + number)
            }
        }
    }

    /// SIGHUP only where the process was not told to ignore it, as by `nohup`.
    private static var signals: [Int32] { [SIGTERM, SIGINT] + (HangupSignal.isIgnored ? [] : [SIGHUP]) }

    /// Writes only where standard error takes it at once; does only what a signal handler may do (signal-safety(7)).
    private static func say(_ text: StaticString) {
        StandardStream.writeLastWords(text.utf8Start, count: text.utf8CodeUnitCount)
    }
}
