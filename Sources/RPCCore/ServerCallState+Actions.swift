// SPDX-License-Identifier: Apache-2.0

extension ServerCallState {
    /// The header block that ends the stream, and whether a reset follows.
    public struct Ending: Sendable, Hashable {
        /// What the header block is.
        public enum Block: Sendable, Hashable {
            /// Trailers behind a head.
            case trailers(Trailers)
            /// Head and trailers in one block.
            case trailersOnly(Trailers, acceptedEncodings: [String] = [])
            /// The answer to something that is not gRPC.
            case http([HeaderField])
        }

        /// The header block to send with `END_STREAM`.
        public var block: Block
        /// The code to reset the stream with afterwards, because the peer has not ended its side.
        public var reset: ResetCode?

        /// The header block, field by field.
        public var fields: [HeaderField] {
            switch self.block {
            case .trailers(let trailers): trailers.fields()
            case .trailersOnly(let trailers, let encodings): trailers.trailersOnlyFields(acceptedEncodings: encodings)
            case .http(let fields): fields
            }
        }

        init(_ block: Block, reset: ResetCode?) {
            self.block = block
            self.reset = reset
        }
    }

    /// What a header block of the peer means.
    public enum OnHeaders: Sendable, Hashable {
        /// Look up the method, then call ``ServerCallState/methodFound(_:)`` or
        /// ``ServerCallState/statusSent(_:metadata:)``; and watch the deadline, if there is one.
        case route(RequestHead, deadline: ContinuousClock.Instant?)
        /// Turn the request down.
        case end(Ending)
        /// Reset the stream: the peer broke the protocol. The handler, if one runs, is cancelled.
        case reset(ResetCode, cancelHandler: Bool)
        /// Nothing: the call is over.
        case ignore
    }

    /// What an already parsed header block of the peer means.
    public enum OnParsedHeaders: Sendable, Hashable {
        /// As ``OnHeaders/route(_:deadline:)``; the runner works out the deadline.
        case route
        /// Turn the request down.
        case end(Ending)
        /// Reset the stream: the peer broke the protocol.
        case reset(ResetCode, cancelHandler: Bool)
        /// Nothing: the call is over.
        case ignore
    }

    /// What a message of the peer means.
    public enum OnMessage: Sendable, Hashable {
        /// Hand it to the handler; where the request is a single message, once the request has ended.
        case deliver
        /// Decompress it with this encoding, within the limit, then deliver it.
        case decompress(String)
        /// Drop it: the call is over.
        case drop
        /// Cancel the handler and end the call.
        case end(Ending)
    }

    /// What the end of the request means.
    public enum OnRequestEnd: Sendable, Hashable {
        /// Tell the handler that there is no more.
        case deliver
        /// Drop it: the call is over.
        case drop
        /// Cancel the handler and end the call.
        case end(Ending)
    }

    /// What to do with something that the handler sends.
    public enum OnSend: Sendable, Hashable {
        /// Write this head, then the message.
        case sendHead(ResponseHead)
        /// Write the message.
        case send
        /// Drop it: the call is over.
        case drop
        /// Refuse it: the method answers with one message and this is the second.
        case refuse(Status)
    }

    /// What to do with a call that must end.
    public enum OnAbort: Sendable, Hashable {
        /// Cancel the handler and reset the stream.
        case cancelHandler(reset: ResetCode?)
        /// Nothing: the call is over, or had not begun.
        case ignore
    }
}
