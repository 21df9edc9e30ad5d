// SPDX-License-Identifier: Apache-2.0

internal import NIOCore
internal import Synchronization

/// A TCP relay before an expert host that, on request, says GOAWAY in place of the first answer to a layer, and then nothing.
///
/// The first call of a connection, with which a gateway asks the host what it holds, is still answered. So a gateway that
/// connects again finds a healthy host, as often as it likes.
package final class GoAwayRelay: Sendable {
    /// `host:port`.
    package let address: String
    private let mode: Mode

    private init(address: String, mode: Mode) {
        self.address = address
        self.mode = mode
    }

    /// From now on leaves connections silently after GOAWAY, or serves new ones as the host does.
    package func leave(_ isLeaving: Bool) { self.mode.isLeaving.withLock { $0 = isLeaving } }

    /// How many connections were left.
    package var left: Int { self.mode.left.withLock { $0 } }

    /// Runs a relay while a body runs.
    ///
    /// - Parameters:
    ///   - honest: `host:port` of the true host.
    ///   - body: Gets the relay, which at first forwards what it reads.
    /// - Returns: What the body returns.
    /// - Throws: What the body throws; errors of listening.
    package static func with<Result: Sendable>(
        before honest: String,
        _ body: (GoAwayRelay) async throws -> Result
    ) async throws -> Result {
        let mode = Mode()
        return try await Relay.with(
            before: honest,
            filter: { Filter(mode: mode) },
            body: { address in try await body(GoAwayRelay(address: address, mode: mode)) }
        )
    }

    /// Whether connections are left now.
    private final class Mode: Sendable {
        let isLeaving = Mutex(false)
        let left = Mutex(0)
    }

    /// Hands frames on until it says GOAWAY.
    private struct Filter: RelayFilter {
        let mode: Mode
        var cutter = FrameCutter()
        var isSilent = false

        mutating func pass(_ bytes: ByteBuffer) -> ByteBuffer {
            var passed = ByteBuffer()
            for frame in self.cutter.take(Array(bytes.readableBytesView)) where !self.isSilent {
                // Stream 1 carries the first call.
                if frame.stream > 1, self.mode.isLeaving.withLock({ $0 }) {
                    self.isSilent = true
                    self.mode.left.withLock { $0 += 1 }
                    passed.writeBytes(HostileFrames.politeGoAway)
                } else {
                    passed.writeBytes(frame.bytes)
                }
            }
            return passed
        }
    }
}
