// SPDX-License-Identifier: Apache-2.0

#if canImport(Glibc)
internal import Glibc
#elseif canImport(Musl)
internal import Musl
#elseif canImport(Darwin)
internal import Darwin
#endif

/// One of the process's two output streams, written without a buffer.
package enum StandardStream: Sendable {
    /// Standard output, where results go.
    case output
    /// Standard error, where logs and progress go.
    case error

    private var descriptor: Int32 {
        switch self {
        case .output: STDOUT_FILENO
        case .error: STDERR_FILENO
        }
    }

    /// Whether it is a terminal.
    package var isTerminal: Bool { isatty(self.descriptor) == 1 }

    /// Columns of the terminal, or nil if it is not a terminal or does not tell.
    package var columns: Int? {
        var size = winsize()
        guard ioctl(self.descriptor, UInt(TIOCGWINSZ), &size) == 0, size.ws_col > 0 else { return nil }
        return Int(size.ws_col)
    }

    /// Writes text, in one piece if the system takes it.
    ///
    /// - Parameter text: What to write.
    /// - Returns: The system's error number if part of the text could not be written; nil otherwise.
    @discardableResult
    package func write(_ text: String) -> Int32? {
        var text = text
        return text.withUTF8 { bytes in
            var rest = UnsafeRawBufferPointer(bytes)
            while let start = rest.baseAddress, !rest.isEmpty {
                #if canImport(Glibc)
                let count = Glibc.write(self.descriptor, start, rest.count)
                #elseif canImport(Musl)
                let count = Musl.write(self.descriptor, start, rest.count)
                #elseif canImport(Darwin)
                let count = Darwin.write(self.descriptor, start, rest.count)
                #endif
                if count < 0 {
                    let code = errno
                    if code == EINTR { continue }
                    guard code == EAGAIN, self.waitUntilWritable() else { return code }
                    continue
                }
                rest = UnsafeRawBufferPointer(rebasing: rest.dropFirst(count))
            }
            return nil
        }
    }

    /// Waits for a full stream that was made non-blocking elsewhere.
    private func waitUntilWritable() -> Bool {
        var entry = pollfd(fd: self.descriptor, events: Int16(POLLOUT), revents: 0)
        return poll(&entry, 1, -1) >= 0 || errno == EINTR
    }

    /// Writes text, or ends the process the way other command-line tools end when their output cannot be written.
    ///
    /// A closed pipe ends it by SIGPIPE, quietly: its reader has read enough. Anything else, such as a full disk, is
    /// reported on standard error and ends it with status 1.
    ///
    /// - Parameter text: What to write.
    package func writeOrExit(_ text: String) {
        guard let code = self.write(text) else { return }
        if code == EPIPE { Self.exitByBrokenPipe() }
        let reason = String(cString: strerror(code))
        StandardStream.error.write("error: cannot write \(self.name): \(reason)\n")
        // Other threads may be running, so nothing that they use is torn down here.
        _exit(1)
    }

    private var name: String {
        switch self {
        case .output: "standard output"
        case .error: "standard error"
        }
    }

    private static func exitByBrokenPipe() -> Never {
        // Networking code makes the process ignore the signal, and worker threads block it.
        signal(SIGPIPE, SIG_DFL)
        var signals = sigset_t()
        sigemptyset(&signals)
        sigaddset(&signals, SIGPIPE)
        pthread_sigmask(SIG_UNBLOCK, &signals, nil)
        raise(SIGPIPE)
        _exit(128 + SIGPIPE)
    }
}
