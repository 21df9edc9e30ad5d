// SPDX-License-Identifier: Apache-2.0

internal import NIOCore
internal import RPCCore

/// Assembles messages from the pieces in DATA frames.
///
/// Each message gets one buffer of its own, and each of its bytes is copied into it once. So the socket's read buffers are
/// free again at once. The buffer of a large message grows as its bytes arrive: what a prefix announces takes no memory,
/// and growing seldom copies, since the system moves pages of large blocks instead.
struct MessageAssembler: Sendable {
    /// A whole message.
    struct Message: Sendable {
        var bytes: ByteBuffer
        var isCompressed: Bool
    }

    /// A message up to this size gets its whole buffer at once.
    private static let firstBufferBytes = 1 << 16

    private var deframer: MessageDeframer
    private var current: Message?
    /// How many bytes the message that is arriving has in all.
    private var announcedBytes = 0

    init(maxMessageBytes: Int, method: Method? = nil) {
        self.deframer = MessageDeframer(maxMessageBytes: maxMessageBytes, method: method)
    }

    /// Memory for the messages of one connection: a handler has nearly always let go of a message when the next but one comes.
    static func memory() -> BufferShelf { BufferShelf(count: 2, limitBytes: 1 << 15) }

    /// How many bytes of a message that is not complete have arrived.
    var heldBytes: Int { self.current?.bytes.readableBytes ?? 0 }

    /// Gives up the message that is arriving, because no more is fed.
    mutating func discard() { self.current = nil }

    /// Whether no message is incomplete.
    var isBetweenMessages: Bool { self.deframer.isBetweenMessages }

    /// Takes a piece and hands over each message that is complete now.
    ///
    /// - Parameters:
    ///   - piece: What a DATA frame brought.
    ///   - memory: The connection's, for messages that came whole.
    ///   - body: Gets the messages.
    /// - Throws: ``RPCError`` when a prefix is wrong or announces a message over the limit.
    mutating func feed(
        _ piece: ByteBuffer,
        _ memory: inout BufferShelf,
        _ body: (Message) -> Void
    ) throws(RPCError) {
        var piece = piece
        while let message = try self.whole(&piece, &memory) { body(message) }
        // Nearly every piece ends with a message.
        if piece.readableBytes == 0, self.deframer.isBetweenMessages { return }
        while true {
            let deframer = self.deframer
            self.makeRoom(for: piece.readableBytes)
            let outcome = piece.withUnsafeReadableBytes {
                bytes -> (MessageDeframer, Result<MessageDeframer.Step, RPCError>) in
                var deframer = deframer
                do throws(RPCError) {
                    let step = try deframer.next(bytes)
                    if case .body = step.event, step.consumed > 0 {
                        self.current?.bytes.writeBytes(UnsafeRawBufferPointer(rebasing: bytes[..<step.consumed]))
                    }
                    return (deframer, .success(step))
                } catch {
                    return (deframer, .failure(error))
                }
            }
            self.deframer = outcome.0
            let step = try outcome.1.get()
            piece.moveReaderIndex(forwardBy: step.consumed)
            switch step.event {
            case .needsBytes:
                return
            case .began(let prefix):
                self.announcedBytes = prefix.length
                let first = min(prefix.length, Self.firstBufferBytes)
                let buffer = first == 0 ? ByteBuffer() : ByteBufferAllocator().buffer(capacity: first)
                self.current = Message(bytes: buffer, isCompressed: prefix.isCompressed)
            case .body(isLast: false):
                break
            case .body(isLast: true):
                if let message = self.current {
                    self.current = nil
                    body(message)
                }
            }
        }
    }

    /// Lets the arriving message's buffer grow to four times its content where the next bytes do not fit.
    private mutating func makeRoom(for byteCount: Int) {
        guard let writable = self.current?.bytes.writableBytes else { return }
        let held = self.heldBytes
        let wanted = min(byteCount, self.announcedBytes - held)
        guard wanted > writable else { return }
        self.current?.bytes.reserveCapacity(min(self.announcedBytes, max(4 * held, held + wanted)))
    }

    /// Takes a message that arrived whole, as most do.
    private mutating func whole(_ piece: inout ByteBuffer, _ memory: inout BufferShelf) throws(RPCError) -> Message? {
        guard self.deframer.isBetweenMessages,
            let length = piece.getInteger(at: piece.readerIndex + 1, as: UInt32.self),
            piece.readableBytes - MessagePrefix.byteCount >= Int(length)
        else { return nil }
        let flag: UInt8 = piece.readInteger() ?? 0
        let prefix = try self.deframer.wholeMessage(flag: flag, length: length)
        piece.moveReaderIndex(forwardBy: 4)
        guard prefix.length > 0 else { return Message(bytes: ByteBuffer(), isCompressed: prefix.isCompressed) }
        var bytes = memory.take(capacity: prefix.length)
        piece.withUnsafeReadableBytes { all in
            _ = bytes.writeBytes(UnsafeRawBufferPointer(rebasing: all[..<prefix.length]))
        }
        memory.keep(bytes)
        piece.moveReaderIndex(forwardBy: prefix.length)
        return Message(bytes: bytes, isCompressed: prefix.isCompressed)
    }

    /// The stream has ended.
    ///
    /// - Throws: ``RPCError`` when it ended inside a message.
    mutating func end() throws(RPCError) {
        try self.deframer.end()
    }
}
