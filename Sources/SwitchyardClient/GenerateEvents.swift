// SPDX-License-Identifier: Apache-2.0

internal import NIOCore
internal import RPCTransport
public import SwitchyardProtos

/// What happens while text is generated: tokens as they arrive, then the whole response, which is the last event.
///
/// To be read once, by one task. The call is cancelled when the events are dropped or the reading task is cancelled;
/// a slow reader slows down the gateway's sending, not its generation.
public struct GenerateEvents: AsyncSequence, Sendable {
    /// A token or the whole response.
    public typealias Element = GenerateEvent.Event

    /// What reading throws.
    public typealias Failure = GatewayError

    /// The messages of the call.
    let responses: ResponseStream

    /// Reads the events.
    public struct AsyncIterator: AsyncIteratorProtocol {
        /// The messages of the call.
        var messages: ResponseStream.AsyncIterator

        /// Whether the last event came.
        var isComplete = false

        /// Returns the next event; nil once the call has ended with the whole response.
        ///
        /// - Parameter actor: Where the reader runs.
        /// - Returns: The next event. Events that only newer gateways know are skipped.
        /// - Throws: ``GatewayError`` if the call failed or ended without its last event.
        public mutating func next(
            isolation actor: isolated (any Actor)? = #isolation
        ) async throws(GatewayError) -> GenerateEvent.Event? {
            do {
                while let message = try await self.messages.next() {
                    let event = try GenerateEvent(message: message)
                    if case .response = event.event {
                        self.isComplete = true
                    }
                    if let event = event.event {
                        return event
                    }
                }
            } catch {
                throw GatewayError(wrapping: error)
            }
            guard self.isComplete else {
                throw GatewayError(.internal, "the gateway ended the call without its final response")
            }
            return nil
        }
    }

    /// Creates the iterator.
    public func makeAsyncIterator() -> AsyncIterator {
        AsyncIterator(messages: self.responses.makeAsyncIterator())
    }
}
