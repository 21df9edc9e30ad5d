// SPDX-License-Identifier: Apache-2.0

internal import NIOCore

/// Lets the admin port's listener pause for a second when no connection can be accepted.
///
/// Without a file descriptor for it a connection stays in the system's queue, and the listener would be told of it
/// without end.
final class AdminAcceptPauses: ChannelInboundHandler {
    typealias InboundIn = any Channel

    private var isPaused = false

    func errorCaught(context: ChannelHandlerContext, error: any Error) {
        defer { context.fireErrorCaught(error) }
        guard error is IOError, !self.isPaused, let options = context.channel.syncOptions else { return }
        self.isPaused = true
        try? options.setOption(.autoRead, value: false)
        let bound = NIOLoopBound((self, context.channel), eventLoop: context.eventLoop)
        context.eventLoop.scheduleTask(in: .seconds(1)) {
            let (handler, channel) = bound.value
            handler.isPaused = false
            // A listener that was closed meanwhile has no options any more.
            try? channel.syncOptions?.setOption(.autoRead, value: true)
        }
    }
}

// The handler belongs to its listener's event loop.
@available(*, unavailable)
extension AdminAcceptPauses: Sendable {}
