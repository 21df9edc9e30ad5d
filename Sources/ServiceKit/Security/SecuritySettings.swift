// SPDX-License-Identifier: Apache-2.0

public import RPCTransport

/// The settings of transport security, and the rule that plaintext leaves this machine only when asked for by name.
public enum SecuritySettings {
    /// Keys of a process that listens.
    public static let listenerKeys = [
        "tls-certificate", "tls-key", "tls-client-ca", "tls-allowed-clients", "plaintext",
    ]

    /// Keys of a gateway's way to its expert hosts.
    public static let expertsKeys = [
        "experts-tls-ca", "experts-tls-certificate", "experts-tls-key", "experts-tls-server-name",
    ]

    /// Keys of a client.
    public static let clientKeys = ["tls", "tls-ca", "tls-certificate", "tls-key", "tls-server-name", "plaintext"]

    /// Keys of a server that asks for tokens.
    public static let tokensKeys = ["tokens", "tokens-cover-health"]

    /// Keys of a client that shows a token; `token` is read from the environment alone.
    public static let tokenKeys = ["token", "token-file"]

    /// What a listener is secured with.
    ///
    /// - Parameters:
    ///   - settings: The settings.
    ///   - address: Where it listens.
    /// - Returns: Options of TLS, or nil for plaintext.
    /// - Throws: ``Settings/Failure`` for half a pair, and for plaintext that nobody asked for.
    public static func listener(_ settings: Settings, at address: ListenAddress) throws -> ServerTLSOptions? {
        let authority = try settings.string("tls-client-ca")
        let allowed = try Self.names(settings, "tls-allowed-clients")
        guard let (certificate, key) = try Self.pair(settings, "tls-certificate", "tls-key") else {
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

    /// What a gateway's connections to its expert hosts are secured with.
    ///
    /// - Parameters:
    ///   - settings: The settings.
    ///   - hosts: The hosts that it connects to, with how people wrote them.
    /// - Returns: Options of TLS, or nil for plaintext.
    /// - Throws: ``Settings/Failure`` for half a pair, and for plaintext that nobody asked for.
    public static func experts(
        _ settings: Settings,
        hosts: [(host: String, target: String)]
    ) throws -> ClientTLSOptions? {
        let pair = try Self.pair(settings, "experts-tls-certificate", "experts-tls-key")
        let name = try settings.string("experts-tls-server-name")
        guard let authority = try settings.string("experts-tls-ca") else {
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

    /// What a client's connection is secured with.
    ///
    /// - Parameters:
    ///   - settings: The settings.
    ///   - host: The host that it connects to.
    ///   - endpoint: The endpoint as people write it.
    /// - Returns: Options of TLS, or nil for plaintext.
    /// - Throws: ``Settings/Failure`` for half a pair, and for plaintext that nobody asked for.
    public static func client(_ settings: Settings, host: String, endpoint: String) throws -> ClientTLSOptions? {
        let authority = try settings.string("tls-ca")
        let pair = try Self.pair(settings, "tls-certificate", "tls-key")
        let name = try settings.string("tls-server-name")
        guard try settings.bool("tls") || authority != nil else {
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

    /// The token that a client shows, from a file or from the environment.
    ///
    /// - Parameter settings: The settings.
    /// - Returns: The token, or nil for none.
    /// - Throws: ``Settings/Failure`` for a file that cannot be used, and for a token given twice.
    public static func token(_ settings: Settings) throws -> String? {
        let token = try settings.string("token")
        guard let file = try settings.string("token-file") else { return token }
        guard token == nil else {
            throw Settings.Failure("SWITCHYARD_TOKEN and token-file are both set; unset one of them")
        }
        return try SecretFile.readToken(file)
    }

    /// Refuses plaintext across a network unless it was asked for by name.
    ///
    /// - Parameters:
    ///   - settings: The settings.
    ///   - host: Where it would go.
    ///   - what: What the process is about to do.
    ///   - instead: The settings that would encrypt it.
    /// - Throws: ``Settings/Failure`` saying what to set.
    public static func checkPlaintext(
        _ settings: Settings,
        host: String,
        what: String,
        instead: String
    ) throws {
        guard try !settings.bool("plaintext"), !LoopbackHost.contains(host) else { return }
        throw Settings.Failure(
            "\(what) would be plaintext on a network: set \(instead), or ask for it by name with --plaintext or "
                + "SWITCHYARD_PLAINTEXT=true where the network is trusted (`switchyard certs` makes certificates)"
        )
    }

    // MARK: - Private

    /// Two settings that go together, or neither.
    private static func pair(
        _ settings: Settings,
        _ first: String,
        _ second: String
    ) throws -> (first: String, second: String)? {
        switch (try settings.string(first), try settings.string(second)) {
        case (let one?, let other?): return (one, other)
        case (nil, nil): return nil
        case (_?, nil): throw Self.lacks(first, second)
        case (nil, _?): throw Self.lacks(second, first)
        }
    }

    private static func lacks(_ given: String, _ missing: String, or other: String? = nil) -> Settings.Failure {
        let flags = ([missing] + (other.map { [$0] } ?? [])).map { "--\($0) or \(Settings.variable($0))" }
        return Settings.Failure("\(given) is set without \(missing): set \(flags.joined(separator: ", or ")) as well")
    }

    /// Names from a list whose entries may be lists with commas.
    private static func names(_ settings: Settings, _ key: String) throws -> [String] {
        (try settings.strings(key) ?? [])
            .flatMap { $0.split(separator: ",") }
            .map { String($0.drop { $0 == " " }) }
            .filter { !$0.isEmpty }
    }
}
