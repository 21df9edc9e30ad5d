// SPDX-License-Identifier: Apache-2.0

/// What an executor keeps from one layer to the next of the same rows, whose layers it gets one after another.
///
/// It is handed out with each request, and belongs to the thread that calls ``ExpertExecutor/begin(_:)``.
public final class ExecutorMemory: @unchecked Sendable {
    // Safety: read and written only in `begin`, and by one micro-batch, which belongs to one thread at a time.

    /// Any object of the executor's; of another executor's where the layers change hands, so look at its type.
    public var kept: AnyObject?

    /// Memory in which nothing is kept.
    public init() {}
}
