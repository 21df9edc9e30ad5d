// SPDX-License-Identifier: Apache-2.0

internal import NIOCore
internal import Synchronization

#if canImport(Glibc)
internal import Glibc
#elseif canImport(Musl)
internal import Musl
#endif

/// A client's stream socket on a ``DrivenEventLoop``, as NIO's pipelines see one.
///
/// It reads and writes as NIO's own channels do: at most four reads in a turn, nothing once a read did not fill its buffer,
/// one system call for all that was flushed, marks for what may wait.
final class SocketChannel: Channel, ChannelCore, @unchecked Sendable {
    // Safety: everything but atomics and constants belongs to the loop's driver.

    private enum State {
        case unconnected
        case connecting(EventLoopPromise<Void>?)
        case active
        case closed
    }

    /// How a channel reads and what may wait to be written.
    struct Options: Sendable {
        /// How large the pieces are that are read.
        var reads: AdaptiveRecvByteBufferAllocator
        /// From which number of waiting bytes on the channel is not writable, and from which it is again.
        var waterMark: ChannelOptions.Types.WriteBufferWaterMark
    }

    private static let readsInTurn = 4
    private static let writesInTurn = 16
    private static let buffersInWrite = 64

    private let loop: DrivenEventLoop
    private var socket: Descriptor?
    private var id: UInt64 = 0
    private var state = State.unconnected
    /// What the loop reports of the socket.
    private var interest = Poller.Readiness.reading
    private var reads: AdaptiveRecvByteBufferAllocator
    /// The memory that is read into, used again once those above have let go of it.
    private var readBuffer = ByteBuffer()
    private var readsAlways = true
    private var isReadWanted = false
    private var isWriting = false
    private var outbound: OutboundQueue<EventLoopPromise<Void>?>
    private let address: SocketAddress
    private let closePromise: EventLoopPromise<Void>
    private let activity = Atomic<Bool>(false)
    private let writability = Atomic<Bool>(true)

    let allocator = ByteBufferAllocator()
    private(set) lazy var pipeline = ChannelPipeline(channel: self)

    /// Creates a channel with a socket that is not connected; on the loop alone.
    ///
    /// - Parameters:
    ///   - address: What it will be connected to.
    ///   - loop: Its loop.
    ///   - options: How it reads and writes.
    /// - Throws: `IOError` where the system gives no socket.
    init(to address: SocketAddress, loop: DrivenEventLoop, options: Options) throws {
        self.socket = try address.newSocket()
        self.loop = loop
        self.address = address
        self.reads = options.reads
        self.outbound = OutboundQueue(low: options.waterMark.low, high: options.waterMark.high)
        self.closePromise = loop.makePromise()
        self.id = loop.add(self)
        // A pipeline is made on its loop.
        _ = self.pipeline
    }

    // MARK: - Channel

    var eventLoop: any EventLoop { self.loop }
    var closeFuture: EventLoopFuture<Void> { self.closePromise.futureResult }
    var localAddress: SocketAddress? { nil }
    var remoteAddress: SocketAddress? { self.address }
    var parent: (any Channel)? { nil }
    var isWritable: Bool { self.writability.load(ordering: .relaxed) }
    var isActive: Bool { self.activity.load(ordering: .relaxed) }
    var _channelCore: any ChannelCore { self }
    var syncOptions: (any NIOSynchronousChannelOptions)? { SyncOptions(channel: self) }

    func setOption<Option: ChannelOption>(_ option: Option, value: Option.Value) -> EventLoopFuture<Void> {
        self.loop.submit { try self.set(option, to: value) }
    }

    func getOption<Option: ChannelOption>(_ option: Option) -> EventLoopFuture<Option.Value> {
        self.loop.submit { try self.value(of: option) }
    }

    private struct SyncOptions: NIOSynchronousChannelOptions {
        let channel: SocketChannel

        func setOption<Option: ChannelOption>(_ option: Option, value: Option.Value) throws {
            try self.channel.set(option, to: value)
        }

        func getOption<Option: ChannelOption>(_ option: Option) throws -> Option.Value {
            try self.channel.value(of: option)
        }
    }

    private func set<Option: ChannelOption>(_ option: Option, to value: Option.Value) throws {
        guard !self.isClosed else { throw ChannelError.ioOnClosedChannel }
        guard option is ChannelOptions.Types.AutoReadOption, let readsAlways = value as? Bool else {
            throw ChannelError.operationUnsupported
        }
        self.readsAlways = readsAlways
        if readsAlways { self.pipeline.syncOperations.read() }
    }

