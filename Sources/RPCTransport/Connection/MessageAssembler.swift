// SPDX-License-Identifier: Apache-2.0

internal import NIOCore
internal import RPCCore

/// Assembles messages from the pieces in DATA frames.
///
/// Each message gets one buffer of its own size when its prefix has arrived, and each of its bytes is copied into it
/// once. So the socket's read buffers are free again at once.
struct MessageAssembler: Sendable {
    /// A whole message.
    struct Message: Sendable {
        var bytes: ByteBuffer
        var isCompressed: Bool
    }

    private var deframer: MessageDeframer
    private var current: Message?

    init(maxMessageBytes: Int) {
        self.deframer = MessageDeframer(maxMessageBytes: maxMessageBytes)
    }

    /// Whether no message is incomplete.
    var isBetweenMessages: Bool { self.deframer.isBetweenMessages }

    /// Takes a piece and hands over each message that is complete now.
    ///
    /// - Throws: ``RPCError`` when a prefix is wrong or announces a message over the limit.
    mutating func feed(_ piece: ByteBuffer, _ body: (Message) -> Void) throws(RPCError) {
        var piece = piece
        while let message = try self.whole(&piece) { body(message) }
        while true {
            let deframer = self.deframer
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
                let buffer = prefix.length == 0 ? ByteBuffer() : ByteBufferAllocator().buffer(capacity: prefix.length)
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

    /// Takes a message that arrived whole, as most do.
    private mutating func whole(_ piece: inout ByteBuffer) throws(RPCError) -> Message? {
        guard self.deframer.isBetweenMessages,
            let length = piece.getInteger(at: piece.readerIndex + 1, as: UInt32.self),
            piece.readableBytes - MessagePrefix.byteCount >= Int(length)
        else { return nil }
        let flag: UInt8 = piece.readInteger() ?? 0
        let prefix = try self.deframer.wholeMessage(flag: flag, length: length)
        piece.moveReaderIndex(forwardBy: 4)
        var bytes = prefix.length == 0 ? ByteBuffer() : ByteBufferAllocator().buffer(capacity: prefix.length)
        piece.withUnsafeReadableBytes { all in
            _ = bytes.writeBytes(UnsafeRawBufferPointer(rebasing: all[..<prefix.length]))
        }
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
