// SPDX-License-Identifier: Apache-2.0

public import Logging
public import ServiceLifecycle
import UnixSignals

/// Runs the services of one process until one of them ends or a signal asks the process to stop.
public enum ServiceRunner {
    /// Runs services in order; SIGTERM and SIGINT stop them gracefully in the reverse order.
    ///
    /// - Parameters:
    ///   - services: What to run; a later one may depend on an earlier one.
    ///   - shutdownLimit: How long a graceful stop may take before the services are cancelled.
    ///   - logger: Tells of starts and stops below `info`.
    /// - Throws: What a service throws.
    public static func run(_ services: [any Service], shutdownLimit: Duration, logger: Logger) async throws {
        var configuration = ServiceGroupConfiguration(
            services: services.map {
                .init(
                    service: $0,
                    successTerminationBehavior: .gracefullyShutdownGroup,
                    failureTerminationBehavior: .cancelGroup
                )
            },
            gracefulShutdownSignals: [.sigterm, .sigint],
            logger: logger
        )
        configuration.maximumGracefulShutdownDuration = shutdownLimit
        try await ServiceGroup(configuration: configuration).run()
    }
}
