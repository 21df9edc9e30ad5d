// SPDX-License-Identifier: Apache-2.0

import Foundation
import ServiceKit
import Subprocess
import Synchronization
import SystemPackage

/// A process to start that, once it listens, writes its address to a file.
package struct ChildSpecification: Sendable {
    /// Name as people see it: `gateway`, `pool-0/1`.
    package var name: String
    /// Arguments after the executable.
    package var arguments: [String]
    /// File that the child writes `host:port` to when it listens.
    package var addressFile: String
    /// The same for its admin port; nil where it has none.
    package var adminAddressFile: String?

    /// Describes a process.
    ///
    /// - Parameters:
    ///   - name: Name as people see it.
    ///   - arguments: Arguments after the executable.
    ///   - addressFile: File that the child writes its address to.
    ///   - adminAddressFile: The same for its admin port; nil where it has none.
    package init(name: String, arguments: [String], addressFile: String, adminAddressFile: String? = nil) {
        self.name = name
        self.arguments = arguments
        self.addressFile = addressFile
        self.adminAddressFile = adminAddressFile
    }
}

/// What happens when a child ends while it is needed.
package enum ChildExitPolicy: Sendable {
    /// Everything stops with an error.
    case fail
    /// It is started again after a second, on the same address.
    case restart
    /// The others continue without it.
    case accept
}

/// One child process that is up.
package struct ChildProcess: Sendable, Hashable {
    package var name: String
    package var processIdentifier: Int32
    /// `host:port`.
    package var address: String
    /// `host:port` of its admin port; nil where it has none.
    package var adminAddress: String?
}

/// Something that happened to a child process.
package enum ChildEvent: Sendable {
    case started(ChildProcess)
    case line(name: String, text: String)
    case exited(name: String, status: String)
}

/// A child process did not start, or ended while it was needed.
package struct ChildProcessError: Error, CustomStringConvertible {
    package var description: String

    /// Describes what went wrong.
    ///
    /// - Parameter description: A sentence for people.
    package init(description: String) {
        self.description = description
    }
}

