// SPDX-License-Identifier: Apache-2.0

internal import NIOCore
internal import NIOPosix
internal import SwitchyardTypes

#if canImport(Glibc)
internal import Glibc
#elseif canImport(Musl)
internal import Musl
#endif

/// One attempt to connect a channel of a ``DrivenEventLoop``.
///
/// Of a name's addresses the next one is tried when one has failed, or has not answered for a quarter of a second (RFC 8305, section 5);
/// the first that answers is kept.
final class Dial {
    /// How long one address is tried alone.
    private static let alone = TimeAmount.milliseconds(250)

    private let loop: DrivenEventLoop
    private let options: SocketChannel.Options
    private let timeout: TimeAmount
    private let prepare: (any Channel) throws -> Void
    private let promise: EventLoopPromise<any Channel>
    private var addresses: ArraySlice<SocketAddress> = []
    private var pending: [SocketChannel] = []
    private var isOver = false
    private var timers: [Scheduled<Void>] = []
    private var lastFailure: any Error = ChannelError.eof

    /// Begins to connect; on the loop alone.
    ///
    /// - Parameters:
    ///   - host: A name, an address, or a Unix socket's.
    ///   - port: The port.
    ///   - loop: The loop.
    ///   - timeout: How long the attempt may take.
    ///   - options: How the channel reads and writes.
    ///   - prepare: Builds a channel's pipeline, before it is connected.
    /// - Returns: The connected channel.
    static func begin(
        host: String,
        port: Int,
        on loop: DrivenEventLoop,
        timeout: TimeAmount,
        options: SocketChannel.Options,
        prepare: @escaping (any Channel) throws -> Void
    ) -> EventLoopFuture<any Channel> {
        let promise = loop.makePromise(of: (any Channel).self)
        let dial = Dial(loop: loop, options: options, timeout: timeout, prepare: prepare, promise: promise)
        dial.begin(host: host, port: port)
        return promise.futureResult
    }

    private init(
        loop: DrivenEventLoop,
        options: SocketChannel.Options,
        timeout: TimeAmount,
        prepare: @escaping (any Channel) throws -> Void,
        promise: EventLoopPromise<any Channel>
    ) {
        self.loop = loop
        self.options = options
        self.timeout = timeout
        self.prepare = prepare
        self.promise = promise
    }

    private func begin(host: String, port: Int) {
        guard !self.loop.isEnded else { return self.end(.failure(EventLoopError.shutdown)) }
        let bound = NIOLoopBound(self, eventLoop: self.loop)
        let limit = self.timeout
        self.timers.append(
            self.loop.scheduleTask(in: limit) { bound.value.end(.failure(ChannelError.connectTimeout(limit))) }
        )
        do {
            if let socket = UnixAddress(host: host) {
                self.addresses = [try SocketAddress(unixDomainSocketPath: socket.path)]
                self.tryNext()
            } else if let address = try? SocketAddress(ipAddress: host, port: port) {
                self.addresses = [address]
                self.tryNext()
            } else {
                let lookup: EventLoopFuture<[SocketAddress]> = NIOThreadPool.singleton.runIfActive(
                    eventLoop: self.loop
                ) { () -> [SocketAddress] in
                    Dial.lookUp(host, port: port)
                }
                lookup.whenComplete { (result: Result<[SocketAddress], any Error>) in
                    let dial = bound.value
                    if case .success(let found) = result { dial.addresses = found[...] }
                    if dial.addresses.isEmpty {
                        dial.lastFailure = UnknownName()
                    }
                    dial.tryNext()
                }
            }
        } catch {
            self.end(.failure(error))
        }
    }

    /// Tries the next address, if there is one.
    private func tryNext() {
        guard !self.isOver else { return }
        guard let address = self.addresses.popFirst() else {
            if self.pending.isEmpty { self.end(.failure(self.lastFailure)) }
            return
        }
        do {
            let channel = try SocketChannel(to: address, loop: self.loop, options: self.options)
            self.pending.append(channel)
            let bound = NIOLoopBound((dial: self, channel: channel), eventLoop: self.loop)
            do {
                try self.prepare(channel)
            } catch {
                channel.close0(error: error, mode: .all, promise: nil)
                self.failed(channel, error)
                return
            }
            channel.register0(promise: nil)
            let connected = self.loop.makePromise(of: Void.self)
            connected.futureResult.whenComplete { result in
                let (dial, channel) = bound.value
                switch result {
                case .success: dial.end(.success(channel))
                case .failure(let error): dial.failed(channel, error)
                }
            }
            if !self.addresses.isEmpty {
                self.timers.append(self.loop.scheduleTask(in: Self.alone) { bound.value.dial.tryNext() })
            }
            channel.connect0(to: address, promise: connected)
        } catch {
            self.lastFailure = error
            self.tryNext()
        }
    }

    private func failed(_ channel: SocketChannel, _ error: any Error) {
        self.pending.removeAll { $0 === channel }
        guard !self.isOver else { return }
        self.lastFailure = error
        self.tryNext()
    }

    private func end(_ result: Result<any Channel, any Error>) {
        guard !self.isOver else {
            // Two answered at the same time.
            if case .success(let channel) = result { channel.close(promise: nil) }
            return
        }
        self.isOver = true
        for timer in self.timers { timer.cancel() }
        self.timers = []
        let others = self.pending
        self.pending = []
        for channel in others {
            if case .success(let kept) = result, kept === channel { continue }
            channel.close0(error: ChannelError.connectTimeout(self.timeout), mode: .all, promise: nil)
        }
        self.promise.completeWith(result)
    }

    /// All addresses of a name, each once, in the resolver's order; blocks.
    private static func lookUp(_ name: String, port: Int) -> [SocketAddress] {
        var hints = addrinfo()
        hints.ai_socktype = CInt(SOCK_STREAM.rawValue)
        var list: UnsafeMutablePointer<addrinfo>?
        guard getaddrinfo(name, String(port), &hints, &list) == 0 else { return [] }
        defer { freeaddrinfo(list) }
        var found: [SocketAddress] = []
        var entry = list
        while let info = entry?.pointee {
            entry = info.ai_next
            guard let address = info.ai_addr, let made = SocketAddress(address, family: info.ai_family) else {
                continue
            }
            if !found.contains(made) { found.append(made) }
        }
        return found
    }
}

/// A name stands for no address.
struct UnknownName: Error {}

// An attempt belongs to its loop.
@available(*, unavailable)
extension Dial: Sendable {}

extension SocketAddress {
    /// The address of a resolver's answer; nil for a family that is neither IPv4 nor IPv6.
    fileprivate init?(_ address: UnsafePointer<sockaddr>, family: CInt) {
        switch family {
        case AF_INET:
            self.init(address.withMemoryRebound(to: sockaddr_in.self, capacity: 1) { $0.pointee })
        case AF_INET6:
            self.init(address.withMemoryRebound(to: sockaddr_in6.self, capacity: 1) { $0.pointee })
        default: return nil
        }
    }
}
