// SPDX-License-Identifier: Apache-2.0

internal import RPCCore

/// A call whose handler runs in its own task.
struct AcceptedCall: Sendable {
    let shared: ServerCallShared
    let body: @Sendable () async -> Void

    /// Runs the handler and cancels its task once no caller waits for the answer.
    func run() async {
        await withDiscardingTaskGroup { group in
            group.addTask { [body = self.body, shared = self.shared] in
                await body()
                // The answer is on its way to the event loop; what comes from the peer now no longer matters here.
                shared.finish()
            }
            await self.shared.waitUntilOver()
            group.cancelAll()
        }
    }
}

extension RPCError {
    /// The status of a call whose handler threw.
    static func thrown(_ error: any Error) -> RPCError {
        switch error {
        case let error as RPCError: error
        case is CancellationError: RPCError(.cancelled, "the call was cancelled", cause: error)
        default: RPCError(.unknown, "the method failed", cause: error)
        }
    }
}
