// SPDX-License-Identifier: Apache-2.0

package import Checkpoints
import Foundation
package import ServiceKit

/// What the commands print: results to standard output, everything else to standard error.
package enum Terminal {
    /// Styles that are used where standard output is a terminal and `NO_COLOR` is not set.
    package enum Style: String {
        case bold = "1"
        case dim = "2"
        case red = "31"
        case green = "32"
        case yellow = "33"
    }

    /// Whether colours may be used on standard output (https://no-color.org).
    package static let usesColour: Bool = {
        let environment = ProcessInfo.processInfo.environment
        guard environment["NO_COLOR"]?.isEmpty ?? true else { return false }
        return environment["FORCE_COLOR"] != nil || isatty(STDOUT_FILENO) == 1
    }()

    /// Prints at once, also where standard output is a pipe.
    package static func print(_ text: String, terminator: String = "\n") {
        FileHandle.standardOutput.write(Data((text + terminator).utf8))
    }

    /// Prints to standard error.
    package static func printError(_ text: String) {
        FileHandle.standardError.write(Data((text + "\n").utf8))
    }

    /// A text in a style, or as it is where colours may not be used.
    package static func styled(_ text: String, _ styles: Style...) -> String {
        guard self.usesColour, !styles.isEmpty else { return text }
        return "\u{1B}[\(styles.map(\.rawValue).joined(separator: ";"))m\(text)\u{1B}[0m"
    }

    /// A duration for people: `0.8 ms`, `1.25 s`.
    package static func time(_ duration: Duration) -> String {
        let seconds = duration.inSeconds
        return seconds < 0.1 ? String(format: "%.1f ms", seconds * 1000) : String(format: "%.2f s", seconds)
    }
}

extension Duration {
    /// The duration as seconds.
    package var inSeconds: Double {
        Double(self.components.seconds) + Double(self.components.attoseconds) * 1e-18
    }

    /// The duration in microseconds.
    package var inMicroseconds: Double { self.inSeconds * 1e6 }
}

extension ProgressBar {
    /// Shows how far a piece of work on a checkpoint is.
    ///
    /// - Parameter progress: One moment of it.
    package func show(_ progress: WorkProgress) {
        self.update(
            progress.label,
            completed: progress.completed,
            total: progress.total,
            isBytes: progress.unit == .bytes
        )
    }
}
