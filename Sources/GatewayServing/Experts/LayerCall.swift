// SPDX-License-Identifier: Apache-2.0

internal import Checkpoints
internal import ExpertPooling
internal import NIOCore
internal import RPCCore
internal import RPCTransport
internal import SwitchModel
internal import SwitchyardProtos
internal import TensorKernels

/// One grouped call to one pool: which rows of a layer's plan it carries, and its message.
struct LayerCall: Sendable {
    let assignment: PoolAssignment

    /// The message, kept for a second attempt on another replica.
    let payload: Payload

    /// Elements of one row, the model's width.
    let columns: Int

    /// Builds the message of a call; gathering the rows into it is their only copy on the way to the socket.
    ///
    /// - Parameters:
    ///   - assignment: The pool's part of the layer's rows.
    ///   - request: The layer's work.
    ///   - fingerprint: The fingerprint of the checkpoint that is served.
    init(_ assignment: PoolAssignment, of request: ExpertLayerRequest, fingerprint: UInt64) {
        let rows = assignment.rowCount
        let columns = request.hidden.columns
        let byteCount = rows * request.rowByteCount
        var tokens = ByteBufferAllocator().buffer(capacity: byteCount)
        tokens.writeWithUnsafeMutableBytes(minimumWritableBytes: byteCount) { target in
            guard var destination = target.baseAddress else {
                return 0
            }
            for group in assignment.groups {
                request.gather(rows: group.rows, into: destination)
                destination += group.rows.count * request.rowByteCount
            }
            return byteCount
        }
        let envelope = ForwardRequestEnvelope(
            modelFingerprint: fingerprint,
            stack: StackMessage(request.layer.stack),
            layer: UInt32(request.layer.block),
            groups: assignment.groups.map { ExpertRowsMessage(expert: UInt32($0.expert), rows: UInt32($0.rows.count)) },
            tokensShape: [UInt32(rows), UInt32(columns)],
            tokensDType: .float32
        )
        let header = ByteBuffer(bytes: envelope.header(tensorByteCount: byteCount))
        self.assignment = assignment
        self.columns = columns
        self.payload = Payload(segments: [header, tokens])
    }

    /// Takes a good reply: the rows of the plan that it answers, each consecutive run as one chunk that reads the
    /// reply's bytes where they lie.
    ///
    /// - Parameter message: The reply.
    /// - Returns: The chunks, and what the host said about its load.
    /// - Throws: ``BadReply`` where the reply is not one for this call.
    func read(_ message: ByteBuffer) throws(BadReply) -> (chunks: [ExpertOutputs.Chunk], load: HostLoad?) {
        let (tensor, load) = try self.check(message)
        let rowBytes = self.columns * MemoryLayout<Float>.size
        var chunks: [ExpertOutputs.Chunk] = []
        var start = tensor.lowerBound
        var groups = self.assignment.groups[...]
        while let first = groups.popFirst() {
            var rows = first.rows
            while let next = groups.first, next.rows.lowerBound == rows.upperBound {
                rows = rows.lowerBound..<next.rows.upperBound
                groups.removeFirst()
            }
            let end = start + rows.count * rowBytes
            chunks.append(.init(rows: rows, storage: ReplyRows(message: message, bytes: start..<end)))
            start = end
        }
        return (chunks, load)
    }

    /// Where the reply's outputs lie, if they are outputs for this call.
    private func check(_ message: ByteBuffer) throws(BadReply) -> (tensor: Range<Int>, load: HostLoad?) {
        let rows = self.assignment.rowCount
        let expectedShape = [UInt32(rows), UInt32(self.columns)]
        let expectedBytes = rows * self.columns * MemoryLayout<Float>.size
        let result: Result<(Range<Int>, HostLoad?), BadReply> = message.withUnsafeReadableBytes { bytes in
            guard let (envelope, tensor) = try? ForwardResponseEnvelope.parse(bytes) else {
                return .failure(BadReply("the reply is no ForwardResponse"))
            }
            guard envelope.outputsDType == .float32 else {
                return .failure(BadReply("outputs.dtype is \(envelope.outputsDType), not FLOAT32"))
            }
            guard envelope.outputsShape == expectedShape else {
                let shape = envelope.outputsShape.prefix(8)
                return .failure(BadReply("outputs.shape is \(shape), not \(expectedShape)"))
            }
            guard tensor.count == expectedBytes else {
                return .failure(BadReply("outputs.data has \(tensor.count) bytes, not \(expectedBytes)"))
            }
            guard FiniteCheck.allFinite(UnsafeRawBufferPointer(rebasing: bytes[tensor])) else {
                return .failure(BadReply("outputs holds a value that is not finite"))
            }
            return .success((tensor, envelope.load))
        }
        return try result.get()
    }
}

/// A host answered with something that cannot be the experts' outputs.
struct BadReply: Error, Sendable, Equatable, CustomStringConvertible {
    let description: String

    init(_ description: String) {
        self.description = description
    }
}

/// Output rows in a received message.
private struct ReplyRows: ExpertOutputStorage {
    let message: ByteBuffer
    let bytes: Range<Int>

    func withUnsafeBytes(_ body: (UnsafeRawBufferPointer) -> Void) {
        self.message.withUnsafeReadableBytes { body(UnsafeRawBufferPointer(rebasing: $0[self.bytes])) }
    }
}
