// SPDX-License-Identifier: Apache-2.0

internal import Synchronization

/// How many bytes of HTTP/2 have crossed some connections; what TLS adds is not counted.
///
/// Event loops add to it once for each read and each flush.
public final class TrafficCounts: Sendable {
    private let received = Atomic<UInt64>(0)
    private let sent = Atomic<UInt64>(0)

    /// Creates counts of nothing.
    public init() {}

    /// Bytes that peers sent.
    public var receivedBytes: UInt64 { self.received.load(ordering: .relaxed) }

    /// Bytes that were sent to peers.
    public var sentBytes: UInt64 { self.sent.load(ordering: .relaxed) }

    func received(_ byteCount: Int) {
        self.received.wrappingAdd(UInt64(byteCount), ordering: .relaxed)
    }

    func sent(_ byteCount: Int) {
        self.sent.wrappingAdd(UInt64(byteCount), ordering: .relaxed)
    }
}
