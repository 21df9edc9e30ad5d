// SPDX-License-Identifier: Apache-2.0

import ArgumentParser
import Foundation
import Logging
import ServiceKit
import ServiceLifecycle
import Telemetry

/// Flags of a service's admin port, where metrics and probes are.
struct AdminOptions: ParsableArguments {
    /// Keys of the settings that these flags set.
    static let keys = ["admin-listen", "metrics-expert-series"]

    /// Series that tokens by expert may have, unless it is set.
    static let defaultExpertSeries = 2000

    @Option(
        help: "Where metrics and probes are served over HTTP; off for nowhere. (default: 127.0.0.1:7410, a host's 7411)"
    )
    var adminListen: String?

    @Option(
        help: ArgumentHelp(
            "Series that tokens by expert may have; experts share them where there are more. (default: 2000)",
            valueName: "count"
        )
    )
    var metricsExpertSeries: String?

    @Option(help: .hidden)
    var adminAddressFile: String?

    /// What was given as flags; nil values were not given.
    var flags: [String: String?] {
        ["admin-listen": self.adminListen, "metrics-expert-series": self.metricsExpertSeries]
    }

    /// The admin port that the settings ask for.
    ///
    /// An address that somebody wrote down must be had; a default may be taken already, by another service on the machine.
    ///
    /// - Parameters:
    ///   - settings: The settings.
    ///   - defaultAddress: Where to listen where nobody says.
    /// - Returns: The port; nil where there is to be none.
    /// - Throws: ``Settings/Failure`` naming the setting that cannot be used.
    func port(_ settings: Settings, default defaultAddress: String) throws -> AdminPort? {
        let (configuration, series) = try Self.read(settings, default: defaultAddress)
        return configuration.map {
            AdminPort(configuration: $0, expertSeriesLimit: series, addressFile: self.adminAddressFile)
        }
    }

    /// Reads the settings.
    ///
    /// - Parameters:
    ///   - settings: The settings.
    ///   - defaultAddress: Where to listen where nobody says.
    /// - Returns: Where to listen, nil for nowhere, and how many series tokens by expert may have.
    /// - Throws: ``Settings/Failure`` naming the setting that cannot be used.
    static func read(
        _ settings: Settings,
        default defaultAddress: String
    ) throws -> (configuration: AdminServerConfiguration?, series: Int) {
        let text = try settings.string("admin-listen")
        let place = try settings.string("admin-listen", default: defaultAddress)
        let series = try settings.int(
            "metrics-expert-series",
            in: 0...1_000_000,
            default: Self.defaultExpertSeries
        )
        guard place != "off", !place.isEmpty else { return (nil, series) }
        let address = try ListenAddress(parsing: place)
        return (AdminServerConfiguration(host: address.host, port: address.port, isRequired: text != nil), series)
    }
}

/// What a service's metrics and probes need besides the service.
struct AdminPort: Sendable {
    let configuration: AdminServerConfiguration
    /// Series that tokens by expert may have.
    let expertSeriesLimit: Int
    /// Where the address is announced; nil for nowhere.
    let addressFile: String?
    /// Keeps what the service counts.
    let registry = MetricsRegistry()

    /// The services that run beside the one that is told about; they belong in front of it, so that they stop after it.
    ///
    /// - Parameters:
    ///   - logger: Told where the port is.
    ///   - readiness: Says whether the service takes calls.
    ///   - collect: Gives what the service does not count by itself.
    /// - Returns: The services.
    func services(
        logger: Logger,
        readiness: @escaping @Sendable () -> Readiness,
        collect: @escaping @Sendable (inout MetricSnapshot, Int) -> Void
    ) -> [any Service] {
        let limit = self.expertSeriesLimit
        self.registry.collect { snapshot in collect(&snapshot, limit) }
        let registry = self.registry
        let server = AdminServer(
            configuration: self.configuration,
            pages: AdminPages(metrics: { registry.text() }, readiness: readiness),
            logger: logger
        )
        return [server, AdminAddressAnnouncement(server: server, file: self.addressFile)]
    }
}

/// Writes the admin port's address where the parent looks for it.
private struct AdminAddressAnnouncement: Service {
    let server: AdminServer
    let file: String?

    func run() async throws {
        if let file = self.file, let address = try? await self.server.boundAddress() {
            let line = "\(ListenAddress(host: address.host, port: address.port))\n"
            try Data(line.utf8).write(to: URL(fileURLWithPath: file), options: .atomic)
        }
        try await gracefulShutdown()
    }
}
