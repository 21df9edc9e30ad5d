// SPDX-License-Identifier: Apache-2.0

internal import NIOCore
internal import NIOTLS

/// Which protocol a connection speaks.
enum DoorProtocol: Sendable, Equatable {
    case http1, http2

    /// What every HTTP/2 connection begins with (RFC 9113, section 3.4).
    private static let preface = Array("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".utf8)

    /// Tells the protocol by the first bytes of a plaintext connection.
    ///
    /// - Parameter bytes: What has come so far.
    /// - Returns: The protocol; nil while it is open.
    static func of(_ bytes: some Collection<UInt8>) -> DoorProtocol? {
        guard bytes.elementsEqual(Self.preface.prefix(bytes.count)) || bytes.starts(with: Self.preface) else {
            return .http1
        }
        return bytes.count < Self.preface.count ? nil : .http2
    }
}

/// Waits until a connection's protocol is known: by ALPN, or by its first bytes where there is no TLS.
///
/// It keeps what arrives, gives up after a while, and leaves the pipeline once the protocol's handlers are in it.
final class OpeningHandler: ChannelInboundHandler, RemovableChannelHandler {
    typealias InboundIn = ByteBuffer
    typealias InboundOut = ByteBuffer

    private let isSecure: Bool
    private let patience: TimeAmount
    private let accept: () -> Bool
    private let begin: (DoorProtocol) -> Void
    private let fail: () -> Void
    private var held: ByteBuffer?
    private var timer: Scheduled<Void>?
    private var isOver = false

    /// Creates the handler.
    ///
    /// - Parameters:
    ///   - isSecure: Whether TLS comes before it.
    ///   - patience: How long the client may take.
    ///   - accept: Says whether a client whose handshake is complete may stay.
    ///   - begin: Adds the protocol's handlers.
    ///   - fail: Called if the connection ends before its protocol is known.
    init(
        isSecure: Bool,
        patience: Duration,
        accept: @escaping () -> Bool,
        begin: @escaping (DoorProtocol) -> Void,
        fail: @escaping () -> Void
    ) {
        self.isSecure = isSecure
        self.patience = TimeAmount(patience)
        self.accept = accept
        self.begin = begin
        self.fail = fail
    }

    func handlerAdded(context: ChannelHandlerContext) {
        let channel = context.channel
        self.timer = context.eventLoop.scheduleTask(in: self.patience) { channel.close(promise: nil) }
    }

    func handlerRemoved(context: ChannelHandlerContext) { self.end() }

    func channelInactive(context: ChannelHandlerContext) {
        self.end()
        context.fireChannelInactive()
    }

    private func end() {
        self.timer?.cancel()
        self.timer = nil
        guard !self.isOver else { return }
        self.isOver = true
        self.fail()
    }

    func errorCaught(context: ChannelHandlerContext, error: any Error) {
        // Only TLS before it has errors here: a client that speaks something else, or that shows no certificate.
        context.close(promise: nil)
    }

    func userInboundEventTriggered(context: ChannelHandlerContext, event: Any) {
        guard self.isSecure, case .handshakeCompleted(let negotiated)? = event as? TLSUserEvent else {
            // Nothing was asked yet, so nothing is lost where the client or this process leaves.
            let isOver = event is ChannelShouldQuiesceEvent || event as? ChannelEvent == .inputClosed
            if isOver { context.close(promise: nil) }
            context.fireUserInboundEventTriggered(event)
            return
        }
        guard self.accept() else {
            context.close(promise: nil)
            return
        }
        self.settle(negotiated == "h2" ? .http2 : .http1, context)
    }

    func channelRead(context: ChannelHandlerContext, data: NIOAny) {
        var buffer = self.unwrapInboundIn(data)
        guard !self.isOver else {
            context.fireChannelRead(data)
            return
        }
        if self.held == nil { self.held = buffer } else { self.held?.writeBuffer(&buffer) }
        guard !self.isSecure, let found = self.held.flatMap({ DoorProtocol.of($0.readableBytesView) }) else { return }
        self.settle(found, context)
    }

    private func settle(_ found: DoorProtocol, _ context: ChannelHandlerContext) {
        guard !self.isOver else { return }
        self.isOver = true
        self.timer?.cancel()
        self.begin(found)
        if let held = self.held {
            context.fireChannelRead(self.wrapInboundOut(held))
            context.fireChannelReadComplete()
        }
        context.pipeline.syncOperations.removeHandler(self, promise: nil)
    }
}

// The handler belongs to its channel's event loop.
@available(*, unavailable)
extension OpeningHandler: Sendable {}
