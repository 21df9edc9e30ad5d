// SPDX-License-Identifier: Apache-2.0

/// A `ForwardRequest` without its elements, so that the rows are never copied.
///
/// To send, write ``header(tensorByteCount:)`` and then the rows: together they are one valid message. To receive, find
/// the rows in the message with ``parse(_:isBackward:)``. The wire format is the one of ``ForwardRequest``, and of
/// ``BackwardRequest``, whose rows are the token rows and as many gradients.
public struct ForwardRequestEnvelope: Sendable, Hashable {
    /// The most runs of rows in one call.
    public static let maxGroups = 65_536

    /// The most runs of which the memory is kept.
    private static let mostKeptGroups = 1_024

    /// The fingerprint of the checkpoint that the gateway serves.
    public var modelFingerprint: UInt64

    /// The half of the model.
    public var stack: WireStack

    /// The index of the block that holds the sparse layer.
    public var layer: UInt32

    /// The expert of each run of rows, in the order of the rows.
    public var groups: [ExpertRowsMessage]

    /// The lengths of the rows' axes: [rows, d_model].
    public var tokensShape: TensorShape

    /// How the rows' elements are stored.
    public var tokensDType: WireDType

    /// Creates the envelope; each parameter is the property of that name.
    public init(
        modelFingerprint: UInt64,
        stack: WireStack,
        layer: UInt32,
        groups: [ExpertRowsMessage],
        tokensShape: TensorShape,
        tokensDType: WireDType = .float32
    ) {
        self.modelFingerprint = modelFingerprint
        self.stack = stack
        self.layer = layer
        self.groups = groups
        self.tokensShape = tokensShape
        self.tokensDType = tokensDType
    }

    /// The rows that the groups name together.
    public var rowCount: Int { self.groups.reduce(0) { $0 + Int($1.rows) } }

    /// The bytes of data that type and shape require, or nil where they do not make a tensor.
    public var expectedTensorBytes: Int? { TensorHeader.byteCount(dtype: self.tokensDType, shape: self.tokensShape) }

    /// The part of the message before the rows.
    ///
    /// - Parameter tensorByteCount: The bytes of the rows that follow, exactly.
    /// - Returns: The message's beginning, up to and including the length of the rows.
    public func header(tensorByteCount: Int) -> [UInt8] {
        var bytes: [UInt8] = []
        self.writeHeader(tensorByteCount: tensorByteCount, to: &bytes)
        return bytes
    }

    /// Writes ``header(tensorByteCount:)`` into memory that is kept for it.
    ///
    /// - Parameters:
    ///   - tensorByteCount: The bytes of the rows that follow, exactly.
    ///   - bytes: Is emptied, and then has the message's beginning.
    public func writeHeader(tensorByteCount: Int, to bytes: inout [UInt8]) {
        var writer = WireWriter(reusing: &bytes, capacity: 64 + 8 * self.groups.count)
        writer.fixed64(1, self.modelFingerprint)
        writer.number(2, UInt64(self.stack.rawValue))
        writer.number(3, UInt64(self.layer))
        for group in self.groups {
            let (expert, rows) = (UInt64(group.expert), UInt64(group.rows))
            writer.lengthPrefix(4, WireWriter.byteCount(number: expert) + WireWriter.byteCount(number: rows))
            writer.number(1, expert)
            writer.number(2, rows)
        }
        TensorHeader.write(
            to: &writer,
            field: 5,
            dtype: self.tokensDType,
            shape: self.tokensShape,
            dataByteCount: tensorByteCount
        )
        bytes = writer.bytes
    }

