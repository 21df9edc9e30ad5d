// SPDX-License-Identifier: Apache-2.0

import Foundation
import Synchronization

/// A process to start that, once it listens, writes its address to a file.
package struct ChildSpecification: Sendable {
    /// Display name: `gateway`, `pool-0/1`.
    package var name: String
    /// Arguments after the executable.
    package var arguments: [String]
    /// File that the child writes `host:port` to when it listens.
    package var addressFile: String
    /// The same for its admin port; nil if it has none.
    package var adminAddressFile: String?

    /// Describes a process.
    ///
    /// - Parameters:
    ///   - name: Display name.
    ///   - arguments: Arguments after the executable.
    ///   - addressFile: File that the child writes its address to.
    ///   - adminAddressFile: The same for its admin port; nil if it has none.
    package init(name: String, arguments: [String], addressFile: String, adminAddressFile: String? = nil) {
        self.name = name
        self.arguments = arguments
        self.addressFile = addressFile
        self.adminAddressFile = adminAddressFile
    }
}

/// What to do when a child exits while it is needed.
package enum ChildExitPolicy: Sendable {
    /// Everything stops with an error.
    case fail
    /// It is restarted on its old address, as ``ChildRestarts`` decides.
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
    /// `host:port` of its admin port; nil if it has none.
    package var adminAddress: String?
}

/// Something that happened to a child process.
package enum ChildEvent: Sendable {
    case started(ChildProcess)
    case line(name: String, text: String)
    case exited(name: String, status: String)
}

/// A child did not start, or exited while it was needed.
package struct ChildProcessError: Error, CustomStringConvertible {
    package var description: String

    /// Describes what went wrong.
    ///
    /// - Parameter description: A sentence for people.
    package init(description: String) {
        self.description = description
    }
}

/// How to run a set of child processes.
package struct ChildSettings: Sendable {
    /// The program that they all run.
    package var executable: String
    /// What to do when a child exits early.
    package var onExit: ChildExitPolicy
    /// How long all of them together may take to start listening.
    package var startTimeout: Duration
    /// How long a child lets its calls finish once it is asked to stop.
    package var drain: Duration
    /// What a child may take longer than its drain, on a busy machine, before it is killed.
    package static let stopMargin: Duration = .seconds(90)
    /// How long a child may take to stop before it is killed.
    package var stopTimeout: Duration { self.drain + Self.stopMargin }
    /// Passes signals on to children, this set's and others'.
    package var signals = ChildSignals()
    /// Called on any thread.
    package var events: @Sendable (ChildEvent) -> Void

    /// Describes how a set of child processes is run.
    ///
    /// - Parameters:
    ///   - executable: The program that they all run.
    ///   - onExit: What to do when a child exits early.
    ///   - startTimeout: How long all of them together may take to start listening.
    ///   - drain: How long a child lets its calls finish once it is asked to stop.
    ///   - signals: Passes signals on to the children.
    ///   - events: Called on any thread.
    package init(
        executable: String,
        onExit: ChildExitPolicy,
        startTimeout: Duration,
        drain: Duration = .seconds(30),
        signals: ChildSignals = ChildSignals(),
        events: @escaping @Sendable (ChildEvent) -> Void
    ) {
        self.executable = executable
        self.onExit = onExit
        self.startTimeout = startTimeout
        self.drain = drain
        self.signals = signals
        self.events = events
    }
}

