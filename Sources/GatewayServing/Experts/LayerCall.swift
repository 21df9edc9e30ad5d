// SPDX-License-Identifier: Apache-2.0

internal import Checkpoints
internal import ExpertPooling
internal import NIOCore
internal import RPCCore
internal import RPCTransport
internal import SwitchModel
internal import SwitchyardProtos
internal import SwitchyardTypes
internal import TensorKernels

/// One grouped call to one pool: which rows of a layer's plan it carries, and its message.
struct LayerCall: Sendable {
    let assignment: PoolAssignment

    /// The message, kept for a second attempt on another replica.
    let payload: Payload

    /// Elements of one row, the model's width.
    let columns: Int

    /// The type of rows on the wire, in both directions.
    let rowType: DType

    /// The rows in the payload: the token rows, then, where gradients are asked for, as many gradients.
    let tokens: ByteBuffer

    /// Whether gradients are asked for, and not outputs.
    let isBackward: Bool

    /// Whether a trainer waits for the answer.
    var isTraining = false

    /// How large the layer's outputs can be; nil if unknown.
    let bounds: LayerOutputBounds?

    /// Builds the message of a call; gathering the rows into it is their only copy on the way to the socket.
    ///
    /// - Parameters:
    ///   - assignment: The pool's part of the layer's rows.
    ///   - request: The layer's work.
    ///   - gradients: The gradients of the outputs of the layer's rows, `[tokens, d_model]`, for a call that asks for the
    ///     rows' gradients; nil asks for outputs. They travel in float32.
    ///   - fingerprint: The fingerprint of the checkpoint that is served.
    ///   - rowType: The type of rows on the wire.
    ///   - bounds: How large the layer's outputs can be; nil if unknown.
    ///   - memory: Where the message is made.
    init(
        _ assignment: PoolAssignment,
        of request: ExpertLayerRequest,
        gradients: FloatMatrix? = nil,
        fingerprint: UInt64,
        rowType: DType = .float32,
        bounds: LayerOutputBounds? = nil,
        memory: inout LayerCallMemory
    ) {
        let rows = assignment.rowCount
        let columns = request.hidden.columns
        let rowBytes = request.rowByteCount(as: rowType)
        let sent = gradients == nil ? rows : 2 * rows
        let byteCount = sent * rowBytes
        memory.envelope.modelFingerprint = fingerprint
        memory.envelope.stack = WireStack(request.layer.stack)
        memory.envelope.layer = UInt32(request.layer.block)
        memory.envelope.groups.removeAll(keepingCapacity: true)
        for group in assignment.groups {
            memory.envelope.groups.append(.init(expert: UInt32(group.expert), rows: UInt32(group.rows.count)))
        }
        memory.envelope.tokensShape = TensorShape(rows: sent, columns: columns)
        memory.envelope.tokensDType = WireDType(rowType)
        memory.envelope.writeHeader(tensorByteCount: byteCount, to: &memory.header)
        let headerBytes = memory.header.count
        var message = memory.messages.take(capacity: headerBytes + byteCount)
        message.writeBytes(memory.header)
        message.writeWithUnsafeMutableBytes(minimumWritableBytes: byteCount) { target in
            guard var destination = target.baseAddress else {
                return 0
            }
            for group in assignment.groups {
                request.gather(rows: group.rows, as: rowType, into: destination)
                destination += group.rows.count * rowBytes
            }
            if let gradients {
                let layer = ExpertLayerRequest(
                    layer: request.layer,
                    plan: request.plan,
                    hidden: gradients,
                    sequences: request.sequences
                )
                for group in assignment.groups {
                    layer.gather(rows: group.rows, as: rowType, into: destination)
                    destination += group.rows.count * rowBytes
                }
            }
            return byteCount
        }
        self.assignment = assignment
        self.columns = columns
        self.rowType = rowType
        self.tokens = message.getSlice(at: headerBytes, length: byteCount) ?? ByteBuffer()
        self.isBackward = gradients != nil
        self.bounds = bounds
        self.payload = Payload(message)
        memory.messages.keep(message)
    }

    /// Builds the message of a call in memory of its own.
    init(
        _ assignment: PoolAssignment,
        of request: ExpertLayerRequest,
        gradients: FloatMatrix? = nil,
        fingerprint: UInt64,
        rowType: DType = .float32,
        bounds: LayerOutputBounds? = nil
    ) {
        var memory = LayerCallMemory()
        self.init(
            assignment,
            of: request,
            gradients: gradients,
            fingerprint: fingerprint,
            rowType: rowType,
            bounds: bounds,
            memory: &memory
        )
    }

    /// What the call calls.
    var method: Method { self.isBackward ? .backward : .forward }

