// SPDX-License-Identifier: Apache-2.0

/// One client's request.
package struct SimulatedRequest: Sendable, Equatable, CustomStringConvertible {
    /// Its number in the run.
    package var id: Int
    /// When its client sends it, nanoseconds.
    package var time: Int64
    /// Which client sends it.
    package var client: Int
    /// Where its rows come from.
    package var seed: UInt64
    /// Tokens of its input.
    package var inputTokens: Int
    /// Tokens that it asks for.
    package var outputTokens: Int
    /// Decoder rows that it takes.
    package var slots = 1
    /// How long its client waits, nanoseconds; nil for ever.
    package var timeout: Int64?
    /// When its client gives up after sending it, nanoseconds; nil never.
    package var cancelAfter: Int64?
    /// How long it may wait to join, milliseconds; 0 without a limit.
    package var queueTimeout = 0
    /// 0 high, 1 normal, 2 low.
    package var priority = 1
    /// Whether it is sent after everything has healed, and so must get all of its tokens.
    package var isEpilogue = false

    /// For people.
    package var description: String {
        var text = "request \(self.id) at \(milliseconds(self.time)) by client \(self.client): \(self.inputTokens) + "
        text += "\(self.outputTokens) tokens, \(self.slots) slots"
        if let timeout = self.timeout { text += ", deadline after \(milliseconds(timeout))" }
        if let cancel = self.cancelAfter { text += ", cancelled after \(milliseconds(cancel))" }
        if self.queueTimeout > 0 { text += ", waits at most \(self.queueTimeout) ms" }
        return text
    }
}

/// A time for people.
func milliseconds(_ nanoseconds: Int64) -> String {
    let microseconds = nanoseconds / 1000
    let rest = String(1000 + abs(microseconds % 1000)).dropFirst()
    return "\(microseconds / 1000).\(rest) ms"
}
