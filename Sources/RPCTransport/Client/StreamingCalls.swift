// SPDX-License-Identifier: Apache-2.0

internal import NIOCore
internal import RPCCore

/// Writes the requests of a streaming call.
public struct RequestWriter: Sendable {
    let gate: WriteGate
    let token: CallToken

    /// Sends one message; suspends while the server reads more slowly than the caller writes.
    ///
    /// - Parameter payload: The message.
    /// - Throws: ``RPCError`` with the call's status when it has ended, or `CANCELLED` when the task is cancelled.
    public func write(_ payload: Payload) async throws {
        try await self.gate.write(payload)
    }

    /// Tells the stream that no message follows.
    public func finish() {
        self.gate.close(RPCError(.failedPrecondition, "the request has ended; write before finish()"))
        self.token.onLoop { $0.endRequest() }
    }
}

/// A call with any number of requests and one response.
///
/// The call is cancelled when this value is released before its end.
public struct ClientStreamingCall: Sendable {
    /// Writes the requests.
    public let requests: RequestWriter
    let responses: ResponseStream

    /// Waits for the response.
    ///
    /// - Returns: The response and its metadata.
    /// - Throws: ``RPCError`` when the call ended otherwise.
    public func response() async throws -> UnaryReply {
        var iterator = self.responses.makeAsyncIterator()
        guard let message = try await iterator.next() else {
            throw RPCError(.unimplemented, "the call ended with OK but without a response")
        }
        // The status comes after the message.
        while try await iterator.next() != nil {}
        return UnaryReply(
            message: message,
            initialMetadata: self.responses.initialMetadata,
            trailingMetadata: self.responses.trailingMetadata
        )
    }

    /// Lets the caller give up on the call.
    public var handle: CallHandle { self.responses.handle }
}

/// A call with any number of messages both ways.
///
/// The call is cancelled when the responses are released before its end.
public struct BidirectionalCall: Sendable {
    /// Writes the requests.
    public let requests: RequestWriter
    /// Reads the responses.
    public let responses: ResponseStream
}
