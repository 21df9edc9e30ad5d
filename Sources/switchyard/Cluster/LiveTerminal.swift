// SPDX-License-Identifier: Apache-2.0

import CommandKit
import Foundation
import ServiceKit

/// A terminal whose whole screen is drawn again and again, with keys read as they are pressed.
///
/// The screen that was there before comes back at the end, and so do the terminal's settings.
final class LiveTerminal {
    /// A terminal's size.
    struct Size: Hashable {
        var columns: Int
        var rows: Int
    }

    private let saved: termios?

    /// Whether standard output is a terminal that can be drawn on.
    static var isAvailable: Bool {
        StandardStream.output.isTerminal && ProcessInfo.processInfo.environment["TERM"] != "dumb"
    }

    /// Takes the screen, and the keys where standard input is the terminal too.
    init() {
        var settings = termios()
        if isatty(STDIN_FILENO) == 1, tcgetattr(STDIN_FILENO, &settings) == 0 {
            self.saved = settings
            // Keys come one by one and are not shown. Ctrl-C comes as a key, so that the screen is given back first.
            settings.c_lflag &= ~tcflag_t(ICANON | ECHO | ISIG)
            tcsetattr(STDIN_FILENO, TCSANOW, &settings)
        } else {
            self.saved = nil
        }
        // The other screen, without a cursor.
        StandardStream.output.write("\u{1B}[?1049h\u{1B}[?25l")
    }

    /// Gives the screen back.
    func close() {
        StandardStream.output.write("\u{1B}[?25h\u{1B}[?1049l")
        if var saved { tcsetattr(STDIN_FILENO, TCSANOW, &saved) }
    }

    /// The size at present.
    var size: Size {
        var size = winsize()
        guard ioctl(STDOUT_FILENO, UInt(TIOCGWINSZ), &size) == 0, size.ws_col > 0, size.ws_row > 0 else {
            return Size(columns: 80, rows: 24)
        }
        return Size(columns: Int(size.ws_col), rows: Int(size.ws_row))
    }

    /// Draws a screen: each line over the old one, and nothing below the last.
    ///
    /// - Parameter lines: The lines, none longer than the screen is wide.
    func draw(_ lines: [String]) {
        let text = lines.map { $0 + "\u{1B}[K" }.joined(separator: "\r\n")
        StandardStream.output.write("\u{1B}[H" + text + "\u{1B}[J")
    }

    /// A key that was pressed since the last call; nil if there was none.
    var key: UInt8? {
        guard self.saved != nil else { return nil }
        var entry = pollfd(fd: STDIN_FILENO, events: Int16(POLLIN), revents: 0)
        guard poll(&entry, 1, 0) == 1 else { return nil }
        var byte = UInt8(0)
        return read(STDIN_FILENO, &byte, 1) == 1 ? byte : nil
    }
}
