// SPDX-License-Identifier: Apache-2.0

internal import NIOCore
internal import NIOSSL
internal import NIOTLS

/// Sits after the TLS handler until the handshake is over; only then does the next handler see a connection.
///
/// It holds the channel's activity back, gives up after the handshake's time limit, checks that HTTP/2 was agreed on, and
/// leaves the pipeline when all is well.
final class TLSHandshakeHandler: ChannelInboundHandler, RemovableChannelHandler {
    typealias InboundIn = ByteBuffer

    /// What a handshake has settled.
    struct Outcome {
        /// Who the peer is, if it has shown a certificate.
        var identity: PeerIdentity?
        /// Whether the peer agreed to HTTP/2.
        var isHTTP2: Bool
    }

    private let timeout: Duration
    private let expectedName: String?
    private let accept: (Outcome) throws(TLSFailure) -> Void
    private let onFailure: (TLSFailure) -> Void
    private var timer: Scheduled<Void>?
    private var promise: EventLoopPromise<Void>?
    private var failure: TLSFailure?
    private var isOver = false

    /// Creates a handler.
    ///
    /// - Parameters:
    ///   - timeout: How long the handshake may take.
    ///   - expectedName: What the server's certificate must name; nil on a server.
    ///   - accept: Called when the handshake is complete, before the connection is seen; what it throws closes it.
    ///   - onFailure: Called once when the connection cannot be established.
    init(
        timeout: Duration,
        expectedName: String?,
        accept: @escaping (Outcome) throws(TLSFailure) -> Void,
        onFailure: @escaping (TLSFailure) -> Void
    ) {
        self.timeout = timeout
        self.expectedName = expectedName
        self.accept = accept
        self.onFailure = onFailure
    }

    /// Done when the handshake is over, one way or the other; nil before the handler is in a pipeline.
    var completion: EventLoopFuture<Void>? { self.promise?.futureResult }

    func handlerAdded(context: ChannelHandlerContext) {
        self.promise = context.eventLoop.makePromise()
        if context.channel.isActive { self.begin(context: context) }
    }

    func channelActive(context: ChannelHandlerContext) {
        // Not passed on: the next handler sees the connection once it is secured.
        self.begin(context: context)
    }

    func userInboundEventTriggered(context: ChannelHandlerContext, event: Any) {
        guard case .handshakeCompleted(let negotiated)? = event as? TLSUserEvent else {
            context.fireUserInboundEventTriggered(event)
            return
        }
        guard !self.isOver, self.failure == nil else { return }
        let certificate = try? context.pipeline.syncOperations.nioSSL_peerCertificate()
        let outcome = Outcome(
            identity: certificate.map { PeerIdentity($0) },
            isHTTP2: negotiated == TLSFiles.applicationProtocol
        )
        do throws(TLSFailure) {
            try self.accept(outcome)
        } catch {
            self.fail(error, context: context)
            return
        }
        self.isOver = true
        self.timer?.cancel()
        context.fireChannelActive()
        self.promise?.succeed(())
        context.pipeline.syncOperations.removeHandler(self, promise: nil)
    }

    func errorCaught(context: ChannelHandlerContext, error: any Error) {
        guard !self.isOver else {
            context.fireErrorCaught(error)
            return
        }
        guard self.failure == nil else { return }
        let certificate = try? context.pipeline.syncOperations.nioSSL_peerCertificate()
        self.fail(
            TLSFailure(error, certificate: certificate, expectedName: self.expectedName),
            context: context
        )
    }

    func channelInactive(context: ChannelHandlerContext) {
        self.end(self.failure ?? TLSFailure("TLS: the peer closed the connection", isTelling: false))
        context.fireChannelInactive()
    }

    func handlerRemoved(context: ChannelHandlerContext) {
        self.end(self.failure ?? TLSFailure("TLS: the connection was closed before the handshake", isTelling: false))
    }

    // MARK: - Private

    private func begin(context: ChannelHandlerContext) {
        guard self.timer == nil else { return }
        let bound = NIOLoopBound((handler: self, context: context), eventLoop: context.eventLoop)
        self.timer = context.eventLoop.scheduleTask(in: self.timeout.timeAmount) { [timeout = self.timeout] in
            let (handler, context) = bound.value
            guard !handler.isOver else { return }
            let reason = "TLS: the peer completed no handshake within \(timeout)"
            handler.fail(TLSFailure(reason, isTelling: false), context: context)
        }
    }

    /// Remembers the first reason and closes; the failure is reported when the channel has closed.
    private func fail(_ failure: TLSFailure, context: ChannelHandlerContext) {
        guard self.failure == nil else { return }
        self.failure = failure
        context.close(promise: nil)
    }

    private func end(_ failure: TLSFailure) {
        guard !self.isOver else { return }
        self.isOver = true
        self.timer?.cancel()
        self.onFailure(failure)
        self.promise?.fail(failure)
    }
}

// The handler belongs to its channel's event loop.
@available(*, unavailable)
extension TLSHandshakeHandler: Sendable {}
