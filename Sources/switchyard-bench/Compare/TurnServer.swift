// SPDX-License-Identifier: Apache-2.0

import CommandKit
import Foundation
import NIOCore
import NIOPosix

/// A measurement that a system can be asked for.
struct TurnCase: Codable, Sendable, Hashable {
    /// What to do: `decode`.
    var work: String
    /// How much at once: a batch.
    var size: Int
}

/// What a system found in its turn.
struct TurnResult: Codable, Sendable, Equatable {
    /// The value of one run.
    var value: Double
    /// Its unit; rates end with `/s`.
    var unit: String
    /// Further figures of the run.
    var details: [String: Double]?
}

/// The measured side of `switchyard-bench compare`: lines of JSON on standard input and output.
///
/// First it says `{"ready": true, "versions": "...", "cases": [{"work": "decode", "size": 1}, ...]}`. For each line
/// with a case that it reads, it measures once and says `{"value": 42.6, "unit": "tokens/s"}` or `{"error": "..."}`. It
/// exits when its input ends. A system that cannot run here says `{"skipped": "why"}` and exits. Lines that begin with
/// anything but a brace are ignored.
struct TurnServer {
    /// What can be asked for.
    var cases: [TurnCase]

    /// Measures what is asked for until the input ends.
    ///
    /// - Parameter measure: One run of one case.
    /// - Throws: ``BenchError`` for a line that is not a case.
    func serve(_ measure: (TurnCase) async throws -> TurnResult) async throws {
        struct Ready: Encodable {
            var ready = true
            var versions: String
            var cases: [TurnCase]
        }
        struct Failure: Encodable {
            var error: String
        }
        try Self.say(Ready(versions: SwitchyardBench.machine, cases: self.cases))
        while let line = try await NIOThreadPool.singleton.runIfActive({ readLine() }) {
            guard let one = try? JSONDecoder().decode(TurnCase.self, from: Data(line.utf8)) else {
                throw BenchError("\"\(line.prefix(200))\" is not a case; write {\"work\": \"decode\", \"size\": 1}")
            }
            do {
                guard self.cases.contains(one) else {
                    throw BenchError("\(one.work) \(one.size) is none of the cases that were announced")
                }
                try Self.say(try await measure(one))
            } catch {
                try Self.say(Failure(error: "\(error)"))
            }
        }
    }

    private static func say(_ message: some Encodable) throws {
        let encoder = JSONEncoder()
        encoder.outputFormatting = [.sortedKeys, .withoutEscapingSlashes]
        Terminal.print(String(decoding: try encoder.encode(message), as: UTF8.self))
    }
}
