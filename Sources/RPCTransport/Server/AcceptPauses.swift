// SPDX-License-Identifier: Apache-2.0

internal import Logging
internal import NIOCore

#if canImport(Glibc)
internal import Glibc
#elseif canImport(Musl)
internal import Musl
#elseif canImport(Darwin)
internal import Darwin
#endif

/// Lets a listener pause when the system has no descriptor or memory for another connection.
///
/// Such a connection stays in the system's queue, so the listener would be told of it again and again without end.
final class AcceptPauses: ChannelInboundHandler {
    typealias InboundIn = any Channel

    /// How long a listener pauses.
    private static let pause = TimeAmount.seconds(1)
    /// One line says it for this long.
    private static let quiet = Duration.seconds(60)

    private let logger: Logger
    private var lastLine: ContinuousClock.Instant?
    private var isPaused = false

    /// Creates the handler.
    ///
    /// - Parameter logger: Gets a line when the listener pauses, at most one a minute.
    init(logger: Logger) {
        self.logger = logger
    }

    func errorCaught(context: ChannelHandlerContext, error: any Error) {
        guard let error = error as? IOError, Self.isShortage(error) else {
            context.fireErrorCaught(error)
            return
        }
        self.pause(context.channel)
        let now = ContinuousClock.now
        if let last = self.lastLine, now - last < Self.quiet { return }
        self.lastLine = now
        self.logger.error(
            "no connection can be accepted: the system has no file descriptor or memory left for it; trying again every second",
            metadata: [
                "reason": "\(error)", "descriptors": "\(DescriptorLimit.current.map { "\($0)" } ?? "unknown")",
                "remedy": "raise the limit of open files (LimitNOFILE, ulimit -n)",
            ]
        )
    }

    /// Takes the listener from the selector for a while; not asking to read would not do that.
    private func pause(_ channel: any Channel) {
        guard !self.isPaused, let options = channel.syncOptions else { return }
        self.isPaused = true
        try? options.setOption(.autoRead, value: false)
        let bound = NIOLoopBound((self, channel), eventLoop: channel.eventLoop)
        channel.eventLoop.scheduleTask(in: Self.pause) {
            let (handler, channel) = bound.value
            handler.isPaused = false
            // A listener that was closed meanwhile has no options any more.
            try? channel.syncOptions?.setOption(.autoRead, value: true)
        }
    }

    private static func isShortage(_ error: IOError) -> Bool {
        [EMFILE, ENFILE, ENOMEM, ENOBUFS].contains(error.errnoCode)
    }
}

// The handler belongs to its listener's event loop.
@available(*, unavailable)
extension AcceptPauses: Sendable {}
