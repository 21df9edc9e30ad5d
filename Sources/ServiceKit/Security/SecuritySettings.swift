// SPDX-License-Identifier: Apache-2.0

public import RPCTransport

/// Reads the settings of transport security, and enforces that plaintext leaves this machine only with an explicit
/// setting.
public enum SecuritySettings {
    /// A listener's security.
    ///
    /// - Parameters:
    ///   - settings: The settings.
    ///   - address: Where it listens.
    /// - Returns: Options of TLS, or nil for plaintext.
    /// - Throws: ``Settings/Failure`` for half a pair, and for plaintext that no setting allows.
    public static func listener(_ settings: Settings, at address: ListenAddress) throws -> ServerTLSOptions? {
        let table = ListenerSecuritySettings.table
        let authority = try settings.value(table.tlsClientCA)
        let allowed = Self.names(try settings.value(table.tlsAllowedClients))
        guard let (certificate, key) = try Self.pair(settings, table.tlsCertificate, table.tlsKey) else {
            if authority != nil { throw Self.lacks("tls-client-ca", "tls-certificate") }
            if !allowed.isEmpty { throw Self.lacks("tls-allowed-clients", "tls-certificate") }
            try Self.checkPlaintext(
                settings,
                host: address.host,
                what: "listening at \(address)",
                instead: "tls-certificate and tls-key"
            )
            return nil
        }
        if !allowed.isEmpty, authority == nil { throw Self.lacks("tls-allowed-clients", "tls-client-ca") }
        return ServerTLSOptions(
            certificateFile: certificate,
            keyFile: key,
            clientAuthorityFile: authority,
            allowedClients: allowed
        )
    }

    /// Security of a gateway's connections to its expert hosts.
    ///
    /// - Parameters:
    ///   - settings: The settings.
    ///   - hosts: The hosts that it connects to, with the text of their targets.
    /// - Returns: Options of TLS, or nil for plaintext.
    /// - Throws: ``Settings/Failure`` for half a pair, and for plaintext that no setting allows.
    public static func experts(
        _ settings: Settings,
        hosts: [(host: String, target: String)]
    ) throws -> ClientTLSOptions? {
        let table = ExpertsSecuritySettings.table
        let pair = try Self.pair(settings, table.certificate, table.key)
        let name = try settings.value(table.serverName)
        guard let authority = try settings.value(table.authority) else {
            if pair != nil { throw Self.lacks("experts-tls-certificate", "experts-tls-ca") }
            if name != nil { throw Self.lacks("experts-tls-server-name", "experts-tls-ca") }
            for (host, target) in hosts {
                try Self.checkPlaintext(
                    settings,
                    host: host,
                    what: "connecting to the expert host \(target)",
                    instead: "experts-tls-ca"
                )
            }
            return nil
        }
        return ClientTLSOptions(
            authorityFile: authority,
            certificateFile: pair?.first,
            keyFile: pair?.second,
            serverName: name
        )
    }

    /// Security of a client's connection.
    ///
    /// - Parameters:
    ///   - settings: The settings.
    ///   - host: The host that it connects to.
    ///   - endpoint: The endpoint as written.
    /// - Returns: Options of TLS, or nil for plaintext.
    /// - Throws: ``Settings/Failure`` for half a pair, and for plaintext that no setting allows.
    public static func client(_ settings: Settings, host: String, endpoint: String) throws -> ClientTLSOptions? {
        let table = ClientSecuritySettings.table
        let authority = try settings.value(table.tlsCA)
        let pair = try Self.pair(settings, table.tlsCertificate, table.tlsKey)
        let name = try settings.value(table.tlsServerName)
        guard try settings.value(table.tls) || authority != nil else {
            if pair != nil { throw Self.lacks("tls-certificate", "tls-ca", or: "tls") }
            if name != nil { throw Self.lacks("tls-server-name", "tls-ca", or: "tls") }
            try Self.checkPlaintext(
                settings,
                host: host,
                what: "connecting to \(endpoint)",
                instead: "tls-ca (or tls, for a certificate of a public authority)"
            )
            return nil
        }
        return ClientTLSOptions(
            authorityFile: authority,
            certificateFile: pair?.first,
            keyFile: pair?.second,
            serverName: name,
            reloadInterval: nil
        )
    }

    /// The token that a client presents, from a file or from the environment.
    ///
    /// - Parameter settings: The settings.
    /// - Returns: The token, or nil for none.
    /// - Throws: ``Settings/Failure`` for a file that cannot be used, and for a token given twice.
    public static func token(_ settings: Settings) throws -> String? {
        let token = try settings.value(ClientSecuritySettings.table.token)
        guard let file = try settings.value(ClientSecuritySettings.table.tokenFile) else { return token }
        guard token == nil else {
            throw Settings.Failure("SWITCHYARD_TOKEN and token-file are both set; unset one of them")
        }
        return try SecretFile.readToken(file)
    }

    /// Refuses plaintext across a network unless a setting allows it.
    ///
    /// - Parameters:
    ///   - settings: The settings.
    ///   - host: The destination.
    ///   - what: The action, for the message.
    ///   - instead: The settings that would encrypt it.
    /// - Throws: ``Settings/Failure`` saying what to set.
    public static func checkPlaintext(
        _ settings: Settings,
        host: String,
        what: String,
        instead: String
    ) throws {
        guard try !settings.value(ListenerSecuritySettings.table.plaintext), !LoopbackHost.contains(host) else {
            return
        }
        throw Settings.Failure(
            "\(what) would be plaintext on a network: set \(instead), or allow it with --plaintext or "
                + "SWITCHYARD_PLAINTEXT=true if the network is trusted (`switchyard certs` makes certificates)"
        )
    }

    // MARK: - Private

    /// Two settings that must be set together, or neither.
    private static func pair(
        _ settings: Settings,
        _ first: Setting<String?>,
        _ second: Setting<String?>
    ) throws -> (first: String, second: String)? {
        switch (try settings.value(first), try settings.value(second)) {
        case (let one?, let other?): return (one, other)
        case (nil, nil): return nil
        case (_?, nil): throw Self.lacks(first.key, second.key)
        case (nil, _?): throw Self.lacks(second.key, first.key)
        }
    }

    private static func lacks(_ given: String, _ missing: String, or other: String? = nil) -> Settings.Failure {
        let flags = ([missing] + (other.map { [$0] } ?? [])).map { "--\($0) or \(Settings.variable($0))" }
        return Settings.Failure("\(given) is set without \(missing): set \(flags.joined(separator: ", or ")) as well")
    }

    /// Names from a list whose entries may be comma-separated lists.
    private static func names(_ entries: [String]) -> [String] {
        entries.flatMap { $0.split(separator: ",") }
            .map { String($0.drop { $0 == " " }) }
            .filter { !$0.isEmpty }
    }
}
