// SPDX-License-Identifier: Apache-2.0

internal import Foundation

/// A pipe without a reader that is a process's standard error.
struct UnreadPipe: Sendable {
    private let path: String

    /// Makes the pipe.
    ///
    /// - Parameter folder: Where its name is.
    /// - Throws: ``FaultError`` where it cannot be made.
    init(in folder: String) throws {
        let path = "\(folder)/\(UUID().uuidString).pipe"
        guard mkfifo(path, 0o600) == 0 else { throw FaultError("no pipe can be made at \(path)") }
        self.path = path
    }

    /// The command that becomes a program whose standard error is the pipe.
    ///
    /// The program's own end is open for reading too, so that writing to a full pipe waits instead of failing.
    var wrapper: [String] { ["/bin/sh", "-c", "exec 2<>\"$0\"; exec \"$@\"", self.path] }

    /// Fills the pipe while the process runs.
    ///
    /// - Returns: How many bytes it took.
    /// - Throws: ``FaultError`` where no process has the pipe open.
    func fill() throws -> Int {
        let descriptor = open(self.path, O_WRONLY | O_NONBLOCK)
        guard descriptor >= 0 else { throw FaultError("no process has \(self.path) open") }
        defer { close(descriptor) }
        let line = [UInt8](repeating: UInt8(ascii: "."), count: 4096)
        var count = 0
        // Whole pages first, then what is left of the last one.
        for size in [4096, 64, 1] {
            while true {
                let written = write(descriptor, line, size)
                guard written > 0 else { break }
                count += written
            }
        }
        return count
    }
}
