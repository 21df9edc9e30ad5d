// SPDX-License-Identifier: Apache-2.0

import Foundation
import Logging
import ServiceLifecycle

/// The processors that this process may use.
enum Processors {
    /// How many there are; a container's limit counts.
    static var count: Int { max(1, ProcessInfo.processInfo.activeProcessorCount) }
}

/// Ends the process gracefully once its standard input is closed.
///
/// A parent gives its children a pipe that it never writes to: however the parent ends, the pipe closes, and no child
/// is left behind.
struct StandardInputWatch: Service {
    var isEnabled: Bool

    func run() async throws {
        guard self.isEnabled else {
            try await gracefulShutdown()
            return
        }
        let (closed, source) = AsyncStream.makeStream(of: Never.self)
        // A read cannot be cancelled, so it has a thread of its own, which ends with the pipe or with the process.
        Thread.detachNewThread {
            while !FileHandle.standardInput.availableData.isEmpty {}
            source.finish()
        }
        await cancelWhenGracefulShutdown { for await _ in closed {} }
    }
}

/// Writes a service's address where the parent looks for it, once the service listens.
struct AddressAnnouncement: Service {
    var options: ServiceOptions
    var address: @Sendable () async throws -> String

    func run() async throws {
        // A service that is told to stop before it serves never has an address, and must not be waited for.
        do {
            try await cancelWhenGracefulShutdown {
                try self.options.announce(try await self.address())
            }
        } catch is CancellationError {
            return
        }
        try await gracefulShutdown()
    }
}
