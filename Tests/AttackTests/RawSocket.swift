// SPDX-License-Identifier: Apache-2.0

import Foundation

/// A TCP connection whose bytes are written by hand and whose frames are noted down.
///
/// Plain calls on a socket that never blocks: what the other side said before it reset the connection is still read,
/// which a library that closes on the first failed write would throw away. One thread uses it at a time.
final class RawSocket {
    /// What the other side has sent so far.
    struct Seen {
        /// Frames by type; types above 10 are counted at 10.
        var frames = [Int](repeating: 0, count: 11)
        /// Streams that were reset, and with what.
        var resets: [UInt32: UInt32] = [:]
        /// The code of the last GOAWAY.
        var goAway: UInt32?
        /// The debug data of the last GOAWAY.
        var goAwayText = ""
        /// Header blocks by stream, in their order.
        var blocks: [UInt32: [[String: String]]] = [:]
        /// Streams that the other side ended.
        var ended: Set<UInt32> = []
        /// Bytes of DATA by stream.
        var data: [UInt32: [UInt8]] = [:]
        /// What the other side has added to its windows by stream; 0 is the connection's.
        var credit: [UInt32: Int] = [:]
        /// Whether the connection is over.
        var isClosed = false

        /// The value of a field in any block of a stream; the last one where there are several.
        func field(_ name: String, streamID: UInt32 = 1) -> String? {
            self.blocks[streamID]?.compactMap { $0[name] }.last
        }
    }

    /// Seconds after which something is taken for a hang.
    static let patience = 120.0

    private let descriptor: Int32
    private let inflater: HeaderInflater?
    private var unread: [UInt8] = []
    private(set) var seen = Seen()
    /// Whether anything is read at all.
    var reads = true

    /// Connects to a server on this machine.
    init(port: Int) throws {
        self.descriptor = socket(AF_INET, Int32(SOCK_STREAM.rawValue), 0)
        self.inflater = HeaderInflater()
        var address = loopback(port: port)
        let result = withUnsafeBytes(of: &address) { bytes in
            bytes.withMemoryRebound(to: sockaddr.self) { connect(self.descriptor, $0.baseAddress, sockaddrSize) }
        }
        guard result == 0 else { throw SocketError(call: "connect", code: errno) }
        self.prepare()
    }

    /// Takes over a connection that a listener accepted.
    init(accepted descriptor: Int32) {
        self.descriptor = descriptor
        self.inflater = HeaderInflater()
        self.prepare()
    }

    deinit { close(self.descriptor) }

    private func prepare() {
        _ = fcntl(self.descriptor, F_SETFL, fcntl(self.descriptor, F_GETFL) | O_NONBLOCK)
        var on: Int32 = 1
        setsockopt(self.descriptor, Int32(IPPROTO_TCP), TCP_NODELAY, &on, socklen_t(MemoryLayout<Int32>.size))
    }

    /// Writes bytes, and reads meanwhile.
    ///
    /// - Parameters:
    ///   - bytes: What to write.
    ///   - seconds: How long the other side may refuse to take them.
    /// - Returns: False once the connection is over or the other side stopped reading.
    @discardableResult
    func send(_ bytes: [UInt8], within seconds: Double = RawSocket.patience) -> Bool {
        var offset = 0
        let end = Self.now + seconds
        while offset < bytes.count, !self.seen.isClosed {
            let count = bytes.withUnsafeBytes { raw in
                Glibc.send(
                    self.descriptor,
                    raw.baseAddress.map { $0 + offset },
                    raw.count - offset,
                    Int32(truncatingIfNeeded: MSG_NOSIGNAL)
                )
            }
            if count > 0 {
                offset += count
                self.receive()
            } else if errno == EAGAIN {
                guard Self.now < end else { return false }
                self.poll(Int16(POLLOUT) | (self.reads ? Int16(POLLIN) : 0), milliseconds: 50)
                self.receive()
            } else if errno != EINTR {
                self.receive()
                self.seen.isClosed = true
            }
        }
        return !self.seen.isClosed
    }

    /// This end's port, by which the other side knows the connection.
    var localPort: Int {
        var address = sockaddr_in()
        var size = sockaddrSize
        let result = withUnsafeMutableBytes(of: &address) { bytes in
            bytes.withMemoryRebound(to: sockaddr.self) { getsockname(self.descriptor, $0.baseAddress, &size) }
        }
        return result == 0 ? Int(UInt16(bigEndian: address.sin_port)) : 0
    }

    /// Says that no more will be written.
    func finishSending() { shutdown(self.descriptor, Int32(SHUT_WR)) }

    /// Reads until something holds, the connection is over or the time is up.
    ///
    /// - Returns: Whether it holds.
    @discardableResult
    func wait(_ seconds: Double = RawSocket.patience, until holds: (Seen) -> Bool) -> Bool {
        let end = Self.now + seconds
        self.receive()
        while !holds(self.seen) {
            guard !self.seen.isClosed, Self.now < end else { return false }
            self.poll(Int16(POLLIN), milliseconds: 50)
            self.receive()
        }
        return true
    }

