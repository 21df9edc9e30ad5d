// SPDX-License-Identifier: Apache-2.0

internal import Foundation
internal import Synchronization

/// Delays every packet that arrives from one host: the packet waits in a queue of the kernel until it is due.
///
/// The kernel has a scheduler that does this (`tc netem`), but not every kernel was built with it.
package final class PacketDelay: Sendable {
    private static let queue: UInt16 = 100

    private let descriptor: Int32
    private let delay: Duration
    private let mayRun = Mutex(true)
    private let isDone = Mutex(false)

    /// Delays packets while a body runs.
    ///
    /// - Parameters:
    ///   - host: Whose packets; those that it sends.
    ///   - delay: How long each waits.
    ///   - body: Runs meanwhile.
    /// - Returns: What the body returns.
    /// - Throws: What the body throws; ``FaultError`` where the kernel has no such queue.
    package static func with<Result: Sendable>(
        _ host: LabHost,
        by delay: Duration,
        body: () async throws -> Result
    ) async throws -> Result {
        let packets = try PacketDelay(delay)
        Thread.detachNewThread { packets.run() }
        let rule = [
            "PREROUTING", "-s", host.address, "-j", "NFQUEUE", "--queue-num", "\(Self.queue)", "--queue-bypass",
        ]
        let outcome: Swift.Result<Result, any Error>
        do {
            try await Tool.run("iptables", ["-t", "mangle", "-A"] + rule)
            outcome = .success(try await body())
        } catch {
            outcome = .failure(error)
        }
        _ = try? await Tool.run("iptables", ["-t", "mangle", "-D"] + rule)
        packets.mayRun.withLock { $0 = false }
        while !packets.isDone.withLock({ $0 }) { try? await Task.sleep(for: .milliseconds(5)) }
        return try outcome.get()
    }

    private init(_ delay: Duration) throws {
        self.delay = delay
        // AF_NETLINK, SOCK_RAW | SOCK_NONBLOCK, NETLINK_NETFILTER; the imported constants have other types.
        self.descriptor = socket(16, 3 | 0o4000, 12)
        guard self.descriptor >= 0 else { throw Self.failure("socket") }
        // A sockaddr_nl of zeros after the family lets the kernel choose the address. It is written as bytes: which imported
        // module has sockaddr's members depends on what else is compiled with this file.
        var address = [UInt8](repeating: 0, count: 16)
        address[0] = 16
        // Safety: the kernel reads 12 bytes during the call, and there are 16.
        let result = address.withUnsafeBytes { bytes in
            bytes.withMemoryRebound(to: sockaddr.self) { bind(self.descriptor, $0.baseAddress, 12) }
        }
        guard result == 0 else { throw Self.failure("bind") }
        for message in PacketQueueMessage.bind(queue: Self.queue) {
            guard send(self.descriptor, message, message.count, 0) == message.count else { throw Self.failure("send") }
        }
    }

    private static func failure(_ call: String) -> FaultError {
        FaultError("the kernel's packet queue cannot be used: \(call): \(String(cString: strerror(errno)))")
    }

    /// The thread: packets come in order and wait equally long, so they leave in order.
    private func run() {
        var waiting: [(packet: UInt32, due: ContinuousClock.Instant)] = []
        var first = 0
        var buffer = [UInt8](repeating: 0, count: 1 << 16)
        // Packets that still wait are released before the thread ends.
        while self.mayRun.withLock({ $0 }) || first < waiting.count {
            var ready = pollfd(fd: self.descriptor, events: Int16(POLLIN), revents: 0)
            poll(&ready, 1, first < waiting.count ? 1 : 20)
            while true {
                let count = recv(self.descriptor, &buffer, buffer.count, 0)
                guard count > 0 else { break }
                let due = ContinuousClock.now.advanced(by: self.delay)
                waiting += PacketQueueMessage.packets(in: buffer[..<count]).map { ($0, due) }
            }
            while first < waiting.count, waiting[first].due <= .now {
                let message = PacketQueueMessage.accept(waiting[first].packet, queue: Self.queue)
                _ = send(self.descriptor, message, message.count, 0)
                first += 1
            }
            if first == waiting.count {
                waiting.removeAll(keepingCapacity: true)
                first = 0
            }
        }
        close(self.descriptor)
        self.isDone.withLock { $0 = true }
    }
}
