// SPDX-License-Identifier: Apache-2.0

internal import NIOCore
internal import NIOHTTP1
internal import SwitchyardTypes

/// Runs the ``AdminConnection`` machine on a channel: counts bytes before the parser sees them, and writes answers.
///
/// Belongs to its channel's event loop.
final class AdminHandler: ChannelInboundHandler {
    typealias InboundIn = HTTPServerRequestPart
    typealias OutboundOut = HTTPServerResponsePart

    /// Sees a connection's bytes before the parser does.
    final class ByteCounter: ChannelInboundHandler {
        typealias InboundIn = ByteBuffer
        typealias InboundOut = ByteBuffer

        private let handler: AdminHandler

        init(_ handler: AdminHandler) {
            self.handler = handler
        }

        func channelRead(context: ChannelHandlerContext, data: NIOAny) {
            let count = self.unwrapInboundIn(data).readableBytes
            if self.handler.bytesArrived(count) { context.fireChannelRead(data) }
        }
    }

    private let eventLoop: any EventLoop
    /// Answers a request, then or later and on any thread.
    private let respond: @Sendable (AdminRequest, @escaping @Sendable (AdminResponse) -> Void) -> Void
    private var machine: AdminConnection
    /// Whether a request is being answered.
    let activity = ConnectionActivity(now: NIODeadline.now().uptimeNanoseconds)
    private var context: ChannelHandlerContext?
    private var timer: Scheduled<Void>?
    /// When the timer fires.
    private var timerDue: ContinuousClock.Instant?

    init(
        eventLoop: any EventLoop,
        limits: AdminConnection.Limits,
        respond: @escaping @Sendable (AdminRequest, @escaping @Sendable (AdminResponse) -> Void) -> Void
    ) {
        self.eventLoop = eventLoop
        self.respond = respond
        self.machine = AdminConnection(limits: limits, now: .now)
    }

    /// The service stops.
    func beginDraining() { self.perform(self.machine.beginDraining()) }

    // MARK: - ChannelInboundHandler

    func handlerAdded(context: ChannelHandlerContext) {
        self.context = context
        self.schedule()
    }

    func handlerRemoved(context: ChannelHandlerContext) { self.end() }

    func channelInactive(context: ChannelHandlerContext) {
        self.end()
        context.fireChannelInactive()
    }

    func channelRead(context: ChannelHandlerContext, data: NIOAny) {
        switch self.unwrapInboundIn(data) {
        case .head(let head):
            self.machine.headArrived(
                AdminRequest(method: head.method.rawValue, target: head.uri, keepsAlive: head.isKeepAlive)
            )
        case .body:
            break
        case .end:
            self.perform(self.machine.requestEnded(now: .now))
        }
    }

    func errorCaught(context: ChannelHandlerContext, error: any Error) {
        switch error as? HTTPParserError {
        case .headerOverflow?: self.perform(self.machine.refused(.tooLarge, now: .now))
        case .some: self.perform(self.machine.refused(.malformed, now: .now))
        case nil: context.close(promise: nil)
        }
    }

    // MARK: - Private

    /// Returns whether to parse the bytes.
    private func bytesArrived(_ count: Int) -> Bool {
        let action = self.machine.bytesArrived(count, now: .now)
        self.perform(action)
        return action == .none && self.machine.isParsing
    }

    private func perform(_ action: AdminConnection.Action) {
        defer { self.noteActivity() }
        switch action {
        case .none:
            break
        case .answer(let request):
            let bound = NIOLoopBound(self, eventLoop: self.eventLoop)
            let eventLoop = self.eventLoop
            self.respond(request) { response in
                eventLoop.execute { bound.value.write(response, to: request) }
            }
        case .closeOutput:
            self.context?.close(mode: .output, promise: nil)
        case .close:
            self.context?.close(promise: nil)
        }
        self.schedule()
    }

    /// A client that sends a request slowly is as idle as one that is silent.
    private func noteActivity() {
        if self.machine.isAnswering {
            self.activity.becameBusy()
        } else if self.activity.idleSince == nil {
            self.activity.becameIdle(now: NIODeadline.now().uptimeNanoseconds)
        }
    }

    private func write(_ response: AdminResponse, to request: AdminRequest) {
        guard let context = self.context, !self.machine.isClosed else { return }
        var headers = HTTPHeaders()
        headers.add(name: "content-type", value: response.contentType)
        headers.add(name: "content-length", value: "\(response.body.count)")
        for (name, value) in response.fields.sorted(by: { $0.key < $1.key }) { headers.add(name: name, value: value) }
        if self.machine.endsWith(request) { headers.add(name: "connection", value: "close") }
        let head = HTTPResponseHead(
            version: .http1_1,
            status: HTTPResponseStatus(statusCode: response.status),
            headers: headers
        )
        context.write(self.wrapOutboundOut(.head(head)), promise: nil)
        if !request.isHead {
            context.write(self.wrapOutboundOut(.body(.byteBuffer(ByteBuffer(bytes: response.body)))), promise: nil)
        }
        let bound = NIOLoopBound(self, eventLoop: self.eventLoop)
        context.writeAndFlush(self.wrapOutboundOut(.end(nil))).assumeIsolated()
            .whenSuccess { bound.value.perform(bound.value.machine.answered(now: .now)) }
    }

    private func end() {
        self.timer?.cancel()
        self.timer = nil
        self.context = nil
    }

    private func schedule() {
        guard self.context != nil, let due = self.machine.nextDue else { return }
        // A timer that fires too early finds nothing to do and is set again; one that would fire too late is
        // replaced.
        if let timer = self.timer, let timerDue = self.timerDue {
            if timerDue <= due { return }
            timer.cancel()
        }
        self.timerDue = due
        let bound = NIOLoopBound(self, eventLoop: self.eventLoop)
        let (seconds, attoseconds) = (due - .now).components
        let wait = TimeAmount.nanoseconds(max(0, seconds * 1_000_000_000 + attoseconds / 1_000_000_000) + 1_000_000)
        self.timer = self.eventLoop.scheduleTask(in: wait) {
            bound.value.timer = nil
            bound.value.perform(bound.value.machine.timePassed(now: .now))
        }
    }
}

// The handlers belong to their channel's event loop.
@available(*, unavailable)
extension AdminHandler: Sendable {}

@available(*, unavailable)
extension AdminHandler.ByteCounter: Sendable {}
