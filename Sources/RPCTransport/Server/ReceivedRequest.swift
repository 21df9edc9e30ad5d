// SPDX-License-Identifier: Apache-2.0

internal import HTTP2Session
internal import RPCCore

/// A request's parsed header block, kept so that the next call with the same block need not parse it.
final class ReceivedRequest: Sendable {
    /// What the block is, `grpc-timeout` aside.
    let parsed: RequestHead.Parsed
    /// The method that it calls, if this server has it.
    let method: ServiceMethod?
    /// The caller's own key-value pairs.
    let metadata: Metadata
    /// What counts the calls of that method.
    let counts: ServerCounts.MethodCounts

    init(_ parsed: RequestHead.Parsed, methods: [Method: ServiceMethod], counts: ServerCounts) {
        self.parsed = parsed
        self.method = if case .call(let head) = parsed { methods[head.method] } else { nil }
        self.metadata = if case .call(let head) = parsed { head.metadata } else { Metadata() }
        self.counts = counts.counts(of: self.method?.method)
    }

    /// The head of a call; nil for a rejected call.
    var head: RequestHead? {
        if case .call(let head) = self.parsed { head } else { nil }
    }
}

/// The last few repeated header blocks, parsed.
struct RecurringBlocks<Made> {
    /// As many as the codec recognises.
    private static var limit: Int { 8 }

    private var known: [(id: Int, made: Made)] = []
    private var nextReplaced = 0

    /// A parsed block, parsed now if it is new.
    mutating func made(of block: HTTP2HeaderBlock, _ make: () -> Made) -> Made {
        guard let id = block.recurrence else { return make() }
        for entry in self.known where entry.id == id { return entry.made }
        let made = make()
        if self.known.count < Self.limit {
            self.known.append((id, made))
        } else {
            self.known[self.nextReplaced] = (id, made)
            self.nextReplaced = (self.nextReplaced + 1) % Self.limit
        }
        return made
    }
}
