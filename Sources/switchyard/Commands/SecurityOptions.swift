// SPDX-License-Identifier: Apache-2.0

import ArgumentParser
import ExpertPooling
import Logging
import RPCTransport
import ServiceKit

/// Flags for the security of a listener.
struct ListenerSecurityOptions: ParsableArguments {
    @Option(ListenerSecuritySettings.table.tlsCertificate) var tlsCertificate: String?

    @Option(ListenerSecuritySettings.table.tlsKey) var tlsKey: String?

    @Option(ListenerSecuritySettings.table.tlsClientCA) var tlsClientCa: String?

    @Option(ListenerSecuritySettings.table.tlsAllowedClients) var tlsAllowedClients: String?

    @Flag(ListenerSecuritySettings.table.plaintext) var plaintext = false

    /// The listener's security, its files read.
    ///
    /// - Parameters:
    ///   - settings: All settings of the command.
    ///   - address: Where it listens.
    ///   - logger: Logs when certificates are loaded again.
    /// - Returns: The security.
    /// - Throws: ``Settings/Failure`` and `TLSError` saying what cannot be used.
    static func security(_ settings: Settings, at address: ListenAddress, logger: Logger) throws -> ServerSecurity {
        guard let options = try SecuritySettings.listener(settings, at: address) else { return .plaintext }
        let tls = ServerTLS(options, logger: logger)
        try tls.load()
        return .tls(tls)
    }
}

/// Flags for the security of a gateway's connections to its expert hosts.
struct ExpertsSecurityOptions: ParsableArguments {
    @Option(ExpertsSecuritySettings.table.authority) var expertsTlsCa: String?

    @Option(ExpertsSecuritySettings.table.certificate) var expertsTlsCertificate: String?

    @Option(ExpertsSecuritySettings.table.key) var expertsTlsKey: String?

    @Option(ExpertsSecuritySettings.table.serverName) var expertsTlsServerName: String?

    /// Security of the connections to the expert hosts; reads no file.
    ///
    /// - Parameters:
    ///   - settings: All settings of the command.
    ///   - pools: The pools that are connected to.
    /// - Returns: Options of TLS, or nil for plaintext.
    /// - Throws: ``Settings/Failure`` saying what cannot be used.
    static func options(_ settings: Settings, pools: [PoolSpecification]) throws -> ClientTLSOptions? {
        let targets = pools.flatMap(\.targets)
        // The hosts in a file are checked whenever it is read.
        let hosts = targets.compactMap { target in
            switch target {
            case .address(let host, _), .name(let host, _): (host: host, target: target.description)
            case .file: nil
            }
        }
        guard let options = try SecuritySettings.experts(settings, hosts: hosts) else { return nil }
        for case .name in targets where options.serverName == nil {
            // Such a target resolves to addresses, which certificates seldom name.
            throw Settings.Failure(
                "a dns:/// target needs the name in the hosts' certificates: set --experts-tls-server-name "
                    + "or \(Settings.variable("experts-tls-server-name"))"
            )
        }
        return options
    }

    /// The security of the connections to the expert hosts, its files read.
    ///
    /// - Parameters:
    ///   - settings: All settings of the command.
    ///   - pools: The pools that are connected to.
    ///   - logger: Logs when certificates are loaded again.
    /// - Returns: The security.
    /// - Throws: ``Settings/Failure`` and `TLSError` saying what cannot be used.
    static func security(
        _ settings: Settings,
        pools: [PoolSpecification],
        logger: Logger
    ) throws -> ClientSecurity {
        guard let options = try Self.options(settings, pools: pools) else { return .plaintext }
        let tls = ClientTLS(options, logger: logger)
        try tls.load()
        return .tls(tls)
    }
}

/// Flags for the tokens that a gateway accepts.
struct TokensOptions: ParsableArguments {
    @Option(TokensSettings.table.tokens) var tokens: String?

    @Flag(TokensSettings.table.tokensCoverHealth) var tokensCoverHealth = false

    /// Reads the settings; opens no file.
    ///
    /// - Parameter settings: All settings of the command.
    /// - Returns: The file with the tokens, if there is one, and whether health checks need a token too.
    /// - Throws: ``Settings/Failure`` for a setting that has no effect without another.
    @discardableResult
    static func check(_ settings: Settings) throws -> (file: String?, coversHealth: Bool) {
        let coversHealth = try settings.value(TokensSettings.table.tokensCoverHealth)
        let file = try settings.value(TokensSettings.table.tokens)
        guard file != nil || !coversHealth else {
            throw Settings.Failure(
                "tokens-cover-health is set without tokens: set --tokens or \(Settings.variable("tokens")) as well"
            )
        }
        return (file, coversHealth)
    }

    /// The gate, its file read; nil if every call is accepted.
    ///
    /// - Parameters:
    ///   - settings: All settings of the command.
    ///   - logger: Logs when the file is read again.
    /// - Returns: The gate.
    /// - Throws: ``Settings/Failure`` saying what cannot be used.
    static func gate(_ settings: Settings, logger: Logger) throws -> TokenGate? {
        let (file, coversHealth) = try Self.check(settings)
        guard let file else { return nil }
        let gate = TokenGate(file: file, coversHealth: coversHealth, logger: logger)
        try gate.load()
        return gate
    }
}
