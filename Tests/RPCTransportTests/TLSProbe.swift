// SPDX-License-Identifier: Apache-2.0

import NIOCore
import NIOPosix
import NIOSSL
import NIOTLS
import RPCTransport

/// A TLS client that trusts everyone: it looks at the server's certificate, or reads what the server sends.
enum TLSProbe {
    /// The names in the certificate that a server shows.
    static func names(port: Int) async throws -> [String] {
        let channel = try await Self.connect(port: port, protocols: ["h2"]) { _ in }
        let certificate = try await channel.nioSSL_peerCertificate().get()
        try? await channel.close()
        return (certificate?._subjectAlternativeNames() ?? nil)
            .map { names in
                names.map { name in
                    name.contents.withUnsafeBufferPointer { String(decoding: $0, as: UTF8.self) }
                }
            } ?? []
    }

    /// Everything that a server sends until it closes.
    static func read(port: Int, protocols: [String]) async throws -> ByteBuffer {
        let (bytes, continuation) = AsyncStream.makeStream(of: ByteBuffer.self)
        let channel = try await Self.connect(port: port, protocols: protocols) { channel in
            try channel.pipeline.syncOperations.addHandler(Collector(continuation))
        }
        var all = ByteBuffer()
        for await part in bytes { all.writeImmutableBuffer(part) }
        try? await channel.close()
        return all
    }

    /// Whether a handshake of TLS 1.2 succeeds with these ciphers alone.
    static func agrees(on suites: [NIOTLSCipher], port: Int) async -> Bool {
        let channel = try? await Self.connect(port: port, protocols: ["h2"], suites: suites) { _ in }
        try? await channel?.close()
        return channel != nil
    }

    /// Connects and waits for the handshake.
    private static func connect(
        port: Int,
        protocols: [String],
        suites: [NIOTLSCipher]? = nil,
        _ setUp: @escaping @Sendable (any Channel) throws -> Void
    ) async throws -> any Channel {
        var configuration = TLSConfiguration.makeClientConfiguration()
        configuration.certificateVerification = .none
        configuration.applicationProtocols = protocols
        if let suites {
            configuration.maximumTLSVersion = .tlsv12
            configuration.cipherSuiteValues = suites
        }
        let context = try NIOSSLContext(configuration: configuration)
        let shaken = MultiThreadedEventLoopGroup.singleton.next().makePromise(of: Void.self)
        do {
            let channel = try await ClientBootstrap(group: MultiThreadedEventLoopGroup.singleton)
                .channelInitializer { channel in
                    channel.eventLoop.makeCompletedFuture {
                        let tls = try NIOSSLClientHandler(context: context, serverHostname: nil)
                        try channel.pipeline.syncOperations.addHandler(tls)
                        try channel.pipeline.syncOperations.addHandler(HandshakeWaiter(shaken))
                        try setUp(channel)
                    }
                }
                .connect(host: "127.0.0.1", port: port)
                .get()
            try await shaken.futureResult.get()
            return channel
        } catch {
            shaken.fail(error)
            throw error
        }
    }
}

private final class HandshakeWaiter: ChannelInboundHandler {
    typealias InboundIn = ByteBuffer

    private let promise: EventLoopPromise<Void>

    init(_ promise: EventLoopPromise<Void>) { self.promise = promise }

    func userInboundEventTriggered(context: ChannelHandlerContext, event: Any) {
        if case .handshakeCompleted? = event as? TLSUserEvent { self.promise.succeed(()) }
        context.fireUserInboundEventTriggered(event)
    }

    func errorCaught(context: ChannelHandlerContext, error: any Error) {
        self.promise.fail(error)
        context.close(promise: nil)
    }
}

private final class Collector: ChannelInboundHandler {
    typealias InboundIn = ByteBuffer

    private let bytes: AsyncStream<ByteBuffer>.Continuation

    init(_ bytes: AsyncStream<ByteBuffer>.Continuation) { self.bytes = bytes }

    func channelRead(context: ChannelHandlerContext, data: NIOAny) { self.bytes.yield(self.unwrapInboundIn(data)) }

    func channelInactive(context: ChannelHandlerContext) { self.bytes.finish() }
}

/// A listener that accepts connections and says nothing on them, or nothing but TLS without a protocol.
struct SilentListener {
    let channel: any Channel

    var port: Int { self.channel.localAddress?.port ?? 0 }

    static func start(_ accepted: Signal, tls fixture: TLSFixture? = nil) async throws -> SilentListener {
        var context: NIOSSLContext?
        if let fixture {
            let configuration = TLSConfiguration.makeServerConfiguration(
                certificateChain: try NIOSSLCertificate.fromPEMFile(fixture.path("server")).map { .certificate($0) },
                privateKey: .privateKey(try NIOSSLPrivateKey(file: fixture.path("server-key"), format: .pem))
            )
            context = try NIOSSLContext(configuration: configuration)
        }
        let made = context
        let channel = try await ServerBootstrap(group: MultiThreadedEventLoopGroup.singleton)
            .childChannelInitializer { channel in
                channel.eventLoop.makeCompletedFuture {
                    accepted.fire()
                    if let made {
                        try channel.pipeline.syncOperations.addHandler(NIOSSLServerHandler(context: made))
                    }
                }
            }
            .bind(host: "127.0.0.1", port: 0)
            .get()
        return SilentListener(channel: channel)
    }

    func close() async throws { try await self.channel.close() }
}
