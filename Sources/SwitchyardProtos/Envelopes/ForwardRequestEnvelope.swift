// SPDX-License-Identifier: Apache-2.0

/// A `ForwardRequest` without its elements, so that the rows are never copied.
///
/// To send, write ``header(tensorByteCount:)`` and then the rows: together they are one valid message. To receive, find
/// the rows in the message with ``parse(_:isBackward:)``. The wire format is the one of ``ForwardRequest``, and of
/// ``BackwardRequest``, whose rows are the token rows and as many gradients.
public struct ForwardRequestEnvelope: Sendable, Hashable {
    /// The most runs of rows in one call.
    public static let maxGroups = 65_536

    /// The fingerprint of the checkpoint that the gateway serves.
    public var modelFingerprint: UInt64

    /// The half of the model.
    public var stack: WireStack

    /// The index of the block that holds the sparse layer.
    public var layer: UInt32

    /// The expert of each run of rows, in the order of the rows.
    public var groups: [ExpertRowsMessage]

    /// The lengths of the rows' axes: [rows, d_model].
    public var tokensShape: [UInt32]

    /// How the rows' elements are stored.
    public var tokensDType: WireDType

    /// Creates the envelope; each parameter is the property of that name.
    public init(
        modelFingerprint: UInt64,
        stack: WireStack,
        layer: UInt32,
        groups: [ExpertRowsMessage],
        tokensShape: [UInt32],
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
        var writer = WireWriter(capacity: 64 + 8 * self.groups.count)
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
        return writer.bytes
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
        let field = isBackward ? "rows" : "tokens"
        var reader = WireReader(
            bytes,
            message: isBackward ? "switchyard.v1.BackwardRequest" : "switchyard.v1.ForwardRequest"
        )
        var tokens = TensorHeader()
        var envelope = ForwardRequestEnvelope(
            modelFingerprint: 0,
            stack: .unspecified,
            layer: 0,
            groups: [],
            tokensShape: [],
            tokensDType: .unspecified
        )
        while let (number, type) = try reader.field() {
            switch number {
            case 1:
                envelope.modelFingerprint = try reader.fixed64(type, "model_fingerprint")
            case 2:
                let value = UInt32(truncatingIfNeeded: try reader.number(type, "stack"))
                guard let stack = WireStack(rawValue: value) else {
                    throw reader.error(.unknownChoice, "stack", "\(value) is not known; send ENCODER or DECODER")
                }
                envelope.stack = stack
            case 3:
                envelope.layer = UInt32(truncatingIfNeeded: try reader.number(type, "layer"))
            case 4:
                guard envelope.groups.count < Self.maxGroups else {
                    throw reader.error(.overLimit, "groups", "more than \(Self.maxGroups); send several calls")
                }
                let range = try reader.delimited(type, "groups")
                envelope.groups.append(
                    try Self.group(reader.inside(range, message: "switchyard.v1.ExpertRows"))
                )
            case 5:
                let range = try reader.delimited(type, field)
                try tokens.read(reader.inside(range, message: "switchyard.v1.Tensor"))
            default:
                try reader.skip(type)
            }
        }
        try tokens.validate(field, reader)
        envelope.tokensShape = tokens.shape
        envelope.tokensDType = tokens.dtype
        let sent = isBackward ? 2 * envelope.rowCount : envelope.rowCount
        guard let rows = tokens.shape.first, sent == Int(rows) else {
            throw reader.error(
                .sizeMismatch,
                "groups",
                "they name \(envelope.rowCount) rows, but the shape of `\(field)` is \(tokens.shape); name each row once"
                    + (isBackward ? ", and send two for it" : "")
            )
        }
        return (envelope, tokens.data)
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
