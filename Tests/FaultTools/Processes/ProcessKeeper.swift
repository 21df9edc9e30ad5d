// SPDX-License-Identifier: Apache-2.0

/// Starts processes at any time and outlives all of them.
package final class ProcessKeeper: Sendable {
    private let launches: AsyncStream<KeptProcess>
    private let source: AsyncStream<KeptProcess>.Continuation

    private init() {
        (self.launches, self.source) = AsyncStream.makeStream(of: KeptProcess.self)
    }

    /// Starts a process; its standard input is a pipe that closes with this process, however this process ends.
    ///
    /// - Parameter specification: What to start.
    /// - Returns: The process, which may not run yet.
    package func start(_ specification: ProcessSpecification) -> KeptProcess {
        let process = KeptProcess(specification)
        self.source.yield(process)
        return process
    }

    /// Runs a body; processes that it started and that still run are then asked to exit, and killed if they do not.
    ///
    /// - Parameter body: Starts processes.
    /// - Returns: What the body returns.
    /// - Throws: What the body throws.
    package static func with<Result: Sendable>(
        _ body: (ProcessKeeper) async throws -> Result
    ) async throws -> Result {
        let keeper = ProcessKeeper()
        return try await withThrowingTaskGroup(of: Void.self) { group in
            group.addTask {
                await withDiscardingTaskGroup { processes in
                    for await process in keeper.launches { processes.addTask { await process.run() } }
                    processes.cancelAll()
                }
            }
            let outcome: Swift.Result<Result, any Error>
            do {
                outcome = .success(try await body(keeper))
            } catch {
                outcome = .failure(error)
            }
            keeper.source.finish()
            group.cancelAll()
            try await group.waitForAll()
            return try outcome.get()
        }
    }
}
