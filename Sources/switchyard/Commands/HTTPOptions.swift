// SPDX-License-Identifier: Apache-2.0

import ArgumentParser
import Foundation
import GatewayServing
import HTTPDoor
import Logging
import RPCTransport
import ServiceKit

/// Flags of a gateway's HTTP listener.
struct HTTPOptions: ParsableArguments {
    @Option(DoorSettings.table.listen) var httpListen: String?

    @Option(DoorSettings.table.origins) var httpOrigins: String?

    @Option(DoorSettings.table.maxBody) var httpMaxBodyBytes: String?

    @Option(help: .hidden)
    var httpAddressFile: String?

    /// Reads the settings; opens nothing.
    ///
    /// - Parameters:
    ///   - settings: All settings of the command.
    ///   - gateway: The gateway's configuration, whose limits count here too.
    ///   - besides: Where the other listeners of the process are, with their settings' keys.
    /// - Returns: How to answer HTTP; nil if it is off.
    /// - Throws: ``Settings/Failure`` naming the setting that cannot be used.
    static func read(
        _ settings: Settings,
        _ gateway: GatewayConfiguration,
        besides: [(key: String, address: ListenAddress?)]
    ) throws -> (configuration: DoorConfiguration, address: ListenAddress)? {
        let table = DoorSettings.table
        let origins = try settings.value(table.origins).flatMap { $0.split(separator: ",") }
            .map { $0.trimmingCharacters(in: .whitespaces) }
            .filter { !$0.isEmpty }
        for origin in origins { try Self.check(origin) }
        let maxBody = try settings.value(table.maxBody)
        guard let address = try settings.value(table.listen) else { return nil }
        for (key, other) in besides {
            guard let other, other.overlaps(address) else { continue }
            throw Settings.Failure(
                "\(key) is \(other) and http-listen is \(address): one port cannot serve both; give http-listen another port"
            )
        }
        _ = try SecuritySettings.listener(settings, at: address)
        var configuration = DoorConfiguration(host: address.boundHost, port: address.port)
        configuration.origins = origins
        configuration.maxBodyBytes = maxBody
        configuration.bodyBudgetBytes = gateway.receiveBudgetBytes
        configuration.maxConnections = gateway.maxConnections
        configuration.connectionShare = gateway.connectionShare
        configuration.drainTimeout = gateway.drainTimeout
        return (configuration, address)
    }

    /// An origin is a scheme and a host, as browsers send it (RFC 6454, section 6.1).
    private static func check(_ origin: String) throws {
        if origin == "*" { return }
        let isForm = ["https://", "http://"].contains { origin.hasPrefix($0) && origin.utf8.count > $0.utf8.count }
        let rest = origin.drop { $0 != ":" }.dropFirst(3)
        guard isForm, !rest.contains("/"), origin == origin.lowercased() else {
            throw Settings.Failure(
                "http-origins has \"\(origin)\"; an origin is https://HOST or https://HOST:PORT in lower case, without a path, "
                    + "or * for every one"
            )
        }
    }

    /// Tells the parent process where HTTP is served, once it is.
    ///
    /// - Parameter door: The listener.
    /// - Throws: If the address or the file cannot be had.
    func announce(_ door: HTTPDoor) async throws {
        guard let file = self.httpAddressFile else { return }
        let address = try await door.boundAddress()
        let line = "\(ListenAddress(host: address.host, port: address.port))\n"
        try Data(line.utf8).write(to: URL(fileURLWithPath: file), options: .atomic)
    }
}
