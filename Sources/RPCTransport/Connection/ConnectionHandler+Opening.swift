// SPDX-License-Identifier: Apache-2.0

internal import NIOCore

// The peer's first bytes: they tell HTTP/1.x from HTTP/2.
extension ConnectionHandler {
    /// How long output waits for the peer's first bytes.
    static let longestHold = TimeAmount.milliseconds(500)

    /// The bytes that the codec shall read, once it is known that the peer does not speak HTTP/1.x.
    func opened(with bytes: ByteBuffer, context: ChannelHandlerContext) -> ByteBuffer? {
        guard var opening = self.opening else { return bytes }
        opening.writeImmutableBuffer(bytes)
        switch ProtocolMismatch.opening(opening.readableBytesView) {
        case .unclear:
            self.opening = opening
            return nil
        case .forCodec:
            self.opening = nil
            self.holdsOutput = false
            self.holdTimer?.cancel()
            return opening
        case .http1:
            self.answerHTTP1(context: context)
            return nil
        }
    }

    /// Tells a client that speaks HTTP/1.x where it is; what it still sends is not read.
    private func answerHTTP1(context: ChannelHandlerContext) {
        self.isClosing = true
        self.endReason = ProtocolMismatch.clientSpeaksHTTP1
        let answer = ByteBuffer(string: ProtocolMismatch.answerToHTTP1)
        self.traffic?.sent(answer.readableBytes)
        context.writeAndFlush(self.wrapOutboundOut(answer), promise: nil)
        // The client closes its side once it has the answer; closing both at once could take the answer from it.
        context.close(mode: .output, promise: nil)
        let bound = NIOLoopBound(context, eventLoop: self.eventLoop)
        self.eventLoop.scheduleTask(in: .seconds(1)) { bound.value.close(promise: nil) }
    }
}
