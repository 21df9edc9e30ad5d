// SPDX-License-Identifier: Apache-2.0

/// Settings of a process that listens.
public struct ListenerSecuritySettings: SettingTable {
    /// The settings.
    package static let table = ListenerSecuritySettings()

    package let tlsCertificate = Setting.text(
        "tls-certificate",
        placeholder: "file",
        "TLS: this server's certificate chain (PEM, leaf first); together with tls-key."
    )
    package let tlsKey = Setting.text(
        "tls-key",
        placeholder: "file",
        "TLS: the private key of that certificate (PEM, no passphrase)."
    )
    package let tlsClientCA = Setting.text(
        "tls-client-ca",
        placeholder: "file",
        "TLS: accept only clients with a certificate from these authorities (PEM)."
    )
    package let tlsAllowedClients = Setting.texts(
        "tls-allowed-clients",
        placeholder: "name[,name]",
        "TLS: accept only those clients whose certificate has one of these DNS names or URIs."
    )
    package let plaintext = Setting.toggle(
        "plaintext",
        "Allow plaintext on addresses other than loopback, for trusted networks."
    )
}

/// Settings of a gateway's connections to its expert hosts.
public struct ExpertsSecuritySettings: SettingTable {
    /// The settings.
    package static let table = ExpertsSecuritySettings()

    package let authority = Setting.text(
        "experts-tls-ca",
        placeholder: "file",
        "TLS to the expert hosts: the authorities that signed their certificates (PEM)."
    )
    package let certificate = Setting.text(
        "experts-tls-certificate",
        placeholder: "file",
        "TLS to the expert hosts: the gateway's own certificate chain (PEM); together with experts-tls-key."
    )
    package let key = Setting.text(
        "experts-tls-key",
        placeholder: "file",
        "TLS to the expert hosts: the private key of that certificate (PEM)."
    )
    package let serverName = Setting.text(
        "experts-tls-server-name",
        defaultInWords: "each target's host",
        placeholder: "name",
        "TLS to the expert hosts: the DNS name that all their certificates have; required for dns:/// targets."
    )
}

/// Settings of a server that requires tokens.
public struct TokensSettings: SettingTable {
    /// The settings.
    package static let table = TokensSettings()

    package let tokens = Setting.text(
        "tokens",
        placeholder: "file",
        see: "Tokens",
        "Accept only calls with a token from this file: lines of name:token or name:sha256:HEX."
    )
    package let tokensCoverHealth = Setting.toggle("tokens-cover-health", "Require a token for health checks too.")
}

/// Settings of a client's connection.
public struct ClientSecuritySettings: SettingTable {
    /// The settings.
    package static let table = ClientSecuritySettings()

    package let tls = Setting.toggle("tls", "Use TLS and trust the system's certificate authorities.")
    package let tlsCA = Setting.text(
        "tls-ca",
        placeholder: "file",
        "Use TLS and trust these certificate authorities (PEM)."
    )
    package let tlsCertificate = Setting.text(
        "tls-certificate",
        placeholder: "file",
        "TLS: this client's certificate chain (PEM); together with tls-key."
    )
    package let tlsKey = Setting.text(
        "tls-key",
        placeholder: "file",
        "TLS: the private key of that certificate (PEM)."
    )
    package let tlsServerName = Setting.text(
        "tls-server-name",
        defaultInWords: "the endpoint's host",
        placeholder: "name",
        "TLS: the DNS name in the server's certificate."
    )
    package let plaintext = Setting.toggle("plaintext", "Allow plaintext to other machines, token included.")
    package let tokenFile = Setting.text("token-file", placeholder: "file", "Send the gateway the token in this file.")
    package let token = Setting.text(
        "token",
        isSecret: true,
        "The token itself; only a variable, so that process lists do not show it."
    )
}