/// A set of child processes whose lives are bound to the body of ``run(_:settings:body:)``.
package final class ChildProcesses: Sendable {
    private struct State {
        var running: [String: (process: ChildProcess, since: ContinuousClock.Instant)] = [:]
        /// How children that are not restarted ended.
        var left: [String: String] = [:]
        /// Why the set cannot continue.
        var failure: (any Error)?
    }

    private let state = Mutex(State())
    private let settings: ChildSettings

    private init(_ settings: ChildSettings) {
        self.settings = settings
    }

    /// All processes that are up, by name.
    package var running: [ChildProcess] {
        self.state.withLock { $0.running.values.map(\.process).sorted { $0.name < $1.name } }
    }

    /// Starts children, waits until all listen, runs the body, then asks the children to stop.
    ///
    /// - Parameters:
    ///   - specifications: What to start.
    ///   - executable: The program that they all run.
    ///   - onExit: What to do when a child exits early.
    ///   - startTimeout: How long all of them together may take to start listening.
    ///   - events: Called on any thread.
    ///   - body: Runs while they are up.
    /// - Returns: The body's result.
    /// - Throws: As ``run(_:settings:body:)``.
    package static func run<Result: Sendable>(
        _ specifications: [ChildSpecification],
        executable: String,
        onExit: ChildExitPolicy,
        startTimeout: Duration,
        events: @escaping @Sendable (ChildEvent) -> Void,
        body: @escaping @Sendable (ChildProcesses) async throws -> Result
    ) async throws -> Result {
        let settings = ChildSettings(
            executable: executable,
            onExit: onExit,
            startTimeout: startTimeout,
            events: events
        )
        return try await Self.run(specifications, settings: settings, body: body)
    }

    /// Starts children, waits until all listen, runs the body, then asks the children to stop.
    ///
    /// Each child gets one SIGTERM, since a second one would cut off its requests in flight; and only after the body
    /// has ended, even if the caller is cancelled, since the body may depend on them. A child's standard input is a
    /// pipe that closes when this process ends, however it ends; children are told to exit then.
    ///
    /// - Parameters:
    ///   - specifications: What to start.
    ///   - settings: How to run them.
    ///   - body: Runs while they are up.
    /// - Returns: The body's result.
    /// - Throws: ``ChildProcessError`` if a child does not start, or exits and is not restarted; and what the body
    ///   throws.
    package static func run<Result: Sendable>(
        _ specifications: [ChildSpecification],
        settings: ChildSettings,
        body: @escaping @Sendable (ChildProcesses) async throws -> Result
    ) async throws -> Result {
        let children = ChildProcesses(settings)
        // Separate tasks, so that a cancelled caller stops the body first and then the children.
        let work = Task {
            try await children.waitUntilAllListen(specifications)
            return try await body(children)
        }
        let supervisors = specifications.map { specification in
            Task {
                do {
                    try await children.supervise(specification)
                } catch is CancellationError {
                    return
                } catch {
                    children.state.withLock { $0.failure = $0.failure ?? error }
                    work.cancel()
                }
            }
        }
        let result = await withTaskCancellationHandler {
            await work.result
        } onCancel: {
            work.cancel()
        }
        let failure = children.state.withLock { $0.failure }
        for supervisor in supervisors { supervisor.cancel() }
        for supervisor in supervisors { await supervisor.value }
        if let failure { throw failure }
        return try result.get()
    }

    private func supervise(_ specification: ChildSpecification) async throws {
        var arguments = specification.arguments
        var restarts = ChildRestarts()
        while true {
            for file in [specification.addressFile, specification.adminAddressFile].compactMap({ $0 }) {
                try? FileManager.default.removeItem(atPath: file)
            }
            let end = try await ChildRun(specification, arguments: arguments, settings: self.settings)
                .run { child in
                    self.state.withLock { $0.running[child.name] = (child, .now) }
                    self.settings.events(.started(child))
                }
            let left = self.state.withLock { $0.running.removeValue(forKey: specification.name) }
            if Task.isCancelled { return }
            self.settings.events(.exited(name: specification.name, status: end.status))
            switch self.settings.onExit {
            case .fail:
                throw ChildProcessError(
                    description: "\(specification.name) exited early, \(end.status)\(end.lastWords)"
                )
            case .accept:
                self.state.withLock { $0.left[specification.name] = "\(end.status)\(end.lastWords)" }
                return
            case .restart:
                break
            }
            switch restarts.left(readyFor: left?.since.duration(to: .now), isExit: end.isExit) {
            case .giveUp:
                throw ChildProcessError(
                    description: "\(specification.name) did not start, \(end.status)\(end.lastWords)"
                )
            case .restart(let pause):
                if let left, let listen = arguments.firstIndex(of: "--listen"), listen + 1 < arguments.count {
                    // The gateway knows the replica by its address, so the next process takes the same one.
                    arguments[listen + 1] = left.process.address
                }
                try await Task.sleep(for: pause)
            }
        }
    }

    private func waitUntilAllListen(_ specifications: [ChildSpecification]) async throws {
        let deadline = ContinuousClock.now.advanced(by: self.settings.startTimeout)
        while true {
            let (up, left) = self.state.withLock { (Set($0.running.keys), $0.left) }
            let missing = specifications.map(\.name).filter { !up.contains($0) }
            if missing.isEmpty { return }
            if let name = missing.first(where: { left[$0] != nil }), let end = left[name] {
                throw ChildProcessError(description: "\(name) exited before it listened, \(end)")
            }
            guard ContinuousClock.now < deadline else {
                throw ChildProcessError(
                    description: "not listening after \(self.settings.startTimeout): "
                        + missing.joined(separator: ", ")
                )
            }
            try await Task.sleep(for: .milliseconds(10))
        }
    }
}