    private func value<Option: ChannelOption>(of option: Option) throws -> Option.Value {
        let value: Bool? =
            switch option {
            case is ChannelOptions.Types.AutoReadOption: self.readsAlways
            case is ChannelOptions.Types.AllowRemoteHalfClosureOption: false
            default: nil
            }
        guard let value = value as? Option.Value else { throw ChannelError.operationUnsupported }
        return value
    }

    // MARK: - ChannelCore

    func localAddress0() throws -> SocketAddress { throw ChannelError.unknownLocalAddress }
    func remoteAddress0() throws -> SocketAddress { self.address }

    func register0(promise: EventLoopPromise<Void>?) {
        promise?.succeed(())
        self.pipeline.syncOperations.fireChannelRegistered()
    }

    func bind0(to address: SocketAddress, promise: EventLoopPromise<Void>?) {
        promise?.fail(ChannelError.operationUnsupported)
    }

    func connect0(to address: SocketAddress, promise: EventLoopPromise<Void>?) {
        guard case .unconnected = self.state, let socket = self.socket else {
            promise?.fail(ChannelError.inappropriateOperationForState)
            return
        }
        do {
            let isConnected = try socket.connect(to: address)
            self.interest = isConnected ? .reading : .writing
            try self.loop.poller.add(socket.number, id: self.id, self.interest)
            self.state = .connecting(promise)
            if isConnected { self.connected() }
        } catch {
            promise?.fail(error)
            self.close0(error: error, mode: .all, promise: nil)
        }
    }

    func write0(_ data: NIOAny, promise: EventLoopPromise<Void>?) {
        guard !self.isClosed else {
            promise?.fail(ChannelError.ioOnClosedChannel)
            return
        }
        guard let bytes = self.tryUnwrapData(data, as: ByteBuffer.self) else {
            promise?.fail(ChannelError.operationUnsupported)
            return
        }
        guard self.outbound.add(bytes, promise) else { return }
        self.writability.store(false, ordering: .relaxed)
        self.pipeline.syncOperations.fireChannelWritabilityChanged()
    }

    func flush0() {
        self.outbound.flush()
        // While the socket takes nothing, it tells when it does again.
        if case .active = self.state, !self.interest.contains(.writing) { self.writeFlushed() }
    }

    func read0() {
        guard !self.isClosed else { return }
        self.isReadWanted = true
        if case .active = self.state { self.want(self.interest.union(.reading)) }
    }

    func close0(error: any Error, mode: CloseMode, promise: EventLoopPromise<Void>?) {
        guard !self.isClosed else {
            promise?.fail(ChannelError.alreadyClosed)
            return
        }
        guard mode == .all else {
            promise?.fail(ChannelError.operationUnsupported)
            return
        }
        let (before, wasActive) = (self.state, self.isActive)
        self.state = .closed
        self.activity.store(false, ordering: .relaxed)
        if let socket = self.socket { self.loop.poller.remove(socket.number) }
        self.socket = nil
        self.loop.remove(self.id)
        let lost = self.outbound.end()
        // From here on the channel's users are called.
        for receipt in lost { receipt?.fail(error) }
        if case .connecting(let connecting) = before { connecting?.fail(error) }
        promise?.succeed(())
        if wasActive { self.pipeline.syncOperations.fireChannelInactive() }
        self.pipeline.syncOperations.fireChannelUnregistered()
        self.loop.execute {
            // Later, since a handler may be in the middle of an event.
            self.removeHandlers(pipeline: self.pipeline)
            self.closePromise.succeed(())
        }
    }

    func triggerUserOutboundEvent0(_ event: Any, promise: EventLoopPromise<Void>?) {
        promise?.fail(ChannelError.operationUnsupported)
    }

    func channelRead0(_ data: NIOAny) {}

    func errorCaught0(error: any Error) {}

    // MARK: - The socket's events

    /// The socket is ready, as the loop found.
    func ready(_ readiness: Poller.Readiness) {
        switch self.state {
        case .connecting:
            if readiness.has(any: [.writing, .ended]) { self.connectEnded() }
        case .active:
            if readiness.has(any: [.reading, .ended]) { self.readArrived(isEnding: readiness.has(any: .ended)) }
            if readiness.has(any: .writing), case .active = self.state { self.writeFlushed() }
        case .unconnected, .closed:
            break
        }
    }

    private var isClosed: Bool { if case .closed = self.state { true } else { false } }

    private func connectEnded() {
        guard let code = self.socket?.takeError() else { return }
        if code == 0 {
            self.connected()
        } else {
            self.close0(error: IOError(errnoCode: code, reason: "connect"), mode: .all, promise: nil)
        }
    }

