// SPDX-License-Identifier: Apache-2.0

internal import NIOCore
internal import RPCCore

/// What a connection holds of requests that no handler has taken, and its place in the server's pool.
struct ReceiveAccount {
    var budget: ReceiveBudget
    /// Bytes that were dropped without the pool knowing.
    var droppedBytes = 0
    /// The server's pool and the connection's number there.
    var pool: (pool: ReceivePool, member: Int)?

    init(limits: TransportLimits) {
        self.budget = ReceiveBudget(
            limitBytes: limits.connectionReceiveBytes,
            // At most a thousandth of the budget escapes the server's count, on each connection.
            stepBytes: max(1, min(1 << 16, limits.connectionReceiveBytes >> 10))
        )
    }
}

extension ServerConnection {
    private static var now: UInt64 { NIODeadline.now().uptimeNanoseconds }

    /// A call holds another number of bytes that no handler has taken.
    ///
    /// May end calls, this one included.
    func holds(_ streamID: Int32, _ bytes: Int) {
        let mustReport = self.account.budget.changed(streamID, to: bytes, now: Self.now)
        if self.account.budget.heldBytes > self.account.budget.limitBytes { self.endCostliestCalls() }
        if mustReport { self.reportHeld() }
    }

    /// A call has ended with bytes that no handler ever takes.
    func dropped(_ bytes: Int) {
        self.account.droppedBytes += bytes
        guard self.account.droppedBytes >= self.account.budget.stepBytes else { return }
        self.account.pool?.pool.dropped(self.account.droppedBytes)
        self.account.droppedBytes = 0
    }

    /// The server's pool is over its limit, and of all calls it is one of this connection that has cost most.
    func endCostliestCall() {
        if let worst = self.account.budget.costliest(now: Self.now), let pool = self.account.pool?.pool {
            self.end(
                worst.call,
                "this server holds more than \(pool.limitBytes) bytes of unfinished requests, and this one is among those that it "
                    + "has held longest; send it again, and faster"
            )
        }
        // The pool waits for it, whether or not there was such a call.
        self.reportHeld()
    }

    /// The connection is gone, with all that it held.
    func releaseAccount() {
        self.account.pool?.pool.left(self.account.pool?.member ?? 0)
        self.account.pool = nil
    }

    private func endCostliestCalls() {
        while let call = self.account.budget.callToEnd(now: Self.now) {
            self.end(
                call,
                "more than \(self.account.budget.limitBytes) bytes of unfinished requests are on this connection; send fewer at a "
                    + "time, or over more connections"
            )
        }
    }

    private func end(_ streamID: Int32, _ message: String) {
        self.counts.callEndedForBudget()
        self.call(streamID)?.end(RPCError(.resourceExhausted, message))
        // A call that is over holds nothing, whatever it told.
        _ = self.account.budget.changed(streamID, to: 0, now: 0)
        self.setNeedsFlush()
    }

    private func reportHeld() {
        guard let (pool, member) = self.account.pool else { return }
        let now = Self.now
        let report = self.account.budget.report(now: now)
        let bound = NIOLoopBound(self, eventLoop: self.eventLoop)
        let eventLoop = self.eventLoop
        pool.reported(member, bytes: report.bytes, costliest: report.costliest, now: now) {
            eventLoop.execute { bound.value.endCostliestCall() }
        }
    }
}
