// SPDX-License-Identifier: Apache-2.0

import ArgumentParser
import CommandKit

#if canImport(Glibc)
import Glibc
#elseif canImport(Musl)
import Musl
#endif

/// `switchyard bench`: runs the benchmarks' own program if it is installed next to this one.
struct BenchCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "bench",
        abstract: "Run switchyard-bench, the benchmarks, if it is installed next to this program.",
        helpNames: []
    )

    @Argument(parsing: .captureForPassthrough, help: "Arguments for switchyard-bench.")
    var arguments: [String] = []

    func run() throws {
        throw Workshop.run("bench", self.arguments)
    }
}

/// `switchyard simulate`: runs the simulator, which is a part of the benchmarks' program.
struct SimulateCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "simulate",
        abstract: "Run switchyard-bench simulate, if it is installed next to this program.",
        helpNames: []
    )

    @Argument(parsing: .captureForPassthrough, help: "Arguments for switchyard-bench simulate.")
    var arguments: [String] = []

    func run() throws {
        throw Workshop.run("simulate", ["simulate"] + self.arguments)
    }
}

/// The program with benchmarks and simulator, which serving does not need.
enum Workshop {
    static let program = "switchyard-bench"

    /// Replaces this process with the program; returns only if it cannot.
    ///
    /// - Parameters:
    ///   - word: The command that was given.
    ///   - arguments: The program's arguments.
    /// - Returns: The exit status of a usage error; standard error says why.
    static func run(_ word: String, _ arguments: [String]) -> ExitCode {
        guard let path = Programs.beside(Self.program) else {
            Terminal.printError(
                "Error: `switchyard \(word)` is now part of \(Self.program), which is not next to this program; "
                    + "build it with `swift build -c release --product \(Self.program)`"
            )
            return ExitCode.validationFailure
        }
        var pointers = ([path] + arguments).map { strdup($0) } + [nil]
        execv(path, &pointers)
        let reason = String(cString: strerror(errno))
        for pointer in pointers { free(pointer) }
        Terminal.printError("Error: \(path) cannot be run: \(reason)")
        return ExitCode.failure
    }
}
