// SPDX-License-Identifier: Apache-2.0

/// A tensor without its elements: type, shape, and where in a received message the elements are.
struct TensorHeader {
    /// How each element is stored.
    var dtype = WireDType.unspecified

    /// The length of each axis, the slowest first.
    var shape = TensorShape()

    /// Where the elements are in the received bytes.
    var data: Range<Int> = 0..<0

    /// The number of bytes that type and shape require, or nil where they are invalid.
    static func byteCount(dtype: WireDType, shape: TensorShape) -> Int? {
        guard !shape.isEmpty, var count = dtype.byteCount else {
            return nil
        }
        for axis in shape {
            let (product, overflow) = count.multipliedReportingOverflow(by: Int(axis))
            if overflow {
                return nil
            }
            count = product
        }
        return count
    }

    /// Writes a `Tensor` field up to and including the length of `data`; exactly that many bytes of data must follow.
    static func write(
        to writer: inout WireWriter,
        field: UInt32,
        dtype: WireDType,
        shape: TensorShape,
        dataByteCount: Int
    ) {
        let axes = shape.reduce(0) { $0 + WireWriter.byteCount(UInt64($1)) }
        let before =
            WireWriter.byteCount(number: UInt64(dtype.rawValue))
            + (axes == 0 ? 0 : 1 + WireWriter.byteCount(UInt64(axes)) + axes)
            + 1 + WireWriter.byteCount(UInt64(dataByteCount))
        writer.lengthPrefix(field, before + dataByteCount)
        writer.number(1, UInt64(dtype.rawValue))
        if axes > 0 {
            writer.lengthPrefix(2, axes)
            for axis in shape { writer.varint(UInt64(axis)) }
        }
        writer.lengthPrefix(3, dataByteCount)
    }

    /// Reads the fields of a `Tensor` message.
    ///
    /// A repeated message is merged, as protobuf requires: the last type and data win, axes are joined.
    mutating func read(_ reader: WireReader) throws(ProtoError) {
        var reader = reader
        while let (number, type) = try reader.field() {
            switch number {
            case 1:
                let value = UInt32(truncatingIfNeeded: try reader.number(type, "dtype"))
                guard let dtype = WireDType(rawValue: value) else {
                    throw reader.error(
                        .unknownChoice,
                        "dtype",
                        "\(value) is not known; send FLOAT32, BFLOAT16 or FLOAT16"
                    )
                }
                self.dtype = dtype
            case 2 where type == .varint:
                try self.append(axis: try reader.varint(), reader)
            case 2:
                var axes = reader.inside(try reader.delimited(type, "shape"), message: reader.message)
                while !axes.isAtEnd {
                    try self.append(axis: try axes.varint(), reader)
                }
            case 3:
                self.data = try reader.delimited(type, "data")
            default:
                try reader.skip(type)
            }
        }
    }

    /// Checks that there are as many bytes as type and shape say.
    func validate(_ field: String, _ reader: WireReader) throws(ProtoError) {
        guard let expected = Self.byteCount(dtype: self.dtype, shape: self.shape) else {
            throw reader.error(
                .sizeMismatch,
                field,
                "type \(self.dtype) and shape \(self.shape) do not make a tensor; give both"
            )
        }
        guard expected == self.data.count else {
            throw reader.error(
                .sizeMismatch,
                field,
                "\(self.data.count) bytes of data, but type \(self.dtype) and shape \(self.shape) need \(expected)"
            )
        }
    }

    /// Adds an axis.
    private mutating func append(axis: UInt64, _ reader: WireReader) throws(ProtoError) {
        guard self.shape.append(UInt32(truncatingIfNeeded: axis)) else {
            throw reader.error(.overLimit, "shape", "more than the \(TensorShape.maxAxes) axes allowed; send two")
        }
    }
}
