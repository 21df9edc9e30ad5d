// SPDX-License-Identifier: Apache-2.0

import ArgumentParser
import Foundation
import Logging
import Metrics
import ServiceKit
import Synchronization
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
    ///   - component: What the service is called in metrics.
    ///   - defaultAddress: Where to listen where nobody says.
    /// - Returns: The port; nil where there is to be none.
    /// - Throws: ``Settings/Failure`` naming the setting that cannot be used.
    func port(_ settings: Settings, of component: String, default defaultAddress: String) throws -> AdminPort? {
        let (configuration, series) = try Self.read(settings, default: defaultAddress)
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

/// A service's admin port: it is there before the service has loaded its weights, and until the service has drained.
final class AdminPort: Sendable {
    /// What is asked of the service once it is there.
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
    ///   - component: What the service is called in metrics.
    ///   - configuration: Where to listen.
    ///   - expertSeriesLimit: Series that tokens by expert may have.
    ///   - addressFile: Where the address is announced; nil for nowhere.
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

    /// What keeps a service's metrics: the port's registry, or nothing where there is no port.
    ///
    /// - Parameter port: The port, if there is one.
    /// - Returns: The backend.
    static func metrics(_ port: AdminPort?) -> any MetricsFactory { port?.registry ?? NOOPMetricsHandler.instance }

    /// Tells the port of the service, which has loaded.
    ///
    /// - Parameters:
    ///   - readiness: Says whether the service takes calls.
    ///   - collect: Gives what the service does not count by itself; its second argument limits the series by expert.
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
    ///   - logger: Told where the port is.
    ///   - body: Loads and runs the service.
    /// - Throws: What the body throws, and what keeps a port that was asked for from being opened.
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
        self.subject.withLock { $0 }?.readiness() ?? Readiness(isReady: false, notes: ["it loads its weights"])
    }

    private func collect(into snapshot: inout MetricSnapshot) {
        if let subject = self.subject.withLock({ $0 }) {
            subject.collect(&snapshot, self.expertSeriesLimit)
        } else {
            snapshot.setProcess()
            snapshot.setService(self.component, isReady: false)
        }
    }

    /// Writes the address where the parent looks for it.
    private func announce(_ address: (host: String, port: Int)?) throws {
        guard let file = self.addressFile, let address else { return }
        let line = "\(ListenAddress(host: address.host, port: address.port))\n"
        try Data(line.utf8).write(to: URL(fileURLWithPath: file), options: .atomic)
    }
}
