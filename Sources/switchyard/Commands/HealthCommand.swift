// SPDX-License-Identifier: Apache-2.0

import ArgumentParser
import CommandKit
import Foundation
import GatewayServing
import ServiceKit
import SwitchyardClient
import SwitchyardProtos

/// `switchyard health`: whether a gateway or an expert host takes calls, for health checks and probes.
struct HealthCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "health",
        abstract: "Check whether a gateway or an expert host takes calls; exits with 0 if it does, otherwise 1.",
        discussion: """
            Calls the standard gRPC health service. Without --endpoint it asks the server that SWITCHYARD_LISTEN describes, \
            on this machine, so that a container's health check needs no arguments.

            EXAMPLE
              switchyard health --endpoint gateway:7400 --tls-ca certs/ca.pem
              switchyard health --endpoint 127.0.0.1:7401 --service switchyard.v1.ExpertHost
            """
    )

    @OptionGroup var client: ClientOptions

    @Option(help: ArgumentHelp("Ask about this service. (default: the server as a whole)", valueName: "name"))
    var service: String = ""

    func run() async throws {
        // A probe must not wait for minutes: the next one follows soon.
        try await self.client.withClient(fallback: try await self.listener() ?? .local, defaultTimeout: 5) { client in
            let status = try await client.checkHealth(of: self.service)
            Terminal.print("\(client.endpoint) \(Self.name(of: status))")
            if status != .serving { throw ExitCode.failure }
        }
    }

    /// The server whose environment this process shares, unless an endpoint is given.
    ///
    /// Not a client setting: elsewhere `listen` says where the process itself listens.
    private func listener() async throws -> Endpoint? {
        let endpoint = ClientSettings.table.endpoint
        let listen = GatewaySettings.table.listen
        let known = [endpoint.definition, listen.definition]
        let variables = Set(known.map(\.variable))
        let environment = ProcessInfo.processInfo.environment.filter { variables.contains($0.key) }
        let settings = try await Settings(known: known, flags: [:], environment: environment, file: nil)
        guard self.client.endpoint == nil, try settings.value(endpoint) == nil, settings.isSet(listen) else {
            return nil
        }
        return try Self.endpoint(of: try settings.value(listen))
    }

    /// The endpoint of a listener on this machine.
    ///
    /// - Parameter listen: Where it listens; every address of the machine is reached over loopback.
    /// - Returns: The endpoint.
    /// - Throws: ``Settings/Failure`` for an address without a port.
    private static func endpoint(of listen: ListenAddress) throws -> Endpoint {
        guard listen.port > 0 || listen.isUnix else {
            throw Settings.Failure("listen is \(listen), so the system chooses the port: pass it with --endpoint")
        }
        let host = ["0.0.0.0": "127.0.0.1", "*": "localhost", "::": "::1"][listen.host] ?? listen.host
        return Endpoint(host: host, port: listen.port)
    }

    /// A status as the protocol names it.
    private static func name(of status: HealthCheckResponse.ServingStatus) -> String {
        switch status {
        case .unknown: "UNKNOWN"
        case .serving: "SERVING"
        case .notServing: "NOT_SERVING"
        case .serviceUnknown: "SERVICE_UNKNOWN"
        }
    }
}
