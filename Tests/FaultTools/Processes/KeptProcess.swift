// SPDX-License-Identifier: Apache-2.0

internal import Foundation
internal import Subprocess
internal import Synchronization
internal import SystemPackage

/// What to start and where its output goes.
package struct ProcessSpecification: Sendable {
    /// The displayed name: `gateway`, `pool-0/1`.
    package var name: String
    /// The program.
    package var executable: String
    /// Its arguments.
    package var arguments: [String]
    /// The file that the process writes `host:port` to once it listens.
    package var addressFile: String
    /// The file that gets what it prints, appended.
    package var logFile: String
    /// Variables in addition to this process's.
    package var environment: [String: String]

    /// Describes a process; each parameter is the property of that name.
    package init(
        name: String,
        executable: String,
        arguments: [String],
        addressFile: String,
        logFile: String,
        environment: [String: String] = [:]
    ) {
        self.name = name
        self.executable = executable
        self.arguments = arguments
        self.addressFile = addressFile
        self.logFile = logFile
        self.environment = environment
    }
}

/// One process of a cluster, from its start until after its end.
package final class KeptProcess: Sendable {
    /// What was started.
    package let specification: ProcessSpecification

    private struct State {
        var identifier: Int32?
        var address: String?
        var exit: Exit?
        var lines: [String] = []
    }

    /// How a process ended.
    package struct Exit: Sendable, Hashable, CustomStringConvertible {
        /// Its exit status; nil where a signal ended it.
        package var code: Int32?
        /// The status in words.
        package var description: String
    }

    private let state = Mutex(State())

    init(_ specification: ProcessSpecification) {
        self.specification = specification
    }

    /// The process identifier while it runs.
    package var identifier: Int32? { self.state.withLock { $0.exit == nil ? $0.identifier : nil } }

    /// `host:port` where it listens, once it does.
    package var address: String? { self.state.withLock { $0.address } }

    /// How it ended, once it has.
    package var exit: Exit? { self.state.withLock { $0.exit } }

    /// The last lines that it printed.
    package var lines: [String] { self.state.withLock { $0.lines } }

    /// Sends a signal, unless the process has ended.
    ///
    /// - Parameter number: The signal.
    /// - Throws: ``FaultError`` where the process has ended.
    package func signal(_ number: Int32) throws {
        guard let identifier = self.identifier, kill(identifier, number) == 0 else {
            throw FaultError("\(self.specification.name) no longer runs, so signal \(number) cannot be sent to it")
        }
    }

    /// The resident memory in bytes, while the process runs.
    package var residentBytes: Int? {
        guard let identifier = self.identifier,
            let text = try? String(contentsOfFile: "/proc/\(identifier)/statm", encoding: .utf8),
            let pages = text.split(separator: " ").dropFirst().first.flatMap({ Int($0) })
        else { return nil }
        return pages * Int(getpagesize())
    }

    /// Waits until the process listens.
    ///
    /// - Parameter limit: How long to wait.
    /// - Returns: `host:port`.
    /// - Throws: ``FaultError`` with the last lines of its output where it does not.
    @discardableResult
    package func listening(within limit: Duration) async throws -> String {
        let deadline = ContinuousClock.now.advanced(by: limit)
        while ContinuousClock.now < deadline {
            if let address = self.address { return address }
            if let exit = self.exit {
                throw FaultError("\(self.specification.name) exited before it listened: \(exit)\n\(self.lastWords)")
            }
            try await Task.sleep(for: .milliseconds(5))
        }
        throw FaultError("\(self.specification.name) does not listen after \(limit)\n\(self.lastWords)")
    }

    /// Waits until the process has ended.
    ///
    /// - Parameter limit: How long to wait.
    /// - Returns: How it ended.
    /// - Throws: ``FaultError`` where it still runs.
    package func ended(within limit: Duration) async throws -> Exit {
        let deadline = ContinuousClock.now.advanced(by: limit)
        while ContinuousClock.now < deadline {
            if let exit = self.exit { return exit }
            try await Task.sleep(for: .milliseconds(5))
        }
        throw FaultError("\(self.specification.name) still runs after \(limit)\n\(self.lastWords)")
    }

    private var lastWords: String { self.lines.suffix(12).joined(separator: "\n") }

    // MARK: - Its life

    /// Runs the process to its end; a cancelled task asks it to exit, and kills it if it does not.
    func run() async {
        do {
            let status = try await self.launch()
            self.end(Exit(code: Self.code(of: status), description: "\(status)"))
        } catch {
            self.end(Exit(code: nil, description: "could not be run: \(error)"))
        }
    }

    private static func code(of status: TerminationStatus) -> Int32? {
        if case .exited(let code) = status { return code }
        return nil
    }

    private func end(_ exit: Exit) { self.state.withLock { $0.exit = exit } }

    private func launch() async throws -> TerminationStatus {
        try? FileManager.default.removeItem(atPath: self.specification.addressFile)
        var options = PlatformOptions()
        // Its own process group: an interrupt from the terminal reaches only the parent.
        options.processGroupID = 0
        options.teardownSequence = [.gracefulShutDown(allowedDurationToNextStep: .seconds(5))]
        let log = try FileDescriptor.open(
            FilePath(self.specification.logFile),
            .writeOnly,
            options: [.create, .append],
            permissions: .ownerReadWrite
        )
        defer { try? log.close() }
        let result = try await Subprocess.run(
            .path(FilePath(self.specification.executable)),
            arguments: Arguments(self.specification.arguments),
            environment: .inherit.updating(
                Dictionary(
                    self.specification.environment.map {
                        (Environment.Key(stringLiteral: $0.key), String?.some($0.value))
                    },
                    uniquingKeysWith: { first, _ in first }
                )
            ),
            platformOptions: options,
            input: .inputWriter,
            output: .sequence,
            error: .combinedWithOutput
        ) { execution in
            let identifier = execution.processIdentifier.value
            self.state.withLock { $0.identifier = identifier }
            await withTaskGroup(of: Void.self) { group in
                group.addTask { await self.readAddress() }
                await withTaskCancellationHandler {
                    // Ends with the process, which holds the other end of the pipe.
                    do {
                        for try await line in execution.standardOutput.strings() {
                            _ = try? log.writeAll(Data(line.utf8))
                            self.state.withLock { state in
                                if state.lines.count >= 400 { state.lines.removeFirst(200) }
                                state.lines.append(line.trimmingCharacters(in: .newlines))
                            }
                        }
                    } catch {
                        _ = try? log.writeAll(Data("its output cannot be read: \(error)\n".utf8))
                    }
                } onCancel: {
                    kill(identifier, SIGCONT)
                    kill(identifier, SIGTERM)
                }
                group.cancelAll()
            }
        }
        return result.terminationStatus
    }

    /// Polls for the file that the process writes once it listens; a rename puts the complete file in place.
    private func readAddress() async {
        while !Task.isCancelled {
            if let text = try? String(contentsOfFile: self.specification.addressFile, encoding: .utf8) {
                let address = text.trimmingCharacters(in: .whitespacesAndNewlines)
                self.state.withLock { $0.address = address }
                return
            }
            try? await Task.sleep(for: .milliseconds(5))
        }
    }
}
