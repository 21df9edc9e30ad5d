// SPDX-License-Identifier: Apache-2.0

/// A message of the protocol as a Swift value.
///
/// Values are independent of the C library that reads and writes them: no pointer of it outlives a call.
public protocol ProtoMessage: Sendable, Hashable {
    /// Reads and writes the message.
    static var codec: MessageCodec<Self> { get }
}

extension ProtoMessage {
    /// Reads a message.
    ///
    /// - Parameters:
    ///   - bytes: The whole message.
    ///   - limits: How much memory reading it may take.
    /// - Throws: ``ProtoError`` if the bytes are not such a message, a text is not UTF-8 or a limit is reached.
    public init(serialized bytes: UnsafeRawBufferPointer, limits: ProtoLimits = .defaults) throws(ProtoError) {
        self = try Self.codec.decode(bytes, limits)
    }

    /// Reads a message.
    ///
    /// - Parameters:
    ///   - bytes: The whole message.
    ///   - limits: How much memory reading it may take.
    /// - Throws: ``ProtoError`` if the bytes are not such a message, a text is not UTF-8 or a limit is reached.
    public init(serialized bytes: [UInt8], limits: ProtoLimits = .defaults) throws(ProtoError) {
        let result = bytes.withUnsafeBytes { buffer in
            Result<Self, ProtoError> { () throws(ProtoError) in try Self.codec.decode(buffer, limits) }
        }
        self = try result.get()
    }

    /// The message as it goes over the wire.
    ///
    /// - Returns: The whole message.
    public func serialized() -> [UInt8] { Self.codec.encode(self) }
}

/// How much memory reading a message may take.
public struct ProtoLimits: Sendable, Hashable {
    /// The longest message, in bytes on the wire.
    public var maxMessageBytes: Int

    /// The most bytes of memory per byte on the wire; a message of many empty parts unfolds to far more than it takes
    /// on the wire.
    public var maxExpansion: Int

    /// The bytes of memory that any message may unfold to, however short.
    public var freeBytes: Int

    /// Creates limits.
    ///
    /// - Parameters:
    ///   - maxMessageBytes: The longest message, in bytes on the wire.
    ///   - maxExpansion: The most bytes of memory per byte on the wire.
    ///   - freeBytes: The bytes of memory that any message may unfold to.
    public init(maxMessageBytes: Int = 64 << 20, maxExpansion: Int = 32, freeBytes: Int = 64 << 10) {
        self.maxMessageBytes = maxMessageBytes
        self.maxExpansion = maxExpansion
        self.freeBytes = freeBytes
    }

    /// 64 MiB on the wire; 64 KiB of memory and 32 bytes more for each byte on the wire.
    public static let defaults = ProtoLimits()

    /// The bytes of memory that a message of this size may unfold to.
    func memory(forMessageBytes count: Int) -> Int {
        let (product, overflow) = count.multipliedReportingOverflow(by: self.maxExpansion)
        let (sum, secondOverflow) = product.addingReportingOverflow(self.freeBytes)
        return overflow || secondOverflow ? Int.max : sum
    }
}

/// What reads and writes one type of message.
public struct MessageCodec<Message: Sendable>: Sendable {
    /// Reads a message.
    let decode: @Sendable (UnsafeRawBufferPointer, ProtoLimits) throws(ProtoError) -> Message

    /// Writes a message.
    let encode: @Sendable (Message) -> [UInt8]
}
