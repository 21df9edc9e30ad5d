// SPDX-License-Identifier: Apache-2.0

import ArgumentParser
import Foundation
import Logging
import Metrics
import ServiceKit
import Synchronization
import Telemetry

/// Flags of a service's admin port, which serves metrics and probes.
struct AdminOptions: ParsableArguments {
    @Option(CommandSettings.anyAdmin.adminListen) var adminListen: String?

    @Option(CommandSettings.anyAdmin.metricsExpertSeries) var metricsExpertSeries: String?

    @Option(help: .hidden)
    var adminAddressFile: String?

    /// The admin port that the settings ask for.
    ///
    /// An address that was set must be free; the default may already be taken by another service on the machine.
    ///
    /// - Parameters:
    ///   - settings: The settings.
    ///   - table: The service's settings of its admin port.
    ///   - component: The service's name in metrics.
    /// - Returns: The port; nil if it is off.
    /// - Throws: ``Settings/Failure`` naming the setting that cannot be used.
    func port(_ settings: Settings, _ table: AdminSettings, of component: String) throws -> AdminPort? {
        let (configuration, series) = try Self.read(settings, table)
        return configuration.map {
            AdminPort(
                component: component,
                configuration: $0,
                expertSeriesLimit: series,
                addressFile: self.adminAddressFile
            )
        }
    }

    /// Reads the settings.
    ///
    /// - Parameters:
    ///   - settings: The settings.
    ///   - table: The service's settings of its admin port.
    ///   - listen: Where the service itself listens, which must be elsewhere.
    /// - Returns: Where to listen, nil if the port is off, and the limit of series with tokens by expert.
    /// - Throws: ``Settings/Failure`` naming the setting that cannot be used.
    @discardableResult
    static func read(
        _ settings: Settings,
        _ table: AdminSettings,
        besides listen: ListenAddress? = nil
    ) throws -> (configuration: AdminServerConfiguration?, series: Int) {
        let series = try settings.value(table.metricsExpertSeries)
        guard let address = try settings.value(table.adminListen) else { return (nil, series) }
        if let listen, listen.overlaps(address) {
            throw Settings.Failure(
                "listen is \(listen) and admin-listen is \(address): one port cannot serve both; give admin-listen another "
                    + "port, or turn it off with --admin-listen off"
            )
        }
        let isRequired = settings.isSet(table.adminListen)
        return (AdminServerConfiguration(host: address.boundHost, port: address.port, isRequired: isRequired), series)
    }
}

/// A service's admin port: open before the service has loaded its weights, and until it has drained.
final class AdminPort: Sendable {
    /// What the port asks the service once it has loaded.
    private struct Subject: Sendable {
        let readiness: @Sendable () -> Readiness
        let collect: @Sendable (inout MetricSnapshot, Int) -> Void
    }

    private let component: String
    private let configuration: AdminServerConfiguration
    private let expertSeriesLimit: Int
    private let addressFile: String?
    private let registry = MetricsRegistry()
    private let subject = Mutex<Subject?>(nil)

    /// Describes a port; ``run(_:logger:body:)`` opens it.
    ///
    /// - Parameters:
    ///   - component: The service's name in metrics.
    ///   - configuration: Where to listen.
    ///   - expertSeriesLimit: Limit of series for tokens by expert.
    ///   - addressFile: The file that the address is written to; nil for none.
    init(
        component: String,
        configuration: AdminServerConfiguration,
        expertSeriesLimit: Int,
        addressFile: String?
    ) {
        self.component = component
        self.configuration = configuration
        self.expertSeriesLimit = expertSeriesLimit
        self.addressFile = addressFile
        self.registry.collect { [weak self] snapshot in self?.collect(into: &snapshot) }
    }

    /// Where a service counts its metrics: the port's registry, or nowhere if there is no port.
    ///
    /// - Parameter port: The port, if there is one.
    /// - Returns: The backend.
    static func metrics(_ port: AdminPort?) -> any MetricsFactory { port?.registry ?? NOOPMetricsHandler.instance }

    /// Connects the port to the service once it has loaded.
    ///
    /// - Parameters:
    ///   - readiness: Says whether the service takes calls.
    ///   - collect: Adds values that the service looks up instead of counting; its second argument limits the series
    ///     by expert.
    func attach(
        readiness: @escaping @Sendable () -> Readiness,
        collect: @escaping @Sendable (inout MetricSnapshot, Int) -> Void
    ) {
        self.subject.withLock { $0 = Subject(readiness: readiness, collect: collect) }
    }

    /// Serves a port around a body that loads and runs a service.
    ///
    /// - Parameters:
    ///   - port: The port; nil for none.
    ///   - logger: Logs the port's address.
    ///   - body: Loads and runs the service.
    /// - Throws: What the body throws, or why a required port cannot be opened.
    static func run(_ port: AdminPort?, logger: Logger, body: () async throws -> Void) async throws {
        guard let port else { return try await body() }
        let server = AdminServer(
            configuration: port.configuration,
            pages: AdminPages(metrics: { port.registry.text() }, readiness: { port.readiness }),
            logger: logger
        )
        try await withThrowingTaskGroup(of: Void.self) { group in
            group.addTask { try await server.run() }
            try port.announce(try await server.boundAddress())
            try await body()
            server.beginGracefulShutdown()
            try await group.waitForAll()
        }
    }

    private var readiness: Readiness {
        self.subject.withLock { $0 }?.readiness() ?? Readiness(isReady: false, notes: ["loading weights"])
    }

    private func collect(into snapshot: inout MetricSnapshot) {
        if let subject = self.subject.withLock({ $0 }) {
            subject.collect(&snapshot, self.expertSeriesLimit)
        } else {
            snapshot.setProcess()
            snapshot.setService(self.component, isReady: false)
        }
    }

    /// Writes the address to the file that the parent process reads.
    private func announce(_ address: (host: String, port: Int)?) throws {
        guard let file = self.addressFile, let address else { return }
        let line = "\(ListenAddress(host: address.host, port: address.port))\n"
        try Data(line.utf8).write(to: URL(fileURLWithPath: file), options: .atomic)
    }
}
