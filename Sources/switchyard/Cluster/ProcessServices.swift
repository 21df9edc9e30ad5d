// SPDX-License-Identifier: Apache-2.0

import ExpertServing
import ExpertTraining
import Foundation
import GatewayServing
import Logging
import ServiceKit
import ServiceLifecycle
import Synchronization
import Telemetry

/// The pipe that a parent process holds open for as long as it runs, as this process's standard input.
///
/// The parent never writes to it: however the parent ends, the pipe closes and no child is left behind.
enum ParentPipe {
    private struct State {
        var isWatched = false
        var isClosed = false
        /// Called when the pipe closes; before there is a service, the process ends instead.
        var onClose: (@Sendable () -> Void)?
    }

    private static let state = Mutex(State())

    /// Starts watching, once: when the pipe closes the process ends at once, unless ``onClose(_:)`` was called.
    static func watch() {
        let isFirst = self.state.withLock { state in
            defer { state.isWatched = true }
            return !state.isWatched
        }
        guard isFirst else { return }
        // A read cannot be cancelled, so it has its own thread, which ends with the pipe or with the process.
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

    /// Makes a service stop gracefully when the pipe closes.
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

/// Writes a service's address to the parent's file, once the service listens.
struct AddressAnnouncement: Service {
    var options: ServiceOptions
    var address: @Sendable () async throws -> String

    func run() async throws {
        // A service told to stop before it serves never has an address, so do not wait for it.
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

/// The service that a process runs, as its admin port sees it.
protocol ObservedService: Service {
    /// Whether it takes calls, and why not.
    var readiness: Readiness { get }

    /// Adds its current values.
    func collect(into snapshot: inout MetricSnapshot, expertSeriesLimit: Int)
}

extension Gateway: ObservedService {}

extension ExpertHost: ObservedService {}

extension TrainingHost: ObservedService {}

extension ObservedService {
    /// Runs the service as this process's own, until it ends or a signal stops the process.
    ///
    /// - Parameters:
    ///   - port: Its admin port; nil if there is none.
    ///   - options: The options that every service has.
    ///   - drain: How long calls may take to finish.
    ///   - logger: Logs starts and stops.
    ///   - address: The address on which it takes calls; suspends until it does.
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
