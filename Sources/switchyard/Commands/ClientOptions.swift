// SPDX-License-Identifier: Apache-2.0

import ArgumentParser
import Foundation
import SwitchyardClient

/// Which gateway to call, and for how long to wait.
struct ClientOptions: ParsableArguments {
    @Option(help: "The gateway's address; also SWITCHYARD_ENDPOINT. (default: 127.0.0.1:7400)")
    var endpoint: String?

    @Option(help: ArgumentHelp("Give up after so many seconds; 0 waits for ever.", valueName: "seconds"))
    var timeout: Double = 120

    /// Runs a body with a client of the gateway.
    ///
    /// - Parameter body: Gets the client.
    /// - Throws: What the call throws, with a hint where no gateway answers.
    func withClient(_ body: (GatewayClient) async throws -> Void) async throws {
        let endpoint = self.endpoint ?? ProcessInfo.processInfo.environment["SWITCHYARD_ENDPOINT"] ?? "127.0.0.1:7400"
        var configuration = GatewayClientConfiguration.defaults
        configuration.timeout = self.timeout > 0 ? .milliseconds(Int64(self.timeout * 1000)) : nil
        try await GatewayClient.with(endpoint: Endpoint(parsing: endpoint), configuration: configuration, body)
    }
}
