// SPDX-License-Identifier: Apache-2.0

public import NIOCore
internal import RPCCore

/// The messages of a streaming request, to be read once, by one task.
///
/// A handler that does not read stops the sender: the window is credited only for messages that were taken.
public struct RequestStream: AsyncSequence, Sendable {
    /// A message's bytes.
    public typealias Element = ByteBuffer

    let inbox: MessageInbox

    /// Reads the messages.
    public struct AsyncIterator: AsyncIteratorProtocol {
        let inbox: MessageInbox

        /// Takes the next message; nil after the last.
        ///
        /// - Throws: ``RPCError`` when the caller left, broke the protocol, or the task is cancelled.
        public mutating func next() async throws -> ByteBuffer? {
            try await self.inbox.next()
        }
    }

    /// Creates the iterator.
    public func makeAsyncIterator() -> AsyncIterator {
        AsyncIterator(inbox: self.inbox)
    }
}