/// A set of child processes whose lives are bound to the body of ``run(_:executable:onExit:startTimeout:events:body:)``.
package final class ChildProcesses: Sendable {
    private let state = Mutex<[String: ChildProcess]>([:])

    /// All processes that are up, by name.
    package var running: [ChildProcess] {
        self.state.withLock { $0.values.sorted { $0.name < $1.name } }
    }

    /// Starts children, waits until all listen, runs the body, then asks the children to stop.
    ///
    /// A child is asked with SIGTERM and killed when it has not left after ten seconds. Its standard input is a pipe
    /// that closes with this process, however this process ends; children are told to leave on that.
    ///
    /// - Parameters:
    ///   - specifications: What to start.
    ///   - executable: The program that all of them run.
    ///   - onExit: What happens when a child ends early.
    ///   - startTimeout: How long all of them together may take until they listen.
    ///   - events: Called from any thread.
    ///   - body: Runs while they are up.
    /// - Returns: What the body returned.
    /// - Throws: ``ChildProcessError`` where a child does not come up, or leaves and is not to be restarted; what the
    ///   body throws.
    package static func run<Result: Sendable>(
        _ specifications: [ChildSpecification],
        executable: String,
        onExit: ChildExitPolicy,
        startTimeout: Duration,
        events: @escaping @Sendable (ChildEvent) -> Void,
        body: @escaping @Sendable (ChildProcesses) async throws -> Result
    ) async throws -> Result {
        let children = ChildProcesses()
        return try await withThrowingTaskGroup(of: Outcome<Result>.self) { group in
            for specification in specifications {
                group.addTask {
                    try await children.supervise(
                        specification,
                        executable: executable,
                        onExit: onExit,
                        events: events
                    )
                    return .childLeft
                }
            }
            group.addTask {
                try await children.waitUntilAllListen(specifications, timeout: startTimeout)
                return .finished(try await body(children))
            }
            defer { group.cancelAll() }
            while let outcome = try await group.next() {
                if case .finished(let result) = outcome {
                    group.cancelAll()
                    return result
                }
            }
            throw CancellationError()
        }
    }

    private enum Outcome<Result: Sendable>: Sendable {
        case childLeft
        case finished(Result)
    }

    private func supervise(
        _ specification: ChildSpecification,
        executable: String,
        onExit: ChildExitPolicy,
        events: @escaping @Sendable (ChildEvent) -> Void
    ) async throws {
        var arguments = specification.arguments
        while true {
            for file in [specification.addressFile, specification.adminAddressFile].compactMap({ $0 }) {
                try? FileManager.default.removeItem(atPath: file)
            }
            let status = try await self.launch(
                specification,
                arguments: arguments,
                executable: executable,
                events: events
            )
            let left = self.state.withLock { $0.removeValue(forKey: specification.name) }
            if Task.isCancelled { return }
            events(.exited(name: specification.name, status: status))
            switch onExit {
            case .fail: throw ChildProcessError(description: "\(specification.name) ended early: \(status)")
            case .accept: return
            case .restart: break
            }
            if let left, let listen = arguments.firstIndex(of: "--listen"), listen + 1 < arguments.count {
                // The gateway knows the replica by its address, so the next process takes the same one.
                arguments[listen + 1] = left.address
            }
            try await Task.sleep(for: .seconds(1))
        }
    }

    private func launch(
        _ specification: ChildSpecification,
        arguments: [String],
        executable: String,
        events: @escaping @Sendable (ChildEvent) -> Void
    ) async throws -> String {
        var options = PlatformOptions()
        // A group of its own: an interrupt from the terminal reaches the parent alone, which then stops in order.
        options.processGroupID = 0
        options.teardownSequence = [.gracefulShutDown(allowedDurationToNextStep: .seconds(10))]
        let result = try await Subprocess.run(
            .path(FilePath(executable)),
            arguments: Arguments(arguments),
            environment: Self.environment,
            platformOptions: options,
            input: .inputWriter,
            output: .sequence,
            error: .combinedWithOutput
        ) { execution in
            let identifier = execution.processIdentifier.value
            try await withThrowingTaskGroup(of: Void.self) { group in
                group.addTask {
                    var child = ChildProcess(
                        name: specification.name,
                        processIdentifier: identifier,
                        address: try await Self.readAddress(specification.addressFile)
                    )
                    if let file = specification.adminAddressFile {
                        child.adminAddress = try await Self.readAddress(file)
                    }
                    let made = child
                    self.state.withLock { $0[specification.name] = made }
                    events(.started(made))
                }
                // Asked here, at the moment of the cancellation: the library's own teardown begins only after the
                // output has ended, which it does not before the child leaves.
                try await withTaskCancellationHandler {
                    for try await line in execution.standardOutput.strings() {
                        events(.line(name: specification.name, text: line.trimmingCharacters(in: .newlines)))
                    }
                } onCancel: {
                    kill(identifier, SIGTERM)
                }
                group.cancelAll()
            }
        }
        return "\(result.terminationStatus)"
    }

    /// This process's environment without its settings of certificates and tokens, which are for clients here or for
    /// processes that were started by hand: a cluster on one machine speaks plaintext on loopback.
    private static var environment: Environment {
        let keys = SecuritySettings.listenerKeys + SecuritySettings.expertsKeys + SecuritySettings.tokensKeys
        let cleared = keys.filter { $0 != "plaintext" }
            .map { (Environment.Key(stringLiteral: Settings.variable($0)), String?.some("")) }
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

    private func waitUntilAllListen(_ specifications: [ChildSpecification], timeout: Duration) async throws {
        let deadline = ContinuousClock.now.advanced(by: timeout)
        while true {
            let up = self.state.withLock { Set($0.keys) }
            let missing = specifications.map(\.name).filter { !up.contains($0) }
            if missing.isEmpty { return }
            guard ContinuousClock.now < deadline else {
                throw ChildProcessError(
                    description: "not listening after \(timeout): \(missing.joined(separator: ", "))"
                )
            }
            try await Task.sleep(for: .milliseconds(10))
        }
    }
}
