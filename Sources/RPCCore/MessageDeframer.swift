// SPDX-License-Identifier: Apache-2.0

/// The five bytes before every message: a flag and the length.
///
/// Source: https://github.com/grpc/grpc/blob/v1.51.1/doc/PROTOCOL-HTTP2.md (Length-Prefixed-Message).
public struct MessagePrefix: Sendable, Hashable {
    /// The number of bytes that a prefix takes.
    public static let byteCount = 5

    /// Whether the message is compressed with the stream's `grpc-encoding`.
    public var isCompressed: Bool

    /// The number of bytes that follow.
    public var length: Int

    /// Creates a prefix.
    ///
    /// - Parameters:
    ///   - length: The number of bytes that follow; at most 2³²-1.
    ///   - isCompressed: Whether they are compressed.
    public init(length: Int, isCompressed: Bool = false) {
        self.length = length
        self.isCompressed = isCompressed
    }

    /// The prefix as bytes on the wire.
    ///
    /// The length must fit in 32 bits; a longer message is the caller's bug and stops the process.
    public var bytes: [UInt8] {
        precondition(
            self.length >= 0 && self.length <= Int(UInt32.max),
            "a gRPC message has at most 4,294,967,295 bytes, not \(self.length)"
        )
        let length = UInt32(self.length)
        return [
            self.isCompressed ? 1 : 0,
            UInt8(truncatingIfNeeded: length >> 24), UInt8(truncatingIfNeeded: length >> 16),
            UInt8(truncatingIfNeeded: length >> 8), UInt8(truncatingIfNeeded: length),
        ]
    }
}

/// Finds the messages in a stream of bytes that arrives in pieces of any size.
///
/// A pure machine that holds no message bytes: the runner keeps a chunk of bytes and a position in it, asks
/// ``next(_:)`` what the bytes from there on are, moves on by ``Step/consumed`` and acts on ``Step/event``, until the
/// event is ``Event/needsBytes``. So body bytes can be sliced out of the chunk, or appended to a buffer of the
/// message's length, which is known and checked against the limit before the first byte arrives.
///
/// - state `prefix`: collects the five bytes; can go to `body`, `failed`.
/// - state `body`: that many bytes of the message are still to come; can go to `prefix`.
/// - state `failed`: a prefix was wrong; stays.
public struct MessageDeframer: Sendable {
    /// What the next bytes of a chunk are.
    public enum Event: Sendable, Hashable {
        /// More bytes are needed: all of them are consumed.
        case needsBytes
        /// A message begins; its length is within the limit.
        case began(MessagePrefix)
        /// The consumed bytes belong to the message that began; `isLast` says that they complete it.
        case body(isLast: Bool)
    }

    /// An event and the bytes that belong to it.
    public struct Step: Sendable, Hashable {
        /// The number of bytes that the runner skips.
        public var consumed: Int
        /// What they are.
        public var event: Event
    }

    /// Where in a message the stream is.
    private enum State: Sendable {
        case prefix(flag: UInt8, length: UInt32, count: Int)
        case body(remaining: Int)
        case failed(RPCError)
    }

    /// The longest accepted message, in bytes.
    public let maxMessageBytes: Int

    /// The method that the messages are for, so that an error can name it; nil names none.
    public let method: Method?

    /// Where in a message the stream is.
    private var state = State.prefix(flag: 0, length: 0, count: 0)

    /// Creates a deframer.
    ///
    /// - Parameters:
    ///   - maxMessageBytes: The longest accepted message, in bytes on the wire.
    ///   - method: The method whose limit that is, for errors.
    public init(maxMessageBytes: Int, method: Method? = nil) {
        self.maxMessageBytes = maxMessageBytes
        self.method = method
    }

    /// Whether the stream is between two messages, where it may end.
    public var isBetweenMessages: Bool {
        guard case .prefix(_, _, 0) = self.state else {
            return false
        }
        return true
    }

    /// Says what the next bytes are.
    ///
    /// - Parameter bytes: The bytes that follow those consumed so far; may be empty.
    /// - Returns: The next event. A message without bytes gives `.began` and then `.body(isLast: true)`.
    /// - Throws: `RESOURCE_EXHAUSTED` for a message over the limit, before any of its bytes is examined; `INTERNAL` for
    ///   a flag that is neither 0 nor 1. Every later call throws the same error.
    public mutating func next(_ bytes: UnsafeRawBufferPointer) throws(RPCError) -> Step {
        switch self.state {
        case .failed(let error):
            throw error
        case .prefix(var flag, var length, var count):
            var consumed = 0
            while count < MessagePrefix.byteCount {
                guard consumed < bytes.count else {
                    self.state = .prefix(flag: flag, length: length, count: count)
                    return Step(consumed: consumed, event: .needsBytes)
                }
                if count == 0 {
                    flag = bytes[consumed]
                } else {
                    length = length << 8 | UInt32(bytes[consumed])
                }
                consumed += 1
                count += 1
            }
            if let error = self.fault(flag: flag, length: Int(length)) {
                self.state = .failed(error)
                throw error
            }
            self.state = .body(remaining: Int(length))
            let prefix = MessagePrefix(length: Int(length), isCompressed: flag == 1)
            return Step(consumed: consumed, event: .began(prefix))
        case .body(let remaining):
            let consumed = min(remaining, bytes.count)
            if consumed == remaining {
                self.state = .prefix(flag: 0, length: 0, count: 0)
                return Step(consumed: consumed, event: .body(isLast: true))
            }
            self.state = .body(remaining: remaining - consumed)
            return Step(consumed: consumed, event: consumed == 0 ? .needsBytes : .body(isLast: false))
        }
    }

    /// Takes a message that arrived in one piece.
    ///
    /// The same as ``next(_:)`` until `.body(isLast: true)`, in one step. Call it only while ``isBetweenMessages``.
    ///
    /// - Parameters:
    ///   - flag: The first byte of the prefix.
    ///   - length: The other four.
    /// - Returns: The prefix.
    /// - Throws: As ``next(_:)`` does.
    public mutating func wholeMessage(flag: UInt8, length: UInt32) throws(RPCError) -> MessagePrefix {
        if let error = self.fault(flag: flag, length: Int(length)) {
            self.state = .failed(error)
            throw error
        }
        return MessagePrefix(length: Int(length), isCompressed: flag == 1)
    }

    /// Tells the deframer that the stream has ended.
    ///
    /// - Throws: `INTERNAL` if it ended inside a message.
    public mutating func end() throws(RPCError) {
        switch self.state {
        case .prefix(_, _, 0):
            return
        case .failed(let error):
            throw error
        case .prefix(_, _, let count):
            throw RPCError(.internal, "the stream ended after \(count) of a message prefix's 5 bytes")
        case .body(let remaining):
            throw RPCError(.internal, "the stream ended with \(remaining) bytes of a message missing")
        }
    }

    /// What is wrong with a prefix.
    private func fault(flag: UInt8, length: Int) -> RPCError? {
        if flag > 1 {
            return RPCError(.internal, "a message prefix's first byte is \(flag); gRPC knows 0 and 1")
        }
        if length > self.maxMessageBytes {
            let text =
                if let method = self.method {
                    "a message of \(length) bytes is over the limit of \(self.maxMessageBytes) of \(method); send less"
                } else {
                    "a message of \(length) bytes is over the limit of \(self.maxMessageBytes); send less or raise the limit"
                }
            return RPCError(.resourceExhausted, text)
        }
        return nil
    }
}
