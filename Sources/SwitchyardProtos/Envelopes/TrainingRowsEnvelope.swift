// SPDX-License-Identifier: Apache-2.0

/// A `TrainingRowsRequest` without its elements, so that the rows are never copied.
///
/// To send, write ``header(tensorByteCount:)`` and then the rows: together they are one valid message.
public struct TrainingRowsEnvelope: Sendable, Hashable {
    /// Layer, experts and shape; the fingerprint is the run.
    public var rows: ForwardRequestEnvelope
    /// The trainer's process.
    public var trainer: UInt64
    /// The step.
    public var step: UInt64
    /// Which attempt at the step it is.
    public var attempt: UInt32
    /// Which `Backward` call of the attempt it is.
    public var record: UInt64
    /// Sequence and position of each row, 4 bytes each, little-endian; empty when evaluating.
    public var places: [UInt8]
    /// Whether the rows' gradients are not wanted.
    public var isReplay: Bool

    /// Creates the envelope; each parameter is the property of that name.
    public init(
        rows: ForwardRequestEnvelope,
        trainer: UInt64,
        step: UInt64,
        attempt: UInt32,
        record: UInt64 = 0,
        places: [UInt8],
        isReplay: Bool = false
    ) {
        self.rows = rows
        self.trainer = trainer
        self.step = step
        self.attempt = attempt
        self.record = record
        self.places = places
        self.isReplay = isReplay
    }

    /// The part of the message before the rows.
    ///
    /// - Parameter tensorByteCount: The bytes of the rows that follow, exactly.
    /// - Returns: The message's beginning, up to and including the length of the rows.
    public func header(tensorByteCount: Int) -> [UInt8] {
        // The rows come last in their own header, so these fields come first.
        var writer = WireWriter(capacity: 64 + self.places.count)
        writer.fixed64(6, self.trainer)
        writer.number(7, self.step)
        writer.number(8, UInt64(self.attempt))
        writer.number(9, self.record)
        if !self.places.isEmpty { writer.delimited(10, self.places) }
        writer.number(11, self.isReplay ? 1 : 0)
        writer.append(self.rows.header(tensorByteCount: tensorByteCount))
        return writer.bytes
    }

    /// Reads a received message.
    ///
    /// - Parameters:
    ///   - bytes: The whole message, at any alignment.
    ///   - isBackward: Whether it is a call of `Backward`, which has a gradient for each row.
    /// - Returns: The envelope, and where in `bytes` the rows are.
    /// - Throws: ``ProtoError`` if the bytes are not such a message, or rows, places and groups do not fit each other.
    public static func parse(
        _ bytes: UnsafeRawBufferPointer,
        isBackward: Bool
    ) throws(ProtoError) -> (envelope: TrainingRowsEnvelope, tensorBytes: Range<Int>) {
        let (rows, tensor) = try ForwardRequestEnvelope.parse(bytes, isBackward: isBackward)
        var envelope = TrainingRowsEnvelope(rows: rows, trainer: 0, step: 0, attempt: 0, places: [])
        var reader = WireReader(bytes, message: "switchyard.v1.TrainingRowsRequest")
        while let (number, type) = try reader.field() {
            switch number {
            case 6: envelope.trainer = try reader.fixed64(type, "trainer")
            case 7: envelope.step = try reader.number(type, "step")
            case 8: envelope.attempt = UInt32(truncatingIfNeeded: try reader.number(type, "attempt"))
            case 9: envelope.record = try reader.number(type, "record")
            case 10: envelope.places = Array(bytes[try reader.delimited(type, "places")])
            case 11: envelope.isReplay = try reader.number(type, "is_replay") != 0
            default: try reader.skip(type)
            }
        }
        guard envelope.places.isEmpty ? !isBackward : envelope.places.count == 8 * rows.rowCount else {
            throw reader.error(
                .sizeMismatch,
                "places",
                "\(envelope.places.count) bytes for \(rows.rowCount) rows; send 8 for each"
            )
        }
        return (envelope, tensor)
    }
}
