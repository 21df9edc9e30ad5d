// SPDX-License-Identifier: Apache-2.0

import FuzzTargets

/// What the command line asks for.
struct Options {
    /// What the process does.
    enum Mode {
        case help
        /// Writes the seeds of every target.
        case writeSeeds(String)
        /// Runs given inputs once.
        case replay([String])
        /// Starts a worker and keeps the input that stops it.
        case supervise
        /// Runs inputs.
        case work
    }

    static let usage = """
        usage: switchyard-fuzz TARGET [--runs N] [--seed S] [--corpus DIR] [--artifacts DIR] [--keep DIR]
               switchyard-fuzz TARGET --replay FILE...
               switchyard-fuzz --write-seeds DIR
        TARGET is one of \(FuzzTarget.allCases.map(\.rawValue).joined(separator: ", "))
        --runs       how many inputs to run (100000)
        --seed       the same seed gives the same inputs (1)
        --corpus     a folder whose files, and those of its folder TARGET, are run first and mutated
        --artifacts  where to keep inputs that break a property or stop the process (fuzz-artifacts)
        --keep       where to keep inputs that took a new path
        """

    var mode = Mode.supervise
    var target = FuzzTarget.encodings
    var runs = 100_000
    var seed: UInt64 = 1
    var corpus: String?
    var artifacts = "fuzz-artifacts"
    var keep: String?
    /// The arguments as they came, for the worker.
    let arguments: [String]

    init(_ arguments: [String]) throws(OptionError) {
        self.arguments = arguments
        var rest = arguments[...]
        var hasTarget = false
        while let argument = rest.popFirst() {
            switch argument {
            case "--help", "-h": self.mode = .help
            case "--worker": self.mode = .work
            case "--runs": self.runs = try Self.number(rest.popFirst(), argument)
            case "--seed": self.seed = UInt64(try Self.number(rest.popFirst(), argument))
            case "--corpus": self.corpus = try Self.value(rest.popFirst(), argument)
            case "--artifacts": self.artifacts = try Self.value(rest.popFirst(), argument)
            case "--keep": self.keep = try Self.value(rest.popFirst(), argument)
            case "--write-seeds":
                self.mode = .writeSeeds(try Self.value(rest.popFirst(), argument))
                hasTarget = true
            case "--replay":
                self.mode = .replay(Array(rest))
                rest = []
            default:
                guard let target = FuzzTarget(rawValue: argument) else {
                    throw OptionError(message: "\"\(argument)\" is neither a target nor an option")
                }
                self.target = target
                hasTarget = true
            }
        }
        if case .help = self.mode { return }
        guard hasTarget else { throw OptionError(message: "name a target") }
    }

    private static func value(_ value: String?, _ option: String) throws(OptionError) -> String {
        guard let value else { throw OptionError(message: "\(option) needs a value") }
        return value
    }

    private static func number(_ value: String?, _ option: String) throws(OptionError) -> Int {
        guard let value, let number = Int(value), number >= 0 else {
            throw OptionError(message: "\(option) needs a number, 0 or more")
        }
        return number
    }
}

/// A command line that cannot be read.
struct OptionError: Error {
    let message: String
}
