// SPDX-License-Identifier: Apache-2.0

internal import HTTP2Session
internal import NIOCore

/// What a role (client or server) does with its connection's events.
///
/// All of it happens on the connection's event loop.
protocol ConnectionRole: AnyObject {
    /// The socket is connected and the codec is ready for commands.
    func connectionBegan(_ connection: ConnectionHandler)
    /// Something happened on the connection.
    func handle(_ event: HTTP2Event)
    /// Streams may have ended: queued calls can proceed.
    func turnEnded()
    /// All that one read brought has been dealt with.
    ///
    /// - Returns: How long to read nothing; nil to go on.
    func readEnded() -> Duration?
    /// Time to check for requests that do not arrive and output that is not read.
    func sweep(now: ContinuousClock.Instant)
    /// The connection has had no call for the configured time, or is too old.
    func connectionIdled()
    /// The connection is too old, and its calls have taken too long to end.
    func connectionOverdue()
    /// The connection is gone; nothing can be sent or received any more.
    func connectionEnded(reason: String)
    /// How many calls are open.
    var openCallCount: Int { get }
}

extension ConnectionRole {
    func readEnded() -> Duration? { nil }
}

/// Carries bytes between a socket and a codec.
///
/// Bytes go in, the codec's events are dispatched after it returned, and what it then has to send is written with one
/// flush for each read or turn of the loop, and for every few messages of a read that brings many. While the socket does not accept bytes, nothing is taken from the codec, so
/// that a peer which does not read hits the codec's limits instead of using up our memory.
final class ConnectionHandler: ChannelInboundHandler {
    typealias InboundIn = ByteBuffer
    typealias OutboundOut = ByteBuffer

    /// After how many messages of one read what they led to is written, so that the peer need not wait for the rest.
    private static let messagesPerFlush = 16
    /// How much is taken from the codec before the socket is asked again.
    private static let outputChunkBytes = 1 << 20

    let codec: HTTP2Codec
    let eventLoop: any EventLoop
    private let role: any ConnectionRole
    private var watch: ConnectionWatch
    private var watchTimer: Scheduled<Void>?
    private let timing: ConnectionTiming
    let traffic: TrafficCounts?
    /// Notes when bytes have been read and are about to be written, for benchmarks.
    var stages: (log: CallStages, read: CallStages.Stage, written: CallStages.Stage)?
    /// How long the socket has taken none of the waiting output.
    private var socketStall = StallClock()
    /// How often the socket's queue has drained.
    private var drainedCount = 0
    private var context: ChannelHandlerContext?
    private var isReading = false
    /// Whether the peer is left waiting before the next read.
    private var isReadingPaused = false
    private var isFlushScheduled = false
    private var isFlushing = false
    var isClosing = false
    /// The memory of the last events and of the last output, for the next ones.
    private var eventList: [HTTP2Event] = []
    private var outputList: [ByteBuffer] = []
    /// Flushes in the next turn of the loop; made once, and gone with the connection.
    private var flushLater: (@Sendable () -> Void)?
    var endReason: String?
    /// What the peer sent first: it tells TLS from HTTP/2.
    private var firstBytes: UInt16?

    /// What the peer has sent, until it shows whether it speaks HTTP/2; nil once that is known.
    var opening: ByteBuffer?
    /// Until the peer has shown what it speaks nothing is sent, since an answer in HTTP/1.1 must come first.
    var holdsOutput: Bool
    var holdTimer: Scheduled<Void>?

    /// Creates a handler.
    ///
    /// - Parameters:
    ///   - codec: The connection's codec.
    ///   - role: What the connection is for.
    ///   - timing: When the connection is closed or probed.
    ///   - traffic: Counts bytes.
    ///   - eventLoop: The connection's event loop.
    ///   - awaitsOpening: Whether the peer speaks first, as clients do, and may speak HTTP/1.x by mistake.
    ///   - now: The current time.
    init(
        codec: HTTP2Codec,
        role: any ConnectionRole,
        timing: ConnectionTiming,
        traffic: TrafficCounts?,
        eventLoop: any EventLoop,
        awaitsOpening: Bool = false,
        now: ContinuousClock.Instant
    ) {
        self.opening = awaitsOpening ? ByteBuffer() : nil
        self.holdsOutput = awaitsOpening
        self.codec = codec
        self.role = role
        self.eventLoop = eventLoop
        self.timing = timing
        self.traffic = traffic
        self.watch = ConnectionWatch(timing: timing, chance: .random(in: 0...1), now: now)
    }

    /// Whether the connection can carry commands.
    var isOpen: Bool { self.context != nil && !self.isClosing }

    /// Whether both sides know each other's settings.
    var handshakeIsComplete: Bool { self.watch.handshakeIsComplete }

    /// Schedules queued output to be written at the end of this turn of the loop.
    func setNeedsFlush() {
        guard !self.isReading, !self.isFlushing, !self.isFlushScheduled, let flushLater else { return }
        self.isFlushScheduled = true
        self.eventLoop.execute(flushLater)
    }