    /// Reads a reply: the rows of the plan that it answers, each consecutive run as one chunk that reads the reply's
    /// bytes in place, or their widened copy.
    ///
    /// - Parameter message: The reply.
    /// - Returns: The good rows, those that are not, and the load that the host reported.
    /// - Throws: ``BadReply`` if the reply does not fit this call.
    func read(_ message: ByteBuffer) throws(BadReply) -> LayerReply {
        let (outputs, load) = try self.check(message)
        let failed = self.failedRows(of: outputs)
        guard failed.isEmpty else { return self.part(of: outputs, without: failed, load: load) }
        return self.whole(outputs, load: load)
    }

    /// Reads rows that are already known to fit this call.
    ///
    /// - Parameters:
    ///   - tensor: The rows, in the call's order and the wire's type.
    ///   - failed: Those that are left out, by their index in the call, ascending.
    /// - Returns: The rows.
    func reply(tensor: ByteBuffer, without failed: [Int] = []) -> LayerReply {
        let outputs = tensor.withUnsafeReadableBytes { bytes in
            self.float32(bytes, in: tensor, at: 0..<bytes.count, rows: self.assignment.rowCount)
        }
        return failed.isEmpty ? self.whole(outputs, load: nil) : self.part(of: outputs, without: failed, load: nil)
    }

    /// The rows of a reply as they came.
    ///
    /// - Parameter message: A reply that ``read(_:)`` has taken.
    /// - Returns: Its tensor; nil if it is no reply.
    static func tensor(of message: ByteBuffer) -> ByteBuffer? {
        let range = message.withUnsafeReadableBytes { bytes in try? ForwardResponseEnvelope.parse(bytes).1 }
        return range.flatMap { message.getSlice(at: message.readerIndex + $0.lowerBound, length: $0.count) }
    }

    /// All rows of a reply.
    private func whole(_ outputs: ReplyRows, load: HostLoad?) -> LayerReply {
        let rowBytes = self.columns * MemoryLayout<Float>.size
        var chunks = ShortList<ExpertOutputs.Chunk>()
        var start = 0
        var groups = self.assignment.groups[...]
        while let first = groups.popFirst() {
            var rows = first.rows
            while let next = groups.first, next.rows.lowerBound == rows.upperBound {
                rows = rows.lowerBound..<next.rows.upperBound
                groups.removeFirst()
            }
            let end = start + rows.count * rowBytes
            chunks.append(.init(rows: rows, storage: outputs.storage(of: start..<end)))
            start = end
        }
        return LayerReply(chunks: chunks, load: load)
    }

    /// The good rows of a reply, each as a chunk of its own.
    ///
    /// - Parameters:
    ///   - outputs: All rows.
    ///   - failed: Those that are not good, by their index in the call, ascending.
    ///   - load: The load that the host reported.
    /// - Returns: The rows that are good, and which are not.
    private func part(of outputs: ReplyRows, without failed: [Int], load: HostLoad?) -> LayerReply {
        let rowBytes = self.columns * MemoryLayout<Float>.size
        var reply = LayerReply(chunks: [], load: load)
        reply.detail =
            "\(failed.count) of \(self.assignment.rowCount) rows hold a value that is not finite or larger than their expert can compute"
        var bad = failed[...]
        for (row, planRow) in self.assignment.groups.lazy.flatMap(\.rows).enumerated() {
            if bad.first == row {
                bad.removeFirst()
                reply.failed.insert(planRow)
            } else {
                let bytes = row * rowBytes..<(row + 1) * rowBytes
                reply.chunks.append(.init(rows: planRow..<planRow + 1, storage: outputs.storage(of: bytes)))
            }
        }
        return reply
    }

    /// The reply's outputs in float32, if they fit this call.
    private func check(_ message: ByteBuffer) throws(BadReply) -> (outputs: ReplyRows, load: HostLoad?) {
        let rows = self.assignment.rowCount
        let expectedType = WireDType(self.rowType)
        let expectedBytes = rows * self.columns * self.rowType.byteCount
        let result: Result<(ReplyRows, HostLoad?), BadReply> = message.withUnsafeReadableBytes { bytes in
            guard let (envelope, tensor) = try? ForwardResponseEnvelope.parse(bytes) else {
                return .failure(BadReply("the reply is not a ForwardResponse"))
            }
            guard envelope.outputsDType == expectedType else {
                return .failure(BadReply("outputs.dtype is \(envelope.outputsDType), not \(expectedType)"))
            }
            let shape = envelope.outputsShape
            guard shape.count == 2, Int(shape[0]) == rows, Int(shape[1]) == self.columns else {
                return .failure(BadReply("outputs.shape is \(shape), not \([rows, self.columns])"))
            }
            guard tensor.count == expectedBytes else {
                return .failure(BadReply("outputs.data has \(tensor.count) bytes, not \(expectedBytes)"))
            }
            let values = UnsafeRawBufferPointer(rebasing: bytes[tensor])
            let outputs = self.float32(values, in: message, at: tensor, rows: rows)
            return .success((outputs, envelope.load))
        }
        return try result.get()
    }