    /// Reads until the connection is over; returns false where it is still there after the time.
    @discardableResult
    func waitForClose(_ seconds: Double = RawSocket.patience) -> Bool { self.wait(seconds) { $0.isClosed } }

    private func poll(_ events: Int16, milliseconds: Int32) {
        var entry = pollfd(fd: self.descriptor, events: events, revents: 0)
        _ = Glibc.poll(&entry, 1, milliseconds)
    }

    private func receive() {
        guard self.reads else { return }
        var chunk = [UInt8](repeating: 0, count: 1 << 16)
        while !self.seen.isClosed {
            let count = recv(self.descriptor, &chunk, chunk.count, 0)
            if count > 0 {
                self.unread.append(contentsOf: chunk[..<count])
            } else if count == 0 {
                self.seen.isClosed = true
            } else if errno != EINTR {
                if errno != EAGAIN { self.seen.isClosed = true }
                break
            }
        }
        self.cut()
    }

    /// Cuts what arrived into frames.
    private func cut() {
        var offset = 0
        // A client's preface ahead of its frames.
        if self.unread.starts(with: Frames.magic) { offset = Frames.magic.count }
        while self.unread.count - offset >= 9 {
            let head = self.unread[offset..<offset + 9].map(Int.init)
            let length = head[0] << 16 | head[1] << 8 | head[2]
            guard self.unread.count - offset >= 9 + length else { break }
            let stream = head[5] << 24 | head[6] << 16 | head[7] << 8 | head[8]
            let payload = Array(self.unread[offset + 9..<offset + 9 + length])
            self.note(type: head[3], flags: head[4], UInt32(truncatingIfNeeded: stream), payload)
            offset += 9 + length
        }
        self.unread.removeFirst(offset)
    }

    private func note(type: Int, flags: Int, _ stream: UInt32, _ payload: [UInt8]) {
        self.seen.frames[min(type, 10)] += 1
        if flags & 1 == 1, type <= 1 { self.seen.ended.insert(stream) }
        func number(_ offset: Int) -> UInt32 {
            payload.dropFirst(offset).prefix(4).reduce(0) { $0 << 8 | UInt32($1) }
        }
        switch type {
        case 0: self.seen.data[stream, default: []] += payload.prefix(64)
        case 1:
            let block = flags & 0x20 == 0 ? payload : Array(payload.dropFirst(5))
            self.seen.blocks[stream, default: []].append(self.inflater?.fields(of: block) ?? [:])
        case 3: self.seen.resets[stream] = number(0)
        case 8: self.seen.credit[stream, default: 0] += Int(number(0))
        case 7:
            self.seen.goAway = number(4)
            self.seen.goAwayText = String(decoding: payload.dropFirst(8), as: UTF8.self)
        default: break
        }
    }

    private static var now: Double { Double(DispatchTime.now().uptimeNanoseconds) / 1e9 }
}

/// A listening socket on a free port of this machine.
final class RawListener {
    private let descriptor: Int32
    /// The port.
    let port: Int

    init(port: Int = 0) throws {
        self.descriptor = socket(AF_INET, Int32(SOCK_STREAM.rawValue), 0)
        var on: Int32 = 1
        setsockopt(self.descriptor, SOL_SOCKET, SO_REUSEADDR, &on, socklen_t(MemoryLayout<Int32>.size))
        var address = loopback(port: port)
        var size = sockaddrSize
        let result = withUnsafeMutableBytes(of: &address) { [descriptor] bytes in
            bytes.withMemoryRebound(to: sockaddr.self) { address -> Int32 in
                guard bind(descriptor, address.baseAddress, size) == 0, listen(descriptor, 16) == 0 else { return -1 }
                return getsockname(descriptor, address.baseAddress, &size)
            }
        }
        guard result == 0 else { throw SocketError(call: "bind", code: errno) }
        self.port = Int(UInt16(bigEndian: address.sin_port))
    }

    deinit { close(self.descriptor) }

    /// Waits for a connection; nil where none comes in time.
    func accept(within milliseconds: Int32) -> RawSocket? {
        var entry = pollfd(fd: self.descriptor, events: Int16(POLLIN), revents: 0)
        guard Glibc.poll(&entry, 1, milliseconds) == 1 else { return nil }
        let descriptor = Glibc.accept(self.descriptor, nil, nil)
        return descriptor < 0 ? nil : RawSocket(accepted: descriptor)
    }
}

/// A call on a socket that failed.
struct SocketError: Error {
    var call: String
    var code: Int32
}

private let sockaddrSize = socklen_t(MemoryLayout<sockaddr_in>.size)

private func loopback(port: Int) -> sockaddr_in {
    var address = sockaddr_in()
    address.sin_family = sa_family_t(AF_INET)
    address.sin_port = UInt16(truncatingIfNeeded: port).bigEndian
    address.sin_addr.s_addr = UInt32(0x7f00_0001).bigEndian
    return address
}