    /// Closes the connection without waiting for anything.
    func close(reason: String) {
        self.endReason = self.endReason ?? reason
        self.isClosing = true
        self.context?.close(promise: nil)
    }

    // MARK: - ChannelInboundHandler

    func handlerAdded(context: ChannelHandlerContext) {
        if context.channel.isActive { self.begin(context: context) }
    }

    func channelActive(context: ChannelHandlerContext) {
        self.begin(context: context)
        context.fireChannelActive()
    }

    func channelRead(context: ChannelHandlerContext, data: NIOAny) {
        guard !self.isClosing else { return }
        self.isReading = true
        let now = ContinuousClock.now
        self.watch.bytesArrived(now: now)
        let read = self.unwrapInboundIn(data)
        self.traffic?.received(read.readableBytes)
        if let stages = self.stages { stages.log.mark(stages.read) }
        guard let bytes = self.opened(with: read, context: context) else { return }
        if self.firstBytes == nil { self.firstBytes = bytes.getInteger(at: bytes.readerIndex) }
        do throws(HTTP2CodecError) {
            try self.codec.receive(bytes, now: now)
        } catch {
            self.endReason = self.endReason ?? error.message
        }
        self.dispatchEvents(writing: true)
    }

    func channelReadComplete(context: ChannelHandlerContext) {
        self.isReading = false
        if let pause = self.role.readEnded() { self.pauseReading(for: pause, channel: context.channel) }
        self.flush()
        context.fireChannelReadComplete()
    }

    func channelWritabilityChanged(context: ChannelHandlerContext) {
        if context.channel.isWritable {
            self.drainedCount += 1
            self.setNeedsFlush()
        }
        context.fireChannelWritabilityChanged()
    }

    func channelInactive(context: ChannelHandlerContext) {
        self.end()
        context.fireChannelInactive()
    }

    func handlerRemoved(context: ChannelHandlerContext) {
        self.end()
    }

    func errorCaught(context: ChannelHandlerContext, error: any Error) {
        self.close(reason: TLSFailure.reason(after: error) ?? "the connection failed: \(error)")
    }

    // MARK: - Private

    private func begin(context: ChannelHandlerContext) {
        guard self.context == nil, self.endReason == nil else { return }
        self.context = context
        let handler = NIOLoopBound(self, eventLoop: self.eventLoop)
        self.flushLater = {
            handler.value.isFlushScheduled = false
            handler.value.flush()
        }
        self.role.connectionBegan(self)
        if self.holdsOutput {
            let bound = NIOLoopBound(self, eventLoop: self.eventLoop)
            // A peer that waits for this side to speak is no HTTP/1.x client.
            self.holdTimer = self.eventLoop.scheduleTask(in: Self.longestHold) {
                bound.value.holdsOutput = false
                bound.value.flush()
            }
        }
        self.scheduleWatch()
        self.flush()
    }

    private func end() {
        guard self.context != nil else { return }
        self.context = nil
        // It refers to this handler.
        self.flushLater = nil
        self.holdTimer?.cancel()
        self.isClosing = true
        self.watchTimer?.cancel()
        self.watchTimer = nil
        let mismatch = self.watch.handshakeIsComplete ? nil : ProtocolMismatch.reason(firstBytes: self.firstBytes)
        self.role.connectionEnded(reason: mismatch ?? self.endReason ?? "the peer closed the connection")
    }

    /// Hands the codec's events to the role.
    ///
    /// - Parameter writing: Whether to write in between.
    /// - Returns: Whether there were any.
    @discardableResult
    private func dispatchEvents(writing: Bool = false) -> Bool {
        guard self.codec.hasEvents else { return false }
        var messages = 0
        // Taken out of the handler, since what an event leads to may come here again.
        var events: [HTTP2Event] = []
        swap(&events, &self.eventList)
        defer { swap(&events, &self.eventList) }
        while self.codec.hasEvents {
            self.codec.takeEvents(into: &events)
            for event in events {
                switch event {
                case .settings: self.watch.peerSettingsArrived()
                case .settingsAcknowledged: self.watch.ownSettingsAcknowledged()
                case .endOfStream: messages += 1
                case .headers(let block) where block.endStream: messages += 1
                default: break
                }
                self.role.handle(event)
                if writing, messages >= Self.messagesPerFlush {
                    messages = 0
                    self.writeEarly()
                }
            }
            // What they carried is free for the next.
            events.removeAll(keepingCapacity: true)
        }
        return true
    }

    /// Writes what the codec has for the peer while events still wait to be dispatched.
    ///
    /// Two processors can then work on the calls of one read: the peer's on the first ones while this one deals with the rest. What follows
    /// from writing, as that a stream is closed, is dispatched after the events that wait.
    private func writeEarly() {
        guard let context = self.context, !self.isFlushing, !self.isClosing, !self.holdsOutput,
            context.channel.isWritable
        else { return }
        var output: [ByteBuffer] = []
        swap(&output, &self.outputList)
        defer { swap(&output, &self.outputList) }
        self.codec.takeOutput(limitBytes: Self.outputChunkBytes, into: &output)
        guard !output.isEmpty else { return }
        self.write(output, context: context)
        output.removeAll(keepingCapacity: true)
        context.flush()
    }