    /// Outputs in place if they are float32, otherwise widened.
    private func float32(
        _ values: UnsafeRawBufferPointer,
        in message: ByteBuffer,
        at place: Range<Int>,
        rows: Int
    ) -> ReplyRows {
        guard self.rowType != .float32, let base = values.baseAddress else {
            // The place lies in the message.
            let index = message.readerIndex + place.lowerBound
            return .message(message.getSlice(at: index, length: values.count) ?? ByteBuffer())
        }
        let widened = FloatMatrix(uninitializedRows: rows, columns: self.columns)
        self.rowType.read(base, count: rows * self.columns, into: widened.pointer)
        return .matrix(widened)
    }
}

/// An answer that fits its call, though some or all of its rows may not be good.
struct LayerReply: Sendable {
    /// The good rows; if some rows failed, each chunk is one row.
    var chunks: ShortList<ExpertOutputs.Chunk>
    /// The load that the host reported.
    var load: HostLoad?
    /// The plan's rows that are not good.
    var failed: Set<Int> = []
    /// What is wrong with them, for logs.
    var detail = ""
}

/// What the answers to one call have together, if none of them has all rows.
struct PartialOutputs: Sendable {
    /// The good rows, one per chunk.
    private(set) var chunks: [ExpertOutputs.Chunk] = []
    /// The plan's rows that no answer has.
    private(set) var missing: Set<Int>

    /// Starts with nothing.
    ///
    /// - Parameter assignment: The call's rows.
    init(of assignment: PoolAssignment) { self.missing = Set(assignment.groups.flatMap(\.rows)) }

    /// Adds the rows of an answer that are still missing.
    ///
    /// - Parameter reply: An answer that lacks rows.
    mutating func add(_ reply: LayerReply) {
        for chunk in reply.chunks where self.missing.remove(chunk.rows.lowerBound) != nil { self.chunks.append(chunk) }
    }
}

/// A host answered with something that cannot be the experts' outputs.
struct BadReply: Error, Sendable, Equatable, CustomStringConvertible {
    let description: String

    init(_ description: String) {
        self.description = description
    }
}

/// Output rows in float32: in a received message, or widened from one.
enum ReplyRows: Sendable {
    case message(ByteBuffer)
    case matrix(FloatMatrix)

    /// Some of the rows, for the model.
    ///
    /// - Parameter bytes: Their range of bytes.
    /// - Returns: The rows; those of a message take no memory, not even for the protocol's sake.
    func storage(of bytes: Range<Int>) -> any ExpertOutputStorage {
        switch self {
        case .message(let message):
            let index = message.readerIndex + bytes.lowerBound
            return MessageRows(bytes: message.getSlice(at: index, length: bytes.count) ?? ByteBuffer())
        case .matrix(let matrix):
            return WidenedRows(matrix: matrix, bytes: bytes)
        }
    }

    /// Lends the bytes of all rows.
    func withUnsafeBytes(_ body: (UnsafeRawBufferPointer) -> Void) {
        switch self {
        case .message(let message): message.withUnsafeReadableBytes(body)
        case .matrix(let matrix):
            WidenedRows(matrix: matrix, bytes: 0..<matrix.rows * matrix.columns * MemoryLayout<Float>.size)
                .withUnsafeBytes(body)
        }
    }
}

/// Output rows that lie in a received message.
private struct MessageRows: ExpertOutputStorage {
    let bytes: ByteBuffer

    func withUnsafeBytes(_ body: (UnsafeRawBufferPointer) -> Void) { self.bytes.withUnsafeReadableBytes(body) }
}

/// Output rows that are widened.
private struct WidenedRows: ExpertOutputStorage {
    let matrix: FloatMatrix
    let bytes: Range<Int>

    func withUnsafeBytes(_ body: (UnsafeRawBufferPointer) -> Void) {
        withExtendedLifetime(self.matrix) {
            let start = UnsafeRawPointer(self.matrix.pointer) + self.bytes.lowerBound
            body(UnsafeRawBufferPointer(start: start, count: self.bytes.count))
        }
    }
}

/// The memory in which the messages of calls are made, one after another.
struct LayerCallMemory {
    var envelope = ForwardRequestEnvelope()
    var header: [UInt8] = []
    /// A layer's calls keep their messages until it is over, so there is one for each call of most layers.
    var messages = BufferShelf(count: 16, limitBytes: 1 << 16)
}
