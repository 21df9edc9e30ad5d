// SPDX-License-Identifier: Apache-2.0

package import ArgumentParser
import Foundation

extension AsyncParsableCommand {
    /// Runs the command that this process's arguments name, as the body of a program's `main`.
    ///
    /// Help and errors take the same path as all other output, so one place decides what happens when they cannot be
    /// written.
    package static func runAndExit() async {
        do {
            var command = try Self.parseAsRoot()
            if var command = command as? any AsyncParsableCommand {
                try await command.run()
            } else {
                try command.run()
            }
        } catch {
            let code = Self.exitCode(for: error)
            let text = Self.fullMessage(for: error)
            if code == .success {
                if !text.isEmpty { Terminal.print(text) }
            } else if !text.isEmpty {
                Terminal.printError(text)
            }
            Foundation.exit(code.rawValue)
        }
    }
}
