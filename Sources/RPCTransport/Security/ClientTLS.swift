// SPDX-License-Identifier: Apache-2.0

public import Logging
internal import NIOCore
internal import NIOSSL

/// Which servers a client trusts, and which certificate it presents.
public struct ClientTLSOptions: Sendable, Hashable {
    /// Path of the authorities in PEM that sign servers' certificates; nil takes the system's.
    public var authorityFile: String?
    /// Path of the client's own certificate chain in PEM, the leaf first; nil shows none.
    public var certificateFile: String?
    /// Path of the leaf's private key in PEM, without a passphrase.
    public var keyFile: String?
    /// The DNS name that the server's certificate must have; nil takes the host it connects to.
    public var serverName: String?
    /// How often the files are checked for changes; nil reads them once.
    public var reloadInterval: Duration?

    /// Creates options.
    ///
    /// - Parameters:
    ///   - authorityFile: Path of the authorities that sign servers' certificates; nil takes the system's.
    ///   - certificateFile: Path of the client's own certificate chain.
    ///   - keyFile: Path of its key.
    ///   - serverName: The DNS name that the server's certificate must have.
    ///   - reloadInterval: How often the files are checked for changes.
    public init(
        authorityFile: String? = nil,
        certificateFile: String? = nil,
        keyFile: String? = nil,
        serverName: String? = nil,
        reloadInterval: Duration? = .seconds(10)
    ) {
        self.authorityFile = authorityFile
        self.certificateFile = certificateFile
        self.keyFile = keyFile
        self.serverName = serverName
        self.reloadInterval = reloadInterval
    }
}

/// A client's TLS: whom it trusts and what it presents, reloaded when the files change.
///
/// One value serves any number of channels. TLS 1.3, or 1.2 where the server cannot do better; only HTTP/2 by ALPN. New
/// connections use the files as last loaded; existing ones keep what they began with.
public final class ClientTLS: Sendable {
    struct Loaded: Sendable {
        var context: NIOSSLContext
        var certificates: [NIOSSLCertificate]
    }

    /// The client's options.
    public let options: ClientTLSOptions

    let files: WatchedFiles<Loaded>

    /// Names the files; nothing is read yet.
    ///
    /// - Parameters:
    ///   - options: The files and the server's name.
    ///   - logger: Told what was reloaded and what could not be.
    public init(_ options: ClientTLSOptions, logger: Logger) {
        self.options = options
        self.files = WatchedFiles(
            "the client's certificate",
            paths: [options.authorityFile, options.certificateFile, options.keyFile].compactMap { $0 },
            interval: options.reloadInterval,
            logger: logger
        ) { current in
            let loaded = try Self.read(options, current: current)
            if let path = options.certificateFile {
                TLSFiles.warnOfEnd(of: loaded.certificates, path: path, logger: logger)
            }
            return loaded
        }
    }

    /// When the certificate in use ends, in seconds since 1970; nil where none is presented, and before it is loaded.
    public var certificateEnd: Int? { self.files.current?.certificates.first.map { Int($0.notValidAfter) } }

    /// Reads the files, so that mistakes show before anything else begins; otherwise a channel reads them when it runs.
    ///
    /// - Throws: ``TLSError`` naming the file or option that cannot be used.
    public func load() throws {
        guard (self.options.certificateFile == nil) == (self.options.keyFile == nil) else {
            throw TLSError(
                "a client's certificate and its key go together: give both certificateFile and keyFile, or neither"
            )
        }
        if let name = self.options.serverName {
            guard !Self.isAddress(name), (1...255).contains(name.utf8.count), !name.utf8.contains(0) else {
                throw TLSError("the server name \"\(name)\" must be a DNS name that the server's certificate has")
            }
        }
        try self.files.load()
    }

    /// A handler for a new connection, with the files as last loaded.
    ///
    /// A host that is an address is checked against the addresses in the server's certificate.
    func makeHandler(host: String) throws -> NIOSSLClientHandler {
        let name = self.options.serverName ?? (Self.isAddress(host) ? nil : host)
        return try NIOSSLClientHandler(context: try self.files.load().context, serverHostname: name)
    }

    /// What the server's certificate must name.
    func expectedName(host: String) -> String { self.options.serverName ?? host }

    /// Checks the name in the server's certificate, whose signature has already been checked.
    ///
    /// Where a name was asked for, the TLS library also accepts a certificate for the address it connected to. A name
    /// that resolves to a wrong address would then go unnoticed, so names are compared here again.
    func checkName(_ identity: PeerIdentity?, host: String) throws(TLSFailure) {
        let name = self.expectedName(host: host)
        guard !Self.isAddress(name), identity?.covers(serverName: name) != true else { return }
        throw .wrongName(identity, expected: name)
    }

    private static func isAddress(_ host: String) -> Bool {
        (try? SocketAddress(ipAddress: host, port: 0)) != nil
    }

    private static func read(_ options: ClientTLSOptions, current: Loaded?) throws(TLSError) -> Loaded {
        var configuration = TLSConfiguration.makeClientConfiguration()
        configuration.minimumTLSVersion = .tlsv12
        configuration.cipherSuites = TLSFiles.cipherSuites
        configuration.applicationProtocols = [TLSFiles.applicationProtocol]
        configuration.shutdownTimeout = TLSFiles.shutdownTimeout
        if let authorities = options.authorityFile {
            configuration.trustRoots = .certificates(try TLSFiles.certificates(authorities))
        }
        var certificates: [NIOSSLCertificate] = []
        if let path = options.certificateFile, let keyPath = options.keyFile {
            certificates = try TLSFiles.certificates(path)
            let key = try TLSFiles.key(keyPath)
            try TLSFiles.checkDates(of: certificates, path: path, current: current?.certificates, now: TLSFiles.now)
            configuration.certificateChain = certificates.map { .certificate($0) }
            configuration.privateKey = .privateKey(key)
        }
        let context = try TLSFiles.context(
            configuration,
            certificate: options.certificateFile,
            key: options.keyFile
        )
        return Loaded(context: context, certificates: certificates)
    }
}
