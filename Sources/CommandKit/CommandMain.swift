// SPDX-License-Identifier: Apache-2.0

package import ArgumentParser
import Foundation
import ServiceKit
import TensorKernels

/// A command that computes, serves or fetches, and so starts threads of its own.
package protocol ThreadedCommand: ParsableCommand {}

extension AsyncParsableCommand {
    /// Runs the command that this process's arguments name, as the body of a program's `main`.
    ///
    /// Help and errors take the same path as all other output, so one place decides what happens when they cannot be
    /// written. It does not suspend: tasks need threads, and whether there may be as many as the command needs is known, and
    /// said, before the first one starts.
    package static func runAndExit() -> Never {
        do {
            if let problem = KernelLevel.problem(with: ProcessInfo.processInfo.environment["SWITCHYARD_KERNELS"]) {
                throw ValidationError(problem)
            }
            let command = try Self.parseAsRoot()
            let name = ([Self._commandName] + CommandLine.arguments.dropFirst().prefix { !$0.hasPrefix("-") }.prefix(1))
                .joined(separator: " ")
            let isThreaded = command is any ThreadedCommand
            try ThreadAllowance.require(
                isThreaded ? ThreadAllowance.ofServices : ThreadAllowance.ofCommands,
                for: name
            )
            // Safety: the task is the only one that uses it from here on.
            nonisolated(unsafe) let parsed = command
            Task { await Self.run(parsed) }
        } catch {
            Self.end(because: error)
        }
        dispatchMain()
    }

    private static func run(_ command: sending any ParsableCommand) async {
        do {
            if var waiting = command as? any AsyncParsableCommand {
                try await waiting.run()
            } else {
                var command = command
                try command.run()
            }
        } catch {
            Self.end(because: error)
        }
        StandardStream.flush()
        Foundation.exit(0)
    }

    private static func end(because error: any Error) -> Never {
        let code = Self.exitCode(for: error)
        let text = Self.fullMessage(for: error)
        if code == .success {
            if !text.isEmpty { Terminal.print(text) }
        } else if !text.isEmpty {
            Terminal.printError(text)
        }
        StandardStream.flush()
        Foundation.exit(code.rawValue)
    }
}
