// SPDX-License-Identifier: Apache-2.0

internal import NIOCore
internal import Synchronization

/// A TCP relay before an expert host that, on request, sends random bytes in place of the host's.
///
/// Calls in flight then break in the middle of a connection; later connections get random bytes from the start.
package final class GarbageRelay: Sendable {
    /// `host:port`.
    package let address: String
    private let mode: Mode

    private init(address: String, mode: Mode) {
        self.address = address
        self.mode = mode
    }

    /// From now on sends random bytes, or the host's own again.
    package func speakGarbage(_ isGarbage: Bool) { self.mode.isGarbage.withLock { $0 = isGarbage } }

    /// How many random bytes were sent.
    package var drawn: Int { self.mode.drawn.withLock { $0 } }

    /// Runs a relay while a body runs.
    ///
    /// - Parameters:
    ///   - honest: `host:port` of the true host.
    ///   - body: Gets the relay, which at first forwards what it reads.
    /// - Returns: What the body returns.
    /// - Throws: What the body throws; errors of listening.
    package static func with<Result: Sendable>(
        before honest: String,
        _ body: (GarbageRelay) async throws -> Result
    ) async throws -> Result {
        let mode = Mode()
        return try await Relay.with(
            before: honest,
            filter: { Filter(mode: mode) },
            body: { address in try await body(GarbageRelay(address: address, mode: mode)) }
        )
    }

    /// Whether relays send garbage now.
    private final class Mode: Sendable {
        let isGarbage = Mutex(false)
        let drawn = Mutex(0)
    }

    /// Draws a byte for each of the host's.
    private struct Filter: RelayFilter {
        let mode: Mode
        var generator = SystemRandomNumberGenerator()

        mutating func pass(_ bytes: ByteBuffer) -> ByteBuffer {
            guard self.mode.isGarbage.withLock({ $0 }) else { return bytes }
            self.mode.drawn.withLock { $0 += bytes.readableBytes }
            return ByteBuffer(
                bytes: (0..<bytes.readableBytes).map { _ in UInt8.random(in: .min ... .max, using: &self.generator) }
            )
        }
    }
}
