// SPDX-License-Identifier: Apache-2.0

package import Checkpoints
import Foundation
package import ServiceKit
import SwitchyardTypes

/// Output of the commands: results to standard output, everything else to standard error.
package enum Terminal {
    /// Styles, used if standard output is a terminal and `NO_COLOR` is not set.
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
        return environment["FORCE_COLOR"] != nil || StandardStream.output.isTerminal
    }()

    /// How many columns a line of standard output may take: the terminal's, or 80 if there is none.
    package static let columns: Int = max(40, StandardStream.output.columns ?? 80)

    /// Prints at once, even if standard output is a pipe; ends the process if it cannot be written.
    package static func print(_ text: String, terminator: String = "\n") {
        StandardStream.output.writeOrExit(text + terminator)
    }

    /// Prints to standard error; what cannot be written there is lost.
    package static func printError(_ text: String) {
        StandardStream.error.write(text + "\n")
    }

    /// A text in a style, or unchanged if colours may not be used.
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

extension ProgressBar {
    /// Shows the progress of work on a checkpoint.
    ///
    /// - Parameter progress: The current progress.
    package func show(_ progress: WorkProgress) {
        self.update(
            progress.label,
            completed: progress.completed,
            total: progress.total,
            isBytes: progress.unit == .bytes
        )
    }
}

extension String {
    /// The text in lines of limited width, broken between words; longer words stay whole.
    ///
    /// - Parameters:
    ///   - limit: How many columns a line may take; colours take none.
    ///   - indent: What every line but the first begins with.
    /// - Returns: The lines, without the end of the last.
    package func wrapped(columns limit: Int, indent: String = "  ") -> String {
        var lines: [String] = []
        var line = ""
        var width = 0
        for (index, word) in self.split(separator: " ", omittingEmptySubsequences: false).enumerated() {
            let wordWidth = word.replacing(/\u{1B}\[[0-9;]*m/, with: "").count
            if index == 0 {
                line = String(word)
                width = wordWidth
            } else if width + 1 + wordWidth > limit {
                lines.append(line)
                line = indent + word
                width = indent.count + wordWidth
            } else {
                line += " " + word
                width += 1 + wordWidth
            }
        }
        return (lines + [line]).joined(separator: "\n")
    }
}