    private func write(_ output: [ByteBuffer], context: ChannelHandlerContext) {
        for buffer in output { context.write(self.wrapOutboundOut(buffer), promise: nil) }
        self.traffic?.sent(output.reduce(0) { $0 + $1.readableBytes })
    }

    private func flush() {
        guard let context = self.context, !self.isFlushing, !self.isClosing, !self.holdsOutput else { return }
        self.isFlushing = true
        var unflushed = false
        var output: [ByteBuffer] = []
        swap(&output, &self.outputList)
        defer { swap(&output, &self.outputList) }
        while context.channel.isWritable {
            self.role.turnEnded()
            self.codec.takeOutput(limitBytes: Self.outputChunkBytes, into: &output)
            let dispatched = self.dispatchEvents()
            if output.isEmpty {
                // Events can have led to new commands; without any, nothing more will come.
                if dispatched { continue } else { break }
            }
            self.write(output, context: context)
            // The socket alone refers to them now, and lets go of them once they are written.
            output.removeAll(keepingCapacity: true)
            unflushed = true
            if !context.channel.isWritable {
                context.flush()
                unflushed = false
            }
        }
        if unflushed {
            if let stages = self.stages { stages.log.mark(stages.written) }
            context.flush()
        }
        self.isFlushing = false
        guard self.context != nil else { return }
        self.watch.openCallsChanged(self.role.openCallCount, now: .now)
        self.scheduleWatchIfDue()
        if self.codec.isFinished || (self.codec.failure != nil && context.channel.isWritable) {
            self.closeAfterOutput(context: context)
        }
    }

    /// Closes once everything written has left, or after a second.
    private func closeAfterOutput(context: ChannelHandlerContext) {
        guard !self.isClosing else { return }
        self.isClosing = true
        self.endReason = self.endReason ?? "the connection was closed after a GOAWAY"
        let bound = NIOLoopBound(context, eventLoop: self.eventLoop)
        let timer = self.eventLoop.scheduleTask(in: .seconds(1)) { bound.value.close(promise: nil) }
        context.writeAndFlush(self.wrapOutboundOut(ByteBuffer())).assumeIsolated()
            .whenComplete { _ in
                timer.cancel()
                bound.value.close(promise: nil)
            }
    }

    // MARK: - Time

    /// Leaves what the peer sends in the system's buffers for a while; what this side sends still leaves.
    private func pauseReading(for time: Duration, channel: any Channel) {
        guard !self.isReadingPaused, let options = channel.syncOptions else { return }
        self.isReadingPaused = true
        try? options.setOption(.autoRead, value: false)
        let bound = NIOLoopBound((self, channel), eventLoop: self.eventLoop)
        self.eventLoop.scheduleTask(in: time.timeAmount) {
            let (handler, channel) = bound.value
            handler.isReadingPaused = false
            // A channel that was closed meanwhile has no options any more.
            try? channel.syncOptions?.setOption(.autoRead, value: true)
        }
    }

    private func scheduleWatchIfDue() {
        if self.watchTimer == nil { self.scheduleWatch() }
    }

    private func scheduleWatch() {
        self.watchTimer = nil
        guard self.isOpen, let due = self.watch.nextDue else { return }
        let bound = NIOLoopBound(self, eventLoop: self.eventLoop)
        self.watchTimer = self.eventLoop.scheduleTask(in: (due - .now).timeAmount) { bound.value.watchFired() }
    }

    private func sweep(now: ContinuousClock.Instant) {
        if let limit = self.timing.stallTimeout, let channel = self.context?.channel {
            // Nothing is taken from the codec while the socket is full, so its count stands still.
            let stalled = self.socketStall.observe(
                isWaiting: !channel.isWritable,
                progress: self.drainedCount,
                now: now
            )
            if stalled >= limit {
                self.close(reason: "the peer read nothing for \(limit) while output was waiting")
                return
            }
        }
        self.role.sweep(now: now)
    }

    private func watchFired() {
        self.watchTimer = nil
        guard self.isOpen else { return }
        switch self.watch.timePassed(now: .now) {
        case .wait:
            break
        case .ping:
            self.codec.ping(opaque: 0)
            self.setNeedsFlush()
        case .drain:
            self.role.connectionIdled()
        case .abandon:
            self.role.connectionOverdue()
        case .sweep:
            self.sweep(now: .now)
        case .close(let reason):
            // Before the GOAWAY is written: its own end is no reason.
            self.endReason = self.endReason ?? reason
            self.codec.terminate(code: .settingsTimeout)
            self.flush()
            self.close(reason: reason)
        }
        self.scheduleWatch()
    }
}

// The handler belongs to its channel's event loop.
@available(*, unavailable)
extension ConnectionHandler: Sendable {}
