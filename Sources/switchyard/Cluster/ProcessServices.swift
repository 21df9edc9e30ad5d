// SPDX-License-Identifier: Apache-2.0

import ExpertServing
import Foundation
import GatewayServing
import Logging
import ServiceKit
import ServiceLifecycle
import Synchronization
import Telemetry

/// The pipe that a parent process holds open for as long as it runs, as this process's standard input.
///
/// The parent never writes to it: however the parent ends, the pipe closes, and no child is left behind.
enum ParentPipe {
    private struct State {
        var isWatched = false
        var isClosed = false
        /// What the service does when the pipe closes; before there is a service, the process ends.
        var onClose: (@Sendable () -> Void)?
    }

    private static let state = Mutex(State())

    /// Begins to watch, once: the process ends with the pipe, at once until ``onClose(_:)`` says otherwise.
    static func watch() {
        let isFirst = self.state.withLock { state in
            defer { state.isWatched = true }
            return !state.isWatched
        }
        guard isFirst else { return }
        // A read cannot be cancelled, so it has a thread of its own, which ends with the pipe or with the process.
        Thread.detachNewThread {
            while !FileHandle.standardInput.availableData.isEmpty {}
            let onClose = self.state.withLock { state in
                state.isClosed = true
                return state.onClose
            }
            guard let onClose else { _exit(0) }
            onClose()
        }
    }

    /// Has a service stop in order when the pipe closes.
    static func onClose(_ body: @escaping @Sendable () -> Void) {
        self.watch()
        let isClosed = self.state.withLock { state in
            state.onClose = body
            return state.isClosed
        }
        if isClosed { body() }
    }
}

/// Ends the process gracefully once its standard input is closed.
struct StandardInputWatch: Service {
    var isEnabled: Bool

    func run() async throws {
        guard self.isEnabled else {
            try await gracefulShutdown()
            return
        }
        let (closed, source) = AsyncStream.makeStream(of: Never.self)
        ParentPipe.onClose { source.finish() }
        await cancelWhenGracefulShutdown { for await _ in closed {} }
    }
}

/// Writes a service's address where the parent looks for it, once the service listens.
struct AddressAnnouncement: Service {
    var options: ServiceOptions
    var address: @Sendable () async throws -> String

    func run() async throws {
        // A service that is told to stop before it serves never has an address, and must not be waited for.
        do {
            try await cancelWhenGracefulShutdown {
                try self.options.announce(try await self.address())
            }
        } catch is CancellationError {
            return
        }
        try await gracefulShutdown()
    }
}

/// A service that a process is there for, with what its admin port tells of it.
protocol ObservedService: Service {
    /// Whether it takes calls, and why not.
    var readiness: Readiness { get }

    /// Gives what is known of it at this moment.
    func collect(into snapshot: inout MetricSnapshot, expertSeriesLimit: Int)
}

extension Gateway: ObservedService {}

extension ExpertHost: ObservedService {}

extension ObservedService {
    /// Runs the service as this process's own, until it ends or the process is told to stop.
    ///
    /// - Parameters:
    ///   - port: The admin port that tells of it; nothing where there is none.
    ///   - options: What every service is told.
    ///   - drain: How long calls may take to finish.
    ///   - logger: Tells of starts and stops.
    ///   - address: The address that it takes calls at; suspends until it does.
    /// - Throws: What the service throws.
    func runProcess(
        behind port: AdminPort?,
        options: ServiceOptions,
        drain: Duration,
        logger: Logger,
        address: @escaping @Sendable () async throws -> (host: String, port: Int)
    ) async throws {
        port?
            .attach(
                readiness: { self.readiness },
                collect: { self.collect(into: &$0, expertSeriesLimit: $1) }
            )
        try await ServiceRunner.run(
            [
                self,
                StandardInputWatch(isEnabled: options.exitWithStandardInput),
                AddressAnnouncement(options: options) {
                    let address = try await address()
                    return ListenAddress(host: address.host, port: address.port).description
                },
            ],
            shutdownLimit: drain + .seconds(5),
            logger: logger
        )
    }
}
