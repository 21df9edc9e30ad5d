// SPDX-License-Identifier: Apache-2.0

public import Logging
public import ServiceLifecycle
import UnixSignals

/// Runs the services of one process until one of them ends or a signal asks the process to stop.
public enum ServiceRunner {
    /// The process was told to stop again while it stopped, and cut off work in flight.
    public struct Interrupted: Error, Sendable, Hashable, CustomStringConvertible {
        /// What happened, for people.
        public var description: String {
            "told to stop a second time; work in flight was cut off"
        }
    }

    /// Runs services in order; SIGTERM, SIGINT and SIGHUP stop them gracefully in the reverse order, a second SIGTERM or
    /// SIGINT at once.
    ///
    /// A closed terminal sends SIGHUP, often twice (by the system and by the shell), so another one changes nothing. A process
    /// that was started with SIGHUP ignored, as by `nohup`, goes on ignoring it.
    ///
    /// - Parameters:
    ///   - services: What to run; a later one may depend on an earlier one.
    ///   - shutdownLimit: How long a graceful stop may take before the services are cancelled.
    ///   - logger: Logs starts and stops below `info`.
    /// - Throws: What a service throws, and ``Interrupted`` after a second signal.
    public static func run(_ services: [any Service], shutdownLimit: Duration, logger: Logger) async throws {
        // Signals are passed to the group here, since it would only listen for the first one.
        var configuration = ServiceGroupConfiguration(
            services: services.map {
                .init(
                    service: $0,
                    successTerminationBehavior: .gracefullyShutdownGroup,
                    failureTerminationBehavior: .cancelGroup
                )
            },
            logger: logger
        )
        configuration.maximumGracefulShutdownDuration = shutdownLimit
        let group = ServiceGroup(configuration: configuration)
        let signals = await UnixSignalsSequence(
            trapping: [.sigterm, .sigint] + (HangupSignal.isIgnored ? [] : [.sighup])
        )
        let isInterrupted = try await withThrowingTaskGroup(of: Ending.self) { tasks in
            tasks.addTask {
                try await group.run()
                return .finished
            }
            tasks.addTask { await Self.listen(to: signals, for: group, logger: logger) }
            defer { tasks.cancelAll() }
            while let ending = try await tasks.next() {
                switch ending {
                case .finished:
                    return false
                case .interrupted:
                    tasks.cancelAll()
                    // From here the services end because of the signal, however they end.
                    _ = await tasks.nextResult()
                    return true
                case .cancelled:
                    break
                }
            }
            return false
        }
        if isInterrupted {
            throw Interrupted()
        }
    }

    private enum Ending: Sendable {
        case finished
        case interrupted
        case cancelled
    }

    private static func listen(to signals: UnixSignalsSequence, for group: ServiceGroup, logger: Logger) async -> Ending
    {
        var isStopping = false
        for await signal in signals {
            if isStopping, signal == .sighup { continue }
            if isStopping {
                logger.warning("told to stop a second time; ending at once", metadata: ["signal": "\(signal)"])
                return .interrupted
            }
            isStopping = true
            await group.triggerGracefulShutdown()
        }
        return .cancelled
    }
}
