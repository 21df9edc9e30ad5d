// SPDX-License-Identifier: Apache-2.0

import Checkpoints
import Foundation
import ServiceKit
import SwitchyardTypes

/// What the commands print: results to standard output, everything else to standard error.
enum Terminal {
    /// Styles that are used where standard output is a terminal and `NO_COLOR` is not set.
    enum Style: String {
        case bold = "1"
        case dim = "2"
        case red = "31"
        case green = "32"
        case yellow = "33"
    }

    /// Whether colours may be used on standard output (https://no-color.org).
    static let usesColour: Bool = {
        let environment = ProcessInfo.processInfo.environment
        guard environment["NO_COLOR"]?.isEmpty ?? true else { return false }
        return environment["FORCE_COLOR"] != nil || isatty(STDOUT_FILENO) == 1
    }()

    /// Prints at once, also where standard output is a pipe.
    static func print(_ text: String, terminator: String = "\n") {
        FileHandle.standardOutput.write(Data((text + terminator).utf8))
    }

    /// Prints to standard error.
    static func printError(_ text: String) {
        FileHandle.standardError.write(Data((text + "\n").utf8))
    }

    /// A text in a style, or as it is where colours may not be used.
    static func styled(_ text: String, _ styles: Style...) -> String {
        guard self.usesColour, !styles.isEmpty else { return text }
        return "\u{1B}[\(styles.map(\.rawValue).joined(separator: ";"))m\(text)\u{1B}[0m"
    }

    /// A duration for people: `0.8 ms`, `1.25 s`.
    static func time(_ duration: Duration) -> String {
        let seconds = duration.inSeconds
        return seconds < 0.1 ? String(format: "%.1f ms", seconds * 1000) : String(format: "%.2f s", seconds)
    }
}

extension ProgressBar {
    /// Shows how far a piece of work on a checkpoint is.
    ///
    /// - Parameter progress: One moment of it.
    func show(_ progress: WorkProgress) {
        self.update(
            progress.label,
            completed: progress.completed,
            total: progress.total,
            isBytes: progress.unit == .bytes
        )
    }
}