    private func connected() {
        guard case .connecting(let promise) = self.state else { return }
        self.state = .active
        self.activity.store(true, ordering: .relaxed)
        self.want(.reading)
        promise?.succeed(())
        guard self.isActive else { return }
        self.pipeline.syncOperations.fireChannelActive()
        if self.readsAlways, !self.isClosed { self.pipeline.syncOperations.read() }
        if case .active = self.state, self.outbound.hasFlushed { self.writeFlushed() }
    }

    /// Has the loop report something else.
    private func want(_ interest: Poller.Readiness) {
        guard interest != self.interest, let socket = self.socket else { return }
        self.interest = interest
        do {
            try self.loop.poller.change(socket.number, id: self.id, interest)
        } catch {
            self.failed(error)
        }
    }

    private func failed(_ error: any Error) {
        self.pipeline.syncOperations.fireErrorCaught(error)
        if !self.isClosed { self.close0(error: error, mode: .all, promise: nil) }
    }

    // MARK: - Reading

    private enum ReadOutcome {
        case filled
        case some
        case none
        case end
        case failed(IOError)
    }

    private func readArrived(isEnding: Bool) {
        guard self.isReadWanted || isEnding else {
            self.want(self.interest.subtracting(.reading))
            return
        }
        self.isReadWanted = false
        var hasRead = false
        var outcome = ReadOutcome.none
        for _ in 0..<Self.readsInTurn {
            outcome = self.readOnce()
            switch outcome {
            case .filled:
                hasRead = true
                if case .active = self.state { continue }
            case .some: hasRead = true
            case .none, .end, .failed: break
            }
            break
        }
        if hasRead, !self.isClosed { self.pipeline.syncOperations.fireChannelReadComplete() }
        guard case .active = self.state else { return }
        switch outcome {
        case .end: self.close0(error: ChannelError.eof, mode: .all, promise: nil)
        case .failed(let error): self.failed(error)
        case .filled, .some, .none:
            if self.readsAlways, !self.isReadWanted { self.pipeline.syncOperations.read() }
        }
    }

    /// Reads a piece and hands it to the pipeline.
    private func readOnce() -> ReadOutcome {
        guard let socket = self.socket else { return .none }
        let room = self.reads.nextBufferSize() ?? 2_048
        self.readBuffer.clear(minimumCapacity: room)
        var result: Result<Int, IOError>?
        let count = self.readBuffer.writeWithUnsafeMutableBytes(minimumWritableBytes: room) { space in
            let outcome = socket.receive(UnsafeMutableRawBufferPointer(rebasing: space.prefix(room)))
            result = outcome
            if case .success(let count) = outcome { return count }
            return 0
        }
        switch result {
        case .failure(let error) where error.errnoCode == EAGAIN || error.errnoCode == EINTR: return .none
        case .failure(let error): return .failed(error)
        case .success(0), nil: return .end
        case .success: break
        }
        _ = self.reads.record(actualReadBytes: count)
        self.pipeline.syncOperations.fireChannelRead(NIOAny(self.readBuffer))
        return count == room ? .filled : .some
    }

    // MARK: - Writing

    private func writeFlushed() {
        guard !self.isWriting else { return }
        self.isWriting = true
        var becameWritable = false
        var failure: IOError?
        var isFull = false
        for _ in 0..<Self.writesInTurn {
            guard self.outbound.hasFlushed, let socket = self.socket else { break }
            let result =
                if let head = self.outbound.head, head.isOnly {
                    socket.send(head.bytes)
                } else {
                    socket.send(self.outbound.next(limit: Self.buffersInWrite))
                }
            switch result {
            case .success(let count):
                var finished: [EventLoopPromise<Void>?] = []
                if self.outbound.wrote(count, finished: &finished) { becameWritable = true }
                for receipt in finished { receipt?.succeed(()) }
                continue
            case .failure(let error) where error.errnoCode == EINTR: continue
            case .failure(let error) where error.errnoCode == EAGAIN: isFull = true
            case .failure(let error): failure = error
            }
            break
        }
        self.isWriting = false
        guard !self.isClosed else { return }
        if let failure {
            self.readLastWords()
            if !self.isClosed { self.failed(failure) }
            return
        }
        let isLeft = isFull || self.outbound.hasFlushed
        self.want(isLeft ? self.interest.union(.writing) : self.interest.subtracting(.writing))
        if becameWritable, !self.isClosed {
            self.writability.store(true, ordering: .relaxed)
            self.pipeline.syncOperations.fireChannelWritabilityChanged()
        }
    }

    /// A peer that takes no more may have said why.
    private func readLastWords() {
        var hasRead = false
        loop: while !self.isClosed {
            switch self.readOnce() {
            case .filled, .some: hasRead = true
            case .none, .end, .failed: break loop
            }
        }
        if hasRead, !self.isClosed { self.pipeline.syncOperations.fireChannelReadComplete() }
    }
}
