// SPDX-License-Identifier: Apache-2.0

/// A `ForwardResponse` without its elements, so that the rows are never copied.
///
/// To send, write ``header(tensorByteCount:)`` and then the rows: together they are one valid message. To receive, find
/// the rows in the message with ``parse(_:)``. The wire format is the one of ``ForwardResponse``; the load is written
/// before the rows, which protobuf allows, so that nothing follows them.
public struct ForwardResponseEnvelope: Sendable, Hashable {
    /// The lengths of the rows' axes: [rows, d_model].
    public var outputsShape: TensorShape

    /// How the rows' elements are stored.
    public var outputsDType: WireDType

    /// How busy the host is, if it says so.
    public var load: HostLoad?

    /// Creates the envelope; each parameter is the property of that name.
    public init(outputsShape: TensorShape, outputsDType: WireDType = .float32, load: HostLoad? = nil) {
        self.outputsShape = outputsShape
        self.outputsDType = outputsDType
        self.load = load
    }

    /// The bytes of data that type and shape require, or nil where they do not make a tensor.
    public var expectedTensorBytes: Int? { TensorHeader.byteCount(dtype: self.outputsDType, shape: self.outputsShape) }

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
        var writer = WireWriter(reusing: &bytes, capacity: 144)
        if let load = self.load {
            var count = 0
            Self.forEachNumber(of: load) { count += WireWriter.byteCount(number: $1) }
            writer.lengthPrefix(2, count)
            Self.forEachNumber(of: load) { writer.number($0, $1) }
        }
        TensorHeader.write(
            to: &writer,
            field: 1,
            dtype: self.outputsDType,
            shape: self.outputsShape,
            dataByteCount: tensorByteCount
        )
        bytes = writer.bytes
    }

    /// Calls the body with each field of a `HostLoad` message and its value.
    private static func forEachNumber(of load: HostLoad, _ body: (UInt32, UInt64) -> Void) {
        body(1, UInt64(load.activeCalls))
        body(2, load.queuedRows)
        body(3, load.queueRowLimit)
        body(4, load.queueMicroseconds)
        body(5, load.computeMicroseconds)
        body(6, load.draining ? 1 : 0)
        body(7, load.passes)
        body(8, load.computedCalls)
        body(9, load.computedRows)
        body(10, load.namedExperts)
        body(11, load.expertReads)
        body(12, UInt64(load.passCalls))
    }

    /// Reads a received message.
    ///
    /// Fields may come in any order; the last occurrence of a repeated one wins, repeated messages are merged; unknown
    /// fields are skipped.
    ///
    /// - Parameter bytes: The whole message, at any alignment.
    /// - Returns: The envelope, and where in `bytes` the rows are: as many bytes as type and shape say, at any
    ///   alignment.
    /// - Throws: ``ProtoError`` if the bytes are not such a message, or the rows do not fit the type and the shape.
    public static func parse(
        _ bytes: UnsafeRawBufferPointer
    ) throws(ProtoError) -> (envelope: ForwardResponseEnvelope, tensorBytes: Range<Int>) {
        var reader = WireReader(bytes, message: "switchyard.v1.ForwardResponse")
        var outputs = TensorHeader()
        var load: HostLoad?
        while let (number, type) = try reader.field() {
            switch number {
            case 1:
                let range = try reader.delimited(type, "outputs")
                try outputs.read(reader.inside(range, message: "switchyard.v1.Tensor"))
            case 2:
                let range = try reader.delimited(type, "load")
                load = try Self.read(reader.inside(range, message: "switchyard.v1.HostLoad"), into: load ?? HostLoad())
            default:
                try reader.skip(type)
            }
        }
        try outputs.validate("outputs", reader)
        let envelope = ForwardResponseEnvelope(outputsShape: outputs.shape, outputsDType: outputs.dtype, load: load)
        return (envelope, outputs.data)
    }

    /// Reads the fields of a `HostLoad` message.
    private static func read(_ reader: WireReader, into load: HostLoad) throws(ProtoError) -> HostLoad {
        var reader = reader
        var load = load
        while let (number, type) = try reader.field() {
            switch number {
            case 1: load.activeCalls = UInt32(truncatingIfNeeded: try reader.number(type, "active_calls"))
            case 2: load.queuedRows = try reader.number(type, "queued_rows")
            case 3: load.queueRowLimit = try reader.number(type, "queue_row_limit")
            case 4: load.queueMicroseconds = try reader.number(type, "queue_microseconds")
            case 5: load.computeMicroseconds = try reader.number(type, "compute_microseconds")
            case 6: load.draining = try reader.number(type, "draining") != 0
            case 7: load.passes = try reader.number(type, "passes")
            case 8: load.computedCalls = try reader.number(type, "computed_calls")
            case 9: load.computedRows = try reader.number(type, "computed_rows")
            case 10: load.namedExperts = try reader.number(type, "named_experts")
            case 11: load.expertReads = try reader.number(type, "expert_reads")
            case 12: load.passCalls = UInt32(truncatingIfNeeded: try reader.number(type, "pass_calls"))
            default: try reader.skip(type)
            }
        }
        return load
    }
}
