// SPDX-License-Identifier: Apache-2.0

public import Logging
package import NIOCore
internal import NIOSSL

/// Which certificate a server presents, and which clients it accepts.
public struct ServerTLSOptions: Sendable, Hashable {
    /// Path of the server's certificate chain in PEM, the leaf first.
    public var certificateFile: String
    /// Path of the leaf's private key in PEM, without a passphrase.
    public var keyFile: String
    /// Path of the authorities in PEM that sign clients' certificates; nil asks clients for none.
    public var clientAuthorityFile: String?
    /// Whether a client without a certificate is refused; applies only with ``clientAuthorityFile``.
    public var requiresClientCertificate: Bool
    /// DNS names and URIs of accepted clients; an empty list accepts every client that an authority vouches for.
    public var allowedClients: [String]
    /// How often the files are checked for changes; nil reads them once.
    public var reloadInterval: Duration?

    /// Creates options.
    ///
    /// - Parameters:
    ///   - certificateFile: Path of the server's certificate chain.
    ///   - keyFile: Path of its key.
    ///   - clientAuthorityFile: Path of the authorities that sign clients' certificates.
    ///   - requiresClientCertificate: Whether a client without a certificate is refused.
    ///   - allowedClients: DNS names and URIs of accepted clients.
    ///   - reloadInterval: How often the files are checked for changes.
    public init(
        certificateFile: String,
        keyFile: String,
        clientAuthorityFile: String? = nil,
        requiresClientCertificate: Bool = true,
        allowedClients: [String] = [],
        reloadInterval: Duration? = .seconds(10)
    ) {
        self.certificateFile = certificateFile
        self.keyFile = keyFile
        self.clientAuthorityFile = clientAuthorityFile
        self.requiresClientCertificate = requiresClientCertificate
        self.allowedClients = allowedClients
        self.reloadInterval = reloadInterval
    }
}

/// A server's TLS: its certificate, reloaded when the files change, and its rule for clients.
///
/// TLS 1.3, or 1.2 where the client cannot do better; for gRPC only HTTP/2 by ALPN. New connections use the files as last
/// loaded; existing ones keep what they began with.
public final class ServerTLS: Sendable {
    struct Loaded: Sendable {
        var context: NIOSSLContext
        /// For clients that may speak HTTP/1.1 as well.
        var webContext: NIOSSLContext
        var certificates: [NIOSSLCertificate]
    }

    /// The server's options.
    public let options: ServerTLSOptions

    let files: WatchedFiles<Loaded>

    /// Names the files; nothing is read yet.
    ///
    /// - Parameters:
    ///   - options: The files and the rule for clients.
    ///   - logger: Told what was reloaded and what could not be.
    public init(_ options: ServerTLSOptions, logger: Logger) {
        self.options = options
        self.files = WatchedFiles(
            "the server's certificate",
            paths: [options.certificateFile, options.keyFile] + (options.clientAuthorityFile.map { [$0] } ?? []),
            interval: options.reloadInterval,
            logger: logger
        ) { current in
            let loaded = try Self.read(options, current: current)
            TLSFiles.warnOfEnd(of: loaded.certificates, path: options.certificateFile, logger: logger)
            return loaded
        }
    }

    /// When the certificate in use ends, in seconds since 1970; nil before it was loaded.
    public var certificateEnd: Int? { self.files.current?.certificates.first.map { Int($0.notValidAfter) } }

    /// Reads the files, so that mistakes show before anything else begins; otherwise a server reads them when it runs.
    ///
    /// - Throws: ``TLSError`` naming the file or option that cannot be used.
    public func load() throws {
        guard self.options.allowedClients.isEmpty || self.options.clientAuthorityFile != nil else {
            throw TLSError("a list of allowed clients needs clientAuthorityFile: without it no client proves who it is")
        }
        try self.files.load()
    }

    /// A handler for a new connection, with the certificate last loaded.
    func makeHandler() throws -> NIOSSLServerHandler {
        NIOSSLServerHandler(context: try self.files.load().context)
    }

    /// Adds TLS to a new connection whose client chooses between HTTP/2 and HTTP/1.1, by ALPN or by not using it.
    ///
    /// - Parameter pipeline: The connection's handlers, which come after it.
    /// - Throws: ``TLSError`` where no certificate could be loaded yet.
    package func addWebHandler(to pipeline: ChannelPipeline.SynchronousOperations) throws {
        try pipeline.addHandler(NIOSSLServerHandler(context: try self.files.load().webContext))
    }

    /// Who the client of a connection is, and whether it is accepted; ask once the handshake is complete.
    ///
    /// - Parameter pipeline: The connection's handlers.
    /// - Returns: The names in its certificate, nil for a client without one; or why it is refused.
    package func admitted(in pipeline: ChannelPipeline.SynchronousOperations) -> Result<PeerIdentity?, TLSError> {
        let identity = (try? pipeline.nioSSL_peerCertificate()).map { PeerIdentity($0) }
        return self.admit(identity).map { identity }
    }

    /// Whether a client with this certificate is accepted.
    func admit(_ identity: PeerIdentity?) -> Result<Void, TLSError> {
        guard !self.options.allowedClients.isEmpty else { return .success(()) }
        guard let identity else { return .failure(TLSError("the client showed no certificate")) }
        guard identity.isListed(in: self.options.allowedClients) else {
            return .failure(TLSError("the client (\(identity)) is not among the allowed clients"))
        }
        return .success(())
    }

    private static func read(_ options: ServerTLSOptions, current: Loaded?) throws(TLSError) -> Loaded {
        let certificates = try TLSFiles.certificates(options.certificateFile)
        let key = try TLSFiles.key(options.keyFile)
        try TLSFiles.checkDates(
            of: certificates,
            path: options.certificateFile,
            current: current?.certificates,
            now: TLSFiles.now
        )
        var configuration = TLSConfiguration.makeServerConfiguration(
            certificateChain: certificates.map { .certificate($0) },
            privateKey: .privateKey(key)
        )
        configuration.minimumTLSVersion = .tlsv12
        configuration.cipherSuites = TLSFiles.cipherSuites
        configuration.applicationProtocols = [TLSFiles.applicationProtocol]
        configuration.shutdownTimeout = TLSFiles.shutdownTimeout
        if let authorities = options.clientAuthorityFile {
            configuration.trustRoots = .certificates(try TLSFiles.certificates(authorities))
            configuration.certificateVerification =
                options.requiresClientCertificate ? .noHostnameVerification : .optionalVerification
            configuration.sendCANameList = true
        }
        let context = try TLSFiles.context(
            configuration,
            certificate: options.certificateFile,
            key: options.keyFile
        )
        configuration.applicationProtocols = [TLSFiles.applicationProtocol, "http/1.1"]
        let webContext = try TLSFiles.context(configuration, certificate: options.certificateFile, key: options.keyFile)
        return Loaded(context: context, webContext: webContext, certificates: certificates)
    }
}
