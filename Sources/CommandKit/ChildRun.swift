// SPDX-License-Identifier: Apache-2.0

import Foundation
import ServiceKit
import Subprocess
import SwitchyardTypes
import Synchronization
import SystemPackage

/// One run of a child process, from its start to its end.
package struct ChildRun: Sendable {
    /// How a child ended.
    package struct End: Sendable {
        /// The system's words for it: `exited(1)`.
        package var status: String
        /// Whether it exited by itself, rather than by a signal.
        package var isExit: Bool
        /// Its error, or its last lines of output.
        package var lines: [String]

        /// The lines after a colon; empty if it printed none.
        package var lastWords: String { self.lines.isEmpty ? "" : ": " + self.lines.joined(separator: "\n") }
    }

    private let specification: ChildSpecification
    private let arguments: [String]
    private let settings: ChildSettings
    private let identifier = Identifier()

    /// Whose process it is, and whether it has been asked to stop.
    private final class Identifier: Sendable {
        let state = Mutex<(process: Int32?, isStopping: Bool)>((nil, false))
    }

    /// Describes a run; nothing is started yet.
    package init(_ specification: ChildSpecification, arguments: [String], settings: ChildSettings) {
        self.specification = specification
        self.arguments = arguments
        self.settings = settings
    }

    /// Runs the child; a cancelled task asks it to stop, once, and still waits for its end.
    ///
    /// - Parameter onReady: Called once the child listens.
    /// - Returns: How it ended.
    /// - Throws: Why it cannot be started.
    package func run(onReady: @escaping @Sendable (ChildProcess) -> Void) async throws -> End {
        // A separate task: in a cancelled one the library would end the child by its own rules.
        let child = Task { try await self.launch(onReady: onReady) }
        return try await withTaskCancellationHandler {
            try await child.value
        } onCancel: {
            self.stop()
        }
    }

    private func stop() {
        let process = self.identifier.state.withLock { state in
            state.isStopping = true
            return state.process
        }
        // A child that is just starting is asked as soon as it exists.
        if let process { self.ask(process) }
    }

    private func ask(_ process: Int32) {
        let signals = self.settings.signals
        signals.send(SIGTERM, to: process)
        // One that was stopped by a signal would never see it.
        signals.send(SIGCONT, to: process)
        let limit = self.settings.stopTimeout.inSeconds
        DispatchQueue.global().asyncAfter(deadline: .now() + limit) { signals.send(SIGKILL, to: process) }
    }

    private func launch(onReady: @escaping @Sendable (ChildProcess) -> Void) async throws -> End {
        var options = PlatformOptions()
        // Its own process group: an interrupt from the terminal only reaches the parent, which then stops in order.
        options.processGroupID = 0
        let output = Mutex<[String]>([])
        let result = try await Subprocess.run(
            .path(FilePath(self.settings.executable)),
            arguments: Arguments(self.arguments),
            environment: Self.environment,
            platformOptions: options,
            input: .inputWriter,
            output: .sequence,
            error: .combinedWithOutput
        ) { execution in
            let process = execution.processIdentifier.value
            self.settings.signals.started(process)
            let isStopping = self.identifier.state.withLock { state in
                state.process = process
                return state.isStopping
            }
            if isStopping { self.ask(process) }
            // Removed before the system gives the identifier to another process.
            defer { self.settings.signals.ended(process) }
            try await withThrowingTaskGroup(of: Void.self) { group in
                group.addTask { onReady(try await self.listening(process)) }
                for try await line in execution.standardOutput.strings() {
                    let text = line.trimmingCharacters(in: .newlines)
                    output.withLock { lines in
                        if lines.count >= 40 { lines.removeFirst() }
                        lines.append(text)
                    }
                    self.settings.events(.line(name: self.specification.name, text: text))
                }
                group.cancelAll()
                while let outcome = await group.nextResult() {
                    if case .failure(let error) = outcome, !(error is CancellationError) { throw error }
                }
            }
        }
        var isExit = false
        if case .exited = result.terminationStatus { isExit = true }
        return End(
            status: "\(result.terminationStatus)",
            isExit: isExit,
            lines: Self.complaint(output.withLock { $0 })
        )
    }

    /// The error that ends the output, or the last few lines.
    private static func complaint(_ lines: [String]) -> [String] {
        let mark = "Error: "
        guard let start = lines.lastIndex(where: { $0.hasPrefix(mark) }) else { return lines.suffix(5) }
        return [String(lines[start].dropFirst(mark.count))] + lines[(start + 1)...]
    }

    private func listening(_ process: Int32) async throws -> ChildProcess {
        var child = ChildProcess(
            name: self.specification.name,
            processIdentifier: process,
            address: try await Self.readAddress(self.specification.addressFile)
        )
        if let file = self.specification.adminAddressFile {
            child.adminAddress = try await Self.readAddress(file)
        }
        return child
    }

    /// This process's environment without its certificate and token settings, which are for clients or for processes
    /// started by hand: a cluster on one machine uses plaintext on loopback.
    private static var environment: Environment {
        let settings =
            ListenerSecuritySettings.table.definitions + ExpertsSecuritySettings.table.definitions
            + TokensSettings.table.definitions
        let cleared = settings.filter { $0 != ListenerSecuritySettings.table.plaintext.definition }
            .map { (Environment.Key(stringLiteral: $0.variable), String?.some("")) }
        return .inherit.updating(Dictionary(cleared) { first, _ in first })
    }

    /// Polls for the file that a child writes once it listens; the file appears whole, by a rename.
    private static func readAddress(_ path: String) async throws -> String {
        while true {
            if let text = try? String(contentsOfFile: path, encoding: .utf8) {
                return text.trimmingCharacters(in: .whitespacesAndNewlines)
            }
            try await Task.sleep(for: .milliseconds(10))
        }
    }
}
