// SPDX-License-Identifier: Apache-2.0

import Foundation
import Subprocess
import SwitchyardTypes
import SystemPackage

/// A compared system: its name and the command that starts its ``TurnServer`` or another program with the same
/// protocol.
struct TurnSystemSpecification: Sendable, Equatable {
    let name: String
    let command: String

    /// Reads `NAME=COMMAND`.
    init?(_ text: String) {
        guard let equals = text.firstIndex(of: "=") else { return nil }
        self.name = text[..<equals].trimmingCharacters(in: .whitespaces)
        self.command = text[text.index(after: equals)...].trimmingCharacters(in: .whitespaces)
        guard !self.name.isEmpty, !self.command.isEmpty else { return nil }
    }
}

/// What a system says on its standard output; see ``TurnServer``.
enum TurnMessage: Equatable {
    case ready(versions: String, cases: [TurnCase])
    case skipped(String)
    case result(TurnResult)
    case failed(String)

    /// Reads a line; nil for a line that is not part of the protocol.
    ///
    /// - Parameter line: As the system wrote it.
    init?(_ line: String) {
        struct Fields: Decodable {
            var ready: Bool?
            var versions: String?
            var cases: [TurnCase]?
            var skipped: String?
            var error: String?
            var value: Double?
            var unit: String?
            var details: [String: Double]?
        }
        guard line.hasPrefix("{"), let fields = try? JSONDecoder().decode(Fields.self, from: Data(line.utf8)) else {
            return nil
        }
        if let reason = fields.skipped {
            self = .skipped(reason)
        } else if let reason = fields.error {
            self = .failed(reason)
        } else if fields.ready == true, let cases = fields.cases {
            self = .ready(versions: fields.versions ?? "", cases: cases)
        } else if let value = fields.value, value.isFinite, let unit = fields.unit {
            self = .result(TurnResult(value: value, unit: unit, details: fields.details))
        } else {
            return nil
        }
    }
}

/// A running system that waits for its turns.
final class TurnSystem {
    typealias Process = Execution<CustomWriteInput, SequenceOutput, FileDescriptorOutput>

    let name: String
    /// Its description of itself.
    private(set) var versions = ""
    /// What it can be asked for.
    private(set) var cases: [TurnCase] = []
    /// Why it stopped answering.
    private(set) var reason: String?

    private let process: Process
    private var lines: SubprocessOutputSequence.StringSequence<UTF8>.AsyncIterator
    /// How long an answer may take.
    private let limit: Duration

    private init(name: String, process: Process, limit: Duration) {
        self.name = name
        self.process = process
        self.lines = process.standardOutput.strings().makeAsyncIterator()
        self.limit = limit
    }

    /// Starts systems, one after another, runs the body while all are up, and lets them exit.
    ///
    /// - Parameters:
    ///   - specifications: The systems.
    ///   - limit: How long a start, or one turn, may take.
    ///   - started: Those that are up already.
    ///   - body: Gets all systems, including those that could not start.
    /// - Throws: What the body throws, and where no process can be started at all.
    static func run(
        _ specifications: ArraySlice<TurnSystemSpecification>,
        limit: Duration,
        started: [TurnSystem] = [],
        body: ([TurnSystem]) async throws -> Void
    ) async throws {
        guard let next = specifications.first else { return try await body(started) }
        var options = PlatformOptions()
        // Its own process group, so that a system's helpers can be ended with it.
        options.processGroupID = 0
        _ = try await Subprocess.run(
            .path("/bin/sh"),
            arguments: ["-c", "exec \(next.command)"],
            platformOptions: options,
            input: .inputWriter,
            output: .sequence,
            error: .currentStandardError
        ) { process in
            let system = TurnSystem(name: next.name, process: process, limit: limit)
            await system.start()
            let failure: (any Error)?
            do {
                try await Self.run(specifications.dropFirst(), limit: limit, started: started + [system], body: body)
                failure = nil
            } catch {
                failure = error
            }
            await system.leave()
            if let failure { throw failure }
        }
    }

    /// Waits until the system can be asked, or has said that it cannot run.
    private func start() async {
        switch await self.answer() {
        case .ready(let versions, let cases)?: (self.versions, self.cases) = (versions, cases)
        case .skipped(let reason)?: self.reason = reason
        case .failed(let reason)?: self.reason = reason
        case .result?: self.reason = "it gave a result before it was asked"
        case nil: self.reason = self.reason ?? "it exited before it was ready"
        }
    }

    /// Asks for one run.
    ///
    /// - Parameter one: One of ``cases``.
    /// - Returns: Nil where the system failed; ``reason`` says why then.
    func take(_ one: TurnCase) async -> TurnResult? {
        guard self.reason == nil else { return nil }
        do {
            let line = try JSONEncoder().encode(one) + Data("\n".utf8)
            _ = try await self.process.standardInputWriter.write([UInt8](line))
        } catch {
            self.reason = "it exited before \(one.work) \(one.size)"
            return nil
        }
        switch await self.answer() {
        case .result(let result)?: return result
        case .failed(let reason)?: self.reason = "\(one.work) \(one.size): \(reason)"
        case .skipped(let reason)?: self.reason = reason
        case .ready?: self.reason = "it restarted instead of measuring \(one.work) \(one.size)"
        case nil: self.reason = self.reason ?? "it exited during \(one.work) \(one.size)"
        }
        return nil
    }

    /// Closes the system's input and waits for it to exit; kills it if it does not.
    private func leave() async {
        try? await self.process.standardInputWriter.finish()
        let watch = self.watch(.seconds(20))
        defer { watch.cancel() }
        while (try? await self.lines.next()) ?? nil != nil {}
    }

    /// The next line that is for us; nil at the end of the output.
    private func answer() async -> TurnMessage? {
        let watch = self.watch(self.limit)
        defer { watch.cancel() }
        do {
            while let line = try await self.lines.next() {
                if let message = TurnMessage(line.trimmingCharacters(in: .whitespacesAndNewlines)) { return message }
            }
        } catch {
            self.reason = "its output cannot be read: \(error)"
        }
        return nil
    }

    /// Ends the system and its helpers after a while, which ends its output.
    private func watch(_ time: Duration) -> Task<Void, Never> {
        let group = self.process.processIdentifier.value
        return Task {
            guard (try? await Task.sleep(for: time)) != nil else { return }
            kill(-group, SIGKILL)
        }
    }
}
