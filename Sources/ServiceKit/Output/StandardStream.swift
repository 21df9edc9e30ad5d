// SPDX-License-Identifier: Apache-2.0

internal import Synchronization

#if canImport(Glibc)
internal import Glibc
#elseif canImport(Musl)
internal import Musl
#elseif canImport(Darwin)
internal import Darwin
#endif

/// One of the process's two output streams, written without a buffer, or behind a bounded queue once
/// ``writeBehind(note:endsWithOutput:)`` was called.
package enum StandardStream: Sendable {
    /// Standard output, where results go.
    case output
    /// Standard error, where logs and progress go.
    case error

    private static let writers = Mutex<(output: OutputWriter?, error: OutputWriter?)>((nil, nil))

    /// How long the end of a process waits for a reader of its last lines.
    package static let flushLimit: Duration = .seconds(2)

    private var descriptor: Int32 {
        switch self {
        case .output: STDOUT_FILENO
        case .error: STDERR_FILENO
        }
    }

    private var writer: OutputWriter? {
        Self.writers.withLock { writers in
            switch self {
            case .output: writers.output
            case .error: writers.error
            }
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

    /// Writes text, in one piece if the system takes it; behind the queue if there is one.
    ///
    /// - Parameter text: What to write.
    /// - Returns: The system's error number if part of the text could not be written; nil otherwise, and behind a queue.
    @discardableResult
    package func write(_ text: String) -> Int32? {
        guard let writer = self.writer else { return self.writeAndWait(text) }
        writer.append(text)
        return nil
    }

    /// Writes text that may be lost, such as progress, unless the reader is slow.
    ///
    /// - Parameter text: What to write.
    package func writeIfReady(_ text: String) {
        if let writer = self.writer {
            writer.append(text)
        } else if self.isReady {
            self.writeAndWait(text)
        }
    }

    /// Whether the system would take a short text at once.
    private var isReady: Bool {
        var entry = pollfd(fd: self.descriptor, events: Int16(POLLOUT), revents: 0)
        return poll(&entry, 1, 0) == 1 && entry.revents & Int16(POLLOUT) != 0
    }

    /// Writes text and waits for the reader.
    @discardableResult
    private func writeAndWait(_ text: String) -> Int32? {
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
    /// reported on standard error and ends it with status 1. Behind a queue, the process decided whether that holds.
    ///
    /// - Parameter text: What to write.
    package func writeOrExit(_ text: String) {
        guard let code = self.write(text) else { return }
        self.exit(because: code)
    }

    private func exit(because code: Int32) -> Never {
        if code == EPIPE { Self.exitByBrokenPipe() }
        let reason = String(cString: strerror(code))
        StandardStream.error.write("error: cannot write \(self.name): \(reason)\n")
        StandardStream.error.writer?.flush(within: Self.flushLimit)
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

// MARK: - Behind a queue

extension StandardStream {
    /// From now on a thread for each stream writes what waits in a bounded queue, and nothing else waits for a reader.
    ///
    /// For processes that serve or look after others: a full pipe or a stopped terminal (Ctrl-S) must hold up neither calls
    /// nor signals. What does not fit is dropped, counted, and said where it is missing. Standard error that cannot be
    /// written is lost. Does nothing the second time, and nothing where the system gives no thread.
    ///
    /// - Parameters:
    ///   - note: The line that stands for dropped lines, by their number.
    ///   - endsWithOutput: Whether standard output that cannot be written ends the process, as in ``writeOrExit(_:)``.
    package static func writeBehind(note: @escaping @Sendable (Int) -> String, endsWithOutput: Bool) {
        self.writers.withLock { writers in
            guard writers.error == nil else { return }
            writers.error = OutputWriter(note: note) { StandardStream.error.writeAndWait($0) }
            writers.output = OutputWriter(
                note: note,
                onFailure: { code in
                    if endsWithOutput { StandardStream.output.exit(because: code) }
                },
                write: { StandardStream.output.writeAndWait($0) }
            )
        }
    }

    /// Says that lines are missing.
    ///
    /// - Parameter count: How many.
    /// - Returns: The sentence, without the end of a line.
    package static func note(_ count: Int) -> String {
        "dropped \(count) log line\(count == 1 ? "" : "s") while standard error was blocked"
    }

    /// Waits until both queues are written, but not longer than a while.
    ///
    /// - Parameter limit: How long to wait at most.
    package static func flush(within limit: Duration = Self.flushLimit) {
        let deadline = ContinuousClock.now.advanced(by: limit)
        for stream in [StandardStream.error, .output] {
            stream.writer?.flush(within: ContinuousClock.now.duration(to: deadline))
        }
    }

    /// Lines of standard error that were dropped, or could not be written behind the queue, since the process started.
    package static var droppedCount: UInt64 { StandardStream.error.writer?.droppedCount ?? 0 }

    /// Writes bytes to standard error from a signal handler, if the system takes them at once.
    ///
    /// Calls only what signal-safety(7) allows. Where another thread fills the stream just before, the process ends by
    /// SIGALRM two seconds later, so call it only to say why the process ends.
    ///
    /// - Parameters:
    ///   - bytes: The text, at most 4,096 bytes.
    ///   - count: Its number of bytes.
    package static func writeLastWords(_ bytes: UnsafePointer<UInt8>, count: Int) {
        var entry = pollfd(fd: STDERR_FILENO, events: Int16(POLLOUT), revents: 0)
        guard poll(&entry, 1, 0) == 1, entry.revents & Int16(POLLOUT) != 0 else { return }
        alarm(2)
        #if canImport(Glibc)
        _ = Glibc.write(STDERR_FILENO, bytes, count)
        #elseif canImport(Musl)
        _ = Musl.write(STDERR_FILENO, bytes, count)
        #elseif canImport(Darwin)
        _ = Darwin.write(STDERR_FILENO, bytes, count)
        #endif
    }
}
