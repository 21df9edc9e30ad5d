// SPDX-License-Identifier: Apache-2.0

internal import NIOCore

/// Sends what was written in one turn of the event loop with one system call.
///
/// A task writes a stream's head and its first event, or its last event and its end, one right after the other, and each is to be
/// flushed.
final class FlushJoiner: ChannelOutboundHandler, RemovableChannelHandler {
    typealias OutboundIn = IOData
    typealias OutboundOut = IOData

    private var isWaiting = false

    func flush(context: ChannelHandlerContext) {
        guard !self.isWaiting else { return }
        self.isWaiting = true
        context.eventLoop.assumeIsolated().execute { self.release(context) }
    }

    func close(context: ChannelHandlerContext, mode: CloseMode, promise: EventLoopPromise<Void>?) {
        self.release(context)
        context.close(mode: mode, promise: promise)
    }

    func handlerRemoved(context: ChannelHandlerContext) { self.isWaiting = false }

    private func release(_ context: ChannelHandlerContext) {
        guard self.isWaiting else { return }
        self.isWaiting = false
        context.flush()
    }
}

// The handler belongs to its channel's event loop.
@available(*, unavailable)
extension FlushJoiner: Sendable {}
