// SPDX-License-Identifier: Apache-2.0

internal import NIOCore

/// Closes a channel whose client reads nothing of what waits for it.
final class WriteStallHandler: ChannelInboundHandler, RemovableChannelHandler {
    typealias InboundIn = ByteBuffer

    private let patience: TimeAmount
    private var timer: Scheduled<Void>?

    /// Creates the handler.
    ///
    /// - Parameter patience: How long the client may read nothing.
    init(patience: Duration) { self.patience = TimeAmount(patience) }

    func channelWritabilityChanged(context: ChannelHandlerContext) {
        self.timer?.cancel()
        self.timer = nil
        if !context.channel.isWritable {
            let channel = context.channel
            self.timer = context.eventLoop.scheduleTask(in: self.patience) { channel.close(promise: nil) }
        }
        context.fireChannelWritabilityChanged()
    }

    func channelInactive(context: ChannelHandlerContext) {
        self.timer?.cancel()
        context.fireChannelInactive()
    }

    func handlerRemoved(context: ChannelHandlerContext) { self.timer?.cancel() }
}

/// Takes the end of a client's sending for the end of the client.
///
/// Over HTTP/1.1 nothing else tells that a client has left while its answer is computed.
final class LeavingHandler: ChannelInboundHandler, RemovableChannelHandler {
    typealias InboundIn = ByteBuffer

    func userInboundEventTriggered(context: ChannelHandlerContext, event: Any) {
        if case .inputClosed? = event as? ChannelEvent { context.close(promise: nil) }
        context.fireUserInboundEventTriggered(event)
    }
}

// The handlers belong to their channels' event loops.
@available(*, unavailable)
extension WriteStallHandler: Sendable {}

@available(*, unavailable)
extension LeavingHandler: Sendable {}