    /// Reads a received message.
    ///
    /// Fields may come in any order; the last occurrence of a repeated one wins, repeated messages are merged; unknown
    /// fields are skipped.
    ///
    /// - Parameters:
    ///   - bytes: The whole message, at any alignment.
    ///   - isBackward: Whether it is a ``BackwardRequest``.
    /// - Returns: The envelope, and where in `bytes` the rows are: as many bytes as type and shape say, at any
    ///   alignment.
    /// - Throws: ``ProtoError`` if the bytes are not such a message, or the rows do not fit the type, the shape and the
    ///   groups.
    public static func parse(
        _ bytes: UnsafeRawBufferPointer,
        isBackward: Bool = false
    ) throws(ProtoError) -> (envelope: ForwardRequestEnvelope, tensorBytes: Range<Int>) {
        var envelope = ForwardRequestEnvelope()
        let tensor = try envelope.read(bytes, isBackward: isBackward)
        return (envelope, tensor)
    }

    /// Creates an envelope of nothing, to ``read(_:isBackward:)`` into.
    public init() {
        self.init(
            modelFingerprint: 0,
            stack: .unspecified,
            layer: 0,
            groups: [],
            tokensShape: [],
            tokensDType: .unspecified
        )
    }

    /// Reads a received message as ``parse(_:isBackward:)`` does, into the memory of the message that was read before.
    ///
    /// - Parameters:
    ///   - bytes: The whole message, at any alignment.
    ///   - isBackward: Whether it is a ``BackwardRequest``.
    /// - Returns: Where in `bytes` the rows are.
    /// - Throws: ``ProtoError`` if the bytes are not such a message, or the rows do not fit the type, the shape and the
    ///   groups; the envelope is then of no use.
    public mutating func read(
        _ bytes: UnsafeRawBufferPointer,
        isBackward: Bool
    ) throws(ProtoError) -> Range<Int> {
        let field = isBackward ? "rows" : "tokens"
        var reader = WireReader(
            bytes,
            message: isBackward ? "switchyard.v1.BackwardRequest" : "switchyard.v1.ForwardRequest"
        )
        var tokens = TensorHeader()
        self.modelFingerprint = 0
        self.stack = .unspecified
        self.layer = 0
        self.groups.removeAll(keepingCapacity: self.groups.capacity <= Self.mostKeptGroups)
        while let (number, type) = try reader.field() {
            switch number {
            case 1:
                self.modelFingerprint = try reader.fixed64(type, "model_fingerprint")
            case 2:
                let value = UInt32(truncatingIfNeeded: try reader.number(type, "stack"))
                guard let stack = WireStack(rawValue: value) else {
                    throw reader.error(.unknownChoice, "stack", "\(value) is not known; send ENCODER or DECODER")
                }
                self.stack = stack
            case 3:
                self.layer = UInt32(truncatingIfNeeded: try reader.number(type, "layer"))
            case 4:
                guard self.groups.count < Self.maxGroups else {
                    throw reader.error(.overLimit, "groups", "more than \(Self.maxGroups); send several calls")
                }
                let range = try reader.delimited(type, "groups")
                self.groups.append(try Self.group(reader.inside(range, message: "switchyard.v1.ExpertRows")))
            case 5:
                let range = try reader.delimited(type, field)
                try tokens.read(reader.inside(range, message: "switchyard.v1.Tensor"))
            default:
                try reader.skip(type)
            }
        }
        try tokens.validate(field, reader)
        self.tokensShape = tokens.shape
        self.tokensDType = tokens.dtype
        let sent = isBackward ? 2 * self.rowCount : self.rowCount
        guard let rows = tokens.shape.first, sent == Int(rows) else {
            throw reader.error(
                .sizeMismatch,
                "groups",
                "they name \(self.rowCount) rows, but the shape of `\(field)` is \(tokens.shape); name each row once"
                    + (isBackward ? ", and send two for it" : "")
            )
        }
        return tokens.data
    }

    /// Reads an `ExpertRows` message.
    private static func group(_ reader: WireReader) throws(ProtoError) -> ExpertRowsMessage {
        var reader = reader
        var group = ExpertRowsMessage()
        while let (number, type) = try reader.field() {
            switch number {
            case 1: group.expert = UInt32(truncatingIfNeeded: try reader.number(type, "expert"))
            case 2: group.rows = UInt32(truncatingIfNeeded: try reader.number(type, "rows"))
            default: try reader.skip(type)
            }
        }
        return group
    }
}
