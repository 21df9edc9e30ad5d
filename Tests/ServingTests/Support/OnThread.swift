// SPDX-License-Identifier: Apache-2.0

import ServiceKit
import Synchronization

/// Runs code that blocks on a dedicated thread, as the engine does.
func onThread<Result: Sendable>(_ body: @escaping @Sendable () throws -> Result) async throws -> Result {
    let result = Mutex<Swift.Result<Result, any Error>?>(nil)
    try await ComputeThread.run(name: "test") {
        let value = Swift.Result { try body() }
        result.withLock { $0 = value }
    }
    guard let value = result.withLock({ $0 }) else {
        throw ThreadLost()
    }
    return try value.get()
}

struct ThreadLost: Error {}
