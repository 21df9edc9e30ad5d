// SPDX-License-Identifier: Apache-2.0

public import NIOCore
public import RPCCore
internal import Synchronization

/// The messages of a streaming response, to be read once, by one task.
///
/// A slow reader slows the server down: the window is credited only for messages that were taken. The call is cancelled
/// when the stream and its iterators are released before its end, and when the reading task is cancelled.
public struct ResponseStream: AsyncSequence, Sendable {
    /// A message's bytes.
    public typealias Element = ByteBuffer

    let inbox: MessageInbox
    let details: ResponseDetails
    let lease: CallLease

    /// What the server sent before the first message; empty until it has arrived.
    public var initialMetadata: Metadata { self.details.initial }

    /// What the server sent with the status; empty until the call has ended.
    public var trailingMetadata: Metadata { self.details.trailing }

    /// Lets the caller give up on the call.
    public var handle: CallHandle { CallHandle(token: self.lease.token) }

    /// Reads the messages.
    public struct AsyncIterator: AsyncIteratorProtocol {
        let inbox: MessageInbox
        let lease: CallLease

        /// Takes the next message; nil when the call ended with `OK`.
        ///
        /// - Throws: ``RPCError`` when the call ended otherwise.
        public mutating func next() async throws -> ByteBuffer? {
            let lease = self.lease
            return try await withTaskCancellationHandler {
                try await self.inbox.next()
            } onCancel: {
                lease.token.cancel()
            }
        }
    }

    /// Creates the iterator.
    public func makeAsyncIterator() -> AsyncIterator {
        AsyncIterator(inbox: self.inbox, lease: self.lease)
    }
}

/// Cancels a call when its last reference goes; a call that has ended is not affected.
final class CallLease: Sendable {
    let token: CallToken

    init(token: CallToken) {
        self.token = token
    }

    deinit {
        self.token.cancel()
    }
}

/// The metadata of a streaming response, which arrives alongside the messages.
final class ResponseDetails: Sendable {
    private let state = Mutex((initial: Metadata(), trailing: Metadata()))

    var initial: Metadata { self.state.withLock { $0.initial } }
    var trailing: Metadata { self.state.withLock { $0.trailing } }

    func setInitial(_ metadata: Metadata) { self.state.withLock { $0.initial = metadata } }
    func end(trailing metadata: Metadata) { self.state.withLock { $0.trailing = metadata } }
}
