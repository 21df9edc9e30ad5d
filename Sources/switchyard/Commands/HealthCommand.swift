// SPDX-License-Identifier: Apache-2.0

import ArgumentParser
import SwitchyardClient
import SwitchyardProtos

/// `switchyard health`: whether a gateway or an expert host takes calls, for health checks and probes.
struct HealthCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "health",
        abstract: "Ask a gateway or an expert host whether it takes calls; the status is 0 if it does, otherwise 1.",
        discussion: """
            Calls the standard gRPC health service. Without --endpoint it asks the server that SWITCHYARD_LISTEN describes, \
            on this machine, so that a container's health check needs no arguments.

            EXAMPLE
              switchyard health --endpoint gateway:7400 --tls-ca certs/ca.pem
              switchyard health --endpoint 127.0.0.1:7401 --service switchyard.v1.ExpertHost
            """
    )

    @OptionGroup var client: ClientOptions

    @Option(help: ArgumentHelp("Ask for this service. (default: the server as a whole)", valueName: "name"))
    var service: String = ""

    func run() async throws {
        // A probe that waits for minutes is none: the server is asked again anyway.
        try await self.client.withClient(besideListener: true, defaultTimeout: 5) { client in
            let status = try await client.checkHealth(of: self.service)
            Terminal.print("\(client.endpoint) \(Self.name(of: status))")
            if status != .serving { throw ExitCode.failure }
        }
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
